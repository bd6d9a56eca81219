"""The stage: everything a run made, on one page."""

from __future__ import annotations

from mbpo_core.reports.page import build_page
from mbpo_core.stage import StageContext


def run(ctx: StageContext) -> None:
    """Write `report.html` from whichever inputs there are; see `page.build_page`."""
    # It tells how long stages took, which differs where the same is computed again.
    ctx.output.add_text("report.html", build_page(ctx.inputs, ctx.config), content=False)
