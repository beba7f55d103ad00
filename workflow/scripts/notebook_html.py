"""Render an executed notebook as one HTML file that reads with the network off.

Arguments: executed notebook, template, style sheet, page.
"""

import re
import sys
from pathlib import Path

import nbformat
from latex2mathml.converter import convert
from nbconvert import HTMLExporter

from touchstone.io.artifacts import atomic

_MATHS = re.compile(r"\$\$(?P<block>.+?)\$\$|\$(?P<inline>[^$\n]+?)\$", re.DOTALL)


def mathml(match: re.Match) -> str:
    """TeX as MathML, which browsers draw by themselves."""
    kind = match.lastgroup
    return convert(match[kind], display=kind)


source, template, style, target = sys.argv[1:]
notebook = nbformat.read(source, as_version=4)
for cell in notebook.cells:
    if cell.cell_type == "markdown":
        cell.source = _MATHS.sub(mathml, cell.source)
metadata = {
    "title": notebook.cells[0].source.splitlines()[0].lstrip("# "),
    "style": Path(style).read_text(encoding="utf-8"),
}
exporter = HTMLExporter(
    template_name="basic",
    exclude_output_prompt=True,
    raw_template=Path(template).read_text(encoding="utf-8"),
)
page, _ = exporter.from_notebook_node(notebook, resources={"metadata": metadata})
with atomic(target) as temporary:
    temporary.write_text(page, encoding="utf-8")
