"""What a filled-in form means: touched fields are laid over what is there, and only names lead to files."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.forms import Fields, StageForm, pipeline_changes, shown_pipeline, touched_fields
from flows.opening import choose, open_run
from flows.paths import named_config
from mbpo_core.config import NegativesConfig, PairsConfig, PipelineConfig, build_config
from mbpo_core.errors import ConfigError


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MBPO_STORE", str(tmp_path / "runs"))
    monkeypatch.delenv("MBPO_CONFIGS", raising=False)
    return tmp_path / "runs"


def _as_the_page_posts(**touched: object) -> PipelineConfig:
    """Every field, whether it was touched or not: Prefect's page fills in each default when it shows the field."""
    shown = shown_pipeline().model_dump(mode="json")
    for name, value in touched.items():
        shown[name] = shown[name] | value if isinstance(value, dict) else value
    return PipelineConfig.model_validate(shown)


def test_only_touched_fields_count() -> None:
    assert touched_fields(PairsConfig(), PairsConfig()) == {}
    assert touched_fields(PairsConfig(share=0.25), PairsConfig()) == {"share": 0.25}
    form = StageForm("pairs", "demo", settings=PairsConfig(share=0.25), changes=["pairs.share=0.75", "seed=3"])
    assert form.all_changes() == ["pairs.share=0.25", "pairs.share=0.75", "seed=3"]


def test_settings_of_the_images_go_to_their_own_section() -> None:
    form = StageForm("negatives", "demo", settings=NegativesConfig(method="crop"), images=True)
    assert form.all_changes() == ['images.method="crop"']


@pytest.mark.parametrize("value", [1e-05, 0.1, 123456789.0])
def test_numbers_survive_the_way_through_a_change(value: float) -> None:
    changes = pipeline_changes(PipelineConfig.model_validate({"training": {"learning_rate": value / 1e9}}))
    assert build_config({}, changes, where="test").training.learning_rate == value / 1e9


@pytest.mark.parametrize("text", ['a "quoted" | `title`', "a: b # c", "no\nyes", "ünïcode 猫", "null", ""])
def test_text_survives_the_way_through_a_change(text: str) -> None:
    changes = pipeline_changes(PipelineConfig.model_validate({"report": {"title": text}}))
    assert build_config({}, changes, where="test").report.title == text


def test_a_base_config_keeps_what_the_form_leaves_as_shown() -> None:
    run = open_run(_as_the_page_posts(run="mine", pairs={"share": 0.25}), "smoke")
    expected = build_config(
        {**_smoke(), "run": "mine"} | {"pairs": {**_smoke()["pairs"], "share": 0.25}}, [], where="test"
    )
    assert run.config == expected


def _smoke() -> dict[str, dict[str, object]]:
    import yaml

    loaded: dict[str, dict[str, object]] = yaml.safe_load(named_config("smoke").read_text(encoding="utf-8"))
    return loaded


def test_a_method_chosen_in_a_form_brings_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page posts the defaults of every other field with it; they must not hide what the method gives."""
    monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__ID", "a-deployment")
    run = open_run(_as_the_page_posts(method="dpo"))
    assert run.config == PipelineConfig(method="dpo")
    touched = open_run(_as_the_page_posts(method="dpo", training={"dpo_beta": 0.3}))
    assert touched.config.training == PipelineConfig(method="dpo").training.model_copy(update={"dpo_beta": 0.3})


@pytest.mark.parametrize("fields", ["changed", "all"])
def test_a_request_that_names_no_method_leaves_that_of_the_base(fields: Fields) -> None:
    """Not even the settings of the default method, which checking the request fills in."""
    posted = PipelineConfig.model_validate({"run": "mine", "rounds": 3, "training": {"beta": 0.25}})
    assert posted.negatives.method != "adversarial"
    run = open_run(posted, "smoke", fields)
    smoke = build_config(_smoke(), [], where="test")
    training = smoke.training.model_copy(update={"beta": 0.25})
    assert run.config == smoke.model_copy(update={"run": "mine", "rounds": 3, "training": training})
    assert run.config.method == "mbpo"


def test_a_config_that_is_no_form_is_taken_as_it_is() -> None:
    config = PipelineConfig.model_validate({"method": "dpo", "training": {"use_online": True}})
    assert config.training.use_online, "what a config says beats its method, even where it says a default"
    assert open_run(config).config == config


def test_base_names_a_shipped_config_or_one_of_the_workers_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "night.yaml").write_text("run: night\n", encoding="utf-8")
    (tmp_path / "secret.yaml").write_text("run: secret\n", encoding="utf-8")
    (folder / "link.yaml").symlink_to(tmp_path / "secret.yaml")
    assert named_config("demo").name == "demo.yaml"
    with pytest.raises(ConfigError, match=r"no run config 'night' .*MBPO_CONFIGS.*demo"):
        named_config("night")
    monkeypatch.setenv("MBPO_CONFIGS", str(folder))
    assert named_config("night") == folder / "night.yaml"
    assert open_run(PipelineConfig(), "night.yaml").config.run == "night"
    for outside in ("../secret", str(tmp_path / "secret"), "link", "prefect"):
        with pytest.raises(ConfigError, match="no run config"):
            named_config(outside)


def test_start_at_and_only_choose_the_stages() -> None:
    assert choose().only is None
    assert choose(start_at="samples").only is None
    assert choose(start_at="training").only == {"training", "evaluation", "report"}
    assert choose(only=["pairs", "report"]).only == {"pairs", "report"}
    assert choose(only=["pairs", "report"], start_at="rollouts", force=["report"]).only == {"report"}
    with pytest.raises(ConfigError, match=r"no stage is left to do .*only: pairs; start_at: training"):
        choose(only=["pairs"], start_at="training")
    with pytest.raises(ConfigError, match=r"force names pairs, which is not to be done .*evaluation, report"):
        choose(start_at="evaluation", force=["pairs", "report"])


def test_everything_wrong_with_a_pipeline_form_is_said_at_once() -> None:
    with pytest.raises(ConfigError) as refused:
        open_run(PipelineConfig(), "nowhere", only=["pairs"], start_at="training")
    assert "2 things are wrong" in str(refused.value)
    assert "no stage is left" in str(refused.value)
    assert "no run config 'nowhere'" in str(refused.value)
