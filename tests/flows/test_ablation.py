"""The trials of a grid: what is shared is made once, what fails is named, what is there is not made again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from flows import ablating, trials
from flows.ablation import follow_trial
from flows.trials import Pace, Waiting, in_turn, make_here, make_side_by_side
from mbpo_core.ablation.estimate import SECONDS, estimate_seconds
from mbpo_core.ablation.grid import Grid, Trial, build_grid, make_trials
from mbpo_core.config import PipelineConfig
from mbpo_core.errors import DataError, MbpoError
from mbpo_core.execution import StagePlan, execute
from mbpo_core.stage import BASE, ArtifactRef, StageContext
from mbpo_core.store import Store
from tasks.run import Run, expect
from tests.flows import fakes

FACTORS = {
    "negatives": {"adversarial": {}, "noise": {"negatives": {"method": "noise"}}},
    "training": {"hybrid": {}, "online": {"method": "grpo"}, "sft": {"method": "sft"}},
}


@pytest.fixture
def grid() -> Grid:
    """Six cells, two seeds."""
    given = {"name": "six", "config": "smoke", "seeds": [0, 1], "factors": FACTORS}
    return build_grid(given, where="test")


@pytest.fixture
def laid_out(grid: Grid, tmp_path: Path) -> list[Trial]:
    file = tmp_path / "run.yaml"
    file.write_text("run: small\nmethod: mbpo\nrounds: 1\n", encoding="utf-8")
    return make_trials(grid, file)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    fakes.install(monkeypatch)
    monkeypatch.setenv("MBPO_STORE", str(tmp_path / "runs"))
    return Store(tmp_path / "runs")


def follow(store: Store, trial: Trial, done: list[str]) -> Run:
    """One trial, noting every stage that is computed."""

    def perform(where: Store, plan: StagePlan) -> ArtifactRef:
        if plan.ref is None:
            done.append(plan.stage)
        return execute(where, plan)

    run = Run(trial.config, store, perform=perform)
    follow_trial(run, trial.cell == BASE)
    return run


def test_what_cells_share_is_made_once(store: Store, laid_out: list[Trial]) -> None:
    done: list[str] = []
    runs = {(trial.cell, trial.seed): follow(store, trial, done) for trial in laid_out}
    # A seed: one input, two minings with their pairs, one set of rollouts. Training: hybrid and SFT on either's pairs,
    # and one online run, as it looks at no pairs. Each of these five policies is asked once, and the base.
    assert Counter(done) == {
        "samples": 2, "negatives": 4, "pairs": 4, "rollouts": 2, "training": 2 * 5, "evaluation": 2 * 6,
    }  # fmt: skip
    assert runs["adversarial.online", 0].latest("evaluation") == runs["noise.online", 0].latest("evaluation")
    asked = [store.reader(run.latest("evaluation")).manifest.policies for run in runs.values()]
    assert all(len(policies) == 1 for policies in asked)
    again = follow(store, laid_out[-1], done)
    assert {plan.status for plan in again.plans} == {"cached"}


def test_a_new_cell_asks_only_its_own_policy(store: Store, grid: Grid, tmp_path: Path, laid_out: list[Trial]) -> None:
    done: list[str] = []
    for trial in laid_out:
        follow(store, trial, done)
    wider = FACTORS | {"training": FACTORS["training"] | {"dpo": {"method": "dpo"}}}
    more = build_grid(grid.model_dump() | {"factors": wider}, where="test")
    done.clear()
    for trial in make_trials(more, tmp_path / "run.yaml"):
        follow(store, trial, done)
    assert Counter(done) == {"training": 4, "evaluation": 4}


def test_time_is_estimated_for_each_artifact_once(store: Store, laid_out: list[Trial]) -> None:
    mine = [trial for trial in laid_out if trial.seed == 0 and trial.cell in ("adversarial.online", "noise.online")]

    def estimate(asked: Sequence[Trial]) -> float | None:
        plans = [ablating._planned(store, trial) for trial in asked]
        return estimate_seconds([(trial.config, made) for trial, made in zip(asked, plans, strict=True)])

    alone = estimate(mine[:1])
    assert alone is not None
    # The budget is the one thing that the longer run has more of: 20,000 positions.
    longer = mine[0].config.model_copy(
        update={"training": mine[0].config.training.model_copy(update={"token_budget": 30_000})}
    )
    shorter = longer.model_copy(update={"training": longer.training.model_copy(update={"token_budget": 10_000})})
    assert estimate([Trial("a", 0, longer)]) == pytest.approx(
        20_000 * SECONDS["training"] + (estimate([Trial("a", 0, shorter)]) or 0)
    )
    half, faster = (
        shorter.model_copy(update={"training": shorter.training.model_copy(update=change)})
        for change in ({"interpolation": 0.5}, {"learning_rate": 0.5})
    )
    both, apart = (estimate([Trial("a", 0, shorter), Trial("b", 0, other)]) or 0 for other in (half, faster))
    assert both == pytest.approx(apart - 10_000 * SECONDS["training"])  # one goes on from the other
    assert estimate(mine) == alone  # the other cell is made of the same artifacts
    follow(store, mine[0], [])
    assert estimate(mine) == 0
    assert min(SECONDS.values()) > 0
    own = PipelineConfig.model_validate({"samples": {"source": "parquet", "path": "questions"}})
    assert estimate_seconds([(own, [])]) is None


def test_what_fails_is_named_and_the_others_go_on(
    prefect: None, store: Store, laid_out: list[Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, lines = fakes.run, list[str]()

    def failing(context: StageContext) -> None:
        if getattr(context.config, "objective", "") == "sft":
            raise DataError("no likelihood today")
        real(context)

    monkeypatch.setattr(fakes, "run", failing)
    wanted = [trial for trial in laid_out if trial.seed == 0 and not trial.cell.startswith("noise")]
    wrong = make_here(wanted, lines.append)
    assert list(wrong) == ["ablation-six-0.adversarial.sft"]
    assert "no likelihood today" in wrong["ablation-six-0.adversarial.sft"]
    assert lines[-1].startswith("adversarial.sft, seed 0: failed: no likelihood today")
    assert "(4 of 4)" in lines[-1]
    assert {"evaluation", "training/0"} <= store.run("ablation-six-0.adversarial.online").pointers().keys()


def test_commands_run_what_is_missing_and_report_failures_at_the_end(
    store: Store, grid: Grid, laid_out: list[Trial], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page and the numbers are tested with real rows elsewhere."""
    asked: list[list[str]] = []

    def make(todo: Sequence[Trial], say: object) -> dict[str, str]:
        asked.append([trial.config.run for trial in todo])
        for trial in todo:
            if trial.cell != "noise.sft":
                follow(store, trial, [])
        return {trial.config.run: "no power" for trial in todo if trial.cell == "noise.sft"}

    collected: list[set[str]] = []
    monkeypatch.setattr(trials, "make_here", make)
    monkeypatch.setattr(ablating, "collect", lambda store, grid, trials, made: collected.append(set(made)))
    monkeypatch.setattr(ablating, "results_table", lambda results: "table")
    monkeypatch.setattr(ablating, "publish_results", lambda results, output, commands: output / "index.html")
    carry_out = partial(ablating.carry_out, store, grid, laid_out, Path("out"), [])

    carry_out(dry_run=True)
    assert "14 of 14 runs to make, about" in capsys.readouterr().out
    with pytest.raises(MbpoError, match=r"2 of 14 runs failed(.|\n)*ablation-six-1.noise.sft: no power"):
        carry_out()
    assert len(collected[0]) == 12
    with pytest.raises(MbpoError, match="2 of 14 runs failed"):
        carry_out()
    assert asked[1] == ["ablation-six-0.noise.sft", "ablation-six-1.noise.sft"]


def test_processes_rarely_need_the_same_artifact(laid_out: list[Trial]) -> None:
    waiting = Waiting(laid_out)
    first, other = waiting.take(None), waiting.take(None)
    assert first
    assert other
    assert (first.cell, first.seed, other.cell, other.seed) == (BASE, 0, BASE, 1)
    waiting.leave(other)
    following = waiting.take(other.seed)
    assert following
    assert (following.cell, following.seed) == ("adversarial.hybrid", 1)
    left = [waiting.take(0) for _ in range(11)]
    assert [trial.seed for trial in left if trial] == [0] * 6 + [1] * 5
    assert waiting.take(0) is None


def test_pace_says_how_long_the_others_take(laid_out: list[Trial], monkeypatch: pytest.MonkeyPatch) -> None:
    clock, lines = [100.0], list[str]()
    monkeypatch.setattr(trials.time, "monotonic", lambda: clock[0])
    pace = Pace(3, lines.append)
    pace.begin(laid_out[0])
    clock[0] = 160.0
    pace.end(laid_out[0], "")
    pace.end(laid_out[1], "no power")
    assert lines == [
        "base, seed 0: begins",
        "base, seed 0: done (1 of 3, about 2 min 0 s left)",
        "adversarial.hybrid, seed 0: failed: no power (2 of 3, about 30 s left)",
    ]


def test_a_process_that_dies_costs_one_trial(
    tmp_path: Path, laid_out: list[Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next trial gets a new process; what children say on standard output is answers only."""
    module = tmp_path / "flaky_worker.py"
    module.write_text(
        "import json, os, sys\n"
        "for line in sys.stdin:\n"
        "    asked = json.loads(line)\n"
        "    if asked['cell'].endswith('sft'): os._exit(7)\n"
        "    print('working in', os.path.basename(os.environ['PREFECT_HOME']), file=sys.stderr, flush=True)\n"
        "    print(json.dumps({'error': 'odd' if asked['cell'] == 'base' else ''}), flush=True)\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setattr(trials, "WORKER", "flaky_worker")
    lines: list[str] = []
    wrong = make_side_by_side(laid_out, 2, str(tmp_path / "runs"), lines.append)
    died = "its process ended with exit code 7"
    assert wrong == {
        f"ablation-six-{seed}.{cell}": error
        for seed in (0, 1)
        for cell, error in ((BASE, "odd"), ("adversarial.sft", died), ("noise.sft", died))
    }
    assert {"[1] working in job-1", "[2] working in job-2"} <= set(lines)


def test_weights_part_of_the_way_come_after_those_they_may_go_on_from(laid_out: list[Trial]) -> None:
    half, whole = laid_out[1], laid_out[2]
    training = half.config.training.model_copy(update={"interpolation": 0.5})
    half = replace(half, config=half.config.model_copy(update={"training": training}))
    assert in_turn([laid_out[0], half, whole]) == [laid_out[0], whole, half]


def test_a_trial_plans_like_a_run(store: Store, laid_out: list[Trial]) -> None:
    plans = ablating._planned(store, laid_out[0])
    assert [plan.key for plan in plans] == ["samples", "evaluation"]
    run = Run(laid_out[1].config, store, perform=expect)
    follow_trial(run)
    assert [plan.key for plan in run.plans] == [
        "samples", "negatives", "pairs", "rollouts/0", "training/0", "evaluation",
    ]  # fmt: skip
