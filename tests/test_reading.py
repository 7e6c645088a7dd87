"""Each measure of tests/reading.py can fail, on made-up pages and notebooks."""
import pytest
import reading

LONG = 'One ' + 'word '*35 + 'end.'


def notebook(*cells): return {'cells': [{'cell_type': kind, 'source': source} for kind, source in cells]}


def test_every_notebook_is_in_one_of_the_lists():
    names = {p.name for p in reading.NOTEBOOKS.glob('*.ipynb')}
    assert len(reading.MEASURED) == len(set(reading.MEASURED)) and not reading.NOT_YET & set(reading.MEASURED)
    assert reading.NOT_YET | set(reading.MEASURED) == names, f'not in exactly one of the lists: {sorted(names ^ (reading.NOT_YET | set(reading.MEASURED)))}'


@pytest.mark.parametrize('kind, source', [
    ('markdown', f'# Title\n\nShort. {LONG}'),
    ('markdown', f'- An item: {LONG}\n- another'),
    ('markdown', f'<details><summary>Answer</summary>\n\n{LONG}\n</details>'),
    ('code', f'#| label: fig-a\n#| fig-cap: "{LONG}"\nplot()'),
    ('code', f"#| fig-alt: {LONG}\nplot()"),
    ('code', f'def f(x):\n    "{LONG}"\n    return x'),
    ('code', f'def f(\n    x:int,  # {LONG}\n):\n    return x'),
    ('code', f'class A:\n    x:int = 1  # {LONG}'),
    ('code', f"if x: raise ValueError(f'{LONG} (got {{x!r}})')"),
])
def test_long_sentences(kind, source):
    assert len(reading.long_sentences(notebook((kind, source)))) == 1


def test_what_is_no_long_sentence():
    words = 'word '*30
    ok = f'{words}end. {words}end: {words}end!\n\n## {words}\n\n{words}\n\n- {words}\n- {words}\n\n| {LONG} | {LONG} |\n\n```\n{LONG}\n```\n\n`{LONG}` [{words}](https://a.b/{LONG.replace(" ", "-")})'
    assert reading.long_sentences(notebook(('markdown', ok), ('code', f'x = 1  # {LONG}'))) == []


@pytest.mark.parametrize('tic', reading.TICS)
def test_tics(tic):
    assert reading.tics(notebook(('markdown', f'It {tic.capitalize()}, then'))) and reading.tics(notebook(('code', f'x = 1  # {tic}')))
    assert not reading.tics(notebook(('markdown', f'x{tic}x'), ('code', 'if x is None: pass')))


def page(body): return f'<main>{body}</main>'


ENTRY = '<div class="cell-output-markdown"><h3>f</h3>{}</div>'
SOURCE = '<details class="api"><summary>f(x)</summary><pre class="sourceCode">def f(x):\n  return x</pre></details>'


@pytest.mark.parametrize('html, fault', [
    (ENTRY.format('<p>Return x</p>' + SOURCE), None),
    (ENTRY.format(SOURCE), None),
    (ENTRY.format(''), '“f” heads nothing'),
    (ENTRY.format('<h3>g</h3><p>Return x</p>'), '“f” heads nothing'),
    (SOURCE + ENTRY.format('<p>Return x</p>'), '“f” stands below its code'),
])
def test_headings(html, fault):
    assert reading.heading_faults(page(html)) == ([fault] if fault else [])


def test_code_before_the_first_picture():
    code = '<pre class="sourceCode">a\nb\nc</pre>'
    badge, figure = '<img src="https://x/colab-badge.svg">', '<div class="cell-output-display"><img src="a.png"></div>'
    assert reading.code_before_picture(page(code + badge + code + figure + code)) == 6
    assert reading.code_before_picture(page(f'<details><summary>s</summary>{code}</details>{figure}')) == 0
    assert reading.code_before_picture(page(f'<details open><summary>s</summary>{code}</details>{figure}')) == 3
    assert reading.code_before_picture(page(code + code)) == 6  # no picture at all
    assert reading.code_before_picture(page(code + '<div class="cell-output-display"><form></form></div>' + code)) == 3


def test_limits():
    good = {'first picture': 900, 'code before it': 35, 'height': 13_000, 'weight': 1.9, 'headings': []}
    assert reading.too_much('a.html', good) == []
    for what, value in ('first picture', 1001), ('code before it', 36), ('height', 14_001), ('weight', 2.1):
        line, = reading.too_much('a.html', {**good, what: value})
        assert line.startswith(f'a.html: {what}: {value:,}')
    assert reading.too_much('a.html', {**good, 'first picture': None}) == ['a.html: no picture']
    assert reading.too_much('a.html', {**good, 'headings': ['“f” heads nothing']}) == ['a.html: heading “f” heads nothing']
