"""The worst of the policy's own answers, by each scorer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig
from transformers.models.clip import CLIPImageProcessorPil

from mbpo_core.demo.tiny_llava import build_tokenizer
from mbpo_core.errors import ConfigError, ModelError
from mbpo_core.generation.generate import Generated
from mbpo_core.models.groups import PromptGroup
from mbpo_core.models.images import open_image
from mbpo_core.models.policy import Policy
from mbpo_core.models.scoring import group_logprobs
from mbpo_core.negatives import ranked as module
from mbpo_core.negatives.bench import Bench
from mbpo_core.negatives.claims import FRAGMENT, SENTENCE, check_question, score_claims, split
from mbpo_core.negatives.clip_scorer import open_clip
from mbpo_core.negatives.items import Made, Unmade
from mbpo_core.negatives.ranked import SCORERS, ranked, sample_answers, score_gain
from mbpo_core.negatives.responses import reason_against_text
from mbpo_core.records import Sample
from tests.negatives.benches import bench_of, known_of, mine

HOT: dict[str, Any] = {"method": "ranked", "candidates": 6, "temperature": 2.0, "top_p": 1.0, "min_score_gap": 0.0}


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP of 20,000 random weights that reads eight tokens."""
    tokenizer = build_tokenizer(["The image shows a red banana.", "What color is the cat?", "yes no green blue"])
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = CLIPTextConfig(
        **tower, vocab_size=len(tokenizer), max_position_embeddings=8, eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    vision = CLIPVisionConfig(**tower, image_size=24, patch_size=8)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=8))
    folder = tmp_path_factory.mktemp("clip")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24}).save_pretrained(folder)
    return folder


def saying(*texts: str) -> list[Generated]:
    return [Generated([1], [0.0], "stop", text) for text in texts]


@pytest.mark.parametrize(
    ("text", "claims"),
    [
        ("The cat is red.", ["The cat is red"]),
        ("The cat is red. It sits on a mat!", ["The cat is red", "It sits on a mat"]),
        ("The cat is red and the dog is blue.", ["The cat is red", "the dog is blue"]),
        ("The cat is red, but there are 3.5 dogs.", ["The cat is red", "there are 3.5 dogs"]),
        ("A cat and a dog.", ["A cat and a dog"]),
        ("The image shows a cat, a dog and a whale.", ["The image shows a cat, a dog and a whale"]),
        ("The cat and the dog are red and the cup is small", ["The cat and the dog are red", "the cup is small"]),
        ("red", ["red"]),
        ("", []),
    ],
)
def test_answers_are_taken_apart(text: str, claims: list[str]) -> None:
    assert split(text) == claims


@pytest.mark.parametrize(
    ("claim", "expected"),
    [
        ("The cat is red", SENTENCE.format(claim="the cat is red")),
        ("No, the cat is red", SENTENCE.format(claim="the cat is red")),
        ("Nobody is there", SENTENCE.format(claim="nobody is there")),
        ("red", FRAGMENT.format(question="What color?", claim="red")),
        ("Yes", FRAGMENT.format(question="What color?", claim="Yes")),
    ],
)
def test_a_claim_becomes_a_question(claim: str, expected: str) -> None:
    assert check_question(claim, "What color?") == expected


def test_claims_are_counted_that_the_policy_denies(demo_policy: Policy, offline_samples: list[Sample]) -> None:
    """Against one prompt at a time, by hand."""
    bench = bench_of(demo_policy, offline_samples, **HOT)
    several = known_of(bench, offline_samples[:5])
    answers = [
        saying(
            "The banana is red. There is a dog.",
            "There is a dog and there is a cat and there is a whale.",
            "red",
            "",
        )
        for _ in several
    ]
    yes, no = (demo_policy.encode_completion(word)[:1] for word in ("Yes", "No"))
    denied_all = 0
    for known, texts, scores in zip(several, answers, score_claims(bench, several, answers), strict=True):
        picture = open_image(known.task.sample.images[0])
        for answer, score in zip(texts, scores if isinstance(scores, list) else [], strict=True):
            denied = 0
            for claim in split(answer.text):
                prompt = demo_policy.prepare(check_question(claim, known.task.sample.question), [picture])
                ((p_yes, p_no),) = group_logprobs(demo_policy, [PromptGroup(prompt, [yes, no])])
                denied += bool(p_no >= p_yes)
            assert score == -denied
            denied_all += denied
    assert 5 < denied_all < 25, "some are denied and some are not"


def test_gain_is_that_of_the_pairs(demo_policy: Policy, offline_samples: list[Sample]) -> None:
    bench = bench_of(demo_policy, offline_samples, batch_size=2, **HOT)
    several = known_of(bench, offline_samples[:4])
    answers = sample_answers(bench, several)
    for known, texts, scores in zip(several, answers, score_gain(bench, several, answers), strict=True):
        for answer, score in zip(texts, scores if isinstance(scores, list) else [], strict=True):
            group = [PromptGroup(known.task.prompt, [answer.token_ids])]
            ((seen,),), ((blind,),) = (group_logprobs(demo_policy, group, blind=how) for how in (None, "mask"))
            assert score == pytest.approx(float(seen.mean() - blind.mean()), abs=1e-4)


def test_clip_gives_cosines(clip_folder: Path, demo_policy: Policy, offline_samples: list[Sample]) -> None:
    """Against the model itself, one text and one picture at a time; a long text counts by its beginning."""
    clip = open_clip(str(clip_folder), torch.device("cpu"))
    model = CLIPModel.from_pretrained(clip_folder).eval().requires_grad_(False)
    tokenizer = build_tokenizer(["The image shows a red banana.", "What color is the cat?", "yes no green blue"])
    pictures = [open_image(sample.images[0]) for sample in offline_samples[:2]]
    texts = ["a red banana", "green", "The image shows " * 9]
    found = clip.similarities(pictures, texts)
    processor = CLIPImageProcessorPil.from_pretrained(clip_folder)
    for text, score in zip(texts, found, strict=True):
        ids = torch.tensor([tokenizer(text)["input_ids"][:8]])
        said = model.get_text_features(input_ids=ids).pooler_output[0].double()
        cosines = []
        for picture in pictures:
            pixels = processor([picture], return_tensors="pt")["pixel_values"]
            shown = model.get_image_features(pixel_values=pixels).pooler_output[0].double()
            cosines.append(float(said @ shown / (said.norm() * shown.norm())))
        assert score == pytest.approx(np.mean(cosines), abs=1e-5)
    assert len({round(score, 4) for score in found}) == 3
    assert clip.similarities(pictures[:1], texts) != pytest.approx(found)


@pytest.mark.parametrize("scorer", sorted(SCORERS))
def test_the_worst_answer_that_can_serve_is_rejected(
    demo_policy: Policy, offline_samples: list[Sample], clip_folder: Path, scorer: str
) -> None:
    settings = {**HOT, "scorer": scorer, "clip_model": str(clip_folder)}
    bench = bench_of(demo_policy, offline_samples, **settings)
    rows, dropped = mine(bench, offline_samples)
    assert len(rows) + len(dropped) == len(offline_samples)
    assert len(rows) >= 12
    tasks = {known.task.sample.sample_id: known.task for known in known_of(bench, offline_samples)}
    for row in rows:
        how = json.loads(row.attack)
        assert len(how["texts"]) == len(set(how["texts"])) == len(how["scores"]) <= 6
        assert how["texts"][how["index"]] == row.rejected
        assert row.rejected != row.chosen
        for text, score in zip(how["texts"], how["scores"], strict=True):
            # What is worse still must be what a filter refuses.
            worse = score < how["scores"][how["index"]]
            assert not worse or reason_against_text(bench, tasks[row.sample_id], text) is not None
        assert (row.rejected_images, row.attacked_answer) == ([], row.clean_answer)
    again, _ = mine(bench_of(demo_policy, offline_samples, batch_size=3, **settings), offline_samples, 7)
    assert [row.rejected for row in again] == [row.rejected for row in rows]


def test_worst_and_best_must_lie_apart(
    demo_policy: Policy, offline_samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores by hand: 0, 1, 2, ... in the order drawn."""

    def count(bench: Bench, several: Any, answers: Any) -> list[list[float]]:
        return [[float(place) for place in range(len(texts))] for texts in answers]

    monkeypatch.setitem(SCORERS, "claims", count)
    for gap in (0.0, 2.0, 100.0):
        bench = bench_of(demo_policy, offline_samples, **{**HOT, "min_score_gap": gap})
        several = known_of(bench, offline_samples)
        answers = sample_answers(bench, several)
        for texts, made in zip(answers, ranked(bench, several), strict=True):
            if isinstance(made, Made):
                assert len(texts) - 1 - made.how["index"] >= gap
                assert made.how["scores"] == list(range(len(texts)))
            else:
                assert made.reason in ("no_rejected", "same_answer", "length")
                assert made.reason != "no_rejected" or f"not by {gap:g}" in made.detail
        kept = sum(isinstance(made, Made) for made in ranked(bench, several))
        assert (kept >= 12) == (gap < 100)
        assert (kept == 0) == (gap == 100)


def test_samples_are_drawn_by_seed(demo_policy: Policy, offline_samples: list[Sample]) -> None:
    bench = bench_of(demo_policy, offline_samples, **HOT)
    several = known_of(bench, offline_samples[:4])
    alone = [sample_answers(bench, [known])[0] for known in several]
    assert [[one.text for one in texts] for texts in sample_answers(bench, several)] == [
        [one.text for one in texts] for texts in alone
    ]
    assert all(len(texts) >= 2 for texts in alone)


def test_a_clip_folder_is_checked_before_anything_is_sampled(
    demo_policy: Policy, offline_samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "generate", None)
    bench = bench_of(demo_policy, offline_samples, **{**HOT, "scorer": "clip", "clip_model": str(tmp_path / "gone")})
    several = known_of(bench, offline_samples[:1])
    with pytest.raises(ConfigError, match=r"gone' is no model folder \(negatives.clip_model\).*CLIP.*claims or gain"):
        ranked(bench, several)
    (tmp_path / "config.json").write_text('{"model_type": "siglip"}')
    bench = bench_of(demo_policy, offline_samples, **{**HOT, "scorer": "clip", "clip_model": str(tmp_path)})
    with pytest.raises(ModelError, match=r"model_type is 'siglip'.*expected clip"):
        ranked(bench, several)


def test_a_claim_too_long_to_check(demo_policy: Policy, offline_samples: list[Sample]) -> None:
    bench = bench_of(demo_policy, offline_samples, **HOT)
    several = known_of(bench, offline_samples[:2])
    answers = [saying("The cat is red."), saying("The cat is " + "red " * 250)]
    fine, too_long = score_claims(bench, several, answers)
    assert isinstance(fine, list)
    assert isinstance(too_long, Unmade)
    assert too_long.reason == "prompt_too_long"
