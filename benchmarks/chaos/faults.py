"""The faults: which process gets which signal in which phase, which pairs do not exist, and by which event a phase is known."""

from __future__ import annotations

import random
import re
import signal
from dataclasses import dataclass
from pathlib import Path

from corewarding.launch.run.ending import evidence
from tests.more.runs import Run

SIGNALS = {
    **dict.fromkeys(("policy", "teacher", "buffer", "learner-0", "learner-1", "raylet", "gcs"), ("SIGKILL", "SIGSTOP")),
    "driver": ("SIGKILL", "SIGTERM", "SIGINT"),
}
"""Process to the signals that it gets."""
LINES = {
    "start": "starting the actors",
    "first publish": "publishing the first weights",
    "evaluation": "evaluating before training",
    "generation": "training",
    "exit": "held-out \\(after.*",
}
"""Phase to the line of the driver's log with which it begins."""
CALLS = {
    "scoring": ("token_statistics",),
    "update": ("update",),
    "transfer": ("announce", "send"),
    "checkpoint": ("stage", "write", "export"),
}
"""Phase to the calls of learner rank 0 during which it lasts; Ray shows the call in the title of the process."""
PHASES = (*LINES, *CALLS)
IMPOSSIBLE = {
    ("teacher", "scoring"): "the learner takes part in scoring only with rules that have no teacher",
}
"""Pairs of process and phase that do not exist."""
RULE = "co_rewarding_ii"
HEAD = {"raylet": "raylet/raylet", "gcs": "gcs_server"}


@dataclass(frozen=True, slots=True)
class Fault:
    target: str
    signal: str
    phase: str
    after: int
    """Updates that are done before the phase is looked for."""

    def __str__(self) -> str:
        return f"{self.signal} of {self.target} in {self.phase}" + (f" after update {self.after}" if self.after else "")

    @property
    def codes(self) -> tuple[int, ...]:
        """Exit codes with which the run may end."""
        if self.target == "driver":
            own = {"SIGKILL": -signal.SIGKILL, "SIGTERM": 128 + signal.SIGTERM, "SIGINT": 0}[self.signal]
            return (own, 0) if self.phase == "exit" else (own,)
        if self.phase == "exit":
            return (0, 1)
        if self.target in ("policy", "teacher"):
            return (0, 1) if self.phase == "start" else (0,)
        if self.target == "buffer" and self.signal == "SIGKILL":
            return (0,)  # it comes back from its journal
        if self.target.startswith("learner") and self.signal == "SIGKILL" and self.phase != "start":
            return (0,)  # its ranks come back
        if self.target in HEAD and self.signal == "SIGSTOP":
            return (0, 1)  # the training needs neither, so a short run may be finished before they count as lost
        return (1,)

    @property
    def name(self) -> str:
        """What the run must say when this process hangs or dies."""
        return {"gcs": "Ray's GCS", "policy": "policy-0", "teacher": "teacher-0"}.get(self.target, self.target)


def rule_of(fault: Fault | None) -> str:
    """The rule of this fault's run: another one where the phase needs it."""
    return "self_certainty" if fault is not None and fault.phase == "scoring" else RULE


def drawn(number: int, seed: int) -> list[Fault]:
    """So many faults, of all that are possible, in an order in which each stretch has all processes and phases."""
    draws = random.Random(seed)
    possible = [
        Fault(target, name, phase, draws.randrange(1, 3) if phase in CALLS or phase == "generation" else 0)
        for target, names in SIGNALS.items()
        for name in names
        for phase in PHASES
        if (target, phase) not in IMPOSSIBLE
    ]
    draws.shuffle(possible)
    chosen: list[Fault] = []
    while possible and len(chosen) < number:
        seen = [(fault.target, fault.signal) for fault in chosen]
        phases = [fault.phase for fault in chosen]
        chosen.append(min(possible, key=lambda f: seen.count((f.target, f.signal)) + phases.count(f.phase)))
        possible.remove(chosen[-1])
    return chosen


def in_phase(run: Run, fault: Fault, learner: list[int]) -> bool:
    """Whether the run is in the phase of the fault now, whatever its updates. learner: the process of rank 0, if it lives."""
    if fault.phase in LINES:
        log = run.folder / "logs" / "driver.log"
        return log.exists() and bool(re.search(rf"^[\d: -]+,\d+ {LINES[fault.phase]}$", log.read_text(), re.MULTILINE))
    titles = [f"LearnerActor.{call}" for call in CALLS[fault.phase]]
    return any(title in title_of(pid) for pid in learner for title in titles)


def pids_of(run: Run, target: str) -> list[int]:
    """The processes of this part of the run."""
    if target == "driver":
        return [run.driver.pid]
    if target in HEAD:
        return run.pids(HEAD[target])
    return [
        one.pid
        for one in evidence.processes(run.folder / "logs")
        if one.name == target or one.name.startswith(f"{target}-")
    ]


def title_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
