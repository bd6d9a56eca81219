"""HTML templates, everything that is put into them escaped."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Template


def load_template(package: str, name: str, **filters: Any) -> Template:
    """A Jinja template of a package's `templates` folder; what it does not know is an error, not a blank.

    Args:
        package: e.g. "mbpo_core.reports".
        name: file name.
        filters: by name.
    """
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    folder = resources.files(package) / "templates"
    environment = Environment(
        loader=FunctionLoader(lambda file: (folder / file).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters)
    return environment.get_template(name)
