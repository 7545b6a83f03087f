"""How far ahead may we sample, and which questions does an update take? One object owns admit, select, evict and capacity.

The bound it keeps: when update u consumes a question, `u - 1 - (updates in the oldest trained policy token)` is at most
`staleness.max`, and the same of the teacher's tokens with `label.max_staleness`.

Let Q be questions per update, v the updates done, and `published` the version that every live engine acknowledged. A question's
policy and label deadlines are the last v at which it may be consumed under either bound. `on_exceed` makes each of them

- `wait`: a deadline that is held, by waiting for the question in time;
- `drop`: a deadline after which a whole question is evicted, and exactly one new may start in its place;
- `withhold` (policy only): a deadline of each completion, which the replay buffer keeps by masking it out of the loss.

- *Admit.* A question may start while fewer than (published + depth + 1 - v) Q are outstanding. Its tokens are sampled by
  versions of at least `published`, so its held deadline is at least `published + slack`, slack >= depth.
- *Select.* The Q ready questions with the earliest held deadlines are taken (ties: earliest deadline of any kind, then the
  order of admission), provided that what stays behind can still be consumed in time: for every d, at most (d - v) Q of the
  remaining have a held deadline of d or earlier. Else the learner waits.

Why this never deadlocks: the proviso, with (d - v + 1) Q before the taking, holds at every moment. It holds when a question
with held deadline d' is admitted, because at most (published + depth + 1 - v) Q questions are outstanding and d' >= published
+ depth. It survives a taking by the proviso itself, and an eviction because that only takes questions away. And once all
outstanding questions are ready, taking the Q earliest deadlines restores the proviso for v + 1. What is needed besides is that
Q questions are outstanding for every update, which holds when depth >= publish.every_updates - 1; and that a question which
starts while the learner waits is not too old at birth, which holds when a dropping or withholding bound is at least
publish.every_updates - 1 (the label's: plus the teacher's lag). `AdmissionLimits` refuses settings for which any of this fails.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from corewarding.dataflow.errors import UserError
from corewarding.dataflow.ids import AskedId

OnExceed = Literal["wait", "drop", "withhold"]
LabelOnExceed = Literal["wait", "drop"]
StaleReason = Literal["stale_policy", "stale_label"]

NEVER = 2**62  # a deadline that is none


class CapacityError(UserError):
    """The staleness settings would deadlock or break their own bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionLimits:
    """What bounds the pipeline, in updates."""

    questions_per_update: int
    total_updates: int
    staleness_max: int
    depth: int
    publish_every: int = 1
    label_max: int | None = None  # None: no teacher votes, or the teacher is frozen
    teacher_lag: int = 0  # updates the published teacher may be behind the published policy
    on_exceed: OnExceed = "wait"
    label_on_exceed: LabelOnExceed = "wait"

    def __post_init__(self) -> None:
        behind = self.publish_every - 1
        if self.on_exceed == "wait" and self.depth > self.staleness_max:
            raise CapacityError(
                f"staleness.pipeline_depth must be at most staleness.max, got {self.depth} > {self.staleness_max}: samples "
                f"drawn {self.depth} updates ahead would be too old to be trained on, and staleness.on_exceed is wait"
            )
        if self.depth < behind:
            raise CapacityError(
                f"staleness.pipeline_depth must be at least publish.every_updates - 1 = {behind}, got "
                f"{self.depth}: the learner would wait for questions that may only start after its next publication"
            )
        if self.staleness_max < behind:
            raise CapacityError(
                f"staleness.max must be at least publish.every_updates - 1 = {behind}, got {self.staleness_max}: between two "
                "publications every question would be too old at birth"
            )
        ahead = self.depth if self.label_on_exceed == "wait" else behind
        if self.label_max is not None and self.label_max < ahead + self.teacher_lag:
            what = "pipeline depth" if self.label_on_exceed == "wait" else "publish.every_updates - 1 ="
            raise CapacityError(
                f"label.max_staleness must be at least {ahead + self.teacher_lag} ({what} {ahead} + "
                f"teacher lag {self.teacher_lag} from teacher.update_every and teacher.publish_every), got {self.label_max}: "
                "labels would be too old whenever the pipeline is full"
            )


@dataclass(slots=True)
class _Outstanding:
    number: int  # admission order
    policy: int  # deadline
    label: int  # deadline
    held: int  # the earlier of the deadlines that are waited for
    ready: bool = False

    @property
    def urgency(self) -> tuple[int, int, int]:
        return self.held, min(self.policy, self.label), self.number


class Admission:
    """Questions between admission and consumption. Not thread-safe; it lives in the buffer's event loop."""

    def __init__(self, limits: AdmissionLimits, *, updates_done: int = 0) -> None:
        self.limits = limits
        self.updates_done = updates_done
        self.published_policy = updates_done
        self.published_teacher = max(0, updates_done - limits.teacher_lag)
        self.num_admitted = updates_done * limits.questions_per_update
        self.num_evicted = 0
        self._outstanding: dict[AskedId, _Outstanding] = {}

    def publish(self, *, policy: int | None = None, teacher: int | None = None) -> None:
        """Every live engine of the channel has acknowledged these weights."""
        if policy is not None:
            assert policy >= self.published_policy, f"policy {policy} published after {self.published_policy}"
            self.published_policy = policy
        if teacher is not None:
            assert teacher >= self.published_teacher, f"teacher {teacher} published after {self.published_teacher}"
            self.published_teacher = teacher

    def room(self) -> int:
        """Questions that may start now."""
        per_update = self.limits.questions_per_update
        ahead = (self.published_policy + self.limits.depth + 1) * per_update
        return max(0, min(ahead, self.limits.total_updates * per_update) - (self.num_admitted - self.num_evicted))

    def admit(self, asked: AskedId) -> None:
        assert self.room() > 0, "admitted beyond the room"
        assert asked not in self._outstanding, f"{asked} admitted twice"
        self._outstanding[asked] = self._entry(self.num_admitted, self.published_policy, self.published_teacher)
        self.num_admitted += 1

    def arrive(self, asked: AskedId, *, oldest_policy: int, oldest_teacher: int | None) -> None:
        """All groups of the question are here; their tokens tell its true age."""
        before = self._outstanding[asked]
        teacher = self.published_teacher if oldest_teacher is None else oldest_teacher
        entry = self._entry(before.number, oldest_policy, teacher)
        assert entry.policy >= before.policy, (
            f"{asked} was sampled by weights older than those published at its admission"
        )
        assert entry.held >= before.held, f"{asked} has a label of weights older than those published at its admission"
        entry.ready = True
        self._outstanding[asked] = entry

    def evict(self) -> list[tuple[AskedId, StaleReason]]:
        """Takes out the whole questions that passed a dropping deadline; each makes room for one new."""
        gone: list[tuple[AskedId, StaleReason]] = []
        for asked, entry in self._outstanding.items():
            if not entry.ready:
                continue
            if self.limits.on_exceed == "drop" and entry.policy < self.updates_done:
                gone.append((asked, "stale_policy"))
            elif self.limits.label_on_exceed == "drop" and entry.label < self.updates_done:
                gone.append((asked, "stale_label"))
        for asked, _ in gone:
            del self._outstanding[asked]
        self.num_evicted += len(gone)
        return gone

    def select(self) -> list[AskedId] | None:
        """The next update's questions, in admission order; None where it must wait. Consumes nothing; see `consume`."""
        per_update, version = self.limits.questions_per_update, self.updates_done
        by_deadline = sorted(self._outstanding.items(), key=lambda item: item[1].urgency)
        taken = [asked for asked, entry in by_deadline if entry.ready][:per_update]
        if len(taken) < per_update:
            return None
        chosen = set(taken)
        left = [entry.held for asked, entry in by_deadline if asked not in chosen]  # rising
        for count, deadline in enumerate(left, start=1):
            if count > (deadline - version) * per_update:
                return None
        return sorted(taken, key=lambda asked: self._outstanding[asked].number)

    def consume(self, taken: list[AskedId]) -> None:
        """The selected questions make the next update."""
        for asked in taken:
            entry = self._outstanding.pop(asked)
            assert entry.ready, f"{asked} consumed before it was whole"
            last = min(entry.label, NEVER if self.limits.on_exceed == "withhold" else entry.policy)
            assert last >= self.updates_done, f"{asked} consumed {self.updates_done - last} updates late"
        self.updates_done += 1

    def missing(self) -> list[AskedId]:
        """Admitted questions that are not whole yet, oldest first: whom the learner waits for."""
        return [asked for asked, entry in self._outstanding.items() if not entry.ready]

    def pending(self) -> list[AskedId]:
        """Admitted and not consumed, in admission order: what a resumed run asks again."""
        return list(self._outstanding)

    def __contains__(self, asked: AskedId) -> bool:
        return asked in self._outstanding

    def _entry(self, number: int, policy: int, teacher: int) -> _Outstanding:
        limits = self.limits
        last_policy = policy + limits.staleness_max
        last_label = NEVER if limits.label_max is None else teacher + limits.label_max
        held = min(
            last_policy if limits.on_exceed == "wait" else NEVER,
            last_label if limits.label_on_exceed == "wait" else NEVER,
        )
        return _Outstanding(number=number, policy=last_policy, label=last_label, held=held)
