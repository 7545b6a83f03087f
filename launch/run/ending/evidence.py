"""What the processes of a run on this machine do, seen from outside. A process is found by the log of the run that it writes to."""

from __future__ import annotations

import os
import re
import signal
import time
from dataclasses import dataclass
from pathlib import Path

_STATES = {
    "T": "is stopped (SIGSTOP)",
    "t": "is held by a debugger",
    "D": "waits for a disk",
    "Z": "has ended",
}
_PATIENCE_S = 3.0
_FRAMES = 4
_IDLE = ("gc_collect_manager.py", "listen_error_messages", "event_file_writer.py", "get (queue.py")
"""Threads of Ray, TensorBoard and trackers that always wait."""
_THREAD = re.compile(r"(?:Current thread|Thread) 0x\w+.*\(most recent call first\):")
_FRAME = re.compile(r'  File "(?P<file>.*)", line (?P<line>\d+) in (?P<name>.*)')


@dataclass(frozen=True, slots=True)
class Process:
    """One process that writes to a log of the run."""

    log: Path
    pid: int
    state: str  # a letter, as in /proc
    dumps: bool  # whether SIGUSR1 makes it write its stacks

    @property
    def name(self) -> str:
        return self.log.stem


def processes(logs: Path) -> list[Process]:
    """The processes that write to a file in `logs`, ordered by name; without their children that do not dump stacks."""
    folder, found = logs.resolve(), []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            log = Path(os.readlink(process / "fd" / "2"))
            if log.parent != folder:
                continue
            status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines() if ":" in line)
        except OSError:  # ended meanwhile, or another user's
            continue
        dumps = bool(int(status["SigCgt"], 16) >> (signal.SIGUSR1 - 1) & 1)
        found.append(Process(log, int(process.name), status["State"].split()[0], dumps))
    return sorted((one for one in found if one.dumps), key=lambda one: one.name)


def report(logs: Path) -> str:
    """For each process: whether it is stopped, and where its threads are. The whole stacks are in the logs."""
    found = processes(logs)
    before = {one.pid: one.log.stat().st_size for one in found}
    for one in found:
        if one.pid != os.getpid():
            os.kill(one.pid, signal.SIGUSR1)
        else:
            signal.raise_signal(signal.SIGUSR1)
    deadline = time.monotonic() + _PATIENCE_S
    waiting = [one for one in found if one.state not in _STATES]
    while waiting and time.monotonic() < deadline:
        time.sleep(0.1)
        waiting = [one for one in waiting if one.log.stat().st_size == before[one.pid]]
    lines = []
    for one in found:
        lines.append(f"  {one.name} (process {one.pid}) {_STATES.get(one.state, 'runs')}; all stacks: {one.log}")
        lines += [f"    {thread}" for thread in _threads(one.log, before[one.pid])]
    return "\n".join(lines)


def _threads(log: Path, start: int) -> list[str]:
    """The threads of a dump that begins at byte `start`, each as its innermost frames."""
    with log.open("rb") as file:
        file.seek(start)
        text = file.read().decode(errors="replace")
    threads: list[list[str]] = []
    for line in text.splitlines():
        if _THREAD.match(line):
            threads.append([])
        elif threads and (frame := _FRAME.match(line)) and len(threads[-1]) < _FRAMES:
            threads[-1].append(f"{frame['name']} ({Path(frame['file']).name}:{frame['line']})")
    shown = [" < ".join(frames) for frames in threads]
    return [frames for frames in shown if frames and not any(idle in frames for idle in _IDLE)]
