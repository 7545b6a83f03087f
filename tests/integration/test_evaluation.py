"""The evaluations before and after training are shared by all like engines, and say the same as with the policy's alone, also when the
teacher's die meanwhile."""

import asyncio
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from corewarding.actors.group import RolloutGroup
from corewarding.actors.member import Member
from corewarding.dataflow.carriers import Completion, RolloutTask
from corewarding.dataflow.ids import Channel
from corewarding.launch.run.ending.evidence import processes
from corewarding.launch.run.publishing.publisher import Publisher
from corewarding.launch.run.train import RunResult, run_training
from tests.integration.test_training import rows_of, small

pytestmark = pytest.mark.timeout(400)
UPDATES, SELF_TEST = 3, 8
TASKS = 12 * 2  # greedy and sampled
KEYS: dict[str, dict[str, Any]] = {
    "staleness": {"max": 0, "pipeline_depth": 0},
    "engine": {"slots": 32, "deterministic": True},
    "train": {"questions_per_update": 4, "updates": UPDATES, "lr": 1e-3},
    "eval": {"every_updates": 0, "num_questions": 12, "samples": 2},
}
UNLIKE = KEYS["engine"] | {"prefill_tokens": 100}
"""The teacher's engine where it is not to help. A deterministic one prefills each prompt alone, so it answers alike."""


class Sampled:
    """The evaluations' tasks in the order in which they were answered: source, version of the weights, number."""

    def __init__(self) -> None:
        self.tasks: list[tuple[str, int, int]] = []

    def record(self, monkeypatch: pytest.MonkeyPatch) -> None:
        sample = RolloutGroup.sample

        async def recorded(group: RolloutGroup, tasks: Sequence[RolloutTask]) -> list[Completion]:
            completions = await sample(group, tasks)
            (version,) = {int(version) for one in completions for version in one.token_versions}
            if len(tasks) != SELF_TEST:
                self.tasks.append((group.source, version, len(tasks)))
            return completions

        monkeypatch.setattr(RolloutGroup, "sample", recorded)


@pytest.fixture
def lent(monkeypatch: pytest.MonkeyPatch) -> Callable[[], bool]:
    """Whether the teacher's engines are to get the policy's weights from now on."""
    carry, carried = Publisher.carry, []

    def recorded(publisher: Publisher, weights: Channel) -> None:
        carried.append(weights)
        carry(publisher, weights)

    monkeypatch.setattr(Publisher, "carry", recorded)
    return lambda: carried[-1:] == ["policy"]


def kill_the_teacher_s(root: Path) -> None:
    (pid,) = (one.pid for one in processes(root / "small" / "logs") if one.name.startswith("teacher"))
    os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunResult, Sampled]:
    """A run whose evaluations the policy's engine answers alone."""
    sampled = Sampled()
    with pytest.MonkeyPatch.context() as patch:
        sampled.record(patch)
        return run_training(small(tmp_path_factory.mktemp("alone"), **KEYS, teacher_engine=UNLIKE)), sampled


def test_both_engines_evaluate_before_and_after_as_one_does(
    alone: tuple[RunResult, Sampled], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, of_one = alone
    shared = Sampled()
    shared.record(monkeypatch)
    both = run_training(small(tmp_path, **KEYS))
    assert of_one.tasks == [("policy", 0, TASKS), ("policy", UPDATES, TASKS)]
    assert sorted(shared.tasks) == [(source, v, TASKS // 2) for source in ("policy", "teacher") for v in (0, UPDATES)]
    for moment in ("before", "after"):
        assert both.summary[moment] == one.summary[moment]
    assert both.summary["before"] != both.summary["after"]
    losses = [[row["loss/total"] for row in rows_of(run.folder)] for run in (both, one)]
    assert losses[0] == losses[1]


def test_the_policy_s_engine_evaluates_alone_when_the_teacher_s_dies_as_it_gets_its_weights(
    alone: tuple[RunResult, Sampled],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    lent: Callable[[], bool],
) -> None:
    sampled, call = Sampled(), RolloutGroup.call

    async def killing(group: RolloutGroup, member: Member, method: str, *args: object, timeout_s: float | None) -> Any:
        if method == "begin" and lent():
            kill_the_teacher_s(tmp_path)
        return await call(group, member, method, *args, timeout_s=timeout_s)

    monkeypatch.setattr(RolloutGroup, "call", killing)
    sampled.record(monkeypatch)
    run = run_training(small(tmp_path, **KEYS, rollout={"max_restarts": 0}))
    assert [task for task in sampled.tasks if task[1] == UPDATES] == [("policy", UPDATES, TASKS)]
    assert "is lost: it died again after 0 restarts" in caplog.text
    assert run.summary["after"] == alone[0].summary["after"]


@pytest.mark.parametrize(("restarts", "by"), [(1, ["policy", "teacher"]), (0, ["policy", "policy"])])
def test_nothing_is_lost_when_the_teacher_s_engine_dies_in_the_last_evaluation(
    alone: tuple[RunResult, Sampled],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lent: Callable[[], bool],
    restarts: int,
    by: list[str],
) -> None:
    sampled, sample = Sampled(), RolloutGroup.sample

    async def killing(group: RolloutGroup, tasks: Sequence[RolloutTask]) -> list[Completion]:
        if group.source == "policy" or not lent():
            return await sample(group, tasks)
        asked = asyncio.create_task(sample(group, tasks))
        await asyncio.sleep(0)  # the tasks are on their way
        kill_the_teacher_s(tmp_path)
        return await asked

    monkeypatch.setattr(RolloutGroup, "sample", killing)
    sampled.record(monkeypatch)
    run = run_training(small(tmp_path, **KEYS, rollout={"max_restarts": restarts}))
    assert [task for task in sampled.tasks if task[1] == UPDATES] == [(source, UPDATES, TASKS // 2) for source in by]
    assert run.summary["after"] == alone[0].summary["after"]


def test_an_asynchronous_run_lends_the_teacher_s_engine_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sampled = Sampled()
    sampled.record(monkeypatch)
    run_training(small(tmp_path, eval={"every_updates": 0, "num_questions": 12, "samples": 2}))
    assert {source for source, version, _ in sampled.tasks if version == 4} == {"policy", "teacher"}
