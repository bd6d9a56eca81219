"""Every metric of training says what it is and how to read it."""

from __future__ import annotations

from mbpo_core.config import PipelineConfig, TrainingConfig
from mbpo_core.curves import CURVES
from mbpo_core.records import TrainingStep


def test_every_metric_has_a_reading_and_no_other_name_has() -> None:
    assert list(CURVES) == list(TrainingStep.model_fields)
    assert all(field.description for field in TrainingStep.model_fields.values())
    assert all(curve.healthy for curve in CURVES.values())


def test_advice_names_settings_and_metrics_that_exist() -> None:
    sections = {name: field.annotation for name, field in PipelineConfig.model_fields.items()}
    known = {*TrainingStep.model_fields, *TrainingConfig.model_fields, *sections}
    for name, curve in CURVES.items():
        for word in f"{curve.unit} {curve.healthy} {curve.outside}".split("`")[1::2]:
            word = word.removeprefix("-").split(":")[0]
            section, _, field = word.partition(".")
            if field:
                assert field in sections[section].model_fields, (name, word)
            elif not word.startswith("mbpo"):
                assert word in known, (name, word)
