"""How far ahead may we sample, and which questions does an update take? One object owns admit, select and capacity.

The bound it keeps: when update u consumes a question, `u - 1 - (updates in the oldest policy token)` is at most
`staleness.max`, and the same of the teacher's tokens with `label.max_staleness`. Nothing is ever dropped for it.

Let Q be questions per update, v the updates done, and `published` the version that every live engine acknowledged.

- *Admit.* The n-th question of the run (n = 0, 1, ...) may start when n < (published + depth + 1) Q. Its tokens are
  sampled by versions of at least `published`, so its deadline, the last v at which it may be consumed, is at least
  `published + slack` with slack = min(staleness.max, label.max_staleness - teacher lag) >= depth.
- *Select.* The Q ready questions with the earliest deadlines are taken, provided that what stays behind can still be
  consumed in time: for every d, at most (d - v) Q of the remaining have a deadline of d or earlier. Else the learner waits.

Why this never deadlocks: the proviso, with (d - v + 1) Q before the taking, holds at every moment. It holds when a question
with deadline d' is admitted, because at most (published + depth + 1 - v) Q questions are outstanding and d' >= published +
depth. It survives a taking by the proviso itself. And once all outstanding questions are ready, taking the Q earliest
deadlines restores the proviso for v + 1. What is needed besides is that Q questions are outstanding for every update, which
holds when depth >= publish.every_updates - 1. `Admission` refuses settings for which any of this fails.
"""

from __future__ import annotations

from dataclasses import dataclass

from dataflow.types import AskedId


class CapacityError(ValueError):
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

    def __post_init__(self) -> None:
        if self.depth > self.staleness_max:
            raise CapacityError(
                f"staleness.pipeline_depth must be at most staleness.max, got {self.depth} > {self.staleness_max}: samples "
                f"drawn {self.depth} updates ahead would be too old to be trained on"
            )
        if self.depth < self.publish_every - 1:
            raise CapacityError(
                f"staleness.pipeline_depth must be at least publish.every_updates - 1 = {self.publish_every - 1}, got "
                f"{self.depth}: the learner would wait for questions that may only start after its next publication"
            )
        if self.label_max is not None and self.label_max < self.depth + self.teacher_lag:
            raise CapacityError(
                f"label.max_staleness must be at least {self.depth + self.teacher_lag} (pipeline depth {self.depth} + "
                f"teacher lag {self.teacher_lag} from teacher.update_every and teacher.publish_every), got {self.label_max}: "
                "labels would be too old whenever the pipeline is full"
            )


@dataclass(slots=True)
class _Outstanding:
    number: int  # admission order
    deadline: int
    ready: bool = False


class Admission:
    """Questions between admission and consumption. Not thread-safe; it lives in the buffer's event loop."""

    def __init__(self, limits: AdmissionLimits, *, updates_done: int = 0) -> None:
        self.limits = limits
        self.updates_done = updates_done
        self.published_policy = updates_done
        self.published_teacher = max(0, updates_done - limits.teacher_lag)
        self.num_admitted = updates_done * limits.questions_per_update
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
        return max(0, min(ahead, self.limits.total_updates * per_update) - self.num_admitted)

    def admit(self, asked: AskedId) -> None:
        assert self.room() > 0, "admitted beyond the room"
        assert asked not in self._outstanding, f"{asked} admitted twice"
        deadline = self._deadline(self.published_policy, self.published_teacher)
        self._outstanding[asked] = _Outstanding(number=self.num_admitted, deadline=deadline)
        self.num_admitted += 1

    def arrive(self, asked: AskedId, *, oldest_policy: int, oldest_teacher: int | None) -> None:
        """All groups of the question are here; their tokens tell its true age."""
        entry = self._outstanding[asked]
        teacher = self.published_teacher if oldest_teacher is None else oldest_teacher
        deadline = self._deadline(oldest_policy, teacher)
        assert deadline >= entry.deadline, f"{asked} was sampled by weights older than those published at its admission"
        entry.deadline, entry.ready = deadline, True

    def select(self) -> list[AskedId] | None:
        """The next update's questions, in admission order; None where it must wait. Consumes nothing; see `consume`."""
        per_update, version = self.limits.questions_per_update, self.updates_done
        by_deadline = sorted(self._outstanding.items(), key=lambda item: (item[1].deadline, item[1].number))
        taken = [asked for asked, entry in by_deadline if entry.ready][:per_update]
        if len(taken) < per_update:
            return None
        chosen = set(taken)
        left = [entry.deadline for asked, entry in by_deadline if asked not in chosen]  # rising
        for count, deadline in enumerate(left, start=1):
            if count > (deadline - version) * per_update:
                return None
        return sorted(taken, key=lambda asked: self._outstanding[asked].number)

    def consume(self, taken: list[AskedId]) -> None:
        """The selected questions make the next update."""
        for asked in taken:
            entry = self._outstanding.pop(asked)
            assert entry.ready, f"{asked} consumed before it was whole"
            assert entry.deadline >= self.updates_done, (
                f"{asked} consumed {self.updates_done - entry.deadline} updates late"
            )
        self.updates_done += 1

    def missing(self) -> list[AskedId]:
        """Admitted questions that are not whole yet, oldest first: whom the learner waits for."""
        return [asked for asked, entry in self._outstanding.items() if not entry.ready]

    def pending(self) -> list[AskedId]:
        """Admitted and not consumed, in admission order: what a resumed run asks again."""
        return list(self._outstanding)

    def __contains__(self, asked: AskedId) -> bool:
        return asked in self._outstanding

    def _deadline(self, policy: int, teacher: int) -> int:
        deadline = policy + self.limits.staleness_max
        if self.limits.label_max is not None:
            deadline = min(deadline, teacher + self.limits.label_max)
        return deadline
