"""Rejected images: from another table, from a job's file, or missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mbpo_core.config import TrainingConfig
from mbpo_core.errors import DataError
from mbpo_core.records import Sample
from mbpo_core.stage import Row
from mbpo_core.training.job import JobRows, read_job, write_job
from mbpo_core.training.rows import ListTable, Picked, join_images, missing_parts
from tests.training.conftest import Recorder, trained
from tests.training.rows import SECOND, job, pair_rows

LOOKING = ("image", "mdpo", "mfpo", "chip", "adavip", "rdpo", "povid", "p2dpo")
"""Objectives that look at the rejected images."""

SETTINGS: dict[str, Any] = {"use_online": False, "pairs_per_step": 2}


@pytest.fixture(scope="module")
def pairs(offline_samples: list[Sample]) -> list[Row]:
    """Six pairs with rejected images."""
    return pair_rows(offline_samples, 6, rejected_images=True)


def negatives(pairs: list[Row], *places: int) -> list[Row]:
    """Negatives of some pairs; their rejected images are the clean ones of the pair after."""
    return [
        {"sample_id": pairs[place]["sample_id"], "rejected_images": pairs[(place + 1) % len(pairs)]["images"]}
        for place in places
    ]


def test_pairs_get_the_images_made_for_them_and_the_others_stay_out(pairs: list[Row]) -> None:
    """Everything else is the pair's own, also the columns that both tables have; the order is the pairs'."""
    kept = [0, 2, 3, 5]
    joined = join_images(ListTable(pairs), ListTable(negatives(pairs, *kept)))
    assert joined.count() == 4
    rows = list(joined.rows(columns=["chosen", "rejected_images", "sample_id"]))
    assert [list(row) for row in rows] == [["chosen", "rejected_images", "sample_id"]] * 4
    assert [row["sample_id"] for row in rows] == [pairs[place]["sample_id"] for place in kept]
    assert [row["chosen"] for row in rows] == [pairs[place]["chosen"] for place in kept]
    made = [pairs[(place + 1) % 6]["images"] for place in kept]
    assert [row["rejected_images"] for row in rows] == made
    assert joined.slice(1, 3, columns=["rejected_images"]) == [{"rejected_images": one} for one in made[1:3]]
    assert joined.slice(3, 9, columns=["images", "sample_id"]) == [
        {"images": pairs[5]["images"], "sample_id": pairs[5]["sample_id"]}
    ]


def test_some_of_the_joined_pairs_are_dealt(pairs: list[Row]) -> None:
    """As the stage deals them to a round: picked from the join, each still with its own image."""
    joined = join_images(ListTable(pairs), ListTable(negatives(pairs, 0, 2, 3, 5)))
    picked = Picked(joined, np.array([1, 3]))
    rows = list(picked.rows(columns=["sample_id", "rejected_images"]))
    assert rows == picked.slice(0, 2, columns=["sample_id", "rejected_images"])
    assert [row["sample_id"] for row in rows] == [pairs[2]["sample_id"], pairs[5]["sample_id"]]
    assert [row["rejected_images"] for row in rows] == [pairs[3]["images"], pairs[0]["images"]]


def test_images_of_other_pairs_are_refused(pairs: list[Row]) -> None:
    """Negatives in another order, or of pairs that are not there."""
    swapped = join_images(ListTable(pairs), ListTable(negatives(pairs, 2, 0)))
    first, other = pairs[0]["sample_id"], pairs[2]["sample_id"]
    with pytest.raises(DataError, match=rf"pair {first} meets the rejected image of {other} .*negatives of the images"):
        list(swapped.rows(columns=["rejected_images"]))
    with pytest.raises(DataError, match="meets the rejected image of"):
        swapped.slice(1, 2, columns=["rejected_images"])
    with pytest.raises(DataError, match="meets"):
        list(swapped.rows(columns=["sample_id"]))  # also where no picture is asked for: before training, not in it
    foreign = join_images(ListTable(pairs[:2]), ListTable(negatives(pairs, 0, 4, 1)))
    with pytest.raises(DataError, match="meets"):
        list(foreign.rows(columns=["chosen"]))


def test_what_pairs_lack_is_what_the_objective_looks_at(pairs: list[Row]) -> None:
    rows = [dict(row) for row in pairs[:4]]
    rows[1]["rejected"] = []
    rows[2]["rejected_images"] = []
    table = ListTable(rows)

    def missing(objective: str, **settings: Any) -> dict[int, str]:
        more = SECOND if objective == "mrpo" else {}
        return missing_parts(table, TrainingConfig(objective=objective, **more, **settings))

    response, picture = {1: "rejected response"}, {2: "rejected image"}
    assert missing("sft") == missing("none") == {}
    assert missing("dpo") == missing("grpo") == missing("vigil") == missing("mrpo") == response
    assert missing("image") == picture
    assert missing("mfpo") == missing("povid") == missing("p2dpo") == {**response, **picture}
    assert missing("sft", add_image=1.0) == picture
    assert missing("grpo", add_image=1.0) == {**response, **picture}


@pytest.mark.parametrize("objective", ["dpo", *LOOKING])
def test_a_handed_over_job_carries_rejected_images_where_they_are_looked_at(
    pairs: list[Row], tmp_path: Path, objective: str
) -> None:
    work = job(tmp_path / "work", objective=objective, use_online=False)
    assert work.config.wants_rejected_images == (objective in LOOKING)
    write_job(tmp_path / "handed", work, JobRows(ListTable(pairs)))
    _, read = read_job(tmp_path / "handed")
    columns = ["sample_id", "images", "prompt", "chosen", "rejected"]
    assert list(read.pairs.rows(columns=columns)) == [{name: row[name] for name in columns} for row in pairs]
    if objective in LOOKING:
        found = [row["rejected_images"] for row in read.pairs.rows(columns=["rejected_images"])]
        assert found == [row["rejected_images"] for row in pairs]
    else:
        assert "rejected_images" not in read.pairs._file.schema_arrow.names  # type: ignore[attr-defined]


def test_a_join_is_handed_over_joined(pairs: list[Row], tmp_path: Path) -> None:
    """Both tables stream through the hand-over, and the job is the same work afterwards."""
    rows = JobRows(join_images(ListTable(pairs), ListTable(negatives(pairs, 1, 4))))
    work = job(tmp_path / "work", objective="mfpo", use_online=False)
    write_job(tmp_path / "handed", work, rows)
    again, read = read_job(tmp_path / "handed")
    assert again.fingerprint(read) == work.fingerprint(rows)
    found = list(read.pairs.rows(columns=["sample_id", "rejected_images"]))
    assert found == list(rows.pairs.rows(columns=["sample_id", "rejected_images"]))
    assert [row["rejected_images"] for row in found] == [pairs[2]["images"], pairs[5]["images"]]


def test_terms_bring_the_images_along(tmp_path: Path) -> None:
    assert not job(tmp_path, objective="grpo").config.wants_rejected_images
    assert job(tmp_path, objective="grpo", add_image=0.5).config.wants_rejected_images
    assert not job(tmp_path, objective="grpo", add_anchor=0.5).config.wants_rejected_images
    assert not job(tmp_path, objective="none", add_image=0.5).config.wants_rejected_images


@pytest.mark.parametrize("column", ["rejected_images", "rejected"])
def test_pairs_that_all_lack_something_stop_before_training(pairs: list[Row], tmp_path: Path, column: str) -> None:
    bare = [{**row, column: []} for row in pairs]
    progress = Recorder()
    part = {"rejected_images": "rejected image", "rejected": "rejected response"}[column]
    with pytest.raises(DataError, match=rf"6 pairs lack {part}, which objective mdpo looks at: .*see mbpo methods"):
        trained(job(tmp_path, objective="mdpo", **SETTINGS), JobRows(ListTable(bare)), progress)
    assert progress.started == []
    assert not (tmp_path / "checkpoints").exists()


def test_pairs_that_lack_something_are_left_out_and_counted(pairs: list[Row], tmp_path: Path) -> None:
    """The others train as if they had come alone."""
    rows = [dict(row) for row in pairs]
    rows[1]["rejected_images"] = rows[4]["rejected_images"] = []
    rows[3]["rejected"] = []
    progress = Recorder()
    result = trained(job(tmp_path / "some", objective="mdpo", **SETTINGS), JobRows(ListTable(rows)), progress)
    assert result.summary["left_out"] == {"rejected image": 2, "rejected response": 1}
    assert result.summary["pairs"] == 3
    (message,) = progress.messages
    assert "2 pairs without rejected image" in message
    assert "1 pairs without rejected response" in message
    alone = JobRows(ListTable([rows[place] for place in (0, 2, 5)]))
    other = trained(job(tmp_path / "alone", objective="mdpo", **SETTINGS), alone)
    assert [row["loss"] for row in result.metrics] == pytest.approx([row["loss"] for row in other.metrics], rel=1e-5)
    assert other.summary["left_out"] == {}
