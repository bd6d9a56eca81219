"""The worst of the policy's own answers, by a scorer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mbpo_core.generation.generate import Generated, generate
from mbpo_core.models.groups import PromptGroup
from mbpo_core.models.images import open_image
from mbpo_core.models.scoring import group_logprobs
from mbpo_core.negatives.asking import BLIND
from mbpo_core.negatives.batching import by_length
from mbpo_core.negatives.bench import Bench, Known
from mbpo_core.negatives.claims import score_claims
from mbpo_core.negatives.clip_scorer import open_clip
from mbpo_core.negatives.items import Made, Unmade
from mbpo_core.negatives.responses import reason_against_text
from mbpo_core.seeds import derive_seed

Scorer = Callable[[Bench, Sequence[Known], Sequence[Sequence[Generated]]], Sequence[list[float] | Unmade]]
"""A score for each answer to each sample, the better the higher; or why a sample has none."""


def ranked(bench: Bench, several: Sequence[Known]) -> list[Made | Unmade]:
    """Of `candidates` answers sampled on the clean images the one with the lowest score that passes the filters.

    There is none where the best of all is less than `min_score_gap` better. Equal texts count once. The chosen
    response stays the sample's reference answer; RLAIF-V and CLIP-DPO, which have none, choose their best sample.

    Source: RLAIF-V arXiv:2405.17220 (10 answers, temperature 0.7, gap 1); CLIP-DPO arXiv:2408.10433.
    """
    if bench.settings.scorer == "clip":
        open_clip(bench.settings.clip_model, bench.policy.device)  # complains before anything is sampled
    answers = sample_answers(bench, several)
    scores = SCORERS[bench.settings.scorer](bench, several, answers)
    return [_worst(bench, *one) for one in zip(several, answers, scores, strict=True)]


def sample_answers(bench: Bench, several: Sequence[Known]) -> list[list[Generated]]:
    """The different answers among `candidates` samples of each, in the order drawn."""
    settings = bench.settings

    def draw(few: list[Known]) -> list[list[Generated]]:
        return generate(
            bench.policy,
            [known.task.prompt for known in few],
            completions=settings.candidates,
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_new_tokens=settings.max_new_tokens,
            seeds=[derive_seed(known.seed, "ranked") for known in few],
        )

    drawn = by_length(several, lambda known: len(known.task.prompt.token_ids), settings.batch_size, draw)
    first: list[dict[str, Generated]] = [{} for _ in drawn]
    for found, answers in zip(first, drawn, strict=True):
        for answer in answers:
            found.setdefault(answer.text, answer)
    return [list(found.values()) for found in first]


def score_gain(
    bench: Bench, several: Sequence[Known], answers: Sequence[Sequence[Generated]]
) -> list[list[float] | Unmade]:
    """Image Information Gain of each answer.

        score(y) = (1/T) sum_t log p(y_t | images, x, y_<t) - log p(y_t | blind, x, y_<t)    nats per token

    Source: recipe 1.3, eq. (1), here of the policy's own samples.
    """
    groups = [
        PromptGroup(known.task.prompt, [answer.token_ids for answer in texts])
        for known, texts in zip(several, answers, strict=True)
    ]

    def compare(few: list[PromptGroup]) -> list[list[float] | Unmade]:
        seeing, blind = group_logprobs(bench.policy, few), group_logprobs(bench.policy, few, blind=BLIND)
        pairs = [zip(*both, strict=True) for both in zip(seeing, blind, strict=True)]
        return [[float((a - b).mean()) for a, b in pair] for pair in pairs]

    return by_length(groups, lambda group: len(group.prompt.token_ids), bench.settings.batch_size, compare)


def score_clip(
    bench: Bench, several: Sequence[Known], answers: Sequence[Sequence[Generated]]
) -> list[list[float] | Unmade]:
    """CLIP's cosine of each answer to the clean pictures; see `ClipScorer.similarities`.

    Whole answers only, where CLIP-DPO scores their objects and attributes too.
    """
    clip = open_clip(bench.settings.clip_model, bench.policy.device)
    return [
        clip.similarities([open_image(image) for image in known.task.sample.images], [answer.text for answer in texts])
        for known, texts in zip(several, answers, strict=True)
    ]


SCORERS: dict[str, Scorer] = {"claims": score_claims, "clip": score_clip, "gain": score_gain}
"""By the name that `negatives.scorer` has."""


def _worst(bench: Bench, known: Known, answers: Sequence[Generated], scores: list[float] | Unmade) -> Made | Unmade:
    if isinstance(scores, Unmade):
        return scores
    texts = [answer.text for answer in answers]
    reasons = [reason_against_text(bench, known.task, text) for text in texts]
    left = [place for place, reason in enumerate(reasons) if reason is None]
    if not left:
        return Unmade(reasons[0] or "no_rejected", f"none of {len(texts)} answers can serve, {texts[0][:120]!r} first")
    worst = min(left, key=lambda place: scores[place])
    gap, least = max(scores) - scores[worst], bench.settings.min_score_gap
    if gap < least:
        return Unmade("no_rejected", f"of {len(texts)} answers the best is better by {gap:.3g}, not by {least:g}")
    return Made(rejected=texts[worst], how={"texts": texts, "scores": scores, "index": worst})
