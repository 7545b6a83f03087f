"""Looks for leaks during long sampling with swaps, in an environment that has the engine.

    python -m benchmarks.soak --kind vllm [--minutes 30]

32 completions always run and weights are swapped twice a second. Prints the memory of the process and its children (proportional set
size) every half minute. The last line is a row of a table: memory after the warm-up (a fifth of the time) and at the end, and the
child processes and listening ports that are left after close().
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from pathlib import Path

from benchmarks.engine_swaps import RUNNING, keep_busy
from tests.engines.world import Learner, start
from tests.tiny_models import write_model

LISTENING = "0A"


def tree(pid: int) -> list[int]:
    """Ids of the process and all its descendants."""
    pids = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            pids += tree(int(child))
    return pids


def memory_mb(pids: list[int]) -> float:
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:  # it ended
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def alive(pid: int) -> bool:
    """Whether the process still runs, under any parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def listening(pids: list[int]) -> int:
    """Number of ports on which the processes listen."""
    inodes = set()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                inodes.add(os.readlink(descriptor))
            except OSError:
                continue
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return sum(row[3] == LISTENING and f"socket:[{row[9]}]" in inodes for row in rows)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", required=True, choices=["embedded", "vllm", "sglang"])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--pause", type=float, default=0.5, help="seconds between two swaps")
    arguments = parser.parse_args()
    folders = [write_model(Path(tempfile.mkdtemp()), seed=seed, tied=True) for seed in (0, 1)]
    before = listening(tree(os.getpid()))
    engine, learner = start(arguments.kind, folders[0], slots=RUNNING), Learner()
    await learner.meet(engine)
    done = asyncio.Event()
    busy = asyncio.create_task(keep_busy(engine, done))
    began = time.monotonic()
    memory: list[tuple[float, float]] = []
    swaps = 0
    while (now := time.monotonic() - began) < 60 * arguments.minutes and not busy.done():
        if not memory or now - memory[-1][0] >= 30:
            memory.append((now, memory_mb(tree(os.getpid()))))
            print(f"after {now / 60:4.1f} min: {memory[-1][1]:.0f} MB, {swaps} swaps", flush=True)
        swaps += 1
        await learner.publish(folders[swaps % 2], swaps, engine)
        await asyncio.sleep(arguments.pause)
    done.set()
    ended, crossed = await busy
    pids = tree(os.getpid())[1:]
    await engine.close()
    learner.close()
    await asyncio.sleep(1)
    last = memory[-1][1]
    warm = next((mb for at, mb in memory if at >= 60 * arguments.minutes / 5), last)
    left = [pid for pid in pids if alive(pid)]
    ports = listening(tree(os.getpid())) - before
    print(
        f"| {arguments.kind} | {arguments.minutes:g} | {ended:,} | {crossed:,} | {swaps:,} | {warm:.0f} | {last:.0f} "
        f"| {last / warm - 1:+.1%} | {len(left)} processes, {ports} ports |"
    )


if __name__ == "__main__":
    asyncio.run(main())
