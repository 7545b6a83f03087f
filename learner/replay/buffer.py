"""The replay buffer: joins groups of completions into ready questions, scores them, and gives the learner its updates.

Two invariants: each completion leaves exactly once (ledger.py), and no question is trained past its staleness bound (admission.py).
A plain class that takes and returns objects. All methods run in one event loop. Only `room` and `take` wait, and what they do after
it they do at once, as all others do: so nothing is locked, and the same calls in the same order make the same decisions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from corewarding.dataflow.carriers import (
    BufferProgress,
    Completion,
    QuestionRollouts,
    ScoredGroup,
    TokenStatistics,
    TrainBatch,
    TrainingSample,
    UpdateReport,
)
from corewarding.dataflow.ids import AskedId, Channel, GroupId
from corewarding.dataflow.metrics import Metrics
from corewarding.dataflow.votes import InitialAnswers
from corewarding.learner.replay.admission import Admission
from corewarding.learner.replay.batching import scored_update, unscored_samples
from corewarding.learner.replay.events import (
    Event,
    GroupAccepted,
    GroupRefused,
    QuestionEvicted,
    QuestionFailed,
)
from corewarding.learner.replay.joining import Joining
from corewarding.learner.replay.ledger import Ledger
from corewarding.learner.replay.metrics import Lengths, staleness
from corewarding.learner.replay.reports import Reports
from corewarding.learner.replay.scoring import BufferPlan, Scorer
from corewarding.questions.gold import GoldAnswers

NUM_NAMED = 8
"""How many missing questions `progress` names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A question whose groups are all here."""

    rollouts: QuestionRollouts
    at: int  # updates done when its last group arrived
    scored: list[ScoredGroup] | None  # None until the learner's token statistics are known, if the rule needs them


class ReplayBuffer:
    """One update is made by `take`, then `batch`, then `report`, each with the same update number."""

    def __init__(self, plan: BufferPlan, gold: GoldAnswers, state: dict[str, Any] | None = None) -> None:
        """state: of a checkpoint, as `state()` returned it; None starts from the beginning."""
        self._plan = plan
        self._scorer = Scorer(plan, gold)
        self._rule = self._scorer.rule
        self._gold = gold
        self._admission = Admission(plan.limits, updates_done=0 if state is None else state["updates_done"])
        self._joining = Joining(self._scorer.sizes, incarnation=plan.incarnation)
        self._ready: dict[AskedId, Ready] = {}
        self._taken: dict[int, list[Ready]] = {}  # by update: taken and not yet a batch
        self._served: TrainBatch | None = None  # the newest one
        self._reports = Reports(plan, gold, self._scorer)
        self._ledger = Ledger() if state is None else Ledger.restore(state["ledger"])
        self._lengths = Lengths()
        self._changed = asyncio.Event()  # a new one after each change
        self._halted = False
        self.on_event: Callable[[Event], None] = lambda event: None
        """Told of every event, after it was counted."""

    @property
    def needs_statistics(self) -> bool:
        """Whether `batch` needs the learner's token statistics of `unscored` samples."""
        return "token_statistics" in self._rule.needs

    def know_initial(self, answers: Iterable[InitialAnswers]) -> None:
        """Takes in the initial model's answers, for rules that need them; before any question is admitted."""
        self._scorer.know_initial(answers)

    def record(self, event: Event) -> None:
        """The one place that hears of every accept, refusal, eviction and scored update."""
        self._ledger.record(event)
        self._lengths.record(event)
        self.on_event(event)

    # ---- questions are admitted, completions arrive ---------------------------------------------------------------

    async def room(self) -> int:
        """Waits until at least one question may start; returns how many may."""
        while not (room := self._admission.room()):
            await self._changed.wait()
        return room

    async def admit(self, offered: Sequence[AskedId]) -> int:
        """Admits the first of the offered questions, as many as there is room for; returns how many."""
        num = min(self._admission.room(), len(offered))
        for asked in offered[:num]:
            self._admission.admit(asked)
            self._joining.expect(asked)
        return num

    async def acknowledged(self, channel: Channel, updates: int) -> None:
        """Every live engine of `channel` has acknowledged the weights after `updates` updates."""
        self._admission.acknowledge(channel, updates)
        self._notify()

    async def accept(self, completions: Sequence[Completion]) -> None:
        """Takes in one group. Once this returns, the sender may forget it. A group sent again is counted as duplicates and
        changes nothing else. AssertionError if `completions` is not exactly one group."""
        refusal = self._joining.refusal(completions)
        if refusal is not None:
            self.record(GroupRefused(reason=refusal, completions=completions))
            return
        self.record(GroupAccepted(completions=completions))
        rollouts = self._joining.add(completions)
        if rollouts is not None:
            self._become_ready(rollouts)

    async def give_up(self, asked: AskedId) -> bool:
        """Drops a question of which a task fails for good; another may start. False if the question has left already."""
        given_up = self._admission.give_up(asked)
        if given_up:
            self.record(QuestionFailed(asked=asked, completions=self._joining.end(asked)))
            self._notify()
        return given_up

    def _become_ready(self, rollouts: QuestionRollouts) -> None:
        asked, policy = rollouts.asked, rollouts.oldest_version("policy")
        assert policy is not None, f"{asked} has no policy completion"
        self._hold(rollouts, at=self._admission.updates_done)
        self._admission.mark_ready(asked, oldest_policy=policy, oldest_teacher=rollouts.oldest_version("teacher"))
        self._evict()
        self._notify()

    def _hold(self, rollouts: QuestionRollouts, *, at: int) -> None:
        scored = None if self.needs_statistics else self._scorer.score(rollouts)
        self._ready[rollouts.asked] = Ready(rollouts=rollouts, at=at, scored=scored)

    def _evict(self) -> None:
        """Removes ready questions that are too old; the controller may ask one new question for each."""
        for asked, reason in self._admission.evict():
            self._joining.end(asked)
            completions = self._ready.pop(asked).rollouts.completions
            self.record(QuestionEvicted(asked=asked, reason=reason, completions=completions))

    # ---- the learner takes an update ------------------------------------------------------------------------------

    async def take(self, update: int) -> None:
        """Waits until admission lets update number `update` be made, and takes its questions. The newest update may be asked for
        again: its questions are those taken before."""
        if update == self._admission.updates_done and (update in self._taken or self._is_served(update)):
            return
        assert update == self._admission.updates_done + 1, f"update {update} after {self._admission.updates_done}"
        while self._halted or (selected := self._admission.select()) is None:
            await self._changed.wait()
        self._admission.consume(selected)
        self._taken[update] = [self._ready.pop(asked) for asked in selected]
        for asked in selected:
            self._joining.end(asked)
        self._evict()
        self._notify()

    def _notify(self) -> None:
        """Lets whoever waits look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    def taken(self, update: int) -> tuple[AskedId, ...]:
        """The questions taken for `update` while it is not a batch yet."""
        return tuple(ready.rollouts.asked for ready in self._taken.get(update, ()))

    def _is_served(self, update: int) -> bool:
        return self._served is not None and self._served.update == update

    def halt(self) -> int:
        """No further update is taken: a `take` that waits now waits for ever. Returns the number of updates taken so far."""
        self._halted = True
        return self._admission.updates_done

    def unscored(self, update: int) -> list[TrainingSample]:
        """The completions of the taken questions that will be trained, with advantage 0: for the learner's token statistics."""
        return unscored_samples(self._rule, [ready.rollouts for ready in self._taken[update]], self._plan.group_size)

    def batch(self, update: int, statistics: Sequence[TokenStatistics] | None = None) -> TrainBatch:
        """The batch of the questions taken for `update`; of the newest update also again. statistics: of all `unscored` samples,
        if `needs_statistics`."""
        if self._served is not None and self._is_served(update):
            return self._served
        taken, most = self._taken.pop(update), self._plan.limits.largest_staleness
        groups = [group for ready in taken for group in self._scored(ready, statistics)]
        event = scored_update(self._plan, update, [ready.rollouts for ready in taken], groups)
        self.record(event)
        self._ledger.check(self.num_waiting)
        ready_at = {ready.rollouts.asked: ready.at for ready in taken}
        ages = staleness(event.trained, event.rollouts, ready_at, version=update - 1)
        assert ages.scalars["staleness/max"] <= most, "a sample over staleness.max was selected"
        counts = self._ledger.scalars(self.num_waiting) | {"label/num_read_by_rule": float(self._gold.labels_read)}
        self._reports.add(event, Metrics.union([ages, self._lengths.report(), Metrics(scalars=counts)]))
        self._served = event.batch
        return event.batch

    def _scored(self, ready: Ready, statistics: Sequence[TokenStatistics] | None) -> list[ScoredGroup]:
        return self._scorer.score(ready.rollouts, statistics) if ready.scored is None else ready.scored

    def can_report(self, update: int) -> bool:
        """Whether this update's batch was made and not reported."""
        return update in self._reports

    def forget_reports(self) -> None:
        """Nobody will ask for the reports of the updates so far."""
        self._reports.clear()

    def report(self, update: int) -> UpdateReport:
        """What there is to say of the batch of `update`; once per update, and of the newest one again."""
        return self._reports.make(update)

    # ---- watching and checkpoints ---------------------------------------------------------------------------------

    @property
    def num_waiting(self) -> int:
        """Completions that have not left: of admitted questions, and of taken ones that are not a batch yet."""
        taken = sum(len(ready.rollouts.completions) for update in self._taken.values() for ready in update)
        return self._joining.num_completions + taken

    def progress(self) -> BufferProgress:
        """How far the buffer has come, and what the learner may be waiting for."""
        missing = self._admission.missing()
        return BufferProgress(
            num_generated=self._ledger.generated,
            num_ready=self._joining.num_ready,
            updates_taken=self._admission.updates_done,
            room=self._admission.room(),
            num_missing=len(missing),
            missing=tuple(str(asked) for asked in missing[:NUM_NAMED]),
            dropped={str(reason): num for reason, num in self._ledger.dropped.items()},
        )

    def answers_read(self) -> dict[str, int]:
        """How often the data set's answers were read so far, by reader."""
        return dict(self._gold.reads)

    def snapshot(self) -> tuple[dict[str, Any], list[tuple[Completion, ...]]] | None:
        """Everything that a buffer which goes on needs: its state, for the codec, and the groups that wait. None while an update is
        taken and not reported."""
        if self._taken or len(self._reports):
            return None
        self._ledger.check(self.num_waiting)
        state = {
            "admission": self._admission.snapshot(),
            "joining": self._joining.snapshot(),
            "ledger": self._ledger.state(),
            "lengths": self._lengths.state(),
            "ready_at": [(asked, self._ready[asked].at) for asked in sorted(self._ready)],
            "reads": self.answers_read(),
            "initial": self._scorer.initial_answers(),
        }
        return state, self._joining.groups()

    @classmethod
    def restored(
        cls, plan: BufferPlan, gold: GoldAnswers, state: dict[str, Any], groups: Iterable[Sequence[Completion]]
    ) -> ReplayBuffer:
        """The buffer of a snapshot."""
        buffer = cls(plan, gold)
        buffer._admission = Admission.restored(plan.limits, state["admission"])
        buffer._ledger = Ledger.of(state["ledger"])
        buffer._lengths = Lengths.of(state["lengths"])
        buffer.know_initial(state["initial"])
        buffer._joining.restore(state["joining"], buffer._admission.pending())
        ready_at = dict(state["ready_at"])
        for group in groups:
            if (rollouts := buffer._joining.add(group)) is not None:
                buffer._hold(rollouts, at=ready_at[rollouts.asked])
        buffer._joining.num_ready = state["joining"]["num_ready"]
        gold.reads.update(state["reads"])
        return buffer

    def state(self) -> dict[str, Any]:
        """For a checkpoint between two updates, JSON-ready: the counts, and the questions admitted and not trained."""
        self._ledger.check(self.num_waiting)
        taken = [ready.rollouts.asked for update in self._taken.values() for ready in update]
        return {
            "updates_done": self._admission.updates_done - len(self._taken),
            "ledger": self._ledger.state(),
            "pending": [(asked.question_id, asked.epoch) for asked in (*taken, *self._admission.pending())],
        }

    def missing(self) -> list[GroupId]:
        """The groups that were asked for and have not arrived."""
        return self._joining.missing()
