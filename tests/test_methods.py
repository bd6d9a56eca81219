"""The tables of methods, objectives and negatives agree with the settings, with the code, and with one another."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, get_args

import pytest
import torch

from mbpo_core.config import (
    DEFAULT_METHOD,
    ImagesConfig,
    Method,
    NegativesConfig,
    PipelineConfig,
    RolloutsConfig,
    Section,
    TrainingConfig,
    build_config,
)
from mbpo_core.errors import ConfigError
from mbpo_core.methods import METHODS, NEGATIVES, OBJECTIVES, objective_passes
from mbpo_core.negatives.generators import GENERATORS
from mbpo_core.objectives.passes import PairScores
from mbpo_core.objectives.table import PAIR_LOSSES

SECTIONS = {name: field.annotation for name, field in PipelineConfig.model_fields.items()}


def literal(section: type[Section], field: str) -> set[str]:
    return set(get_args(section.model_fields[field].annotation))


def fresh(method: str, **said: Any) -> PipelineConfig:
    """A config that says the method, what the method asks for, and no more."""
    return build_config(merged({"method": method, **deepcopy(dict(METHODS[method].given))}, said), [], where="test")


def merged(data: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(data)
    for name, value in more.items():
        result[name] = merged(result.get(name, {}), value) if isinstance(value, Mapping) else value
    return result


# The tables, the settings and the code have the same names.


def test_the_settings_offer_what_the_tables_have() -> None:
    assert list(get_args(Method)) == list(METHODS)
    assert literal(NegativesConfig, "method") == NEGATIVES.keys()
    assert literal(ImagesConfig, "method") <= NEGATIVES.keys()
    assert literal(TrainingConfig, "objective") == {*OBJECTIVES, "none"}


def test_images_are_made_by_the_generators_that_make_images() -> None:
    made_of_text = {"given", "own", "dropped_image", "corrupted", "ranked", "segment"}
    no_wrong_picture = {"collage"}
    assert literal(ImagesConfig, "method") == NEGATIVES.keys() - made_of_text - no_wrong_picture


def test_every_name_has_code() -> None:
    assert GENERATORS.keys() == NEGATIVES.keys()
    assert {*PAIR_LOSSES, "grpo", "sft"} == OBJECTIVES.keys()


@pytest.mark.parametrize("name", METHODS)
def test_every_setting_of_a_method_is_a_field(name: str) -> None:
    for settings in (METHODS[name].settings, METHODS[name].given):
        for section, fields in settings.items():
            assert section in PipelineConfig.model_fields
            model = SECTIONS[section]
            if isinstance(fields, Mapping):
                assert isinstance(model, type)
                assert issubclass(model, Section)
                assert fields.keys() <= model.model_fields.keys()


def test_every_setting_of_a_part_is_a_field_that_belongs_to_its_section() -> None:
    for entry in NEGATIVES.values():
        assert set(entry.settings) <= NegativesConfig.model_fields.keys()
    for objective in OBJECTIVES.values():
        assert set(objective.settings) <= TrainingConfig.model_fields.keys()


@pytest.mark.parametrize("entry", [*METHODS.values(), *OBJECTIVES.values(), *NEGATIVES.values()], ids=lambda e: e.line)
def test_an_entry_says_what_it_is(entry: Any) -> None:
    assert entry.line
    assert entry.source
    assert entry.cost
    assert len(entry.line) <= 140
    assert not entry.line.endswith(".")


# What a method makes of a config.


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_a_valid_config_with_its_settings(name: str) -> None:
    config = fresh(name).model_dump(mode="json")
    plain = PipelineConfig(method="mbpo").model_dump(mode="json")
    assert config == merged(merged(plain, METHODS[name].settings), {"method": name, **METHODS[name].given})


@pytest.mark.parametrize("name", [name for name in METHODS if METHODS[name].given])
def test_what_a_method_asks_for_has_to_be_said(name: str) -> None:
    ((section, fields),) = METHODS[name].given.items()
    with pytest.raises(ConfigError, match=f"{section}.* needs {next(iter(fields))}, a local"):
        build_config({"method": name}, [], where="test")
    assert "the folder of a" in METHODS[name].needs


@pytest.mark.parametrize("name", METHODS)
def test_what_a_method_needs_and_costs_is_that_of_its_parts(name: str) -> None:
    entry, config = METHODS[name], fresh(name)
    needs = set(filter(None, entry.needs.split("; ")))
    expected = {"closed-ended questions"} if config.training.use_online else set()
    expected |= {NEGATIVES[config.negatives.method].needs} if config.wants_pairs else set()
    expected |= {NEGATIVES[config.images.method].needs} if config.makes_images else set()
    assert expected - {""} <= needs
    assert len(needs - expected) == len(entry.given)
    passes = config.training.pair_passes
    count = len(passes.passes) + len(passes.fixed) if passes else 0
    assert (f"{count} pass" in entry.cost) == (passes is not None)
    assert ("G answers" in entry.cost) == config.training.use_online


def test_what_a_config_says_itself_comes_before_the_method() -> None:
    config = build_config({"method": "mfpo", "training": {"use_online": True}}, [], where="test")
    assert (config.training.objective, config.training.use_online) == ("mfpo", True)
    config = build_config({"method": "dapo"}, ["training.clip_high=0.2"], where="test")
    assert (config.training.objective, config.training.clip_high, config.training.beta) == ("none", 0.2, 0.0)
    config = build_config({"method": "mbpo_remined", "remine": False}, [], where="test")
    assert not config.remine


@pytest.mark.parametrize("name", METHODS)
def test_a_full_dump_is_read_back_as_it_was(name: str) -> None:
    config = fresh(name)
    assert build_config(config.model_dump(mode="json"), [], where="test") == config
    assert build_config(config.model_dump(mode="json"), [f"method={name}"], where="test") == config


def test_an_unknown_method_is_refused_by_name() -> None:
    for method in ("mbop", ["mbpo"], None, 3):
        with pytest.raises(ConfigError, match="method: Input should be 'mbpo', 'mbpo_offline'"):
            build_config({"method": method}, [], where="test")
    with pytest.raises(ConfigError, match=r"method: Input should be .*got 'mbop'"):
        build_config({}, ["method=mbop"], where="test")
    assert build_config({"method": "mbop"}, ["method=dpo"], where="test").training.objective == "dpo"


# Changing the method of a recorded config.

SAID: dict[str, Any] = {
    "run": "mine",
    "rounds": 5,
    "training": {"learning_rate": 5e-4, "epochs": 2},
    "rollouts": {"group_size": 6},
    "negatives": {"steps": 3},
    "images": {"region_share": 0.3},
}
"""Of no method's own."""


@pytest.mark.parametrize("before", METHODS)
def test_another_method_by_override_is_that_method_fresh(before: str) -> None:
    recorded = fresh(before, **SAID).model_dump(mode="json")
    kept = merged(SAID, METHODS[before].given)  # a folder is the config's own
    for after, entry in METHODS.items():
        given = [f"{s}.{field}={v}" for s, fields in entry.given.items() for field, v in fields.items()]
        assert build_config(recorded, [f"method={after}", *given], where="test") == fresh(after, **kept)


def test_a_value_changed_on_purpose_stays_even_where_it_is_a_plain_default() -> None:
    """mfpo has no online groups and neither has dpo; a config that asked for them still does."""
    recorded = fresh("mfpo", training={"use_online": True}).model_dump(mode="json")
    changed = build_config(recorded, ["method=dpo"], where="test")
    assert changed == fresh("dpo", training={"use_online": True})
    recorded = fresh("mbpo", training={"beta": 0.1, "clip_high": 0.5}).model_dump(mode="json")
    changed = build_config(recorded, ["method=dapo"], where="test")
    assert (changed.training.beta, changed.training.clip_high, changed.training.normalization) == (0.1, 0.5, "token")


def test_an_override_beside_the_method_comes_before_it() -> None:
    recorded = fresh("mbpo").model_dump(mode="json")
    for order in (1, -1):
        changed = build_config(recorded, ["method=dpo", "training.use_online=true"][::order], where="test")
        assert changed == fresh("dpo", training={"use_online": True})
    assert recorded == fresh("mbpo").model_dump(mode="json")  # what was handed in is left alone


def test_a_file_that_says_no_method_changes_it_too() -> None:
    changed = build_config({"training": {"learning_rate": 0.1}}, ["method=mfpo"], where="test")
    assert changed == fresh("mfpo", training={"learning_rate": 0.1})
    pasted = {"method": "mfpo", **deepcopy(dict(METHODS["mfpo"].settings))}
    assert build_config(pasted, ["method=sft"], where="test") == fresh("sft")


# What decides an artifact.


def test_settings_of_other_generators_decide_nothing() -> None:
    base = NegativesConfig(method="crop")
    others = NegativesConfig(method="crop", epsilon=0.5, steps=99, keywords=7, layout="grid")
    assert base.identity() == others.identity()
    assert base.identity() != NegativesConfig(method="crop", crop_max=0.5).identity()
    assert base.identity() != NegativesConfig(method="crop", temperature=0.5).identity()
    for name, entry in NEGATIVES.items():
        identity = NegativesConfig(method=name).identity().keys()  # type: ignore[arg-type]
        assert set(entry.settings) <= identity
        assert not {s for other in NEGATIVES.values() for s in other.settings} - set(entry.settings) & identity
    assert ImagesConfig(method="crop").identity() == NegativesConfig(method="crop", responses="none").identity()


def test_settings_of_other_objectives_decide_nothing() -> None:
    base = TrainingConfig(objective="mfpo")
    others = TrainingConfig(
        objective="mfpo", segment_weight=9, guidance=0.1, reward_chosen=9, image_cap=3, blind="drop"
    )
    assert base.identity() == others.identity()
    assert base.identity() != TrainingConfig(objective="mfpo", text_weight=0.3).identity()
    assert base.identity() != TrainingConfig(objective="mfpo", add_image=1.0).identity()
    capped = [TrainingConfig(objective="dpo", add_image=1.0, image_cap=cap).identity() for cap in (0.0, 3.0)]
    assert capped[0] != capped[1]
    margins = [TrainingConfig(objective="dpo", add_anchor=1.0, margin=margin).identity() for margin in (0.0, 3.0)]
    assert margins[0] != margins[1]
    for name, entry in OBJECTIVES.items():
        folder = "/models/second" if name == "mrpo" else ""
        identity = TrainingConfig(objective=name, second_reference=folder).identity()  # type: ignore[arg-type]
        # A folder is told by its digest, not by its name.
        assert set(entry.settings) - {"second_reference"} <= identity.keys()


def test_settings_of_mopps_decide_nothing_where_prompts_are_shuffled() -> None:
    assert RolloutsConfig().identity() == RolloutsConfig(mopps_pool=3, mopps_decay=1.0).identity()
    identities = [RolloutsConfig(select="mopps", mopps_pool=pool).identity() for pool in (3, 8)]
    assert identities[0] != identities[1]


class Watched:
    """Settings that note which of them are read."""

    def __init__(self, config: TrainingConfig) -> None:
        self._config, self.read = config, set[str]()

    def __getattr__(self, name: str) -> Any:
        self.read.add(name)
        return getattr(self._config, name)


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_a_loss_reads_no_settings_but_its_own_and_looks_at_no_pass_but_its_own(name: str) -> None:
    folder = "/models/second" if name == "mrpo" else ""
    watched = Watched(TrainingConfig(objective=name, second_reference=folder))  # type: ignore[arg-type]
    entry = OBJECTIVES[name]
    values = {one: -torch.rand(2, 3) for one in {*entry.passes, *entry.fixed}}
    fixed = {one: -torch.rand(2, 3) for one in entry.scored}
    sides = {one.side for one in (*values, *fixed)}
    scores = PairScores(
        policy=values,
        reference=fixed,
        masks={side: torch.ones(2, 3, dtype=torch.bool) for side in sides},
        second=fixed,
        weights={side: torch.ones(2, 3) for side in sides},
        divergences=values,
    )
    loss = PAIR_LOSSES[name](scores, watched)  # type: ignore[arg-type]
    assert loss.shape == (2,)
    assert watched.read <= {"dpo_beta", *entry.settings}


def test_an_added_image_term_looks_at_the_rejected_image() -> None:
    plain, added = objective_passes("dpo", image_term=False), objective_passes("dpo", image_term=True)
    assert plain
    assert added
    assert "rejected image" not in plain.needs
    assert "rejected image" in added.needs
    assert set(added.passes) - set(plain.passes) == {("rejected", "chosen")}
    assert objective_passes("none", image_term=True) is None


@pytest.mark.parametrize("module", ["mbpo_core.methods", "mbpo_core.config"])
def test_no_torch_is_imported(module: str) -> None:
    script = f"import sys, {module}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


def test_sections_given_as_objects_keep_the_methods_settings() -> None:
    config = PipelineConfig(method="mdpo", training=TrainingConfig(learning_rate=0.5))
    assert (config.training.objective, config.training.learning_rate) == ("mdpo", 0.5)
    assert config.images.method == "crop"


def test_a_loss_without_what_it_looks_at_is_refused_before_anything_runs() -> None:
    with pytest.raises(ConfigError, match="corrupted, which makes none; switch mined_images off"):
        build_config({"method": "mdpo", "mined_images": True, "negatives": {"method": "corrupted"}}, [], where="here")
    with pytest.raises(ConfigError, match=r"negatives\.responses is none"):
        build_config({"method": "dpo", "negatives": {"method": "blank", "responses": "none"}}, [], where="here")
    build_config({"method": "mdpo", "negatives": {"method": "corrupted"}}, [], where="here")  # images are made apart
    build_config({"method": "image"}, [], where="here")


def test_a_method_is_no_baseline_of_its_own() -> None:
    config = build_config({"method": "dpo", "baselines": ["sft", "dpo"]}, [], where="here")
    assert config.baselines == ["sft"]
    assert fresh("mbpo", baselines=["sft", "dpo"]).baselines == ["sft", "dpo"]


def test_a_config_that_names_no_method_gets_the_default_one() -> None:
    assert build_config({}, [], where="here") == fresh(DEFAULT_METHOD)
    assert build_config({"method": "mbpo"}, [], where="here").negatives.method == "adversarial"


def test_a_baseline_that_needs_rejected_responses_is_refused_where_none_are_made() -> None:
    with pytest.raises(ConfigError, match="baseline dpo looks at rejected responses"):
        build_config({"method": "recoloured", "baselines": ["sft", "dpo"]}, [], where="here")
    assert build_config({"method": "recoloured", "baselines": ["sft"]}, [], where="here").baselines == ["sft"]
