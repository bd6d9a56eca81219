"""Filling the template: readers in, one HTML string out."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources

from markupsafe import Markup

from mbpo_core.config import ReportConfig
from mbpo_core.reports.attacks import attacks_section
from mbpo_core.reports.changes import changes_section
from mbpo_core.reports.curves import curves_section
from mbpo_core.reports.funnel import funnel_section
from mbpo_core.reports.lineage import lineage_section
from mbpo_core.reports.mined import pairs_section
from mbpo_core.reports.results import results_section
from mbpo_core.reports.rollouts import rollouts_section
from mbpo_core.reports.sources import in_pipeline_order
from mbpo_core.stage import Reader

_TEMPLATES = resources.files("mbpo_core.reports") / "templates"


def build_page(inputs: Mapping[str, Reader], config: ReportConfig) -> str:
    """The whole page; a section whose inputs are missing is left out.

    Args:
        inputs: readers by key: samples, negatives, pairs, rollouts/<round>, training/<round>, training/<baseline>,
            evaluation; any may be missing.
        config: title, and how many pairs, rollouts and predictions are shown.
    """
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    inputs = in_pipeline_order(inputs)
    environment = Environment(
        loader=FunctionLoader(lambda name: (_TEMPLATES / name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["signed"] = _signed
    return environment.get_template("report.html.j2").render(
        title=config.title,
        style=Markup((_TEMPLATES / "style.css").read_text(encoding="utf-8")),
        results=results_section(inputs.get("evaluation")),
        funnel=funnel_section(inputs),
        attacks=attacks_section(inputs.get("negatives")),
        mined=pairs_section(inputs.get("pairs"), inputs.get("negatives"), config.pairs),
        curves=curves_section(inputs),
        rollouts=rollouts_section(inputs, config.rollouts),
        changes=changes_section(inputs.get("evaluation"), config.predictions),
        lineage=lineage_section(inputs),
    )


def _signed(value: float) -> str:
    """Two decimals with a sign; none before a zero."""
    text = f"{value:+.2f}".replace("-", "−")
    return "0.00" if text in ("+0.00", "−0.00") else text
