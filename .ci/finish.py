"""What is done to the built site, whichever builder made it.

Figures for both themes, a link that skips to the content, links to the notebooks on GitHub, a page of the reference for each module,
and the page for addresses that lead nowhere. `.ci/docs.py` calls `finish`.
"""
import ast
import copy
import html
import json
import re
from pathlib import Path

import figures
from bs4 import BeautifulSoup
from nbdev.config import get_config

ROOT = get_config().config_path
MODULE = re.compile(r'cifar_resnet\.(\w+)$')
SKIP = '<a class="skip-link" href="#quarto-document-content">Skip to content</a>'
LOST = '''<p>It may have moved, or the address is mistyped.</p>
<ul><li><a href="index.html">The course begins here</a></li><li><a href="reference.html">The reference</a> lists every function</li><li>The search, above, finds words on all pages</li></ul>'''


def repository(kind='blob'): return f'{get_config().git_url}/{kind}/{get_config().branch}/'


def notebooks():
    "Return {page: notebook}: {'data.html': '00_data.ipynb', …}"
    return {re.sub(r'^\d+[a-z]?_', '', p.name).replace('.ipynb', '.html'): p.name for p in (ROOT/'nbs').glob('*.ipynb')}


# --- every page ---------------------------------------------------------------------------------------------------

def with_skip_link(page):
    "Put a link before everything else that moves the keyboard to the content"
    page = re.sub(r'(<body[^>]*>)', lambda m: m[1] + SKIP, page, count=1)
    return page.replace(' id="quarto-document-content"', ' id="quarto-document-content" tabindex="-1"', 1)


def with_real_names(page, notebook):
    "Let the links to the repository name the notebook as it is there: a builder may have read it under the name of its page"
    return re.sub(rf'({re.escape(get_config().git_url)}/(?:edit|blob)/\w+/nbs/)[\w.]+\.(?:ipynb|qmd)', lambda m: m[1] + notebook, page)


# --- the reference ------------------------------------------------------------------------------------------------

def definitions(module):
    "Return {public name: notebook that defines it} of a module"
    text = (ROOT/'cifar_resnet'/f'{module}.py').read_text(encoding='utf-8')
    lines, found, at = text.splitlines(), {}, {}
    for n, line in enumerate(lines, 1):
        if cell := re.match(r'# %% \.\./nbs/(\S+\.ipynb)', line): at['now'] = cell[1]
        found[n] = at.get('now')
    return {node.name: found[node.lineno] for node in ast.parse(text).body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}


def parse(text): return BeautifulSoup(text, 'html.parser')


def with_links(section, module, ids):
    "Add to each entry of a module: where its source is, and where the course explains it"
    pages = {name: page for page, name in notebooks().items()}
    where = definitions(module)
    for heading in section.find_all('h3'):
        name = heading.get_text().strip()
        if not (notebook := where.get(name)): continue
        links = f'<span class="entry-links"><a href="{repository()}nbs/{notebook}" aria-label="source of {name}">source</a>'
        if name.lower() in ids(pages[notebook]): links += f' <a href="{pages[notebook]}#{name.lower()}" aria-label="{name} in the course">in the course</a>'
        heading.insert_after(parse(links + '</span>'))


def as_html(text): return re.sub(r'`(.+?)`', r'<code>\1</code>', html.escape(text))


def rename(page, title, description):
    "Give a copy of a page another title"
    page.title.string = re.sub(r'^.*?(?= – )', lambda m: title, page.title.string) if ' – ' in page.title.string else title
    page.h1.string = title
    for about in page.select('.description, meta[name="description"], meta[property="og:description"], meta[name="twitter:description"]'):
        if about.name == 'meta': about['content'] = description
        else: about.string = description
    for meta in page.select('meta[property="og:title"], meta[name="twitter:title"]'): meta['content'] = title


def without_content(page):
    "Remove what a page says, except its header and the links to the next pages"
    for tag in list(page.main.children):
        if getattr(tag, 'name', None) and tag.get('id') != 'title-block-header' and 'page-navigation' not in tag.get('class', []): tag.decompose()
    return page


def put(page, content):
    "Put tags or HTML below the header of a page"
    header = page.main.find(id='title-block-header')
    header.insert_after(parse(content) if isinstance(content, str) else content)


def with_contents(page, headings):
    "List headings under “On this page”: {id: text}"
    if not (contents := page.find(id='TOC')): return
    contents.ul.replace_with(parse('<ul>' + ''.join(f'<li><a href="#{i}" id="toc-{i}" class="nav-link" data-scroll-target="#{i}">{html.escape(text)}</a></li>' for i, text in headings.items()) + '</ul>'))


def split_reference(site):
    "Give each module a page of its own, and leave an index; return {id: page} of everything that moved"
    whole = parse((site/'reference.html').read_text(encoding='utf-8'))
    known = {}

    def ids(page):
        if page not in known: known[page] = set(re.findall(r'id="([\w.]+)"', (site/page).read_text(encoding='utf-8')))
        return known[page]
    sections = {m[1]: s for s in whole.main.select('section.level2') if s.h2 and (m := MODULE.search(s.h2.get_text().strip()))}
    if not sections: raise SystemExit('reference.html has no sections of modules: .ci/finish.py cannot make a page for each')
    moved, rows = {}, []
    for module, section in sections.items():
        about = ast.get_docstring(ast.parse((ROOT/'cifar_resnet'/f'{module}.py').read_text(encoding='utf-8')))
        file, name, names = f'reference-{module}.html', f'cifar_resnet.{module}', {h['id']: h.get_text().strip() for h in section.find_all('h3')}
        page = without_content(copy.deepcopy(whole))
        rename(page, name, about.replace('`', ''))
        body = copy.deepcopy(section)
        body.h2.decompose()
        with_links(body, module, ids)
        put(page, body)
        with_contents(page, names)
        crumb = page.select_one('ol.breadcrumb')
        if crumb: crumb.append(parse(f'<li class="breadcrumb-item"><a href="{file}">{name}</a></li>'))
        (site/file).write_text(str(page), encoding='utf-8')
        moved |= dict.fromkeys([section['id'], *names], file)
        entries = ' · '.join(f'<a href="{file}#{i}">{n}</a>' for i, n in names.items())
        rows.append(f'<tr><td><a href="{file}"><code>{name}</code></a></td><td>{as_html(about)}{"<br>" + entries if entries else ""}</td></tr>')
        section.decompose()
    table = '<table class="caption-top table modules"><thead><tr><th>Module</th><th>What it is for, and what <code>cifar_resnet.all</code> takes from it</th></tr></thead><tbody>' + ''.join(rows) + '</tbody></table>'
    first = whole.main.find('section')
    first.insert_before(parse(f'<section id="modules" class="level2"><h2 class="anchored" data-anchor-id="modules">Modules</h2>{table}</section>'))
    with_contents(whole, {'modules': 'Modules'} | {s['id']: s.h2.get_text().strip() for s in whole.main.select('section.level2') if s.get('id') != 'modules'})
    whole.body.append(parse(f'<script>(pages => {{ const page = pages[location.hash.slice(1)]; if (page) location.replace(page + location.hash) }})({json.dumps(moved)})</script>'))  # older links
    (site/'reference.html').write_text(str(whole), encoding='utf-8')
    return moved


def carry_moves(site, moved):
    "Let links, the search and the site map know the pages of the reference"
    def new(m): return moved.get(m[1], 'reference.html') + '#' + m[1]
    for path in site.glob('*.html'):
        text = path.read_text(encoding='utf-8')
        if (now := re.sub(r'(?<=href=")(?:\./)?reference\.html#([\w.]+)', new, text)) != text: path.write_text(now, encoding='utf-8')
    index = site/'search.json'
    entries = json.loads(index.read_text(encoding='utf-8'))
    for entry in entries:
        page, _, anchor = entry['href'].partition('#')
        if page == 'reference.html' and anchor in moved:
            module = moved[anchor].removeprefix('reference-').removesuffix('.html')
            href = moved[anchor] + (f'#{anchor}' if not MODULE.search(anchor) else '')
            entry |= dict(objectID=href, href=href, title=f'Reference: cifar_resnet.{module}', section='' if MODULE.search(anchor) else entry['section'])
    index.write_text(json.dumps(entries, ensure_ascii=False), encoding='utf-8')
    sitemap = site/'sitemap.xml'
    if sitemap.exists():
        text = sitemap.read_text(encoding='utf-8')
        entry = re.search(r'\s*<url>(?:(?!</url>).)*reference\.html.*?</url>', text, re.S)[0]
        more = ''.join(entry.replace('reference.html', page) for page in sorted(set(moved.values())))
        sitemap.write_text(text.replace(entry, entry + more, 1), encoding='utf-8')


# --- the page for addresses that lead nowhere ---------------------------------------------------------------------

def make_lost_page(site):
    "Make 404.html from the home page; its links work from any address"
    page = without_content(parse((site/'index.html').read_text(encoding='utf-8')))
    rename(page, 'Page not found', 'There is no page at this address')
    put(page, LOST)
    for tag in page.select('#TOC, .toc-actions, .page-navigation, ol.breadcrumb'): tag.decompose()
    base = f'{get_config().doc_baseurl.rstrip("/")}/'
    page.head.insert(0, parse(f'<base href="{base}">'))
    page.head.append(parse('<meta name="robots" content="noindex">'))
    text = str(page).replace('content="./"', f'content="{base}"').replace('href="#quarto-document-content"', 'href="404.html#quarto-document-content"')
    (site/'404.html').write_text(text, encoding='utf-8')


def finish(site):
    "Do all of it, in place"
    site = Path(site)
    figures.in_both_themes(site)
    names = notebooks()
    for path in sorted(site.glob('*.html')):
        page = with_skip_link(path.read_text(encoding='utf-8'))
        path.write_text(with_real_names(page, names[path.name]) if path.name in names else page, encoding='utf-8')
    carry_moves(site, split_reference(site))
    make_lost_page(site)
