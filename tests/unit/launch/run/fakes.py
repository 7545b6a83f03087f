"""The parts of a run as short fakes: no Ray, no model, no files. Each records what happens in the events of its World."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corewarding.dataflow.carriers import BufferProgress, Completion, RolloutTask, StepResult, UpdateReport
from corewarding.dataflow.ids import AskedId, Channel, GroupId, Source, Version
from corewarding.dataflow.metrics import Metrics
from corewarding.dataflow.spans import Span
from corewarding.dataflow.votes import InitialAnswers
from corewarding.evals.heldout import EvalResult
from corewarding.launch.run.protocols import PublishResult

if TYPE_CHECKING:
    from tests.unit.launch.run.world import World

PER_UPDATE = 2


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
        self.admitting, self.reporting, self.answering = Gate(), Gate(), Gate()
        self.changed = asyncio.Condition()
        self.no_answer_frac: Callable[[int], float] = lambda update: 0.1

    async def know_initial(self, answers: Sequence[InitialAnswers]) -> None:
        self.world.events.append(("initial", len(answers)))

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

    async def give_up(self, asked: AskedId) -> bool:
        async with self.changed:
            if self.waiting.pop(asked, None) is None:
                return False
            self.num_admitted -= 1
            self.world.events.append(("give up", asked))
            self.changed.notify_all()
        return True

    async def acknowledged(self, channel: Channel, updates: int) -> None:
        self.world.events.append(("acknowledged", channel, updates))
        if channel == "policy":
            async with self.changed:
                self.published = updates
                self.changed.notify_all()

    async def deliver(self, group: GroupId) -> None:
        async with self.changed:
            self.waiting.get(group.asked, set()).add(group)
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

    async def updated(self, update: int, digest: str) -> None:
        self.world.events.append(("updated", update, digest))

    async def keep_from(self, segment: int) -> None:
        self.world.events.append(("keep from", segment))

    async def halt(self) -> int:
        self.world.events.append(("halt", self.updates_done))
        return self.updates_done

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
        await self.answering.passed()
        missing = [asked for asked in self.waiting if asked not in self.ready()]
        return BufferProgress(
            num_generated=0, num_ready=self.num_admitted - len(missing), updates_taken=self.updates_done, room=self.free(),
            num_missing=len(missing), missing=tuple(map(str, missing)), dropped={},
        )  # fmt: skip

    async def answers_read(self) -> dict[str, int]:
        return {}

    async def state(self, cursor: dict[str, Any]) -> dict[str, Any]:
        pending = [(asked.question_id, asked.epoch) for asked in self.waiting]
        return {"updates_done": self.updates_done, "num_admitted": self.num_admitted, "pending": pending}


class FakeLearner:
    """Counts updates."""

    def __init__(self, world: World, version: Version) -> None:
        self.world, self.weights = world, version
        self.updating, self.saving = Gate(), Gate()
        self.doing: str | None = None
        self.starting = False

    async def version(self, channel: Channel = "policy") -> Version:
        return self.weights

    async def update(self, batch: int) -> StepResult:
        assert batch == self.weights.updates + 1, f"batch {batch} for weights {self.weights}"
        self.world.events.append(("update begins", batch))
        self.doing = "update for 0 s"
        await asyncio.sleep(0.006)
        await self.updating.passed()
        self.weights = Version(incarnation=self.weights.incarnation, updates=batch)
        self.doing = None
        self.world.events.append(("update ends", batch))
        return StepResult(version=self.weights, metrics=Metrics(), wall_s=0.0)

    async def token_statistics(self, samples: Any) -> bytes:
        raise AssertionError("the rule needs no statistics")

    async def logprobs(self, samples: Sequence[Any], which: Any) -> list[Any]:
        raise AssertionError("scripted engines are not compared")

    async def stage(self) -> None:
        self.world.events.append(("stage", self.weights.updates))

    async def write(self, folder: Path) -> None:
        await self.saving.passed()
        self.world.events.append(("write", folder.parent.name))

    async def export(self, written: Path, folder: Path, channel: Any) -> None:
        assert written.parent == folder.parent
        self.world.events.append(("export", channel, folder.parent.name))


class FakeWorkers:
    """One rollout actor of a source."""

    def __init__(self, world: World, source: Source) -> None:
        self.world, self.source = world, source
        self.worker = Worker(f"{source}-0")
        self.sampling = Gate()
        self.error: Exception | None = None
        self.num_answered = 0
        self.starting = False

    async def watch(self) -> None:
        await asyncio.Event().wait()

    async def run(self, task: RolloutTask) -> int:
        self.world.events.append(("sample", task.id.asked, self.source, task.incarnation))
        self.worker.load += 1
        await self.sampling.passed()
        if self.error is not None:
            raise self.error
        await self.world.buffer.deliver(task.id)
        self.worker.load -= 1
        self.num_answered += 1
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
        self.lent_error: Exception | None = None
        self.weights: Channel = channel

    def carry(self, weights: Channel) -> None:
        self.weights = weights

    async def publish(self, version: Version, sent: asyncio.Event | None = None) -> PublishResult:
        self.world.events.append(("send" if self.weights == self.channel else "lend", self.channel, version.updates))
        if sent is not None:
            sent.set()
        await self.committing.passed()
        if (error := self.error if self.weights == self.channel else self.lent_error) is not None:
            raise error
        self.world.engines[self.channel] = version.updates
        return PublishResult(seconds=0.0, bytes=2**20, num_acknowledged=1)


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

    def warn(self, text: str) -> None:
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
