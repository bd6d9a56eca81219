"""HTML templates, everything that is put into them escaped, cut to a length, and kept from loading or running."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

if TYPE_CHECKING:
    from jinja2 import Template


def load_template(package: str, name: str, *, longest: int | None = None, **filters: Any) -> Template:
    """A Jinja template of a package's `templates` folder; what it does not know is an error, not a blank.

    Args:
        package: e.g. "mbpo_core.reports".
        name: file name.
        longest: of a text that is put in, characters; the rest is counted and left out. None keeps all. What is
            `Markup` already is never cut.
        filters: by name.
    """
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    folder = resources.files(package) / "templates"

    def shortened(value: Any) -> Any:
        return clipped(value, longest) if longest and isinstance(value, str) else value

    environment = Environment(
        loader=FunctionLoader(lambda file: (folder / file).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=shortened,
    )
    environment.filters.update(filters)
    return environment.get_template(name)


def clipped(text: str, longest: int) -> str:
    """The first characters of a text, and how many are left out; `Markup` as it is."""
    if isinstance(text, Markup) or len(text) <= longest:
        return text
    return f"{text[:longest]} … ({len(text) - longest:,} more characters)"


def data_uri(svg: bytes) -> str:
    """A picture as the source of an `<img>`, which runs nothing and loads nothing."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"


def content_policy(style: str, script: str) -> str:
    """A Content-Security-Policy that allows a page this one style sheet, this one script and inline pictures.

    No other script, style attribute, event handler, frame, form or request of the page does anything.

    Args:
        style: the text between `<style>` and `</style>`, to the last blank.
        script: the same of `<script>`.
    """
    return (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
