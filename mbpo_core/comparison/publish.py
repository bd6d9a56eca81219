"""The comparison as files that people open."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

from mbpo_core.comparison.picture import comparison_picture
from mbpo_core.comparison.results import Comparison, titles
from mbpo_core.comparison.table import cell, comparison_markdown, headings, sentence, verdict
from mbpo_core.methods import METHODS
from mbpo_core.pages import load_template


def publish_comparison(comparison: Comparison, folder: Path, commands: list[str]) -> Path:
    """Write index.html, comparison.svg, comparison.png, results.json and table.md; all of them or none.

    Args:
        comparison: to write.
        folder: is replaced if it is there and holds an earlier comparison.
        commands: that make it again, for the page.

    Returns:
        The page.
    """
    picture = comparison_picture(comparison)
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        (fresh / "comparison.svg").write_bytes(picture)
        (fresh / "comparison.png").write_bytes(comparison_picture(comparison, "png"))
        rows = ",\n".join(map(json.dumps, comparison.rows()))
        (fresh / "results.json").write_text(f"[\n{rows}\n]\n", encoding="utf-8")
        (fresh / "table.md").write_text(comparison_markdown(comparison) + "\n", encoding="utf-8")
        (fresh / "index.html").write_text(_page(comparison, picture.decode(), commands), encoding="utf-8")
        fresh.chmod(0o755)
        _swap(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder / "index.html"


def _page(comparison: Comparison, picture: str, commands: list[str]) -> str:
    from markupsafe import Markup

    names = titles(comparison)
    rows = [
        (title, [(cell(comparison, label, m), verdict(comparison, label, m)) for m in comparison.metrics], spent)
        for label, title in names.items()
        for spent in [comparison.spent.get(label)]
    ]
    return load_template("mbpo_core.comparison", "comparison.html.j2").render(
        title=comparison.name,
        sentence=sentence(comparison),
        headings=headings(comparison),
        rows=rows,
        lines=[(title, METHODS[m].line, METHODS[m].source) for label, title in names.items() if (m := _method(label))],
        picture=Markup(picture[picture.index("<svg") :]),
        commands=commands,
    )


def _method(label: str) -> str:
    name = "mbpo" if label == "trained" else label
    return name if name in METHODS else ""


def _swap(fresh: Path, folder: Path) -> None:
    """Put the new folder where the old one was; whoever looks sees one of them whole."""
    old = folder.with_name(f".{folder.name}-old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(fresh, folder)
    shutil.rmtree(old, ignore_errors=True)
