"""The replay buffer: joins tagged completions into whole questions, scores them, and hands the learner its updates.

Invariant: each completion leaves exactly once (learner/replay/ledger.py), and no question passes its staleness bound
(learner/replay/admission.py). It runs as one Ray actor; all methods run in that actor's event loop, so nothing here is locked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from corewarding.dataflow.carriers import (
    Completion,
    QuestionRollouts,
    ScoredGroup,
    TokenStatistics,
    TrainBatch,
    TrainingSample,
)
from corewarding.dataflow.codec import decode, encode
from corewarding.dataflow.ids import AskedId, Channel, GroupId
from corewarding.dataflow.metrics import Metrics
from corewarding.learner.objective.advantages import training_samples
from corewarding.learner.replay.admission import Admission, AdmissionLimits
from corewarding.learner.replay.ledger import DropReason, Ledger
from corewarding.learner.replay.metrics import Lengths, group_times, rollout_times, staleness_of
from corewarding.learner.replay.sample_log import sample_rows
from corewarding.questions.gold import GoldAnswers
from corewarding.rewards.answers.key import answer_key
from corewarding.rewards.diagnostics import reward_diagnostics
from corewarding.rewards.rules.table import REWARD_RULES, RewardRule, RuleContext
from corewarding.rewards.settings import VoteSettings

REMEMBERED = 20_000
"""Questions that are gone and whose groups, should they come again, are known as duplicates; older ones count as unasked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BufferPlan:
    """What the buffer must know of the run's configuration."""

    rule: str
    group_size: int
    run_seed: int
    incarnation: int
    limits: AdmissionLimits
    vote: VoteSettings = field(default_factory=VoteSettings)
    normalize: str = "std"
    mask_truncated: bool = False
    skip_zero_advantage: bool = False
    num_sample_questions: int = 4  # questions per update whose completions go to the sample log


@dataclass(slots=True)
class _Joining:
    """One admitted question on its way to being whole."""

    groups: dict[GroupId, tuple[Completion, ...]] = field(default_factory=dict)
    scored: list[ScoredGroup] | None = None
    rollouts: QuestionRollouts | None = None
    whole_at: int = 0  # updates done when the last group arrived

    @property
    def num_completions(self) -> int:
        return sum(len(group) for group in self.groups.values())


class ReplayBuffer:
    """See the module's docstring. Bytes in and out are dataflow.codec messages."""

    def __init__(self, plan: BufferPlan, gold: GoldAnswers, state: dict[str, Any] | None = None) -> None:
        self._plan = plan
        self._rule: RewardRule = REWARD_RULES[plan.rule]
        self._gold = gold
        self._ledger = Ledger() if state is None else Ledger.restore(state["ledger"])
        self._admission = Admission(plan.limits, updates_done=0 if state is None else state["updates_done"])
        self._joining: dict[AskedId, _Joining] = {}
        self._gone: dict[AskedId, None] = {}  # consumed or evicted lately, oldest first
        self._num_gone = 0
        self._taken: list[QuestionRollouts] = []  # of the update now being made, when it still has to be scored
        self._whole_at: dict[AskedId, int] = {}  # of the same
        self._lengths = Lengths()
        self._changed = asyncio.Condition()
        self._key: Callable[[str], str] = partial(answer_key, equivalence=plan.vote.equivalence, units=plan.vote.units)
        self._report: tuple[Metrics, list[dict[str, Any]]] | None = None

    # ---- admission ------------------------------------------------------------------------------------------------

    async def room(self) -> int:
        """Waits until at least one question may start; how many may."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._admission.room() > 0)
            return self._admission.room()

    async def admit(self, offered: list[tuple[str, int]]) -> int:
        """Admits as many of the offered (question id, epoch) as there is room for, in order, and says how many."""
        num = min(self._admission.room(), len(offered))
        for question_id, epoch in offered[:num]:
            asked = AskedId(question_id=question_id, epoch=epoch)
            self._admission.admit(asked)
            self._joining[asked] = _Joining()
        return num

    async def publish(self, channel: Channel, updates: int) -> None:
        """Every live engine of `channel` has acknowledged the weights after `updates` updates."""
        async with self._changed:
            if channel == "policy":
                self._admission.publish(policy=updates)
            else:
                self._admission.publish(teacher=updates)
            self._changed.notify_all()

    # ---- completions arrive ---------------------------------------------------------------------------------------

    async def accept(self, payload: bytes) -> None:
        """Takes in one whole group of completions (a list of Completion). Returning is the acknowledgement; a group that
        comes again is counted as duplicates and changes nothing else."""
        completions: list[Completion] = decode(payload)
        self._ledger.arrive(len(completions))
        group = completions[0].id.group
        reason = self._refusal(group, completions)
        if reason is not None:
            self._ledger.drop(reason, len(completions))
            return
        self._lengths.add("generated", completions)
        entry = self._joining[group.asked]
        entry.groups[group] = tuple(sorted(completions, key=lambda c: c.id.sample_index))
        if len(entry.groups) == len(self._rule.groups):
            await self._complete(group.asked, entry)

    def _refusal(self, group: GroupId, completions: Sequence[Completion]) -> DropReason | None:
        indices = sorted(c.id.sample_index for c in completions)
        assert all(c.id.group == group for c in completions), f"{group}: one message mixes groups"
        assert indices == list(range(self._plan.group_size)), f"{group}: samples {indices} are not one whole group"
        if any(c.incarnation != self._plan.incarnation for c in completions):
            return "lost_incarnation"
        if group.asked in self._gone:
            return "duplicate"
        if group.asked not in self._joining or (group.view, group.source) not in self._rule.groups:
            return "unasked"
        return "duplicate" if group in self._joining[group.asked].groups else None

    async def _complete(self, asked: AskedId, entry: _Joining) -> None:
        rollouts = QuestionRollouts(asked=asked, groups=entry.groups)
        entry.rollouts, entry.whole_at = rollouts, self._admission.updates_done
        if "token_statistics" not in self._rule.needs:
            entry.scored = self._rule.score(rollouts, self._context(None))
        oldest = rollouts.oldest_version("policy")
        assert oldest is not None, f"{asked} has no policy completion"
        async with self._changed:
            self._admission.arrive(asked, oldest_policy=oldest, oldest_teacher=rollouts.oldest_version("teacher"))
            self._evict()
            self._changed.notify_all()

    def _evict(self) -> None:
        """Whole questions that are too old go; the controller may ask one new for each."""
        for asked, reason in self._admission.evict():
            entry = self._joining.pop(asked)
            self._forget(asked)
            self._ledger.drop(reason, entry.num_completions)
            self._lengths.add("dropped", [c for group in entry.groups.values() for c in group])

    def _forget(self, asked: AskedId) -> None:
        """Remembers no more of a question than that it was here; of very old ones not even that."""
        self._num_gone += 1
        self._gone[asked] = None
        if len(self._gone) > REMEMBERED:
            del self._gone[next(iter(self._gone))]

    def _context(self, statistics: list[TokenStatistics] | None) -> RuleContext:
        return RuleContext(
            key=self._key,
            min_share=self._plan.vote.min_share,
            min_voters=self._plan.vote.min_voters,
            run_seed=self._plan.run_seed,
            gold=partial(self._gold.read, reader="reward") if "gold" in self._rule.needs else None,
            statistics=None if statistics is None else {one.id: one for one in statistics},
        )

    # ---- the learner takes ----------------------------------------------------------------------------------------

    async def take(self, update: int) -> tuple[int, bytes]:
        """Waits until update number `update` can be made, consumes its questions and returns (number of samples, TrainBatch);
        for a rule that needs token statistics the list of unscored TrainingSamples, to be followed by `score`."""
        assert update == self._admission.updates_done + 1, f"update {update} after {self._admission.updates_done}"
        async with self._changed:
            await self._changed.wait_for(lambda: self._admission.select() is not None)
            taken = self._admission.select()
            assert taken is not None
            self._admission.consume(taken)
            entries = [self._joining.pop(asked) for asked in taken]
            for asked in taken:
                self._forget(asked)
            self._evict()
            self._changed.notify_all()
        self._whole_at = {asked: entry.whole_at for asked, entry in zip(taken, entries, strict=True)}
        self._taken = [entry.rollouts for entry in entries if entry.rollouts is not None]
        if "token_statistics" in self._rule.needs:
            unscored = _unscored(self._taken, self._rule)
            return len(unscored), encode(unscored)
        return self._batch([group for entry in entries for group in entry.scored or []])

    async def score(self, statistics: bytes) -> tuple[int, bytes]:
        """(number of samples, TrainBatch) of the questions taken last, scored with the learner's token statistics."""
        context = self._context(decode(statistics))
        return self._batch([group for rollouts in self._taken for group in self._rule.score(rollouts, context)])

    def _batch(self, scored: list[ScoredGroup]) -> tuple[int, bytes]:
        plan, update, limits = self._plan, self._admission.updates_done, self._plan.limits
        samples = training_samples(
            scored,
            normalize=plan.normalize,  # type: ignore[arg-type]
            mask_truncated=plan.mask_truncated,
            skip_zero_advantage=plan.skip_zero_advantage,
            oldest_version=update - 1 - limits.staleness_max if limits.on_exceed == "withhold" else 0,
        )
        self._account(scored, samples)
        trained = [sample for sample in samples if sample.loss_mask.any()]
        ages = staleness_of(trained, self._taken, self._whole_at, version=update - 1)
        assert ages.scalars["staleness/max"] <= limits.staleness_max, "a sample over staleness.max was selected"
        gold = partial(self._gold.read, reader="diagnostics")
        metrics = Metrics.union(
            [
                reward_diagnostics(self._taken, scored, gold=gold, key=self._key),
                ages,
                rollout_times(self._taken),
                self._lengths.report(),
                Metrics(scalars=self._ledger.scalars(self.num_waiting)),
                Metrics(scalars={"label/num_read_by_rule": float(self._gold.labels_read)}),
            ]
        )
        rows = sample_rows(self._taken, scored, update=update, num_questions=plan.num_sample_questions)
        self._report = (metrics, rows)
        return len(samples), encode(TrainBatch(incarnation=plan.incarnation, update=update, samples=tuple(samples)))

    def _account(self, scored: list[ScoredGroup], samples: list[TrainingSample]) -> None:
        in_trained_groups = sum(len(group.completions) for group in scored)
        everything = sum(len(rollouts.completions) for rollouts in self._taken)
        withheld = [sample for sample in samples if not sample.loss_mask.any()]
        trained = [sample for sample in samples if sample.loss_mask.any()]
        self._lengths.add("trained", trained)
        self._lengths.add("withheld", withheld)
        self._ledger.drop("zero_advantage", in_trained_groups - len(samples))
        self._ledger.leave(trained=len(trained), voted_only=everything - in_trained_groups, withheld=len(withheld))
        self._ledger.check(self.num_waiting)

    # ---- watching and checkpoints ---------------------------------------------------------------------------------

    @property
    def num_waiting(self) -> int:
        """Completions held: of whole and of partly arrived questions."""
        return sum(entry.num_completions for entry in self._joining.values())

    async def report(self) -> tuple[bytes, list[dict[str, Any]], list[tuple[str, str, float, float]]]:
        """Of the update taken last: metrics (encoded), sample rows, and when each group was sampled, as (actor id, group, started,
        finished)."""
        assert self._report is not None, "nothing was taken yet"
        metrics, rows = self._report
        return encode(metrics), rows, group_times(self._taken)

    async def progress(self) -> dict[str, Any]:
        """What the watchdog looks at: whole questions so far, and whom the learner waits for."""
        missing = self._admission.missing()
        return {
            "num_generated": self._ledger.generated,
            "num_whole": len(self._joining) - len(missing) + self._num_gone,
            "updates_taken": self._admission.updates_done,
            "room": self._admission.room(),
            "missing": [str(asked) for asked in missing[:8]],
            "num_missing": len(missing),
            "dropped": dict(self._ledger.dropped),
        }

    async def gold_reads(self) -> dict[str, int]:
        """Answers read so far, by reader."""
        return dict(self._gold.reads)

    async def state(self) -> dict[str, Any]:
        """For a checkpoint between two updates: the counts, and what was asked and not consumed."""
        self._ledger.check(self.num_waiting)
        return {
            "updates_done": self._admission.updates_done,
            "ledger": self._ledger.state(),
            "pending": [(asked.question_id, asked.epoch) for asked in self._admission.pending()],
        }


def _unscored(taken: list[QuestionRollouts], rule: RewardRule) -> list[TrainingSample]:
    """The trained completions with advantage 0: what a forward pass for token statistics needs."""
    groups = [
        ScoredGroup(
            id=group[0].id.group,
            completions=group,
            rewards=np.zeros(len(group), np.float32),
            label=None,
            vote=None,
            abstained=False,
        )
        for rollouts in taken
        for group in (rollouts.group(view, source) for view, source in rule.trained)
    ]
    return training_samples(groups, normalize="none", mask_truncated=False, skip_zero_advantage=False)
