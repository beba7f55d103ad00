"""Render an executed notebook as one HTML file that reads with the network off."""

import re
from pathlib import Path

import nbformat
from latex2mathml.converter import convert
from nbconvert import HTMLExporter

from touchstone.artifacts import atomic

_MATHS = re.compile(r"\$\$(?P<block>.+?)\$\$|\$(?P<inline>[^$\n]+?)\$", re.DOTALL)


def mathml(match: re.Match) -> str:
    """TeX as MathML, which browsers draw by themselves."""
    kind = match.lastgroup
    return convert(match[kind], display=kind)


notebook = nbformat.read(snakemake.input.notebook, as_version=4)
for cell in notebook.cells:
    if cell.cell_type == "markdown":
        cell.source = _MATHS.sub(mathml, cell.source)
metadata = {
    "title": notebook.cells[0].source.splitlines()[0].lstrip("# "),
    "style": Path(snakemake.input.style).read_text(encoding="utf-8"),
}
exporter = HTMLExporter(
    template_name="basic",
    exclude_output_prompt=True,
    raw_template=Path(snakemake.input.template).read_text(encoding="utf-8"),
)
page, _ = exporter.from_notebook_node(notebook, resources={"metadata": metadata})
with atomic(snakemake.output[0]) as temporary:
    temporary.write_text(page, encoding="utf-8")
