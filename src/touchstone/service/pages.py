"""The page: which models there are, the form of one, and its answer. It reads offline."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from touchstone.registry import ModelMetadata

STATIC = Path(__file__).parent / "static"
_TEMPLATES = Path(__file__).parent / "templates"
# Whatever a name of a model or a file may hold, a browser runs nothing but the script of the page.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(
    models: list[dict[str, Any]],
    broken: Mapping[str, str],
    chosen: str | None,
    about: ModelMetadata | None,
) -> str:
    """HTML of the page.

    Args:
        models: As `GET /models` lists them.
        broken: What is wrong with a model, by its name.
        chosen: Name of the model whose form is shown; None where none can be asked.
        about: What that model says of itself.
    """
    template = _environment().get_template("page.html.j2")
    return template.render(models=models, broken=broken, chosen=chosen, about=about)


def style() -> str:
    """The style of all pages of the project, then what this page adds."""
    shared = Path(__file__).parents[1] / "templates/style.css"
    own = STATIC / "page.css"
    return shared.read_text(encoding="utf-8") + own.read_text(encoding="utf-8")
