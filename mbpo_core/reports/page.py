"""Filling the template: readers in, one HTML string out."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources

from markupsafe import Markup

from mbpo_core.config import ReportConfig
from mbpo_core.methods import title_of
from mbpo_core.pages import content_policy, load_template
from mbpo_core.reports.changes import changes_section
from mbpo_core.reports.curves import curves_section
from mbpo_core.reports.funnel import funnel_section
from mbpo_core.reports.lineage import lineage_section
from mbpo_core.reports.made import images_section
from mbpo_core.reports.mined import pairs_section
from mbpo_core.reports.negatives import negatives_section
from mbpo_core.reports.results import results_section
from mbpo_core.reports.rollouts import rollouts_section
from mbpo_core.reports.sources import in_pipeline_order, method_entry, method_label, rounds_of
from mbpo_core.stage import Reader

LARGEST = 9_500_000  # bytes of a page
LONGEST = 2_000  # characters of a text on it
_TEMPLATES = resources.files("mbpo_core.reports") / "templates"


def build_page(inputs: Mapping[str, Reader], config: ReportConfig) -> str:
    """The whole page; a section whose inputs are missing is left out.

    A page that would be larger than LARGEST shows half as many cards, and half of these, until it is not.

    Args:
        inputs: readers by key: samples, negatives, pairs, negatives/images (each of these three /<round> where the
            run mines anew), rollouts/<round>, training/<round>, training/<baseline>, evaluation; any may be missing.
        config: title, and how many pairs (and images made for pairs), rollouts and predictions are shown.
    """
    inputs = in_pipeline_order(inputs)
    page = _filled(inputs, config)
    while len(page.encode()) > LARGEST and (config.pairs or config.rollouts or config.predictions):
        halves = {name: getattr(config, name) // 2 for name in ("pairs", "rollouts", "predictions")}
        config = config.model_copy(update=halves)
        page = _filled(inputs, config)
    return page


def _filled(inputs: Mapping[str, Reader], config: ReportConfig) -> str:
    negatives, pairs, images = (rounds_of(inputs, key) for key in ("negatives", "pairs", "negatives/images"))
    style, script = ((_TEMPLATES / name).read_text(encoding="utf-8") for name in ("style.css", "gallery.js"))
    return load_template("mbpo_core.reports", "report.html.j2", longest=LONGEST, signed=_signed).render(
        title=config.title,
        style=Markup(style),
        script=Markup(script),
        content_policy=content_policy(style, script),
        method=_method(inputs),
        results=results_section(inputs.get("evaluation")),
        funnel=funnel_section(inputs),
        negatives=negatives_section(negatives),
        mined=pairs_section(pairs, negatives, config.pairs),
        made=images_section(images, config.pairs),
        curves=curves_section(inputs),
        rollouts=rollouts_section(inputs, config.rollouts),
        changes=changes_section(inputs.get("evaluation"), config.predictions),
        lineage=lineage_section(inputs),
    )


def _method(inputs: Mapping[str, Reader]) -> tuple[str, str] | None:
    """Title of the run's method and what it is, in one line; None while nothing says which it was."""
    label = method_label(inputs)
    entry = method_entry(label)
    return (title_of(label), f"{entry.line} ({entry.source})") if entry else None


def _signed(value: float) -> str:
    """Two decimals with a sign; none before a zero."""
    text = f"{value:+.2f}".replace("-", "−")
    return "0.00" if text in ("+0.00", "−0.00") else text
