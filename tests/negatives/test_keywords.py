"""Keywords: words, graph, rank, vectors, and the tokens that they stand for."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mbpo_core.config import NegativesConfig, PolicyConfig
from mbpo_core.errors import DataError
from mbpo_core.models.policy import Policy, load_policy
from mbpo_core.negatives.bench import Bench
from mbpo_core.negatives.keywords import choose_keywords, edges, influence, rank, similarity
from mbpo_core.negatives.regions import Sought, seek
from mbpo_core.negatives.tasks import Task, open_task
from mbpo_core.negatives.vectors import WordVectors, embeddings, from_table
from mbpo_core.negatives.words import same_word, topics
from mbpo_core.records import Sample

CAPTION = "The image shows a green dog, two dogs' bowls and a green-grey berry; the dog's berries are 3."


def test_content_words_with_places_and_repetitions() -> None:
    found = {topic.text: topic for topic in topics(CAPTION)}
    assert list(found) == ["green", "dog", "bowls", "green-grey", "berry"]
    assert found["dog"].positions == (5, 7, 14)
    assert found["berry"].positions == (12, 15)
    assert [CAPTION[start:stop] for start, stop in found["dog"].spans] == ["dog", "dogs", "dog's"]
    assert [CAPTION[start:stop] for start, stop in found["berry"].spans] == ["berry", "berries"]
    for nothing in ("", "Yes", "B", "2", "No.", "It is on the", "a 3 % of it!"):
        assert topics(nothing) == []
    assert [topic.text for topic in topics("Étienne’s naïve CAT")] == ["étienne", "naïve", "cat"]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("dog", "dogs", True),
        ("boxes", "box", True),
        ("horses", "horse", True),
        ("tomatoes", "tomato", True),
        ("berries", "berry", True),
        ("grapes", "grapes", True),
        ("bus", "buses", True),
        ("cat", "car", False),
        ("glass", "glow", False),
        ("berry", "berg", False),
    ],
)
def test_same_word(one: str, other: str, same: bool) -> None:
    assert same_word(one, other) is same
    assert same_word(other, one) is same


def _slow(
    positions: Sequence[Sequence[int]], vectors: Sequence[Sequence[float]], settings: NegativesConfig
) -> list[float]:
    """The ranks by plain loops over plain numbers, as the recipe has them."""
    n = len(positions)

    def cosine(a: Sequence[float], b: Sequence[float]) -> float:
        sizes = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
        return sum(x * y for x, y in zip(a, b, strict=True)) / sizes if sizes else 0.0

    w = [[0.0] * n for _ in range(n)]
    for i, j in itertools.permutations(range(n), 2):
        theta = sum(1 / (1 + abs(p - q) ** settings.position_power) for p in positions[i] for q in positions[j])
        kappa = math.exp(-settings.position_decay * min(positions[j]))
        w[i][j] = kappa * (theta + settings.similarity_weight * max(0.0, cosine(vectors[i], vectors[j])))
    scores = [1.0] * n
    for _ in range(50):
        scores = [
            0.15 + 0.85 * sum(w[j][i] / sum(w[j]) * scores[j] for j in range(n) if sum(w[j]) > 0) for i in range(n)
        ]
    return scores


@pytest.mark.parametrize("phi", [0.0, 1.0, 2.5])
@pytest.mark.parametrize(("gamma", "decay"), [(1.0, 0.01), (0.0, 0.3), (3.0, 0.0)])
@pytest.mark.parametrize("positions", [[[0], [2], [3, 9], [5]], [[1], [2]], [[4]], [[0, 1, 2], [7], [8], [30], [31]]])
def test_rank_agrees_with_plain_loops(positions: list[list[int]], phi: float, gamma: float, decay: float) -> None:
    random = np.random.default_rng(len(positions))
    vectors = random.normal(size=(len(positions), 3))
    vectors[-1] = 0.0
    settings = NegativesConfig(position_power=phi, similarity_weight=gamma, position_decay=decay)
    weights = edges(
        influence(positions, phi),
        similarity(torch.from_numpy(vectors)),
        torch.tensor([float(places[0]) for places in positions], dtype=torch.float64),
        gamma=gamma,
        decay=decay,
    )
    expected = _slow(positions, vectors.tolist(), settings)
    assert rank(weights).tolist() == pytest.approx(expected, rel=1e-12)


def test_rank_is_the_fixed_point_and_its_mean_is_one() -> None:
    weights = torch.rand(6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64).fill_diagonal_(0.0)
    scores = rank(weights, iterations=400)
    shares = (weights / weights.sum(1, keepdim=True)).numpy()
    exact = np.linalg.solve(np.eye(6) - 0.85 * shares.T, np.full(6, 0.15))
    assert scores.tolist() == pytest.approx(exact.tolist(), rel=1e-12)
    assert float(scores.mean()) == pytest.approx(1.0)
    assert rank(weights).tolist() == pytest.approx(exact.tolist(), abs=1e-3), "50 iterations are enough"
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(rank(weights[order][:, order]), rank(weights)[order])


def test_unlike_words_are_unrelated_words() -> None:
    theta, first = influence([[0], [1], [2]], 1.0), torch.zeros(3, dtype=torch.float64)
    opposed = similarity(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]))
    assert float(opposed[0, 1]) == -1
    weights = edges(theta, opposed, first, gamma=100.0, decay=0.0)
    assert torch.equal(weights, edges(theta, torch.zeros(3, 3).double(), first, gamma=0.0, decay=0.0))
    assert (weights >= 0).all()
    assert rank(weights).min() >= 0.15
    assert similarity(torch.zeros(2, 4)).tolist() == [[0, 0], [0, 0]]


def _chosen(text: str, **settings: Any) -> list[str]:
    found = topics(text)
    vectors = settings.pop("vectors", torch.zeros(len(found), 2))
    return [keyword.text for keyword in choose_keywords(found, vectors, NegativesConfig(**settings))]


def test_the_best_words_are_chosen() -> None:
    text = "A red car, a big dog and another red boat near a dog."
    assert _chosen(text, keywords=2) == ["red", "dog"], "repeated words are better linked"
    assert _chosen(text, keywords=1) == ["red"]
    assert len(_chosen(text, keywords=100)) == 5
    assert _chosen("The banana is yellow.") == ["banana", "yellow"], "of equal ranks the earlier word"
    assert _chosen("") == []
    assert _chosen("A boat.") == ["boat"]
    # Without decay the middle of a list is nearest to all; with it the beginning counts more.
    assert _chosen("cat dog bird fish fox", keywords=1, position_decay=0.0) == ["bird"]
    assert _chosen("cat dog bird fish fox", keywords=1, position_decay=2.0) == ["cat"]


def test_alike_words_raise_one_another() -> None:
    alike = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [-1.0, 0.0]])
    text = "cat dog bird fish"
    assert set(_chosen(text, keywords=2, vectors=alike, similarity_weight=5.0)) == {"dog", "bird"}


def test_embeddings_are_means_over_a_words_tokens(demo_policy: Policy) -> None:
    weight = demo_policy.model.get_input_embeddings().weight
    found = embeddings(demo_policy, [[5], [7, 9, 9]])
    torch.testing.assert_close(found[0], weight[5])
    torch.testing.assert_close(found[1], (weight[7] + 2 * weight[9]) / 3)
    assert embeddings(demo_policy, []).shape == (0, weight.shape[1])


GLOVE = "the 1 0 0\ndog 0.5 -2 3e-1\nb%C3 4 5 6\nŽlutá 7 8 9\n"


@pytest.mark.parametrize("header", ["", "4 3\n"])
def test_word_vectors_of_both_forms(tmp_path: Path, header: str) -> None:
    path = tmp_path / "vectors.txt"
    path.write_text(header + GLOVE, encoding="utf-8")
    table = WordVectors(path)
    found = table.vectors(["dog", "zebra", "Žlutá"])
    assert table.width == 3
    torch.testing.assert_close(found, torch.tensor([[0.5, -2.0, 0.3], [0, 0, 0], [7, 8, 9]]))
    assert table.vectors([]).shape == (0, 3)
    torch.testing.assert_close(from_table(str(path), topics("A dog and a zebra")), found[:2])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no vector"),
        ("4 3\n", "no vector"),
        ("dog 1 2\ncat\n", "line 2 holds no vector"),
        ("cat 1 2\ndog 1 2 3\n", "'dog' has 3 numbers, the first one 2"),
        ("cat 1 2\ndog 1 x\n", "'dog' is not made of numbers"),
    ],
)
def test_bad_tables_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "vectors.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        WordVectors(path).vectors(["dog"])
    assert "negatives.word_vectors" in str(caught.value)


def test_an_absent_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"No such file.*Set negatives.word_vectors"):
        from_table(str(tmp_path / "none.txt"), topics("A dog"))


def _sought(policy: Policy, sample: Sample, answer: str, **settings: Any) -> Sought:
    task = open_task(policy, sample.model_copy(update={"answer": answer}), 48)
    assert isinstance(task, Task)
    return seek(Bench(policy, NegativesConfig(**settings), 0), task)


@pytest.mark.parametrize("answer", ["The banana is yellow.", "  Yes, the zebra's stripes are Yellow, zebras!\n", "Yes"])
def test_keywords_stand_for_their_tokens(family_folder: Path, offline_samples: list[Sample], answer: str) -> None:
    policy = load_policy(family_folder, PolicyConfig(device="cpu"))
    sought = _sought(policy, offline_samples[0], answer)
    assert len(policy.completion_spans(answer)) == len(sought.task.chosen)
    texts = {keyword.text: tokens for keyword, tokens in zip(sought.keywords, sought.tokens, strict=True)}
    for word, tokens in texts.items():
        said = policy.tokenizer.decode([sought.task.chosen[place] for place in tokens]).lower()
        assert word in said
        assert sum(said.count(other) for other in texts if other != word) == 0
        assert len(said.replace(" ", "")) <= (len("zebra'szebras") if word == "zebra" else len(word) + 1)
    if answer == "Yes":
        assert not texts
    elif "zebra" in answer:
        assert set(texts) == {"zebra", "stripes", "yellow"}


def test_the_table_takes_the_place_of_the_embeddings(
    demo_policy: Policy, offline_samples: list[Sample], tmp_path: Path
) -> None:
    answer = "The image shows a cat, a dog, a car and a boot."
    path = tmp_path / "vectors.txt"
    path.write_text("car 1 0\nboot 1 0\ncat 0 1\n")
    alike: dict[str, Any] = {"keywords": 2, "similarity_weight": 50.0, "position_decay": 0.0}
    with_table = _sought(demo_policy, offline_samples[0], answer, word_vectors=str(path), **alike)
    assert {keyword.text for keyword in with_table.keywords} == {"car", "boot"}
    own = _sought(demo_policy, offline_samples[0], answer, **alike)
    vectors: Tensor = embeddings(
        demo_policy, [[demo_policy.tokenizer(f" {word}")["input_ids"][-1]] for word in ("cat", "dog", "car", "boot")]
    )
    expected = choose_keywords(topics(answer), vectors, NegativesConfig(**alike))
    assert [keyword.text for keyword in own.keywords] == [keyword.text for keyword in expected]
