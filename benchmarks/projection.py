"""Log-probs over a real vocabulary: in chunks with an analytic backward pass, against the full logits tensor."""

from __future__ import annotations

from itertools import count

from benchmarks.grpo import grid
from benchmarks.harness import Record, record
from benchmarks.sides import Pause, Point, Stopwatch, compare

VOCABULARY = 152_064  # Qwen2.5-VL's
WIDTH = 128
LIMIT_MIB = 256.0
GRID = {"tokens": (1024, 2048), "vocabulary": (VOCABULARY,)}
QUICK = {"tokens": (1024,), "vocabulary": (VOCABULARY,)}


def run(quick: bool, repeats: int) -> list[Record]:
    """Records of every grid point: forward and backward, gradients of hidden states and of the projection."""
    records = []
    for point in grid(QUICK if quick else GRID):
        mine, peer = compare(point, repeats, chunked, dense)
        records.append(
            record(
                "projection",
                point,
                mine.median("projection"),
                "full logits",
                peer.median("projection"),
                package="torch",
                repeats=repeats,
                peaks=(mine.peak_mib, peer.peak_mib),
                logits_mib=round(4 * point["tokens"] * VOCABULARY / 2**20, 1),
            )
        )
    return records


def chunked(point: Point, pause: Pause) -> None:
    """The product at its default limit."""
    _steps(point, pause, LIMIT_MIB)


def dense(point: Point, pause: Pause) -> None:
    """The product without a limit: one tensor of all logits, torch's own backward pass."""
    _steps(point, pause, float("inf"))


def _steps(point: Point, pause: Pause, limit_mib: float) -> None:
    import torch

    from mbpo_core.models.projection import Head, target_logprobs

    torch.manual_seed(0)
    weight = torch.randn(VOCABULARY, WIDTH, requires_grad=True)
    hidden = torch.randn(point["tokens"], WIDTH, requires_grad=True)
    targets = torch.randint(VOCABULARY, (point["tokens"],))
    pause.loaded()
    watch = Stopwatch()
    for _ in count():
        with watch.phase("projection"):
            logprobs, _greedy = target_logprobs(hidden, targets, Head(weight, None, [0], limit_mib), 1.0)
            torch.autograd.grad(logprobs.sum(), [hidden, weight])
        if not pause(watch.take()):
            return
