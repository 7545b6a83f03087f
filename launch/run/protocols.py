"""The seams of a run: what the controller and its helpers need from each part. Imports neither torch nor ray.

On a cluster these are learner.replay's buffer client, LearnerGroup, RolloutGroup, Publisher, CheckpointStore and RunLog; in unit
tests they are short fakes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from corewarding.dataflow.carriers import (
    BufferProgress,
    Completion,
    Float32,
    RolloutTask,
    StepResult,
    TrainingSample,
    UpdateReport,
)
from corewarding.dataflow.errors import RunError
from corewarding.dataflow.ids import AskedId, Channel, GroupId, SetName, Source, Version
from corewarding.dataflow.metrics import Metrics
from corewarding.dataflow.spans import Span
from corewarding.dataflow.votes import InitialAnswers
from corewarding.evals.heldout import EvalResult
from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.report.statistics import LogprobDifferences, Moment
from corewarding.launch.run.publishing.turns import LearnerTurns
from corewarding.questions.order import QuestionCursor
from corewarding.questions.prompts import PreparedQuestions
from corewarding.rewards.rules.table import RewardRule

if TYPE_CHECKING:
    from corewarding.learner.group import Message


class StagedLostError(RunError):
    """What a checkpoint had copied died with the learner's ranks; the run goes on, and the next checkpoint copies anew."""


class TakenBatch(Protocol):
    """One update's batch. The batch itself goes straight from the buffer to the learner."""

    @property
    def num_samples(self) -> int: ...

    @property
    def batch(self) -> Message: ...

    @property
    def report(self) -> Awaitable[UpdateReport]: ...


class Buffer(Protocol):
    """The replay buffer."""

    async def know_initial(self, answers: Sequence[InitialAnswers]) -> None:
        """The initial model's answers, for rules that need them; before any question is admitted."""
        ...

    async def room(self) -> int:
        """Waits until at least one question may start; returns how many may."""
        ...

    async def admit(self, offered: Sequence[AskedId]) -> int:
        """Admits as many of the offered questions as there is room for, in order; returns how many."""
        ...

    async def give_up(self, asked: AskedId) -> bool:
        """Drops a question of which a task fails for good; another may start. False if the question has left already."""
        ...

    async def acknowledged(self, channel: Channel, updates: int) -> None:
        """Every live engine of the channel has the weights after `updates` updates."""
        ...

    async def take(self, update: int, token_statistics: Callable[[Message], Awaitable[bytes]]) -> TakenBatch:
        """Waits for the batch of this update. token_statistics: the learner's, for rules that need them."""
        ...

    async def updated(self, update: int, digest: str) -> None:
        """The learner made `update`; digest: of its weights after it."""
        ...

    async def keep_from(self, segment: int) -> None:
        """Lets the journal forget what is older than this segment."""
        ...

    async def halt(self) -> int:
        """Lets no further update be taken; returns the number of those taken. A `take` of a later one never returns."""
        ...

    async def progress(self) -> BufferProgress: ...

    async def answers_read(self) -> dict[str, int]:
        """Answers read so far, by reader."""
        ...

    async def state(self, cursor: dict[str, Any]) -> dict[str, Any]:
        """The counts and the admitted questions that no update has consumed, for a checkpoint; with a journal also its `segment`."""
        ...


class Learner(Protocol):
    """The learner's ranks as one."""

    async def version(self, channel: Channel = "policy") -> Version: ...

    async def update(self, batch: Message) -> StepResult: ...

    async def token_statistics(self, samples: Message) -> bytes: ...

    async def logprobs(self, samples: Sequence[TrainingSample], which: SetName) -> list[Float32]: ...

    @property
    def doing(self) -> str | None:
        """What the ranks are doing and for how long, or None."""
        ...

    @property
    def starting(self) -> bool:
        """Whether ranks are being started, which has a limit of its own."""
        ...

    async def stage(self) -> None:
        """Copies the state of this moment, for `write`."""
        ...

    async def write(self, folder: Path) -> None:
        """Writes what was staged last. Updates may run meanwhile. StagedLostError if the ranks that had staged it died."""
        ...

    async def export(self, written: Path, folder: Path, channel: Channel) -> None:
        """Makes a Hugging Face folder of what was written. Updates may run meanwhile."""
        ...


class RolloutWorker(Protocol):
    """One rollout actor, as the watchdog names it."""

    @property
    def id(self) -> str: ...

    @property
    def load(self) -> int:
        """Tasks sent and not answered."""
        ...


class RolloutWorkers(Protocol):
    """All rollout actors of one source."""

    async def run(self, task: RolloutTask) -> int:
        """Returns when the group is sampled and in the buffer."""
        ...

    async def sample(self, tasks: Sequence[RolloutTask]) -> list[Completion]: ...

    async def stats(self) -> dict[str, float]: ...

    async def watch(self) -> None:
        """Replaces workers that do not answer. Runs until it is cancelled."""
        ...

    @property
    def starting(self) -> bool:
        """Whether a worker is being started, which has a limit of its own."""
        ...

    @property
    def num_answered(self) -> int:
        """Tasks answered since the start."""
        ...

    def healthy(self) -> Sequence[RolloutWorker]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishResult:
    """The outcome of one publication."""

    seconds: float
    bytes: int  # of one stream, however many receivers took it
    num_acknowledged: int


class ChannelPublisher(Protocol):
    """Publishes the weights of one channel."""

    def carry(self, weights: Channel) -> None:
        """From the next publication on, the engines of the channel get these weights."""
        ...

    async def publish(self, version: Version, sent: asyncio.Event | None = None) -> PublishResult:
        """Returns when all live engines have acknowledged `version`. sent: set when the weights have left the learner."""
        ...


class CheckpointFolders(Protocol):
    """The checkpoints on disk."""

    def begin(self, update: int) -> Path: ...

    def commit(self, temporary: Path, state: dict[str, Any]) -> object: ...

    def give_up(self, temporary: Path) -> None: ...

    def oldest_state(self) -> dict[str, Any]:
        """The state of the oldest valid checkpoint."""
        ...

    def score(self, update: int, value: float) -> None:
        """The quick evaluation of the weights after `update`, of which the best are kept."""
        ...


class Log(Protocol):
    """The run log."""

    def phase(self, text: str) -> None: ...

    def training(self) -> None: ...

    def say(self, text: str) -> None: ...

    def warn(self, text: str) -> None: ...

    def update(self, update: int, metrics: Metrics, rows: Sequence[Mapping[str, Any]]) -> None: ...

    def trace(self, spans: Iterable[Span]) -> None: ...

    def self_test(self, update: int, differences: Mapping[Source, LogprobDifferences]) -> None: ...

    def evaluation(self, update: int, result: EvalResult, *, moment: Moment) -> None: ...

    def earlier_updates(self) -> list[dict[str, Any]]: ...

    @property
    def continue_file(self) -> Path: ...


@dataclass(slots=True, kw_only=True)
class Parts:
    """Everything the controller drives, placed and started."""

    config: TrainConfig
    version: Version  # of the learner's weights at the start
    rule: RewardRule
    prepared: PreparedQuestions
    cursor: QuestionCursor
    buffer: Buffer
    learner: Learner
    turns: LearnerTurns  # whoever moves the weights takes the learner alone; publishers share it while they send
    groups: Mapping[Source, RolloutWorkers]
    publishers: Mapping[Channel, ChannelPublisher]
    checkpoints: CheckpointFolders
    log: Log
    unanswered: Sequence[GroupId] = ()  # groups that an interrupted run asked for and did not get
    num_redone: int = 0  # updates that were made again from the journal
    initial_answers: Path  # the file of the initial model's answers, in the run directory
    evaluate: Callable[[Moment], Awaitable[EvalResult | None]]  # None: no held-out questions
