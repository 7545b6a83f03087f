"""All fakes of one run, the events they record, and the controller over them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from corewarding.dataflow.carriers import Question
from corewarding.dataflow.ids import Channel, Source, Version, View
from corewarding.evals.heldout import EvalResult
from corewarding.launch.config.load import make_config
from corewarding.launch.report.statistics import Moment
from corewarding.launch.run.controller import Controller
from corewarding.launch.run.protocols import Parts
from corewarding.launch.run.publishing.turns import LearnerTurns
from corewarding.questions.order import QuestionCursor
from corewarding.questions.prompts import PreparedQuestions
from tests.unit.launch.run.fake_folders import FakeFolders
from tests.unit.launch.run.fakes import (
    PER_UPDATE,
    FakeBuffer,
    FakeLearner,
    FakeLog,
    FakePublisher,
    FakeWorkers,
    Gate,
)

NUM_QUESTIONS = 12
Event = tuple[Any, ...]  # what happened, then its arguments


@dataclass
class World:
    """All fakes of one run. Keys of the configuration come from the test; `updates` of them are already made."""

    folder: Path
    changes: dict[str, Any] = field(default_factory=dict)
    depth: int = 1
    updates: int = 0

    def __post_init__(self) -> None:
        script = self.folder / "script.jsonl"
        script.write_text('{"question": "x", "completions": ["y"]}\n')
        content = {
            "rule": "co_rewarding_ii",
            "engine": {"kind": "scripted", "script": str(script)},
            "train": {"questions_per_update": PER_UPDATE, "updates": 3},
            "eval": {"every_updates": 0},
            "checkpoint": {"every_updates": 0},
            "run": {"root": str(self.folder), "watchdog_s": 30.0},
        }
        for section, values in self.changes.items():
            content[section] = {**content.get(section, {}), **values}
        self.config = make_config(content, where="test")
        version = Version(incarnation=0 if self.updates == 0 else 1, updates=self.updates)
        self.events: list[Event] = []
        self.engines: dict[Channel, int] = {}
        self.evaluating = Gate()
        self.evaluating_first = Gate()  # for the evaluation before training
        self.evaluated: list[tuple[bool, int, int]] = []  # quick, version at its begin, version at its end
        self.buffer = FakeBuffer(self, depth=self.depth, updates_done=self.updates)
        self.learner = FakeLearner(self, version)
        self.workers: dict[Source, FakeWorkers] = {s: FakeWorkers(self, s) for s in ("policy", "teacher")}
        self.publishers: dict[Channel, FakePublisher] = {c: FakePublisher(self, c) for c in ("policy", "teacher")}
        self.folders, self.log = FakeFolders(self), FakeLog(self, self.folder)
        questions = [Question(id=f"q{number}", original="?") for number in range(NUM_QUESTIONS)]
        prompts: dict[tuple[str, View], Any] = {(q.id, "original"): np.array([1], np.int32) for q in questions}
        self.cursor = QuestionCursor(NUM_QUESTIONS, 0, drop_remainder_of=PER_UPDATE)
        self.cursor.advance(self.updates * PER_UPDATE)
        self.parts = Parts(
            config=self.config,
            version=version,
            rule=self.config.reward_rule,
            prepared=PreparedQuestions(questions=questions, prompts=prompts, num_dropped=0, longest=1),
            cursor=self.cursor,
            buffer=self.buffer,
            learner=self.learner,
            turns=LearnerTurns(),
            groups=self.workers,
            publishers=self.publishers,
            checkpoints=self.folders,
            log=self.log,
            initial_answers=self.folder / "initial_answers.jsonl",
            evaluate=self.evaluate,
        )

    async def evaluate(self, moment: Moment) -> EvalResult | None:
        before = self.engines["policy"]
        if moment != "after":
            await (self.evaluating if moment == "quick" else self.evaluating_first).passed()
        self.evaluated.append((moment == "quick", before, self.engines["policy"]))
        return EvalResult(num_questions=1, n=1, greedy=0.5)

    async def run(self, **keys: Any) -> Controller:
        """A whole run. A run that hangs is a TimeoutError."""
        controller = Controller(self.parts, **keys)
        await asyncio.wait_for(controller.run(), timeout=5)
        return controller

    def start(self, **keys: Any) -> tuple[Controller, asyncio.Task[None]]:
        """A run under way; await the task, or let `ended` do it."""
        controller = Controller(self.parts, **keys)
        return controller, asyncio.create_task(asyncio.wait_for(controller.run(), timeout=5))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits until the condition holds."""
        async with asyncio.timeout(2):
            while not condition():
                await asyncio.sleep(0.001)

    async def settled(self) -> None:
        """Returns when nothing happens any more."""
        seen = -1
        while seen != len(self.events):
            seen = len(self.events)
            await asyncio.sleep(0.02)

    def of(self, *kinds: str) -> list[Event]:
        """The events of these kinds, in order."""
        return [event for event in self.events if event[0] in kinds]

    def place(self, *event: Any) -> int:
        """When an event happened, as its place in the order of all."""
        return self.events.index(event)
