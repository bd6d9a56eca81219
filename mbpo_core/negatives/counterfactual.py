"""Another picture for which the same question has another answer: found in the data, or painted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random

from torch import Tensor

from mbpo_core.models.images import open_image, png_bytes
from mbpo_core.negatives.ball import LEVELS
from mbpo_core.negatives.bench import Bench, Known
from mbpo_core.negatives.colours import Recast, recast
from mbpo_core.negatives.filters import agrees
from mbpo_core.negatives.gallery import Entry, Ranked
from mbpo_core.negatives.items import Made, Unmade, measured
from mbpo_core.negatives.palette import repaint, tone_of
from mbpo_core.negatives.regions import Region, find_regions
from mbpo_core.negatives.tasks import Task
from mbpo_core.records import Image
from mbpo_core.seeds import derive_seed
from mbpo_core.verifiers.rules import without_aliases

Way = Callable[[Bench, Sequence[Known]], Sequence[Made | None]]
"""Finds another picture, or None where there is none."""


def counterfactual(bench: Bench, several: Sequence[Known]) -> list[Made | Unmade]:
    """By the way that the settings name, and where it finds nothing by the others: question, embedding, recolour.

    `how["from"]` says which way it was. The rejected response is the policy's answer to the other picture, or of a
    painted one the answer that is right of it.
    """
    results: list[Made | None] = [None] * len(several)
    first = bench.settings.counterfactual
    for name in (first, *(name for name in _WAYS if name != first)):
        places = [place for place, result in enumerate(results) if result is None]
        for place, made in zip(places, _WAYS[name](bench, [several[place] for place in places]), strict=True):
            results[place] = made
    return [result or _NOTHING for result in results]


_NOTHING = Unmade("no_other_image", "no other picture of the data has another answer, and no colour of it can change")


def by_question(bench: Bench, several: Sequence[Known]) -> list[Made | None]:
    """A sample with the same question and another answer, by a seeded draw among those that can be shown."""
    found: list[Made | None] = []
    for known in several:
        others = [entry for entry in bench.gallery.same_question(known.task) if _differs(entry, known)]
        Random(derive_seed(known.seed, "counterfactual")).shuffle(others)
        shown = (_show(bench, known, entry, "question", True) for entry in others)
        found.append(next((made for made in shown if made is not None), None))
    return found


def by_embedding(bench: Bench, several: Sequence[Known]) -> list[Made | None]:
    """The nearest picture of a sample with the same question and another answer; else with a question of its kind."""
    ranked = bench.gallery.nearest([known.task for known in several])
    return [_nearest(bench, known, near) for known, near in zip(several, ranked, strict=True)]


def by_recolour(bench: Bench, several: Sequence[Known]) -> list[Made | None]:
    """The thing that the answer tells the colour of, painted in another colour of the data.

    What the question then has for an answer is known: in a share `swapped` of the rows, drawn by the seed, the painted
    picture with that answer is the clean side, and the sample's own picture and answer are the rejected one. Without
    such rows the data would go on saying what the prior says.

    The thing is what has the prevailing hue of the answer's key region and is connected to it; of a description, of the
    key region of the colour that is changed and the word it stands with. Each colour word looks as it does in the data
    (`palette.learn_palette`). Nothing is painted where the answer tells no colour, the sample has not just one picture,
    or the region no hue.

    Source: ours; counterfactual data augmentation as in arXiv:1909.12434, by images.
    """
    results: list[Made | None] = [None] * len(several)
    plans: dict[int, Recast] = {}
    for place, known in enumerate(several):
        if len(known.task.images) != 1:
            continue
        random = Random(derive_seed(known.seed, "recolour"))
        plan = recast(known.task.sample, bench.palette, random, descriptions=bench.settings.descriptions)
        if plan is not None:
            plans[place] = plan
    tasks = [several[place].task for place in plans]
    regions = find_regions(bench, tasks, [plan.about for plan in plans.values()])
    for (place, plan), region in zip(plans.items(), regions, strict=True):
        results[place] = _painted(bench, several[place], plan, region)
    swapped = [
        place
        for place, made in enumerate(results)
        if made and Random(derive_seed(several[place].seed, "swapped")).random() < bench.settings.swapped
    ]
    turned = _turned(bench, [(several[place], plans[place], results[place]) for place in swapped])
    return [dict(zip(swapped, turned, strict=True)).get(place, made) for place, made in enumerate(results)]


_WAYS: dict[str, Way] = {"question": by_question, "embedding": by_embedding, "recolour": by_recolour}
"""In the order in which one stands in for the other."""


def _nearest(bench: Bench, known: Known, ranked: Ranked) -> Made | None:
    same = {entry.sample_id for entry in bench.gallery.same_question(known.task) if _differs(entry, known)}
    near = list(ranked) if same else ranked
    alike = (one for one in near if one[0].sample_id in same) if same else ()
    akin = (one for one in near if one[0].kind == known.task.sample.kind and _differs(one[0], known))
    for candidates, is_same in ((alike, True), (akin, False)):
        for entry, cosine in candidates:
            if (made := _show(bench, known, entry, "embedding", is_same, cosine=cosine)) is not None:
                return made
    return None


def _show(bench: Bench, known: Known, entry: Entry, way: str, same_question: bool, **more: float) -> Made | None:
    """The pictures of a sample in place of the task's; None where they cannot be shown."""
    pictures = bench.gallery.instead(known.task, entry)
    if pictures is None or bench.gallery.too_long(known.task, pictures):
        return None
    how = {"from": way, "sample": entry.sample_id, "answer": entry.answer, "same_question": same_question, **more}
    return Made(pictures=pictures, how=how)


def _painted(bench: Bench, known: Known, plan: Recast, region: Region) -> Made | None:
    """The picture in the plan's colour, as the rejected one."""
    item = known.item(bench.settings)
    image = item.images[0] / LEVELS
    found = tone_of(image, region.around_point()[0]) or tone_of(image, region.masks[0])
    if found is None:
        return None
    tone, alike = found
    changed, mask = repaint(image, alike, tone, bench.palette[plan.new])
    levels = (changed * LEVELS).round()[None]
    how = {"from": "recolour", "old": plan.old, "new": plan.new, "answer": plan.answer, "swapped": False, **region.how}
    if plan.about:
        how["thing"] = known.task.sample.answer.strip()[slice(*plan.about)]
    return Made.of(
        measured(item, levels, levels),
        rejected=plan.answer,
        masks=mask[None],
        keywords=region.keywords,
        detector=region.detector,
        how=how,
    )


def _turned(bench: Bench, painted: Sequence[tuple[Known, Recast, Made | None]]) -> list[Made]:
    """The painted pictures as samples of their own, whose rejected side is the sample that they were made of."""
    tasks = []
    for known, plan, made in painted:
        assert made is not None  # only painted ones are swapped
        tasks.append(_sample_of(bench, known.task, made.pictures[0], plan.answer))
    turned = []
    for (known, _, made), fresh in zip(painted, bench.know(tasks), strict=True):
        assert made is not None
        instead = replace(fresh, seed=known.seed)
        item, levels = instead.item(bench.settings), known.task.images.float()
        turned.append(
            replace(
                made,
                pictures=list(known.task.images),
                perturbed=measured(item, levels, levels),
                rejected=known.task.sample.answer,
                instead=instead,
                how=made.how | {"swapped": True, "answer": known.task.sample.answer},
            )
        )
    return turned


def _sample_of(bench: Bench, task: Task, picture: Tensor, answer: str) -> Task:
    """The same question about a painted picture."""
    data = png_bytes(picture)
    fresh = {"images": [Image(bytes=data)], "answer": answer, "rejected": None}
    sample = task.sample.model_copy(update={**fresh, "meta": without_aliases(task.sample.meta)})
    prompt = bench.policy.prepare(sample.question, [open_image({"bytes": data})])
    return Task(sample, prompt, picture[None], bench.policy.encode_completion(answer))


def _differs(entry: Entry, known: Known) -> bool:
    sample = known.task.sample
    return not agrees(entry.answer, sample.answer, kind=sample.kind, choices=sample.choices, meta=sample.meta)
