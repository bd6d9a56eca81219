"""What the image adds, over closed questions; and how much likelier it makes answers.

    blind_gap = accuracy - accuracy without the image        blind_gap_normalised = (accuracy - blind) / (1 - blind)
    shuffle_gap = accuracy - accuracy with another question's image
    noise_unchanged = answers that stay word for word under noise / answers
    wrong_like_blind = wrong answers that equal the blind one / wrong answers
    wrong_says_prior = wrong answers that the language prior gives / wrong answers
    gain = mean over answers of their Image Information Gain (nats per token)

The normalised gap is the share of what the text cannot give that the image gave. Shuffle gap, noise and gains are of
the questions that `evaluation.balance` chose.

Source: recipe 5.7; noise insensitivity MFPO arXiv:2410.15334; gain MBPO arXiv:2506.08022.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from mbpo_core.evaluation.counting import Count, Metric, Sums, flag
from mbpo_core.evaluation.outcomes import Outcome
from mbpo_core.evaluation.vocabulary import split_words

_GROUP = "With and without the image"
Curve = list[dict[str, float]]


def seeing_metrics() -> Iterator[Metric]:
    """All of them; which exist depends on what was asked."""
    yield Metric("blind_gap", "Accuracy gained by seeing the image", _GROUP, _with_blind(_gap), rate=False)
    yield Metric(
        "blind_gap_normalised", "Share gained of what text cannot give", _GROUP, _with_blind(_normalised), rate=False
    )
    yield Metric(
        "blind_accuracy", "Accuracy without the image", _GROUP, _with_blind(lambda o: flag(_right_blind(o))), better=""
    )
    yield Metric(
        "wrong_like_blind", "Wrong answers that equal the blind one", _GROUP, _with_blind(_like_blind), better="lower"
    )
    yield Metric("wrong_says_prior", "Wrong answers that the prior gives", _GROUP, _wrong_says_prior, better="lower")
    yield Metric("shuffle_gap", "Accuracy lost with another image", _GROUP, _with_shuffled(_shuffle_gap), rate=False)
    yield Metric(
        "shuffle_accuracy",
        "Accuracy with another image",
        _GROUP,
        _with_shuffled(lambda o: flag(o.shuffled_verdict == "correct")),
        better="",
    )
    yield from _noise()
    gold = _gain(lambda outcome: outcome.gains_gold)
    answer = _gain(lambda outcome: outcome.gains_answer)
    yield Metric("gain_gold", "Gain of the reference answer, nats a token", _GROUP, gold, rate=False, unit="nats")
    yield Metric(
        "gain_answer", "Gain of its own answer, nats a token", _GROUP, answer, better="", rate=False, unit="nats"
    )


def gain_curves(rows: Iterable[Mapping[str, Any]], *, positions: int = 48) -> dict[str, dict[str, Curve]]:
    """Mean gain of a token against its position, over the answers that are so long.

    Args:
        rows: Prediction rows.
        positions: how many positions are shown.

    Returns:
        {policy: {"gold": [{position, gain, n}, ...], "answer": [...]}}; gain in nats, positions from 0.
    """
    sums: dict[str, dict[str, list[list[float]]]] = {}
    for row in rows:
        for name in ("gold", "answer"):
            places = sums.setdefault(row["policy"], {}).setdefault(name, [])
            for position, gain in enumerate(row[f"token_gains_{name}"][:positions]):
                if position == len(places):
                    places.append([0.0, 0.0])
                places[position][0] += gain
                places[position][1] += 1
    return {
        policy: {
            name: [{"position": at, "gain": total / n, "n": n} for at, (total, n) in enumerate(places)]
            for name, places in named.items()
        }
        for policy, named in sums.items()
    }


def _noise() -> Iterator[Metric]:
    """Noise insensitivity, over all and split by whether the answer to the clean image was right."""
    labels = {
        "": "Answers unchanged by noise",
        "_right": "Right answers unchanged",
        "_wrong": "Wrong answers unchanged",
    }

    def counting(part: str) -> Count:
        def count(outcome: Outcome) -> Sums | None:
            if outcome.noised_text is None:
                return None
            inside = part == "" or outcome.correct == (part == "_right")
            same = split_words(outcome.text) == split_words(outcome.noised_text)
            return float(inside and same), float(inside)

        return count

    for part, label in labels.items():
        yield Metric(
            f"noise_unchanged{part}", label, _GROUP, counting(part), better="" if part == "_right" else "lower"
        )


def _gain(gains: Callable[[Outcome], Sequence[float]]) -> Count:
    def count(outcome: Outcome) -> Sums | None:
        found = gains(outcome)
        return (sum(found) / len(found), 1.0) if found else None

    return count


def _right_blind(outcome: Outcome) -> bool:
    return outcome.blind_verdict == "correct"


def _gap(outcome: Outcome) -> Sums:
    return float(outcome.correct) - _right_blind(outcome), 1.0


def _normalised(outcome: Outcome) -> Sums:
    return float(outcome.correct) - _right_blind(outcome), 1.0 - _right_blind(outcome)


def _like_blind(outcome: Outcome) -> Sums:
    same = split_words(outcome.text) == split_words(outcome.blind_text or "")
    return float(not outcome.correct and same), float(not outcome.correct)


def _wrong_says_prior(outcome: Outcome) -> Sums | None:
    """Right answers that the prior gives too are no errors of it."""
    says = outcome.meta.get("says_prior")
    return None if says is None else (float(not outcome.correct and says), float(not outcome.correct))


def _shuffle_gap(outcome: Outcome) -> Sums:
    return float(outcome.correct) - (outcome.shuffled_verdict == "correct"), 1.0


def _with_blind(count: Count) -> Count:
    return lambda outcome: count(outcome) if outcome.closed and outcome.blind_verdict is not None else None


def _with_shuffled(count: Count) -> Count:
    return lambda outcome: count(outcome) if outcome.shuffled_verdict is not None else None
