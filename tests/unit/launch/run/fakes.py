"""A run's parts in one process, without Ray, model or files: each is a short fake that records what happens in `World.events`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from corewarding.dataflow.carriers import (
    BufferProgress,
    Completion,
    Question,
    RolloutTask,
    StepResult,
    UpdateReport,
)
from corewarding.dataflow.ids import AskedId, Channel, GroupId, Source, Version, View
from corewarding.dataflow.metrics import Metrics
from corewarding.dataflow.spans import Span
from corewarding.evals.heldout import EvalResult
from corewarding.launch.config.load import make_config
from corewarding.launch.run.controller import Controller
from corewarding.launch.run.protocols import Parts, PublishResult
from corewarding.questions.order import QuestionCursor
from corewarding.questions.prompts import PreparedQuestions

NUM_QUESTIONS, PER_UPDATE = 12, 2
Event = tuple[Any, ...]  # what happened, then its arguments


class Gate:
    """Open at first; while it is closed, `passed` waits."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self.open()

    def open(self) -> None:
        self._open.set()

    def close(self) -> None:
        self._open.clear()

    async def passed(self) -> None:
        await asyncio.sleep(0)
        await self._open.wait()


@dataclass
class Batch:
    num_samples: int
    batch: Any
    report: Awaitable[UpdateReport]


@dataclass
class Worker:
    id: str
    load: int = 0


class FakeBuffer:
    """Admits as replay does: so many updates ahead of the acknowledged policy. A question is ready when its groups were delivered."""

    def __init__(self, world: World, *, depth: int, updates_done: int) -> None:
        self.world, self.depth = world, depth
        self.published = self.updates_done = updates_done
        self.num_admitted = updates_done * PER_UPDATE
        self.waiting: dict[AskedId, set[GroupId]] = {}  # admitted and not consumed → groups delivered
        self.admitting, self.reporting = Gate(), Gate()
        self.changed = asyncio.Condition()
        self.no_answer_frac: Callable[[int], float] = lambda update: 0.1

    def free(self) -> int:
        total = self.world.config.train.updates
        return min(self.published + self.depth + 1, total) * PER_UPDATE - self.num_admitted

    async def room(self) -> int:
        async with self.changed:
            await self.changed.wait_for(lambda: self.free() > 0)
            return self.free()

    async def admit(self, offered: Sequence[AskedId]) -> int:
        taken = offered[: self.free()]
        self.num_admitted += len(taken)
        self.waiting |= {asked: set() for asked in taken}
        await self.admitting.passed()  # the answer is on its way to the driver
        return len(taken)

    async def acknowledged(self, channel: Channel, updates: int) -> None:
        self.world.events.append(("acknowledged", channel, updates))
        if channel == "policy":
            async with self.changed:
                self.published = updates
                self.changed.notify_all()

    async def deliver(self, group: GroupId) -> None:
        async with self.changed:
            self.waiting[group.asked].add(group)
            self.changed.notify_all()

    def ready(self) -> list[AskedId]:
        needed = len(self.world.config.reward_rule.groups)
        return [asked for asked, groups in self.waiting.items() if len(groups) == needed]

    async def take(self, update: int, token_statistics: Callable[[Any], Awaitable[bytes]]) -> Batch:
        async with self.changed:
            await self.changed.wait_for(lambda: len(self.ready()) >= PER_UPDATE)
            taken = self.ready()[:PER_UPDATE]
            for asked in taken:
                del self.waiting[asked]
            self.updates_done = update
        self.world.events.append(("take", update))
        return Batch(num_samples=len(taken), batch=update, report=asyncio.create_task(self.report(update)))

    async def report(self, update: int) -> UpdateReport:
        if update == 1:
            await self.reporting.passed()
        scalars = {
            "staleness/question_mean": 0.5,
            "staleness/max": 1.0,
            "vote/no_answer_frac": self.no_answer_frac(update),
        }
        span = Span("policy-0", f"sample of update {update}", 10.0 * update, 10.0 * update + 5.0)
        return UpdateReport(update=update, metrics=Metrics(scalars=scalars), rows=[], spans=(span,))

    async def progress(self) -> BufferProgress:
        missing = [asked for asked in self.waiting if asked not in self.ready()]
        return BufferProgress(
            num_generated=0, num_ready=self.num_admitted - len(missing), updates_taken=self.updates_done, room=self.free(),
            num_missing=len(missing), missing=tuple(map(str, missing)), dropped={},
        )  # fmt: skip

    async def answers_read(self) -> dict[str, int]:
        return {}

    async def state(self) -> dict[str, Any]:
        pending = [(asked.question_id, asked.epoch) for asked in self.waiting]
        return {"updates_done": self.updates_done, "num_admitted": self.num_admitted, "pending": pending}


class FakeLearner:
    """Counts updates."""

    def __init__(self, world: World, version: Version) -> None:
        self.world, self.weights = world, version
        self.updating = Gate()

    async def version(self, channel: Channel = "policy") -> Version:
        return self.weights

    async def update(self, batch: int) -> StepResult:
        assert batch == self.weights.updates + 1, f"batch {batch} for weights {self.weights}"
        self.world.events.append(("update begins", batch))
        await asyncio.sleep(0.006)
        await self.updating.passed()
        self.weights = Version(incarnation=self.weights.incarnation, updates=batch)
        self.world.events.append(("update ends", batch))
        return StepResult(version=self.weights, metrics=Metrics(), wall_s=0.0)

    async def token_statistics(self, samples: Any) -> bytes:
        raise AssertionError("the rule needs no statistics")

    async def logprobs(self, samples: Sequence[Any], which: Any) -> list[Any]:
        raise AssertionError("scripted engines are not compared")

    async def save(self, folder: Path) -> None:
        self.world.events.append(("save", self.weights.updates))

    async def export(self, folder: Path, which: Any) -> None:
        self.world.events.append(("export", which, self.weights.updates))


class FakeWorkers:
    """One rollout actor of a source."""

    def __init__(self, world: World, source: Source) -> None:
        self.world, self.source = world, source
        self.worker = Worker(f"{source}-0")
        self.sampling = Gate()
        self.error: Exception | None = None

    async def run(self, task: RolloutTask) -> int:
        self.world.events.append(("sample", task.id.asked, self.source, task.incarnation))
        self.worker.load += 1
        await self.sampling.passed()
        if self.error is not None:
            raise self.error
        await self.world.buffer.deliver(task.id)
        self.worker.load -= 1
        return 1

    async def sample(self, tasks: Sequence[RolloutTask]) -> list[Completion]:
        raise AssertionError("scripted engines are not compared")

    async def stats(self) -> dict[str, float]:
        await asyncio.sleep(0.001)  # the log is behind the training
        return {f"rollout_{self.source}/idle_frac": 0.25}

    def healthy(self) -> Sequence[Worker]:
        return [self.worker]


class FakePublisher:
    """The weights leave the learner at once; the engines have them when `committing` is open."""

    def __init__(self, world: World, channel: Channel) -> None:
        self.world, self.channel = world, channel
        self.committing = Gate()
        self.error: Exception | None = None

    async def publish(self, version: Version, sent: asyncio.Event | None = None) -> PublishResult:
        self.world.events.append(("send", self.channel, version.updates))
        if sent is not None:
            sent.set()
        await self.committing.passed()
        if self.error is not None:
            raise self.error
        self.world.engines[self.channel] = version.updates
        return PublishResult(seconds=0.0, bytes=2**20, num_acknowledged=1)


class FakeFolders:
    """Keeps the states that were committed."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.states: list[dict[str, Any]] = []

    def begin(self, update: int) -> Path:
        return Path(f"writing-{update}")

    def commit(self, temporary: Path, state: dict[str, Any]) -> object:
        self.world.events.append(("commit", state["updates"]))
        self.states.append(state)
        return temporary


class FakeLog:
    """Keeps what was logged."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world, self.folder = world, folder
        self.said: list[str] = []
        self.metrics: dict[int, Metrics] = {}
        self.spans: list[Span] = []
        self.evaluations: list[tuple[str, int]] = []
        self.error: Exception | None = None

    def phase(self, text: str) -> None: ...

    def training(self) -> None: ...

    def say(self, text: str) -> None:
        self.said.append(text)

    def update(self, update: int, metrics: Metrics, rows: Sequence[Mapping[str, Any]]) -> None:
        if self.error is not None:
            raise self.error
        self.metrics[update] = metrics
        self.world.events.append(("logged", update))

    def trace(self, spans: Iterable[Span]) -> None:
        self.spans += spans

    def self_test(self, update: int, differences: Mapping[Source, Any]) -> None: ...

    def evaluation(self, update: int, result: EvalResult, *, moment: str) -> None:
        self.evaluations.append((moment, update))

    def earlier_updates(self) -> list[dict[str, Any]]:
        return []

    @property
    def continue_file(self) -> Path:
        return self.folder / "continue"


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
            learner_lock=asyncio.Lock(),
            groups=self.workers,
            publishers=self.publishers,
            checkpoints=self.folders,
            log=self.log,
            evaluate=self.evaluate,
        )

    async def evaluate(self, quick: bool) -> EvalResult | None:
        before = self.engines["policy"]
        if quick:
            await self.evaluating.passed()
        self.evaluated.append((quick, before, self.engines["policy"]))
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
