"""What `mbpo plan-memory` prints: a table of terms a stage, whether it fits, and which setting would help."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flows import console
from mbpo_core.config import PipelineConfig
from mbpo_core.errors import ConfigError
from mbpo_core.memory.architecture import read_architecture
from mbpo_core.memory.knobs import Turn, turns
from mbpo_core.memory.stages import Estimator
from mbpo_core.memory.terms import GIB, StageEstimate, amount
from mbpo_core.memory.workload import read_prompts
from mbpo_core.models.resolve import locate_model

_SHOWN = 0.005 * GIB  # terms below round to nothing
_KNOBS = 3


def show_memory(
    config: PipelineConfig, device_gib: float | None, picture: tuple[int, int], text_tokens: int, *, as_json: bool
) -> None:
    """Estimate every stage of a run that needs the model; exit code 1 if one does not fit.

    Args:
        config: of the run; config.json of its model must be on this machine, its weights need not.
        device_gib: memory of one accelerator, GiB; None takes the smallest one of this node.
        picture: width and height that pictures are taken to have.
        text_tokens: tokens that prompts are taken to have besides.

    Raises:
        ConfigError: no size is given and this node has no accelerator.
        ModelError: the model's config.json is not there.
    """
    device = _smallest_device() if device_gib is None else device_gib * GIB
    folder = locate_model(config.policy.model_copy(update={"allow_download": False}))
    architecture = read_architecture(folder)
    prompts = read_prompts(folder, architecture, picture, text_tokens)
    estimator = Estimator(architecture, config, prompts, on_cpu=config.policy.device == "cpu")
    found = [(made, [] if made.size <= device else turns(estimator, made.stage, device)) for made in estimator.stages()]
    if as_json:
        assumed = {"picture": list(picture), **vars(prompts)}
        parameters = {"total": architecture.total, **architecture.parameters}
        stages = [_as_json(made, device, knobs) for made, knobs in found]
        console.say_json({"device": device, "parameters": parameters, "assumed": assumed, "stages": stages})
    else:
        console.say(
            f"{architecture.model_type}, {amount(architecture.total)} parameters, {config.policy.dtype}; "
            f"a picture of {picture[0]} x {picture[1]} is {prompts.patches} patches and {prompts.features} positions, "
            f"with {text_tokens} tokens of text; processes: {config.launch.processes}, of {device / GIB:.1f} GiB each."
        )
        for made, knobs in found:
            _print(made, device, knobs)
    if any(made.size > device for made, _ in found):
        raise SystemExit(1)


def _smallest_device() -> float:
    from mbpo_core.launching.node import devices_here
    from mbpo_core.launching.nvml import memory

    known = [memory(device) for device in devices_here() if not device.fake]
    sizes = [found.total for found in known if found is not None]
    if not sizes:
        raise ConfigError(
            "this node has no accelerator to compare with",
            expected="the memory of the one that the run is meant for",
            remedy="Give --device-gib, e.g. --device-gib 80.",
        )
    return float(min(sizes))


def _print(made: StageEstimate, device: float, knobs: Sequence[Turn]) -> None:
    peak = made.peak
    verdict = "fits" if made.size <= device else "does not fit"
    title = f"{made.stage}: {made.size / GIB:.1f} of {device / GIB:.1f} GiB, {verdict} (peak: {peak.name})"
    shown = console.table(title, "term", "GiB", "from", right=("GiB",))
    for term in peak.terms:
        if term.size >= _SHOWN:
            largest = term is peak.largest
            name = f"{term.name} (largest)" if largest else term.name
            style = "bold" if largest else ""
            shown.add_row(console.plain(name, style), console.plain(f"{term.size / GIB:.2f}", style), term.why)
    console.make_console().print(shown)
    if made.host:
        console.say(f"{made.stage}: {made.host / GIB:.1f} GiB of the host's memory besides, a process.")
    for turn in knobs[:_KNOBS]:
        console.say(f"{made.stage}: --set {_told(turn)}")
    if made.size > device and not any(turn.fits for turn in knobs):
        console.say(f"{made.stage}: no single setting is enough; take several, or a larger accelerator.")


def _told(turn: Turn) -> str:
    new = "; makes the stage anew" if turn.changes_result else ""
    return (
        f"{turn.change} saves {turn.saving / GIB:.1f} GiB: {turn.size / GIB:.1f} GiB, which "
        f"{'fits' if turn.fits else 'is not enough alone'}{new}"
    )


def _as_json(made: StageEstimate, device: float, knobs: Sequence[Turn]) -> dict[str, Any]:
    phases = {phase.name: {term.name: round(term.size) for term in phase.terms} for phase in made.phases}
    return {
        "stage": made.stage,
        "size": round(made.size),
        "fits": made.size <= device,
        "peak": made.peak.name,
        "largest": made.peak.largest.name,
        "host": round(made.host),
        "phases": phases,
        "knobs": [vars(turn) for turn in knobs],
    }


def read_picture(text: str) -> tuple[int, int]:
    """(width, height) of a word like 1024x768.

    Raises:
        ConfigError: it is no such word.
    """
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise ConfigError(f"--picture is {text!r}", expected="WIDTHxHEIGHT in pixels, e.g. 1024x768")
    return int(width), int(height)
