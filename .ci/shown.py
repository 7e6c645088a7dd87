"""How a page shows what the package exports: a heading, one line, and a fold with the parameters and the source.

nbdev asks `Shown` (settings.ini, `renderer`) about each function and class, in cells that `Prepare` runs (settings.ini, `procs`);
`Entries` then puts each answer above its source, in a fold: open for a cell that begins with `#| exports`, closed for `#| export`. A cell of constants stays as written.
"""
import ast
import html
import inspect
import re

import fastcore.docments
from fastcore.docments import docments
from nbdev.process import Processor
from nbdev.processors import add_links, exec_show_docs
from nbdev.showdoc import BasicMarkdownRenderer

EMPTY = inspect.Parameter.empty
fastcore.docments.signature = lambda thing, **_: inspect.signature(thing)  # types that only type checkers import stay as written
FOLD = '<!-- fold -->'  # `Shown` writes it above the table, `Entries` puts the fold there
LINE = 90  # characters that the summary of a fold has room for
LONG = 15  # lines of an exported cell without a function or class of its own: more are folded
HIDDEN = {'hide', 'exporti', 'default_exp'}
DEFINITIONS = ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef


def as_code(text): return f"`{text}`".replace('|', '\\|') if text else ''


def type_name(kind):
    if kind in (EMPTY, None, type(None)): return ''
    name = str(kind) if isinstance(kind, str) or hasattr(kind, '__args__') else getattr(kind, '__name__', str(kind))
    return as_code(short_type(name))


def short_type(name):
    "Return a type without its modules, and without the quotes of a name that only type checkers import"
    return re.sub(r' *\| *', ' | ', re.sub(r'(?:[A-Za-z_]+[.])+(?=[A-Za-z_])', '', name).replace("'", ''))


def default_of(parameter):
    if parameter.default in (EMPTY, None) and parameter.default is not None: return ''
    text = getattr(parameter.default, '__name__', None) or repr(parameter.default)
    return as_code(text if len(text) < 30 and '<' not in text else '…')


def rows(thing):
    "Yield (name, type, default, meaning) of every parameter, and of the result"
    try: docs, parameters = docments(thing, full=True), inspect.signature(thing).parameters
    except (TypeError, ValueError, OSError, SyntaxError): return
    for name, p in parameters.items():
        if (doc := docs.get(name)) is not None: yield as_code(name), type_name(doc.anno), default_of(p), doc.docment or ''
    if (doc := docs.get('return')) and not isinstance(thing, type) and doc.docment: yield '*returns*', type_name(doc.anno), '', doc.docment


def methods(cls):
    "Yield (name, purpose) of every public method that a class defines and describes"
    for name, value in vars(cls).items():
        value = getattr(value, '__func__', getattr(value, 'fget', value))
        if not name.startswith('_') and inspect.isfunction(value) and value.__doc__: yield as_code('.' + name), value.__doc__.strip().partition('\n')[0]


def table(header, lines):
    "Return a Markdown table without its empty columns, or nothing where no line says what a name means"
    lines = [tuple(' '.join(str(c).split()).replace('\n', ' ') for c in line) for line in lines]
    if not any(line[-1] for line in lines): return ''
    columns = [c for c in zip(header, *lines) if any(c[1:])]
    head, *body = zip(*columns)
    return '\n'.join(f"| {' | '.join(line)} |" for line in (head, ['---']*len(head), *body)) + '\n\n'


class Shown(BasicMarkdownRenderer):
    "The heading, the first line of the docstring, and the tables of one function or class"
    def _repr_markdown_(self):
        first, _, rest = (self.docs or '').strip().partition('\n')
        text = f'{"#"*self.title_level} {self.nm}\n\n' + (f'{first.strip()}\n\n' if first else '') + f'{FOLD}\n\n'
        if rest.strip(): text += inspect.cleandoc(rest) + '\n\n'
        text += table(('Parameter', 'Type', 'Default', 'What it is'), rows(self.sym))
        return text + (table(('Method', 'What it does'), methods(self.sym)) if isinstance(self.sym, type) else '')


def parameters_of(node):
    "Return what stands between the parentheses of a call, as the source has it"
    if isinstance(node, ast.ClassDef):
        made = next((n for n in node.body if isinstance(n, DEFINITIONS) and n.name == '__init__'), None)
        if made: return parameters_of(made)
        return [n.target.id + (f'={ast.unparse(n.value)}' if n.value else '') for n in node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)]
    args = node.args
    for arg in (*args.posonlyargs, *args.args, *args.kwonlyargs, *filter(None, (args.vararg, args.kwarg))): arg.annotation = None
    for values in (args.defaults, args.kw_defaults):
        for i, value in enumerate(values):
            if value is not None and len(ast.unparse(value)) > 30: values[i] = ast.Name('…')
    parts = re.split(r', (?![^\[({]*[\])}])', ast.unparse(args)) if ast.unparse(args) else []
    return [p for p in parts if p not in ('self', 'cls')]


def signature(node, most=150):
    "Return name(parameters) of a definition; the last ones are left out where it would be long"
    parts = parameters_of(node)
    while len(', '.join(parts)) > most: parts = [*parts[:-2], '…'] if parts[-1] == '…' else [*parts[:-1], '…']
    if isinstance(node, ast.ClassDef): return f"class {node.name}({', '.join(parts)})"
    call, result = f"{node.name}({', '.join(parts)})", short_type(ast.unparse(node.returns)) if node.returns else 'None'
    fits = len(call) > LINE or len(call) + len(' → ' + result) <= LINE  # the result does not begin a second line
    return call + (f' → {result}' if result != 'None' and fits else '')


def public(source):
    "Return {name: (definition, its part of the source)}: helpers and constants go with the definition that they precede"
    source = '\n'.join(line for line in source.splitlines() if not line.startswith('#|'))
    nodes = [n for n in ast.parse(source).body if isinstance(n, DEFINITIONS) and not n.name.startswith('_')]
    lines, start, parts = source.splitlines(), 0, {}
    for node in nodes:
        end = len(lines) if node is nodes[-1] else node.end_lineno
        parts[node.name] = node, '\n'.join(lines[start:end]).strip('\n')
        start = end
    return parts


def fold(name, parts, tables, opened):
    "Return the fold of an entry; with the source where the page has it"
    node, code = parts.get(name, (None, ''))
    if not (node or tables.strip()): return ''
    summary = signature(node) if node else name
    if opened and code: tables = ''  # the comments in the source say the same
    fence = '`'*max(3, 1 + max(map(len, re.findall('`+', code)), default=0))
    shown = f'{fence}python\n{code}\n{fence}\n\n' if code else ''
    return f'<details class="api"{" open" if opened else ""}>\n<summary><code>{html.escape(summary)}</code></summary>\n\n{tables.strip()}\n\n{shown}</details>\n'


def markdown(cell):
    return next((o.data for o in cell.get('outputs', []) if 'text/markdown' in (o.get('data') or {})), None)


def without_option(source, name): return re.sub(rf'(?m)^#\| *{name}:.*\n', '', source)


class Prepare(exec_show_docs):
    "Run what the entries need, as nbdev does, but only the imports of a cell that does more: a chapter may import where it first draws"
    def __call__(self, cell):
        if cell.cell_type != 'code' or {'export', 'exports', 'exporti', 'exec_doc'} & set(cell.directives_) or getattr(cell, 'has_sd', 0): return super().__call__(cell)
        imports = [ast.unparse(node) for node in cell.parsed_() or [] if isinstance(node, (ast.Import, ast.ImportFrom))]
        if not (imports and self.nb.has_docs_) or cell.directives_.get('eval:', [''])[0].lower() == 'false': return
        self.k.run_cell('\n'.join(imports))
        if self.k.exc: raise ImportError(f'the imports of a cell fail:\n{cell.source}') from self.k.exc


class Entries(Processor):
    "Put the entry of each definition above its source; runs last, in place of nbdev's `rm_export`, `hide_`, `add_fold` and `mv_exports`"
    def begin(self):
        cells, kept = self.nb.cells, []
        headed = {name for c in cells if c.cell_type == 'markdown' for name in re.findall(r'^#+ `(\w+)`$', c.source, re.M)}
        for i, cell in enumerate(cells):
            if getattr(cell, 'has_sd', 0): continue  # taken with its source
            directives = set(getattr(cell, 'directives_', None) or {})
            if cell.cell_type != 'code' or not directives & {'export', 'exports', *HIDDEN}:
                kept.append(cell)
                continue
            if directives & HIDDEN: continue
            docs = []
            while i + 1 + len(docs) < len(cells) and getattr(cells[i + 1 + len(docs)], 'has_sd', 0): docs.append(cells[i + 1 + len(docs)])
            kept += self.entries(cell, docs[::-1], headed, 'exports' in directives) if docs else self.rest(cell, directives)
        cells[:] = kept

    def entries(self, cell, docs, headed, opened):
        parts = public(cell.source)
        for doc in docs:
            add_links(doc)
            if (data := markdown(doc)) is None: continue
            heading, _, text = ''.join(data['text/markdown']).partition('\n')
            name = heading.strip('# ')
            head, _, tables = text.partition(FOLD)
            data['text/markdown'] = ('' if name in headed else heading + '\n') + head + fold(name, parts, tables, opened)
            yield doc

    def rest(self, cell, directives):
        "Yield a cell that defines nothing public: folded where it is long or holds helpers, hidden where it only imports"
        try: body = ast.parse(cell.source).body
        except SyntaxError: body = []
        helpers = [n.name for n in body if isinstance(n, DEFINITIONS)]
        lines = len(cell.source.splitlines())
        if 'exports' not in directives and not helpers: return
        if helpers and 'exports' not in directives or lines > LONG and 'code-fold:' not in cell.source:
            summary = f"Source: {', '.join(helpers)}" if helpers else 'Source'
            cell.source = f'#| code-fold: true\n#| code-summary: "{summary}"\n' + without_option(cell.source, 'code-fold')
        yield cell
