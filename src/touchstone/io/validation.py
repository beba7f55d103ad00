"""The library that holds content against a JSON schema, without the parts that import slowly."""

import sys
from functools import cache
from types import ModuleType

_FORMATS = ("rfc3987_syntax", "isoduration")


@cache
def jsonschema() -> ModuleType:
    """The library `jsonschema`, imported when it is first needed.

    It looks for packages that check formats such as `iri`, which no schema here has. One of them,
    which JupyterLab brings along, compiles a grammar when it is imported: that would take longer
    than a whole answer. So they are not found for as long as the import lasts.
    """
    hidden = [name for name in _FORMATS if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # ty: ignore[invalid-assignment] how Python marks the absent
    try:
        import jsonschema
    finally:
        for name in hidden:
            del sys.modules[name]
    return jsonschema
