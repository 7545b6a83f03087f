"""How fast a run will be and how old its samples, by simulating its queues over rates. Imports no torch.

What may start and what an update takes is decided by the run's own `Admission`; only the time that work takes is made up here. Each
engine decodes its running sequences together, a step in `step_s + sequence_s * running` seconds, and starts queued ones in order. The
learner takes, updates and publishes in turn. Processes that share cores or a GPU share them equally.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from corewarding.dataflow.ids import AskedId, Source
from corewarding.learner.replay.admission import Admission, AdmissionLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Seconds of work of a process that has its cores or its GPU for itself, and seconds that pass in any case."""

    update_s: float  # of an update, whatever is in it
    token_s: float  # of each packed token of an update
    step_s: float  # of an engine's step, whatever runs
    sequence_s: float  # of each running sequence in a step
    publish_s: float  # from the end of an update until the weights have left the learner
    acknowledge_s: float  # from the end of an update until the engines have the weights
    turn_s: float  # from when an update could begin, its samples finished and the learner free, until it begins
    lengths: dict[Source, tuple[int, ...]]  # tokens of completions, to draw from
    prompts: tuple[int, ...]  # tokens of prompts, to draw from


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A group of each question: who samples it, how many completions, and how many of them are trained (0: they only vote)."""

    source: Source
    size: int
    trained: int


@dataclass(frozen=True, slots=True)
class Device:
    """Cores or GPUs, and how many processes can work on them at full speed."""

    name: str
    capacity: float = math.inf

    def share(self, busy: float) -> float:
        """The part of its full speed that each of so many busy processes has."""
        return min(1.0, self.capacity / max(1.0, busy))


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """What a run consists of."""

    limits: AdmissionLimits
    groups: tuple[Group, ...]
    actors: dict[Source, int]
    slots: int
    ranks: int
    devices: dict[str, Device]  # of `learner` and of the engines, by source


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Of the updates after the warm-up."""

    updates_per_s: float
    update_s: float  # mean duration of the update itself
    wait_s: float  # mean wait of the learner for a batch
    staleness_mean: float  # age of the oldest policy token of a question when it is trained, in updates
    learner_idle: float  # share of the time in which the learner waits
    engines_idle: dict[Source, float]
    completions_per_s: float  # trained
    tokens_per_s: dict[Source, float]  # sampled


@dataclass(eq=False, slots=True)
class _Question:
    left: int  # completions
    oldest: dict[Source, int]
    tokens: int = 0  # packed, of what is trained


@dataclass(eq=False, slots=True)
class _Engine:
    source: Source
    version: int = 0
    done: float = 0.0  # tokens that a sequence which has been running from the start would have
    running: list[tuple[float, int, AskedId]] = field(default_factory=list)  # heap: `done` at its end, number, question
    waiting: deque[tuple[AskedId, int, int]] = field(default_factory=deque)  # question, tokens, packed tokens
    busy_s: float = 0.0
    sampled: int = 0

    @property
    def load(self) -> int:
        return len(self.running) + len(self.waiting)


class Simulation:
    """One run. `forecast` makes all updates of the limits."""

    def __init__(self, system: System, rates: Rates, *, seed: int = 0) -> None:
        self._system, self._rates, self._random = system, rates, random.Random(seed)
        self._admission = Admission(system.limits)
        self._engines = [_Engine(source) for source, num in system.actors.items() for _ in range(num)]
        self._questions: dict[AskedId, _Question] = {}
        self._now = 0.0
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._work: float | None = None  # left of the update under way
        self._free = True  # the learner may take
        self._began = self._asked = 0.0
        self._taken: list[AskedId] = []
        self._ends: list[
            tuple[float, float, float, float, int]
        ] = []  # end, duration, wait, staleness, trained completions

    def forecast(self, *, warm_up: int) -> Forecast:
        """warm_up: updates that are not counted, at least 1."""
        total = self._system.limits.total_updates
        assert 1 <= warm_up < total, "updates remain after the warm-up"
        marks: dict[int, tuple[float, list[tuple[float, int]]]] = {}
        self._ask()
        while len(self._ends) < total:
            self._step()
            if len(self._ends) not in marks:
                marks[len(self._ends)] = self._now, [(one.busy_s, one.sampled) for one in self._engines]
        (start, before), (end, after) = marks[warm_up], marks[total]
        span, counted = end - start, self._ends[warm_up:]
        sources = self._system.actors
        busy = dict.fromkeys(sources, 0.0)
        sampled = dict.fromkeys(sources, 0)
        for one, (busy_before, sampled_before), (busy_after, sampled_after) in zip(
            self._engines, before, after, strict=True
        ):
            busy[one.source] += busy_after - busy_before
            sampled[one.source] += sampled_after - sampled_before
        num = len(counted)
        return Forecast(
            updates_per_s=num / span,
            update_s=sum(duration for _, duration, _, _, _ in counted) / num,
            wait_s=sum(wait for _, _, wait, _, _ in counted) / num,
            staleness_mean=sum(age for _, _, _, age, _ in counted) / num,
            learner_idle=sum(wait for _, _, wait, _, _ in counted) / span,
            engines_idle={source: 1 - busy[source] / (span * actors) for source, actors in sources.items()},
            completions_per_s=sum(trained for _, _, _, _, trained in counted) / span,
            tokens_per_s={source: sampled[source] / span for source in sources},
        )

    # ---- time ----------------------------------------------------------------------------------------------------

    def _step(self) -> None:
        """Goes to the next event and lets it happen."""
        self._take()
        busy = [one for one in self._engines if one.running]
        speed_of = self._speeds(busy)
        next_s, happens = (self._timers[0][0] - self._now, self._fire) if self._timers else (math.inf, None)
        speeds = []
        for one in busy:
            speed = speed_of[one.source] / self._token_s(one)
            speeds.append(speed)
            left = (one.running[0][0] - one.done) / speed
            if left < next_s:
                next_s, happens = left, lambda one=one: self._finish(one)  # type: ignore[misc]
        share = speed_of["learner"]
        if self._work is not None and self._work / share < next_s:
            next_s, happens = self._work / share, self._updated
        assert happens is not None, "the pipeline is stuck"
        next_s = max(0.0, next_s)
        for one, speed in zip(busy, speeds, strict=True):
            one.done += speed * next_s
            one.busy_s += next_s
        if self._work is not None:
            self._work -= share * next_s
        self._now += next_s
        happens()

    def _speeds(self, busy: Sequence[_Engine]) -> dict[str, float]:
        """The part of its full speed that each kind of process has now."""
        devices = self._system.devices
        load: Counter[str] = Counter(devices[one.source].name for one in busy)
        if self._work is not None:
            load[devices["learner"].name] += self._system.ranks
        return {kind: device.share(load[device.name]) for kind, device in devices.items()}

    def _token_s(self, one: _Engine) -> float:
        return self._rates.step_s + self._rates.sequence_s * len(one.running)

    def _after(self, seconds: float, what: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._timers, (self._now + seconds, self._count, what))

    def _fire(self) -> None:
        heapq.heappop(self._timers)[2]()

    # ---- sampling ------------------------------------------------------------------------------------------------

    def _ask(self) -> None:
        for _ in range(self._admission.room()):
            asked = AskedId(question_id=str(self._admission.num_admitted), epoch=0)
            self._admission.admit(asked)
            groups = self._system.groups
            question = self._questions[asked] = _Question(left=sum(group.size for group in groups), oldest={})
            prompt = self._random.choice(self._rates.prompts)
            for group in groups:
                question.tokens += prompt if group.trained else 0
                engine = min((one for one in self._engines if one.source == group.source), key=lambda one: one.load)
                for index in range(group.size):
                    length = self._random.choice(self._rates.lengths[group.source])
                    engine.waiting.append((asked, length, length if index < group.trained else 0))
                self._fill(engine)

    def _fill(self, engine: _Engine) -> None:
        while engine.waiting and len(engine.running) < self._system.slots:
            asked, length, packed = engine.waiting.popleft()
            question = self._questions[asked]
            question.tokens += packed
            question.oldest.setdefault(engine.source, engine.version)
            self._count += 1
            heapq.heappush(engine.running, (engine.done + length, self._count, asked))
            engine.sampled += length

    def _finish(self, engine: _Engine) -> None:
        engine.done, _, asked = heapq.heappop(engine.running)
        question = self._questions[asked]
        question.left -= 1
        self._fill(engine)
        if question.left == 0:
            oldest = question.oldest
            self._admission.mark_ready(asked, oldest_policy=oldest["policy"], oldest_teacher=oldest.get("teacher"))
            for evicted, _ in self._admission.evict():
                del self._questions[evicted]
            self._ask()

    # ---- learning ------------------------------------------------------------------------------------------------

    def _take(self) -> None:
        if not self._free:
            return
        taken = self._admission.select()
        if taken is None:
            return
        self._free, self._taken = False, taken
        self._after(self._rates.turn_s, self._begin)

    def _begin(self) -> None:
        self._began, taken = self._now, self._taken
        packed = sum(self._questions[asked].tokens for asked in taken)
        self._work = self._rates.update_s + self._rates.token_s * packed

    def _updated(self) -> None:
        self._work = None
        admission, taken, rates = self._admission, self._taken, self._rates
        done = admission.updates_done
        age = sum(done - self._questions[asked].oldest["policy"] for asked in taken) / len(taken)
        trained = len(taken) * sum(group.trained for group in self._system.groups)
        self._ends.append((self._now, self._now - self._began, self._began - self._asked, age, trained))
        admission.consume(taken)
        for asked in taken:
            del self._questions[asked]
        for asked, _ in admission.evict():
            del self._questions[asked]
        version, limits = admission.updates_done, self._system.limits
        if version % limits.publish_every == 0:
            self._after(rates.publish_s, self._ready_to_take)
            self._after(max(rates.acknowledge_s, rates.publish_s), lambda: self._acknowledged(version))
        else:
            self._ready_to_take()
        self._ask()

    def _ready_to_take(self) -> None:
        self._free, self._asked = True, self._now

    def _acknowledged(self, version: int) -> None:
        self._admission.acknowledge("teacher", max(0, version - self._system.limits.teacher_lag))
        self._admission.acknowledge("policy", version)
        for engine in self._engines:
            engine.version = version
        self._ask()


def drawn(lengths: Sequence[int]) -> tuple[int, ...]:
    """Lengths to draw from, at least one token each."""
    return tuple(max(1, length) for length in lengths)
