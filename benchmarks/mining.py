"""Adversarial images against a plain loop over images with foolbox's PGD: same model, ball, steps and start.

The loop comes in two forms. As foolbox's own examples have it, the model is as `from_pretrained` leaves it and returns
all logits; at its best, the weights are frozen, so that no gradient of theirs is computed, and logits are computed at
the answer alone.
"""

from __future__ import annotations

from itertools import count
from typing import Any

from benchmarks import limits
from benchmarks.grpo import grid
from benchmarks.harness import Record, record
from benchmarks.models import answer, questions
from benchmarks.sides import Measured, Pause, Point, Stopwatch, compare

IMAGES = 4
STEPS = 10
EPSILON = 8 / 255
STRIDE = 2 / 255
GRID = {"image_tokens": (36, 64, 256, 576), "completion_tokens": (8,)}
QUICK = {"image_tokens": (64, 256), "completion_tokens": (8,)}
LIKELIHOODS = ("clean", "reached")


def run(quick: bool, repeats: int) -> list[Record]:
    """Records of every grid point and form of the loop, with the mean log p(chosen) before and after."""
    records = []
    for point in grid(QUICK if quick else GRID):
        mine, plain, frozen = compare(point, repeats, ours, plain_loop, frozen_loop)
        records += [
            _record("mining", point, mine, "foolbox loop as in its examples", plain, repeats),
            _record("mining/frozen peer", point, mine, "foolbox loop, weights frozen", frozen, repeats),
        ]
    return records


def ours(point: Point, pause: Pause) -> None:
    """The miner's attack, every item with all its steps."""
    from mbpo_core.config import NegativesConfig
    from mbpo_core.negatives.attack import attack

    task = _Task(point)
    pause.loaded()
    settings = NegativesConfig(epsilon=EPSILON, step_size=STRIDE, steps=STEPS, random_start=False, stop_logprob=0.0)
    watch = Stopwatch()
    for step in count():
        items = task.items(step)
        with watch.phase("attack"):
            results = attack(task.policy, items, settings)
        assert all(result.steps == STEPS for result in results)
        likelihoods = task.likelihoods(items, [result.saved[0].float() / 255 for result in results])
        if not pause({**watch.take(), **likelihoods}):
            return


def plain_loop(point: Point, pause: Pause) -> None:
    """foolbox's LinfPGD, one image at a time, on the model as `from_pretrained` gives it."""
    _loop(point, pause, frozen=False)


def frozen_loop(point: Point, pause: Pause) -> None:
    """The same at its best."""
    _loop(point, pause, frozen=True)


def _loop(point: Point, pause: Pause, *, frozen: bool) -> None:
    import foolbox
    import torch

    class LowerLikelihood(foolbox.attacks.LinfProjectedGradientDescentAttack):
        """foolbox climbs its loss; this one is minus the log-probability."""

        def get_loss_fn(self, model: Any, labels: Any) -> Any:
            return lambda images: -model(images).sum()

    task = _Task(point)
    task.policy.model.requires_grad_(not frozen)
    pause.loaded()
    pgd = LowerLikelihood(abs_stepsize=STRIDE, steps=STEPS, random_start=False)
    watch = Stopwatch()
    for step in count():
        items, perturbed = task.items(step), []
        with watch.phase("attack"):
            for item in items:
                module = _likelihood(task.policy, item, everywhere=not frozen)
                wrapped = foolbox.PyTorchModel(module, bounds=(0, 1), device="cpu")
                criterion = foolbox.criteria.Misclassification(torch.zeros(1, dtype=torch.long))
                perturbed.append(pgd.run(wrapped, item.images.float() / 255, criterion, epsilon=EPSILON)[0])
        if not pause({**watch.take(), **task.likelihoods(items, perturbed)}):
            return


def _likelihood(policy: Any, item: Any, *, everywhere: bool) -> Any:
    """Mean log-probability of the item's answer as a module that takes the image, the prompt being fixed."""
    import torch

    ids, targets = torch.tensor([[*item.prompt.token_ids, *item.chosen]]), torch.tensor(item.chosen)[:, None]
    processor = policy.processor.image_processor
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (processor.image_mean, processor.image_std))
    length = len(targets)

    class Likelihood(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            kept = 0 if everywhere else length + 1
            pixels = (images - mean) / std
            logits = policy.model(input_ids=ids, pixel_values=pixels, logits_to_keep=kept, use_cache=False).logits
            return logits[0, -length - 1 : -1].log_softmax(-1).gather(-1, targets).mean()[None]

    return Likelihood().eval()


class _Task:
    """The policy, its items, and what it thinks of the chosen answers."""

    def __init__(self, point: Point) -> None:
        from benchmarks.ours import load

        self.policy = load(point["image_tokens"])
        self._point = point

    def items(self, step: int) -> list[Any]:
        """Items whose pictures no other step has."""
        import torch

        from benchmarks.ours import render
        from mbpo_core.models.images import open_image
        from mbpo_core.negatives.items import Item

        asked = questions(IMAGES, self._point["image_tokens"], seed=step)
        texts = [answer(self._point["completion_tokens"], IMAGES * step + index) for index in range(IMAGES)]
        return [
            Item(
                prompt,
                torch.stack([self.policy.family.native(open_image({"bytes": question.png}))]),
                self.policy.encode_completion(text),
                target=None,
                seed=0,
            )
            for prompt, question, text in zip(render(self.policy, asked), asked, texts, strict=True)
        ]

    def likelihoods(self, items: list[Any], perturbed: list[Any]) -> dict[str, float]:
        """Mean log p(chosen) on the clean and on the perturbed images (3, H, W) in [0, 1], nats per token."""
        import torch

        from mbpo_core.models.scoring import image_logprobs

        prompts, chosen = [item.prompt for item in items], [item.chosen for item in items]
        versions = (torch.cat([item.images for item in items]) / 255, torch.stack(perturbed))
        with torch.no_grad():
            means = [
                float(image_logprobs(self.policy, prompts, chosen, images.split(1)).means.mean()) for images in versions
            ]
        return dict(zip(LIKELIHOODS, means, strict=True))


def _record(name: str, point: Point, mine: Measured, peer_name: str, peer: Measured, repeats: int) -> Record:
    return record(
        name,
        point,
        mine.median("attack"),
        peer_name,
        peer.median("attack"),
        package="foolbox",
        repeats=repeats,
        peaks=(mine.peak_mib, peer.peak_mib),
        logprob_clean=round(mine.median("clean"), 4),
        logprob_ours=round(mine.median("reached"), 4),
        logprob_peer=round(peer.median("reached"), 4),
        **limits.keys(limits.attack(point, IMAGES, STEPS)),
    )
