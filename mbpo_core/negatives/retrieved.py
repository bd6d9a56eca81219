"""The most similar other picture of the data."""

from __future__ import annotations

from collections.abc import Sequence

from mbpo_core.negatives.bench import Bench, Known
from mbpo_core.negatives.gallery import Ranked
from mbpo_core.negatives.items import Made, Unmade


def retrieved(bench: Bench, several: Sequence[Known]) -> list[Made | Unmade]:
    """The pictures of another sample whose embedding has the largest cosine to the sample's own; see `embed`.

    They come at their own native size. Pictures equal to the sample's are passed over, because the questions about one
    picture would else retrieve it from one another, and so are those that make the prompt too long for the model. The
    rejected response is the policy's answer to the other picture, where Re-Align has the policy refill masked spans of
    the chosen one.

    Source: Re-Align arXiv:2502.13146.
    """
    nearest = bench.gallery.nearest([known.task for known in several])
    return [_retrieve(bench, known, ranked) for known, ranked in zip(several, nearest, strict=True)]


def _retrieve(bench: Bench, known: Known, ranked: Ranked) -> Made | Unmade:
    for entry, cosine in ranked:
        pictures = bench.gallery.instead(known.task, entry)
        if pictures is not None and not bench.gallery.too_long(known.task, pictures):
            how = {"sample": entry.sample_id, "answer": entry.answer, "cosine": cosine}
            return Made(pictures=pictures, how=how)
    return Unmade("no_other_image", f"no other sample has {len(known.task.images)} other pictures that can be shown")
