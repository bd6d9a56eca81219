"""What must hold for any text and any answer."""

from __future__ import annotations

import itertools
import string
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mbpo_core.config import RolloutsConfig
from mbpo_core.generation.generate import Generated
from mbpo_core.records import CLOSED_KINDS, AnswerForm, Kind, Sample
from mbpo_core.rollouts.rewarding import reward
from mbpo_core.verifiers.box import Box, iou
from mbpo_core.verifiers.registry import Rules, extract, follows_form, require_answer, verify

quick = settings(max_examples=40, deadline=None)

RULED: tuple[Kind, ...] = tuple(kind for kind in CLOSED_KINDS if kind != "math")
OPTIONS = ["cat", "dog", "hot dog", "bird"]
GOLDS: dict[Kind, list[str]] = {
    "yes_no": ["yes", "no"],
    "multiple_choice": ["A", "B", "C", "D"],
    "numeric": ["0", "1", "3", "-3", "25", "0.5", "1,234", "5 cm", "12 %"],
    "short_text": ["green", "light green", "yellow", "hot dog", "the dog"],
    "counting": ["0", "1", "2", "3", "12", "25"],
    "box": ["[0, 0, 2, 2]", "[2, 0, 4, 2]", "[10, 20, 30, 40]"],
}

pieces = st.sampled_from(
    [*itertools.chain(*GOLDS.values()), "the answer is", "not", "and", "or", ",", ".", ";", "?", "(", ")", ":", "a"]
    + [
        "there are",
        "no",
        "none",
        "it is",
        "isn't",
        "The",
        "more than",
        "half",
        "two",
        "one",
        "½",
        "cat",
        "dog",
        "I",
        "%",
    ]
)
spoken = st.lists(pieces, max_size=12).map(" ".join)
anything = st.one_of(spoken, st.text(max_size=60))
coordinate = st.integers(0, 1000)
sizes = st.integers(1, 1000)
boxes = st.builds(lambda x, y, w, h: (float(x), float(y), float(x + w), float(y + h)), *[coordinate] * 2, *[sizes] * 2)


def options_of(kind: str) -> list[str]:
    return OPTIONS if kind == "multiple_choice" else []


@quick
@given(st.sampled_from(RULED), anything, st.data())
def test_a_verdict_always_comes_with_answer_and_reason(kind: Kind, text: str, data: st.DataObject) -> None:
    gold = data.draw(st.sampled_from(GOLDS[kind]))
    judgement = verify(kind, text, gold, options_of(kind))
    assert judgement.verdict in ("correct", "wrong", "unparsed")
    assert judgement.reason
    assert (judgement.extracted is None) == (judgement.verdict == "unparsed")
    assert judgement == verify(kind, text, gold, options_of(kind))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(RULED), anything)
def test_a_text_confirms_one_of_several_answers_at_most(kind: Kind, text: str) -> None:
    assert sum(verify(kind, text, gold, options_of(kind)).verdict == "correct" for gold in GOLDS[kind]) <= 1


@quick
@given(st.sampled_from(RULED), anything, st.data())
def test_white_space_case_and_a_last_full_stop_do_not_matter(kind: Kind, text: str, data: st.DataObject) -> None:
    gold = data.draw(st.sampled_from(GOLDS[kind]))
    verdict = verify(kind, text, gold, options_of(kind)).verdict
    assert verify(kind, f"\n  {text}\t ", gold, options_of(kind)).verdict == verdict
    said = gold + data.draw(st.sampled_from(["", ".", ".\n"]))
    assert verify(kind, said, gold, options_of(kind)).verdict == "correct"
    if kind not in ("multiple_choice", "numeric"):  # a letter is a capital, and so are some units
        assert verify(kind, gold.upper(), gold).verdict == verify(kind, gold.lower(), gold).verdict == "correct"


@quick
@given(st.sampled_from(("short_text", "open", "numeric", "box")), st.text(max_size=40))
def test_an_answer_that_can_be_verified_confirms_itself(kind: str, answer: str) -> None:
    from mbpo_core.errors import VerifierError

    try:
        require_answer(kind, answer)
    except VerifierError:
        return
    assert verify(kind, answer, answer).verdict == "correct"
    assert extract(kind, answer) is not None


def ways(value: Fraction) -> list[str]:
    """A number as it may be written."""
    whole = value.denominator == 1
    plain = str(value.numerator) if whole else f"{float(value):.3f}"
    written = [plain, f"It is {plain}.", f"{plain} km", f"{value.numerator}/{value.denominator}", f"**{plain}**"]
    written += [f"{float(value):,.3f}", f"The answer is {plain}", f"${plain}$"]
    if whole:
        written += [f"{value.numerator:,}", f"{value.numerator}.0", f"{value.numerator:,}".replace(",", "\u202f")]
    if value > 1 and not whole:
        rest = value - int(value)
        written.append(f"{int(value)} {rest.numerator}/{rest.denominator}")
    return written


@settings(max_examples=15, deadline=None)
@given(st.integers(-(10**9), 10**9), st.sampled_from([1, 2, 4, 5, 8]))
def test_a_number_is_the_same_however_it_is_written(top: int, bottom: int) -> None:
    value = Fraction(top, bottom)
    for text, answer in itertools.product(ways(value), repeat=2):
        assert verify("numeric", text, answer).verdict == "correct", (text, answer)
        other = value + Fraction(1, bottom)
        assert all(verify("numeric", wrong, answer).verdict == "wrong" for wrong in ways(other)[:2])


@quick
@given(st.integers(-1000, 1000), st.integers(-1000, 1000), st.integers(0, 99))
def test_tolerance_is_a_relative_difference(number: int, answer: int, percent: int) -> None:
    rules = Rules(tolerance=percent / 100)
    near = abs(number - answer) * 100 <= percent * abs(answer)
    assert (verify("numeric", str(number), str(answer), rules=rules).verdict == "correct") == near


@quick
@given(st.text(string.ascii_lowercase, min_size=3, max_size=8), st.text(string.ascii_lowercase, min_size=3, max_size=8))
def test_an_alias_is_as_right_as_the_answer_and_adds_nothing_else(alias: str, other: str) -> None:
    rules = Rules(aliases=(f"the {alias}",))
    assert verify("short_text", f"It is {alias}.", "sofa", rules=rules).verdict == "correct"
    expected = "correct" if other in (alias, "sofa") else "wrong"
    assert verify("short_text", other, "sofa", rules=rules).verdict in (expected, "unparsed")


@quick
@given(boxes, boxes, coordinate, coordinate, st.sampled_from([0.25, 2.0, 8.0]))
def test_iou_is_a_share_symmetric_and_of_no_place_or_scale(
    first: Box, second: Box, right: int, down: int, wide: float
) -> None:
    overlap = iou(first, second)
    assert 0 <= overlap <= 1
    assert overlap == iou(second, first)
    assert (overlap == 1) == (first == second)

    def moved(box: Box) -> Box:
        return box[0] * wide + right, box[1] + down, box[2] * wide + right, box[3] + down

    assert iou(moved(first), moved(second)) == pytest.approx(overlap, abs=1e-12)
    text = str([int(value) for value in first])
    assert verify("box", text, str(list(second))).verdict == ("correct" if overlap >= 0.5 else "wrong")


@quick
@given(
    st.sampled_from(RULED),
    anything,
    st.sampled_from(("sentence", "word", "letter", "number", "corners", "boxed", "free")),
    st.booleans(),
    st.floats(0.1, 4),
    st.floats(0, 1),
)
def test_rewards_keep_their_bounds_and_form_never_outweighs_truth(
    kind: Kind, text: str, form: AnswerForm, finished: bool, accuracy: float, share: float
) -> None:
    config = RolloutsConfig(accuracy_reward=accuracy, format_reward=accuracy * share * 0.99)
    sample = Sample(
        sample_id="s", images=[], question="?", answer=GOLDS[kind][0], kind=kind, answer_form=form,
        choices=options_of(kind), split="online", source="test",
    )  # fmt: skip
    generated = Generated(text=text, token_ids=[1], logprobs=[-0.1], finish_reason="stop" if finished else "length")
    completion = reward(generated, sample, config)
    in_form = finished and follows_form(form, kind, text, options_of(kind))
    assert completion.accuracy_reward == (accuracy if completion.verdict == "correct" else 0)
    assert completion.format_reward == (config.format_reward if in_form else 0)
    assert completion.reward == completion.accuracy_reward + completion.format_reward
    assert 0 <= completion.reward <= accuracy + config.format_reward
    assert (completion.reward >= accuracy) == (completion.verdict == "correct")
