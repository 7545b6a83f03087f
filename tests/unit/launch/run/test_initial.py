"""The initial model's answers: sampled once, before training, kept in the run directory."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from corewarding.dataflow.carriers import Completion, RolloutTask
from corewarding.dataflow.errors import RunError
from corewarding.launch.run.initial import INITIAL_EPOCH, initial_answers
from tests.fakes import fake_group
from tests.unit.launch.run.world import World


def make_world(folder: Path, asked: list[RolloutTask], *, updates: int = 0) -> World:
    world = World(folder, changes={"rollout": {"group_size": 2}}, updates=updates)

    async def sample(tasks: Sequence[RolloutTask]) -> list[Completion]:
        asked.extend(tasks)
        return [c for task in tasks for c in fake_group(task.id.question_id, ["1", None], epoch=task.id.epoch)]

    workers: Any = world.workers["policy"]
    workers.sample = sample
    return world


async def test_they_are_sampled_once_for_the_questions_of_the_run(tmp_path: Path) -> None:
    asked: list[RolloutTask] = []
    world = make_world(tmp_path, asked)
    found = await initial_answers(world.parts)
    needed = 3 * 2  # updates x questions per update
    assert len(found) == len(asked) == needed
    assert {(one.view, one.answers) for one in found} == {("original", ("1", None))}
    assert {(task.id.epoch, task.group_size) for task in asked} == {(INITIAL_EPOCH, 2)}
    cursor = [world.parts.prepared.questions[index].id for _, index in world.cursor.peek(needed)]
    assert [one.question_id for one in found] == sorted(cursor)
    assert await initial_answers(world.parts) == found
    assert len(asked) == needed  # the second time they are read
    rows = [json.loads(line) for line in world.parts.initial_answers.read_text().splitlines()]
    assert rows[0] == {"question": found[0].question_id, "view": "original", "answers": ["1", None]}


async def test_a_resumed_run_without_the_file_ends_with_the_reason(tmp_path: Path) -> None:
    asked: list[RolloutTask] = []
    world = make_world(tmp_path, asked, updates=1)
    with pytest.raises(RunError, match="is gone, and the model has had 1 updates"):
        await initial_answers(world.parts)
    assert not asked


async def test_the_buffer_knows_them_before_the_first_question_is_sampled(tmp_path: Path) -> None:
    asked: list[RolloutTask] = []
    world = make_world(tmp_path, asked)
    world.parts.rule = dataclasses.replace(world.parts.rule, needs=frozenset({"initial_answers"}))
    await world.run()
    kinds = [event[0] for event in world.events]
    assert world.of("initial") == [("initial", 6)]
    assert kinds.index("acknowledged") < kinds.index("initial") < kinds.index("sample")
