"""Decides how far ahead questions are sampled and which questions an update takes. One object owns admit, select, evict and capacity.

The bound: when update u consumes a question, `u - 1 - (updates in the oldest trained policy token)` is at most `staleness.max`,
and the same difference for the teacher's tokens is at most `label.max_staleness`.

Let Q be the questions per update, v the updates done, and `acknowledged` the policy version that every live engine has
acknowledged. Each question has a policy deadline and a label deadline: the last v at which its bound still allows an update to
consume it. `on_exceed` says what a deadline means:

- `wait`: the learner waits for the question, so it is consumed in time. This is a *held* deadline.
- `drop`: a ready question that passed the deadline is evicted, and exactly one new question may start in its place.
- `withhold` (policy only): each completion has its own deadline; the buffer masks late completions out of the loss.

Two rules:

- *Admit.* A question may start while fewer than (acknowledged + depth + 1 - v) Q questions are outstanding. Its tokens are sampled
  by versions >= `acknowledged`, so its held deadline is at least `acknowledged + slack` with slack >= depth.
- *Select.* Take the Q ready questions with the earliest held deadlines (ties: the earlier of both deadlines, then the order of
  admission), if the remaining questions can still be consumed in time: for every d, at most (d - v) Q of them have a held deadline
  <= d. Otherwise the learner waits.

Proof that this never deadlocks. Claim: before each selection, for every d, at most (d - v + 1) Q outstanding questions have a held
deadline <= d.

1. Admission keeps the claim: after it at most (acknowledged + depth + 1 - v) Q questions are outstanding, and the new question's
   held deadline is >= acknowledged + depth.
2. Selection keeps the claim, because its condition is the claim for v + 1. Eviction and giving up keep it: they only remove questions.
3. Once all outstanding questions are ready, taking the Q earliest deadlines satisfies the condition of *Select*.

Scheduled bounds (`later`) change nothing in this: a question that starts for update j + 1, the next one that nobody fills yet, takes
depth and slack of `limits.at(j)` and keeps that slack. Step 1 holds with those two numbers, whatever was admitted before; where the
depth shrinks, no question starts until enough have been consumed. So a tightened bound holds for the questions admitted from then on.

Two conditions remain, for every scheduled bound. First, Q questions must be outstanding for every update; this holds if depth >=
publish.every_updates - 1. Second, a question that starts while the learner waits must not be too old already; this holds if a
dropping or withholding bound is at least publish.every_updates - 1 (for labels: plus the teacher's lag). `AdmissionLimits` refuses
settings that break a condition.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from corewarding.dataflow.errors import UserError
from corewarding.dataflow.ids import AskedId, Channel

OnExceed = Literal["wait", "drop", "withhold"]
LabelOnExceed = Literal["wait", "drop"]
StaleReason = Literal["stale_policy", "stale_label"]

NEVER = 2**62  # the deadline of a question that has none


class CapacityError(UserError):
    """The staleness settings would deadlock or break their own bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionLimits:
    """The bounds of the pipeline, in updates. CapacityError if they would deadlock or contradict each other."""

    questions_per_update: int
    total_updates: int
    staleness_max: int
    depth: int
    publish_every: int = 1
    label_max: int | None = None  # None: no teacher votes, or the teacher is frozen
    teacher_lag: int = 0  # updates that the acknowledged teacher may be behind the acknowledged policy
    on_exceed: OnExceed = "wait"
    label_on_exceed: LabelOnExceed = "wait"
    later: tuple[
        tuple[int, AdmissionLimits], ...
    ] = ()  # scheduled: from so many updates on, rising; each without `later` of its own

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
                f"{self.depth}: the learner would wait for questions that may start only after it publishes again"
            )
        if self.staleness_max < behind:
            raise CapacityError(
                f"staleness.max must be at least publish.every_updates - 1 = {behind}, got {self.staleness_max}: between two "
                "publications every question would be too old when it starts"
            )
        ahead = self.depth if self.label_on_exceed == "wait" else behind
        if self.label_max is not None and self.label_max < ahead + self.teacher_lag:
            term = "pipeline depth" if self.label_on_exceed == "wait" else "publish.every_updates - 1 ="
            raise CapacityError(
                f"label.max_staleness must be at least {ahead + self.teacher_lag} ({term} {ahead} + "
                f"teacher lag {self.teacher_lag} from teacher.update_every and teacher.publish_every), got {self.label_max}: "
                "labels would be too old whenever the pipeline is full"
            )

    def at(self, updates: int) -> AdmissionLimits:
        """The limits after so many updates."""
        found = self
        for start, limits in self.later:
            found = limits if start <= updates else found
        return found

    @property
    def largest_staleness(self) -> int:
        return max([self.staleness_max, *(limits.staleness_max for _, limits in self.later)])


@dataclass(slots=True)
class _Outstanding:
    number: int  # admission order
    slack: int  # updates that its policy tokens may be old
    policy: int  # deadline
    label: int  # deadline
    held: int  # the earlier of its held deadlines
    ready: bool = False

    @property
    def urgency(self) -> tuple[int, int, int]:
        return self.held, min(self.policy, self.label), self.number


class Admission:
    """Questions between admission and consumption. Not thread-safe; it lives in the buffer's event loop."""

    def __init__(self, limits: AdmissionLimits, *, updates_done: int = 0) -> None:
        self.limits = limits
        self.updates_done = updates_done
        self.acknowledged: dict[Channel, int] = {
            "policy": updates_done,
            "teacher": max(0, updates_done - limits.teacher_lag),
        }
        self.num_admitted = updates_done * limits.questions_per_update
        self.num_evicted = 0
        self._outstanding: dict[AskedId, _Outstanding] = {}

    def acknowledge(self, channel: Channel, updates: int) -> None:
        """Every live engine of `channel` has acknowledged the weights after `updates` updates."""
        before = self.acknowledged[channel]
        assert updates >= before, f"{channel} weights {updates} acknowledged after {before}"
        self.acknowledged[channel] = updates

    def room(self) -> int:
        """Questions that may start now."""
        per_update = self.limits.questions_per_update
        next_one = self.num_admitted - self.num_evicted
        last = next_one  # questions up to here may start
        for update in range(next_one // per_update, self.limits.total_updates):
            if self.acknowledged["policy"] + self.limits.at(update).depth < update:
                break
            last = (update + 1) * per_update
        return last - next_one

    def admit(self, asked: AskedId) -> None:
        """The question starts now."""
        assert self.room() > 0, "admitted beyond the room"
        assert asked not in self._outstanding, f"{asked} admitted twice"
        update = (self.num_admitted - self.num_evicted) // self.limits.questions_per_update
        self._outstanding[asked] = self._entry(
            self.num_admitted,
            self.limits.at(update).staleness_max,
            self.acknowledged["policy"],
            self.acknowledged["teacher"],
        )
        self.num_admitted += 1

    def mark_ready(self, asked: AskedId, *, oldest_policy: int, oldest_teacher: int | None) -> None:
        """All groups of the question are here. Its deadlines now come from the versions of its oldest tokens.

        oldest_teacher: None if the teacher has no group.
        """
        before = self._outstanding[asked]
        teacher = self.acknowledged["teacher"] if oldest_teacher is None else oldest_teacher
        entry = self._entry(before.number, before.slack, oldest_policy, teacher)
        assert entry.policy >= before.policy, (
            f"{asked} was sampled by weights older than those acknowledged at its admission"
        )
        assert entry.held >= before.held, (
            f"{asked} has a label by weights older than those acknowledged at its admission"
        )
        entry.ready = True
        self._outstanding[asked] = entry

    def evict(self) -> list[tuple[AskedId, StaleReason]]:
        """Removes the ready questions that passed a `drop` deadline; each makes room for one new question."""
        evicted: list[tuple[AskedId, StaleReason]] = []
        for asked, entry in self._outstanding.items():
            if not entry.ready:
                continue
            if self.limits.on_exceed == "drop" and entry.policy < self.updates_done:
                evicted.append((asked, "stale_policy"))
            elif self.limits.label_on_exceed == "drop" and entry.label < self.updates_done:
                evicted.append((asked, "stale_label"))
        for asked, _ in evicted:
            del self._outstanding[asked]
        self.num_evicted += len(evicted)
        return evicted

    def give_up(self, asked: AskedId) -> bool:
        """Removes a question that will never be ready, which makes room for a new one; False if it is not outstanding."""
        if self._outstanding.pop(asked, None) is None:
            return False
        self.num_evicted += 1
        return True

    def select(self) -> list[AskedId] | None:
        """The questions of the next update, in the order of admission; None if the learner must wait. Changes nothing."""
        per_update, version = self.limits.questions_per_update, self.updates_done
        by_deadline = sorted(self._outstanding.items(), key=lambda item: item[1].urgency)
        taken = [asked for asked, entry in by_deadline if entry.ready][:per_update]
        if len(taken) < per_update:
            return None
        chosen = set(taken)
        left = [entry.held for asked, entry in by_deadline if asked not in chosen]  # ascending
        for count, deadline in enumerate(left, start=1):
            if count > (deadline - version) * per_update:
                return None
        return sorted(taken, key=lambda asked: self._outstanding[asked].number)

    def consume(self, taken: list[AskedId]) -> None:
        """The selected questions leave: they make the next update."""
        for asked in taken:
            entry = self._outstanding.pop(asked)
            assert entry.ready, f"{asked} consumed before it was ready"
            last = min(entry.label, NEVER if self.limits.on_exceed == "withhold" else entry.policy)
            assert last >= self.updates_done, f"{asked} consumed {self.updates_done - last} updates late"
        self.updates_done += 1

    def missing(self) -> list[AskedId]:
        """Admitted questions that are not ready, oldest first: the learner may be waiting for them."""
        return [asked for asked, entry in self._outstanding.items() if not entry.ready]

    def pending(self) -> list[AskedId]:
        """Questions admitted and not consumed, in the order of admission. A resumed run asks them again."""
        return list(self._outstanding)

    def snapshot(self) -> dict[str, Any]:
        """The whole state, for the codec."""
        return {
            "updates_done": self.updates_done,
            "acknowledged": dict(self.acknowledged),
            "num_admitted": self.num_admitted,
            "num_evicted": self.num_evicted,
            "outstanding": [
                (asked, entry.number, entry.slack, entry.policy, entry.label, entry.held, entry.ready)
                for asked, entry in self._outstanding.items()
            ],
        }

    @classmethod
    def restored(cls, limits: AdmissionLimits, state: dict[str, Any]) -> Admission:
        """The admission of a snapshot."""
        admission = cls(limits, updates_done=state["updates_done"])
        admission.acknowledged = dict(state["acknowledged"])
        admission.num_admitted, admission.num_evicted = state["num_admitted"], state["num_evicted"]
        admission._outstanding = {asked: _Outstanding(*entry) for asked, *entry in state["outstanding"]}
        return admission

    def __contains__(self, asked: AskedId) -> bool:
        return asked in self._outstanding

    def _entry(self, number: int, slack: int, policy: int, teacher: int) -> _Outstanding:
        limits = self.limits
        last_policy = policy + slack
        last_label = NEVER if limits.label_max is None else teacher + limits.label_max
        held = min(
            last_policy if limits.on_exceed == "wait" else NEVER,
            last_label if limits.label_on_exceed == "wait" else NEVER,
        )
        return _Outstanding(number=number, slack=slack, policy=last_policy, label=last_label, held=held)
