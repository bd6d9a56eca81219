"""A matplotlib figure as an SVG element of the page: text stays text, and colours follow the style sheet.

Figures are drawn in the colours of `COLOURS`, which the SVG names as CSS variables, so that one drawing serves light
and dark. An artist whose gid begins with "s-" becomes a group of that class, from which it takes its `--c`. No `style`
attribute is left: the page's security policy forbids all that is not in its one style sheet.
"""

from __future__ import annotations

import hashlib
import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SERIES, INK, GRID, PANEL = "#010203", "#010204", "#010205", "#010206"
COLOURS: dict[str, str] = {SERIES: "var(--c)", INK: "var(--soft)", GRID: "var(--grid)", PANEL: "var(--panel)"}
"""What figures are drawn in, and what the page makes of it."""

_KEPT = frozenset({
    "fill", "fill-opacity", "font-size", "opacity", "stroke", "stroke-dasharray", "stroke-dashoffset",
    "stroke-linecap", "stroke-linejoin", "stroke-opacity", "stroke-width", "text-anchor",
})  # fmt: skip
_REFERENCE = re.compile(r"#([\w-]+)")
_DECIMALS = re.compile(r"(\.\d\d)\d+")


@contextmanager
def drawing() -> Iterator[None]:
    """Settings under which figures are made: no formulas in labels, and ids that do not change between runs."""
    import matplotlib

    settings: Any = {
        "svg.fonttype": "none", "svg.hashsalt": "mbpo", "text.parse_math": False, "font.size": 11,
        "text.color": INK, "axes.edgecolor": GRID, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK,
        "xtick.major.size": 0, "ytick.major.size": 0, "grid.color": GRID, "axes.grid": True, "axes.axisbelow": True,
        "axes.spines.top": False, "axes.spines.right": False, "axes.facecolor": "none", "figure.facecolor": "none",
    }  # fmt: skip
    with matplotlib.rc_context(settings):
        yield


def printable(text: str, longest: int = 60) -> str:
    """A label that XML can hold, cut where it would run out of its drawing."""
    kept = "".join(letter for letter in text if letter.isprintable())
    return kept if len(kept) <= longest else f"{kept[: longest - 1]}…"


def element(figure: Figure, title: str, description: str) -> Markup:
    """The figure as `<svg>`; equal figures give equal text.

    Args:
        figure: drawn under `drawing()`.
        title: accessible name.
        description: what it shows, for those who cannot see it.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    root = ET.fromstring(buffer.getvalue())
    _remove(root, "metadata", "style")
    prefix = f"c{hashlib.sha256(buffer.getvalue() + title.encode()).hexdigest()[:8]}-"
    referred = {
        name
        for node in root.iter()
        for key, value in node.attrib.items()
        if key == "clip-path" or key.endswith("href")
        for name in _REFERENCE.findall(value)
    }
    for node in root.iter():
        _rewrite(node, referred, prefix)
    box = root.attrib["viewBox"]
    root.attrib.clear()
    root.attrib.update({"class": "chart", "role": "img", "viewBox": box, "aria-label": printable(title, 200)})
    told = ET.Element("desc")
    told.text = printable(description, 2000)
    root.insert(0, told)
    return Markup(ET.tostring(root, encoding="unicode"))


def _remove(root: ET.Element, *names: str) -> None:
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.rpartition("}")[2] in names:
                parent.remove(child)


def _rewrite(node: ET.Element, referred: set[str], prefix: str) -> None:
    """Plain names, presentation attributes for styles, classes for gids; ids only where something refers to them."""
    node.tag = node.tag.rpartition("}")[2]
    attributes = {key.rpartition("}")[2]: value for key, value in node.attrib.items()}
    for item in attributes.pop("style", "").split(";"):
        name, _, value = (part.strip() for part in item.partition(":"))
        if name == "font":  # "9px 'DejaVu Sans', ...": the page has its own fonts
            name, value = "font-size", next(word for word in value.split() if word.endswith("px"))
        if name in _KEPT:
            attributes[name] = COLOURS.get(value, value)
    name = attributes.pop("id", "")
    if name.startswith("s-"):
        attributes["class"] = name
    if name in referred:
        attributes["id"] = prefix + name
    for key in ("href", "clip-path"):
        if key in attributes:
            attributes[key] = _REFERENCE.sub(rf"#{prefix}\1", attributes[key])
    for key in ("d", "x", "y", "transform"):  # a hundredth of a unit is far below a pixel
        if key in attributes:
            attributes[key] = _DECIMALS.sub(r"\1", attributes[key]).replace("  ", " ").strip()
    if attributes.get("transform", "").startswith("rotate(-0 "):
        del attributes["transform"]
    node.attrib.clear()
    node.attrib.update(attributes)
    node.tail = None
    node.text = node.text if node.tag in ("text", "desc") else None
