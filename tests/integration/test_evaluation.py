"""The evaluations before and after training are shared by all like engines, and say the same as with the policy's alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from corewarding.actors.group import RolloutGroup
from corewarding.dataflow.carriers import Completion, RolloutTask
from corewarding.launch.run.train import run_training
from tests.integration.test_training import rows_of, small

pytestmark = pytest.mark.timeout(400)
UPDATES, SELF_TEST = 3, 8
KEYS: dict[str, dict[str, Any]] = {
    "staleness": {"max": 0, "pipeline_depth": 0},
    "engine": {"slots": 32, "deterministic": True},
    "train": {"questions_per_update": 4, "updates": UPDATES, "lr": 1e-3},
    "eval": {"every_updates": 0, "num_questions": 12, "samples": 2},
}


class Sampled:
    """By evaluation, source and the version of their weights: the numbers of tasks that the groups of this process sampled."""

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


def test_both_engines_evaluate_before_and_after_as_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared, alone = Sampled(), Sampled()
    with monkeypatch.context() as patch:
        shared.record(patch)
        both = run_training(small(tmp_path / "both", **KEYS))
    with monkeypatch.context() as patch:
        alone.record(patch)
        other = KEYS["engine"] | {"prefill_tokens": 100}  # a deterministic engine prefills each prompt alone
        one = run_training(small(tmp_path / "one", **KEYS, teacher_engine=other))
    tasks = 12 * 2  # greedy and sampled
    assert sorted(alone.tasks) == [("policy", 0, tasks), ("policy", UPDATES, tasks)]
    assert sorted(shared.tasks) == [(source, v, tasks // 2) for source in ("policy", "teacher") for v in (0, UPDATES)]
    for moment in ("before", "after"):
        assert both.summary[moment] == one.summary[moment]
    assert both.summary["before"] != both.summary["after"]
    losses = [[row["loss/total"] for row in rows_of(run.folder)] for run in (both, one)]
    assert losses[0] == losses[1]


def test_an_asynchronous_run_lends_the_teacher_s_engine_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sampled = Sampled()
    sampled.record(monkeypatch)
    run_training(small(tmp_path, eval={"every_updates": 0, "num_questions": 12, "samples": 2}))
    assert {source for source, version, _ in sampled.tasks if version == 4} == {"policy", "teacher"}
