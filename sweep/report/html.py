"""Pages from the templates beside this: self-contained, they load nothing from anywhere, and every
text in them is escaped."""

import base64
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("sweep.report"),
        autoescape=select_autoescape(),
        trim_blocks=True,
        lstrip_blocks=True,
    )


def page(template: str, **content: Any) -> str:
    """`template`: name of a file in templates/, say "report.html"."""
    return _templates().get_template(template).render(content)


def data_uri(png: bytes) -> str:
    """A picture as the address of an <img>, with its bytes in it."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
