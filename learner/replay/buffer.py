"""The replay buffer: joins groups of completions into ready questions, scores them, and gives the learner its updates.

Two invariants: each completion leaves exactly once (ledger.py), and no question is trained past its staleness bound (admission.py).
A plain class that takes and returns objects. All methods run in one event loop, so nothing is locked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

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
from corewarding.dataflow.ids import AskedId, Channel
from corewarding.dataflow.metrics import Metrics
from corewarding.dataflow.votes import InitialAnswers
from corewarding.learner.objective.advantages import training_samples
from corewarding.learner.replay.admission import Admission
from corewarding.learner.replay.events import (
    Event,
    GroupAccepted,
    GroupRefused,
    QuestionEvicted,
    QuestionFailed,
    UpdateScored,
)
from corewarding.learner.replay.joining import Joining
from corewarding.learner.replay.ledger import Ledger
from corewarding.learner.replay.metrics import Lengths, rollout_times, sampling_spans, staleness, zero_advantages
from corewarding.learner.replay.sample_log import sample_rows
from corewarding.learner.replay.scoring import BufferPlan, Scorer
from corewarding.questions.gold import GoldAnswers
from corewarding.rewards.diagnostics import reward_diagnostics

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
        self._unreported: dict[int, tuple[UpdateScored, Metrics]] = {}  # by update: a batch and not yet reported
        self._ledger = Ledger() if state is None else Ledger.restore(state["ledger"])
        self._lengths = Lengths()
        self._changed = asyncio.Condition()
        self._halted = False

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

    # ---- questions are admitted, completions arrive ---------------------------------------------------------------

    async def room(self) -> int:
        """Waits until at least one question may start; returns how many may."""
        async with self._changed:
            return await self._changed.wait_for(self._admission.room)

    async def admit(self, offered: Sequence[AskedId]) -> int:
        """Admits the first of the offered questions, as many as there is room for; returns how many."""
        num = min(self._admission.room(), len(offered))
        for asked in offered[:num]:
            self._admission.admit(asked)
            self._joining.expect(asked)
        return num

    async def acknowledged(self, channel: Channel, updates: int) -> None:
        """Every live engine of `channel` has acknowledged the weights after `updates` updates."""
        async with self._changed:
            self._admission.acknowledge(channel, updates)
            self._changed.notify_all()

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
            await self._become_ready(rollouts)

    async def give_up(self, asked: AskedId) -> bool:
        """Drops a question of which a task fails for good; another may start. False if the question has left already."""
        async with self._changed:
            given_up = self._admission.give_up(asked)
            if given_up:
                self.record(QuestionFailed(completions=self._joining.end(asked)))
                self._changed.notify_all()
        return given_up

    async def _become_ready(self, rollouts: QuestionRollouts) -> None:
        asked, policy = rollouts.asked, rollouts.oldest_version("policy")
        assert policy is not None, f"{asked} has no policy completion"
        scored = None if self.needs_statistics else self._scorer.score(rollouts)
        self._ready[asked] = Ready(rollouts=rollouts, at=self._admission.updates_done, scored=scored)
        async with self._changed:
            self._admission.mark_ready(asked, oldest_policy=policy, oldest_teacher=rollouts.oldest_version("teacher"))
            self._evict()
            self._changed.notify_all()

    def _evict(self) -> None:
        """Removes ready questions that are too old; the controller may ask one new question for each."""
        for asked, reason in self._admission.evict():
            self._joining.end(asked)
            self.record(QuestionEvicted(reason=reason, completions=self._ready.pop(asked).rollouts.completions))

    # ---- the learner takes an update ------------------------------------------------------------------------------

    async def take(self, update: int) -> None:
        """Waits until admission lets update number `update` be made, and takes its questions."""
        assert update == self._admission.updates_done + 1, f"update {update} after {self._admission.updates_done}"
        async with self._changed:
            selected = await self._changed.wait_for(lambda: None if self._halted else self._admission.select())
            assert selected is not None
            self._admission.consume(selected)
            self._taken[update] = [self._ready.pop(asked) for asked in selected]
            for asked in selected:
                self._joining.end(asked)
            self._evict()
            self._changed.notify_all()

    def halt(self) -> int:
        """No further update is taken: a `take` that waits now waits for ever. Returns the number of updates taken so far."""
        self._halted = True
        return self._admission.updates_done

    def unscored(self, update: int) -> list[TrainingSample]:
        """The completions of the taken questions that will be trained, with advantage 0: for the learner's token statistics."""
        samples = [
            TrainingSample.of(completion, advantage=0.0)
            for ready in self._taken[update]
            for view, source in self._rule.trained
            for completion in ready.rollouts.group(view, source)[: self._plan.group_size]
        ]
        return sorted(samples, key=lambda sample: sample.id)

    def batch(self, update: int, statistics: Sequence[TokenStatistics] | None = None) -> TrainBatch:
        """The batch of the questions taken for `update`. statistics: of all `unscored` samples, if `needs_statistics`."""
        plan, limits, taken = self._plan, self._plan.limits, self._taken.pop(update)
        groups = [group for ready in taken for group in self._scored(ready, statistics)]
        samples = training_samples(
            groups,
            normalize=plan.normalize,
            mask_truncated=plan.mask_truncated,
            skip_zero_advantage=plan.skip_zero_advantage,
            mask_abstained=plan.vote.on_abstain == "mask",
            oldest_version=update - 1 - limits.staleness_max if limits.on_exceed == "withhold" else 0,
        )
        in_loss = np.array([sample.loss_mask.any() for sample in samples], np.bool_)
        event = UpdateScored(
            update=update,
            rollouts=[ready.rollouts for ready in taken],
            groups=groups,
            trained=[sample for sample, trained in zip(samples, in_loss, strict=True) if trained],
            withheld=[sample for sample, trained in zip(samples, in_loss, strict=True) if not trained],
        )
        self.record(event)
        self._ledger.check(self.num_waiting)
        ready_at = {ready.rollouts.asked: ready.at for ready in taken}
        ages = staleness(event.trained, event.rollouts, ready_at, version=update - 1)
        assert ages.scalars["staleness/max"] <= limits.staleness_max, "a sample over staleness.max was selected"
        counts = self._ledger.scalars(self.num_waiting) | {"label/num_read_by_rule": float(self._gold.labels_read)}
        self._unreported[update] = event, Metrics.union([ages, self._lengths.report(), Metrics(scalars=counts)])
        return TrainBatch(incarnation=plan.incarnation, update=update, samples=tuple(samples))

    def _scored(self, ready: Ready, statistics: Sequence[TokenStatistics] | None) -> list[ScoredGroup]:
        return self._scorer.score(ready.rollouts, statistics) if ready.scored is None else ready.scored

    def report(self, update: int) -> UpdateReport:
        """What there is to say of the batch of `update`; once per update. It is apart from `batch` so that the learner need not
        wait for it."""
        event, counted = self._unreported.pop(update)
        gold = partial(self._gold.read, reader="diagnostics")
        return UpdateReport(
            update=update,
            metrics=Metrics.union(
                [
                    reward_diagnostics(event.rollouts, event.groups, gold=gold, key=self._scorer.key),
                    zero_advantages(event.groups),
                    rollout_times(event.rollouts),
                    counted,
                ]
            ),
            rows=sample_rows(
                event.rollouts,
                event.groups,
                update=update,
                num_questions=self._plan.num_sample_questions,
                normalize=self._plan.normalize,
            ),
            spans=sampling_spans(event.rollouts),
        )

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

    def state(self) -> dict[str, Any]:
        """For a checkpoint between two updates, JSON-ready: the counts, and the questions admitted and not consumed."""
        self._ledger.check(self.num_waiting)
        return {
            "updates_done": self._admission.updates_done,
            "ledger": self._ledger.state(),
            "pending": [(asked.question_id, asked.epoch) for asked in self._admission.pending()],
        }
