"""Write each notebook as a page: its text and its code, without outputs.

Arguments: notebooks; the pages go to `notebooks/` beside this script.
"""

import json
import re
import sys
from pathlib import Path

from latex2mathml.converter import convert

_MATHS = re.compile(r"\$\$(?P<block>.+?)\$\$|\$(?P<inline>[^$\n]+?)\$", re.DOTALL)


def mathml(match: re.Match) -> str:
    """TeX as MathML, which browsers draw by themselves."""
    kind = match.lastgroup
    return convert(match[kind], display=kind)


folder = Path(__file__).parent / "notebooks"
folder.mkdir(exist_ok=True)
for source in map(Path, sys.argv[1:]):
    parts = []
    for cell in json.loads(source.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        is_text = cell["cell_type"] == "markdown"
        parts.append(_MATHS.sub(mathml, text) if is_text else f"```python\n{text}\n```")
    page = folder / f"{source.stem}.md"
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
