"""How a page shows what the package has: nbdev asks `Shown` (settings.ini, `renderer`) for each function and class of a chapter."""
import ast
import re
from functools import cache

import nbformat
from nbdev.config import get_config
from nbdev.showdoc import BasicMarkdownRenderer

NOTEBOOKS = get_config().nbs_path


@cache
def visible():
    "(names whose whole source stands on a page, those of them that need a heading above it)"
    names, first, headed = set(), set(), set()
    for cell in (c for path in NOTEBOOKS.glob('*.ipynb') for c in nbformat.read(path, 4).cells):
        if cell.cell_type == 'markdown': headed |= set(re.findall(r'^#+ `(\w+)`$', cell.source, re.M))
        elif cell.source.startswith('#| exports'):
            here = [node.name for node in ast.parse(cell.source).body if hasattr(node, 'name') and not node.name.startswith('_')]
            names |= set(here)
            first |= set(here[:1])
    return names, first - headed


class Shown(BasicMarkdownRenderer):
    "Signature and purpose; only a heading, or a target for links, where the source, which has both, is shown below"
    def _repr_markdown_(self):
        names, need_heading = visible()
        if self.nm not in names: return super()._repr_markdown_()
        return f'{"#"*self.title_level} {self.nm}\n' if self.nm in need_heading else f'<span id="{self.nm.lower()}"></span>\n'
