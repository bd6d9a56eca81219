"""Rejected responses without a wrong picture: from the data, or the right answer with a part of it written anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from mbpo_core.generation.generate import generate
from mbpo_core.models.groups import Prompt
from mbpo_core.negatives import filters
from mbpo_core.negatives.asking import BLIND
from mbpo_core.negatives.batching import by_length
from mbpo_core.negatives.bench import Bench, Known
from mbpo_core.negatives.choosing import reason_against
from mbpo_core.negatives.items import Made, Unmade
from mbpo_core.negatives.tasks import Task
from mbpo_core.records import Blind
from mbpo_core.seeds import derive_seed


@dataclass(frozen=True)
class Gap:
    """A right answer with a part of it left out.

    Attributes:
        before: token ids that stay in front of the gap.
        after: token ids that stay behind it.
        limit: longest filling, tokens.
    """

    known: Known
    before: list[int]
    after: list[int]
    limit: int

    @property
    def prompt(self) -> Prompt:
        """The prompt together with what stays in front, as if the policy had said it."""
        prompt = self.known.task.prompt
        return Prompt(prompt.token_ids + self.before, images=prompt.images)


def given(bench: Bench, several: Sequence[Known]) -> list[Made | Unmade]:
    """The rejected response that the row brings along, as it is.

    Source: preference data as RLHF-V's, arXiv:2312.00849, and RLAIF-V's, arXiv:2405.17220.
    """
    absent = Unmade("no_rejected", "the row has no rejected response; samples.rejected_column says where they are")
    return [absent if known.task.rejected is None else Made() for known in several]


def own(bench: Bench, several: Sequence[Known]) -> list[Made | Unmade]:
    """What the policy says to the clean image by itself, where that is wrong; nothing is attacked or written anew."""
    return [Made(rejected=known.clean.answer.text) for known in several]


def dropped_image(bench: Bench, several: Sequence[Known]) -> list[Made | Unmade]:
    """The first half of the right answer's tokens, finished without the image.

        y_rejected = [y_1 .. y_h, greedy continuation given (x, y_1 .. y_h)],    h = floor(T / 2), EOS not counted

    Where a filter refuses the greedy continuation, samples follow, as for any other answer.

    Source: DropoutNTP of MPO, arXiv:2411.10442.
    """
    limit = bench.settings.max_new_tokens
    gaps = [Gap(known, known.task.chosen[: (len(known.task.chosen) - 1) // 2], [], limit) for known in several]
    return fill(bench, gaps, blind=BLIND, greedy=True)


def segment(bench: Bench, several: Sequence[Known]) -> list[Made | Unmade]:
    """A stretch of the right answer sampled anew with the image in view, between what stood before and behind it.

        y_rejected = [y_1 .. y_s, sampled tokens, y_(s+n+1) .. y_T],    n = segment_tokens, s ~ U{0 .. T - n}

    An answer of at most n tokens is one segment: it is written anew as a whole, at most max_new_tokens long. What the
    policy says before it would end is put in place of the stretch where it says less than n tokens.

    Source: SAPO (self-augmented) arXiv:2405.20830, whose segments have 256 tokens.
    """
    longest = bench.settings.segment_tokens
    gaps = []
    for known in several:
        words = known.task.chosen[:-1]
        if len(words) <= longest:
            gaps.append(Gap(known, [], [], bench.settings.max_new_tokens))
        else:
            start = Random(derive_seed(known.seed, "segment")).randrange(len(words) - longest + 1)
            gaps.append(Gap(known, words[:start], words[start + longest :], longest))
    return fill(bench, gaps, blind=None, greedy=False)


def fill(bench: Bench, gaps: Sequence[Gap], *, blind: Blind | None, greedy: bool) -> list[Made | Unmade]:
    """Answers whose gaps the policy has filled, each the first of its fillings that passes the filters.

    Args:
        gaps: one a sample.
        blind: how the policy is kept from seeing the image; None lets it see.
        greedy: the first filling is the greedy one; else it is sampled. extra_samples more follow where it is refused.

    Returns:
        One a gap; the reason where none passes is the first filling's.
    """
    results: list[Made | Unmade | None] = [_too_long(bench, gap) for gap in gaps]
    places = [place for place, found in enumerate(results) if found is None]
    draw, count = ("greedy" if greedy else "first"), 1
    for _ in range(2):
        texts = _texts(bench, [gaps[place] for place in places], blind, draw, count)
        for place, several in zip(places, texts, strict=True):
            made = _first_that_passes(bench, gaps[place], several, draw)
            results[place] = made if isinstance(made, Made) else results[place] or made
        places = [place for place in places if isinstance(results[place], Unmade)]
        draw, count = "extra", bench.settings.extra_samples
    return [result for result in results if result is not None]


def reason_against_text(bench: Bench, task: Task, text: str) -> filters.Reason | None:
    """The first filter that refuses a text as a rejected response, as the choice of responses will ask again."""
    if not text:
        return "length"
    return reason_against(task, text, len(bench.policy.encode_completion(text)), bench.settings)


def _texts(bench: Bench, gaps: Sequence[Gap], blind: Blind | None, draw: str, count: int) -> list[list[str]]:
    """The whole answers of `count` fillings a gap; `draw` is greedy, or names a stream of random numbers."""
    policy, settings = bench.policy, bench.settings
    if count == 0:
        return [[] for _ in gaps]

    def write(few: list[Gap]) -> list[list[str]]:
        filled = generate(
            policy,
            [gap.prompt for gap in few],
            completions=count,
            temperature=0.0 if draw == "greedy" else settings.temperature,
            top_p=settings.top_p,
            max_new_tokens=few[0].limit,
            seeds=[derive_seed(gap.known.seed, "fill", draw) for gap in few],
            blind=blind,
        )
        return [[_joined(bench, gap, one.token_ids) for one in ones] for gap, ones in zip(few, filled, strict=True)]

    written: dict[int, list[str]] = {}
    for limit in {gap.limit for gap in gaps}:
        places = [place for place, gap in enumerate(gaps) if gap.limit == limit]
        same = [gaps[place] for place in places]
        texts = by_length(same, lambda gap: len(gap.prompt.token_ids), settings.batch_size, write)
        written.update(zip(places, texts, strict=True))
    return [written[place] for place in range(len(gaps))]


def _joined(bench: Bench, gap: Gap, filling: Sequence[int]) -> str:
    ends = bench.policy.eos_token_ids
    return bench.policy.decode([*gap.before, *(token for token in filling if token not in ends), *gap.after])


def _first_that_passes(bench: Bench, gap: Gap, texts: Sequence[str], draw: str) -> Made | Unmade:
    how = {"kept_before": len(gap.before), "kept_behind": len(gap.after), "draw": draw}
    reasons = [reason_against_text(bench, gap.known.task, text) for text in texts]
    for index, (text, reason) in enumerate(zip(texts, reasons, strict=True)):
        if reason is None:
            return Made(rejected=text, how={**how, "index": index})
    return Unmade((reasons and reasons[0]) or "length", f"written: {texts[0][:120]!r}" if texts else "nothing written")


def _too_long(bench: Bench, gap: Gap) -> Unmade | None:
    needed = len(gap.prompt.token_ids) + gap.limit + len(gap.after)
    if needed <= bench.policy.max_positions:
        return None
    return Unmade("prompt_too_long", f"{needed} tokens are needed, the model takes {bench.policy.max_positions}")
