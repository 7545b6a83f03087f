"""Damaged and hostile journals against everything that reads one: the batches, the buffer that comes back, and the command.

    python -m benchmarks.fuzz.journal [--seconds 300] [--seed 0]

It writes journals of runs that are drawn at random (three kinds of rules, with deaths of the buffer and a resume), and damages copies
of them: flipped bits, cuts, segments that are swapped, repeated or missing; and, in frames with right checksums, records that are
swapped, repeated, missing, changed in a field, or hold 900 KB of hostile bytes. Any error but JournalError, and more than 64 MiB
for a journal of up to 1 MiB, end it with exit code 1 and the folder that holds the journal.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import dataclasses
import faulthandler
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from benchmarks.fuzz.codec import LIMIT, MIB, kib_of, start_of_peak
from benchmarks.fuzz.damage import Segments, damaged, hostile_messages
from corewarding.launch.report.journal.difference import difference_lines
from corewarding.launch.report.journal.lines import journal_lines
from corewarding.launch.report.journal.selection import Selection
from corewarding.learner.replay.journal.history import History
from corewarding.learner.replay.journal.recovery import recover
from corewarding.learner.replay.journal.segments import JournalError, segments
from corewarding.learner.replay.scoring import BufferPlan
from corewarding.questions.gold import GoldAnswers
from tests.unit.learner.replay.journal.world import World, plan_of, start_of

KINDS = (("majority_vote", "drop"), ("co_rewarding_ii", "wait"), ("entropy", "withhold"))
SECONDS = 60
"""A reader that takes longer ends it, too."""


@dataclasses.dataclass(frozen=True, slots=True)
class Real:
    """A journal that a run wrote."""

    plan: BufferPlan
    folder: Path
    contents: tuple[bytes, ...]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    draws, tally, worst = random.Random(arguments.seed), Counter[str](), (0, "")
    root = Path(tempfile.mkdtemp())
    reals = [asyncio.run(written(root / f"real{k}", *kind, seed=k)) for k, kind in enumerate(KINDS)]
    hostile = hostile_messages(root / "seeds")
    for real in reals:
        assert all(outcome(reader, real.folder, real) == "read" for reader in READERS), f"{real.folder} cannot be read"
    until = time.monotonic() + arguments.seconds
    while time.monotonic() < until:
        real = draws.choice(reals)
        name, contents = damaged(list(real.contents), hostile, draws)
        for reader in (batches, draws.choice((by_completion, by_question, difference)), come_back):
            folder = laid_out(contents, root / "damaged")
            try:
                found, taken = measured(reader, folder, real)
            except BaseException:
                print(f"{reader.__name__} of a journal with {name}: {folder}")
                raise
            tally[f"{reader.__name__}: {found}"] += 1
            worst = max(worst, (taken, f"{name}, {sum(map(len, contents)):,} bytes, {reader.__name__}"))
            if taken > LIMIT:
                print(f"{taken / MIB:.1f} MiB for {worst[1]}: {folder}")
                return 1
        tally[name] += 1
    print("\n".join(f"{num:>9,}  {what}" for what, num in sorted(tally.items())))
    print(f"most memory for one: {worst[0] / MIB:.1f} MiB ({worst[1]})")
    shutil.rmtree(root)
    return 0


async def written(folder: Path, rule: str, on_exceed: str, *, seed: int) -> Real:
    """The journal of a run whose buffer dies now and then, and which is resumed once."""
    world = World(plan_of(rule, on_exceed), folder, seed)
    while world.updates < 1:
        await world.step()
    state, asked = await world.actor.state({}), world.asked
    while world.updates < 2:
        await world.step()
    plan = dataclasses.replace(world.plan, incarnation=1)
    start = start_of("two", updates=state["updates_done"], incarnation=1)
    resumed = World(plan, folder, seed + 100, start=start, state=state)
    resumed.asked = asked
    while resumed.updates < 3:
        await resumed.step()
        if resumed.draws.random() < 0.02:
            resumed.kill()
    return Real(plan, folder, tuple(segment.read_bytes() for segment in segments(folder)))


# ---- readers ----------------------------------------------------------------------------------------------------------


def batches(folder: Path, real: Real) -> None:
    for _ in History.of(folder).updates(0):
        pass


def by_completion(folder: Path, real: Real) -> None:
    for _ in journal_lines(folder, selection=Selection(with_made_again=True)):
        pass


def by_question(folder: Path, real: Real) -> None:
    for _ in journal_lines(folder, by="question", as_json=True):
        pass


def difference(folder: Path, real: Real) -> None:
    for _ in difference_lines(folder, folder, real.folder, real.folder, limit=9, as_json=False):
        pass


def come_back(folder: Path, real: Real) -> None:
    recover(folder, real.plan, GoldAnswers({"q1": "1"}))


READERS: tuple[Callable[[Path, Real], None], ...] = (batches, by_completion, by_question, difference, come_back)


def outcome(reader: Callable[[Path, Real], None], folder: Path, real: Real) -> str:
    try:
        reader(folder, real)
    except JournalError:
        return "JournalError"
    return "read"


def measured(reader: Callable[[Path, Real], None], folder: Path, real: Real) -> tuple[str, int]:
    """(what came of it, bytes of memory that it took at most). Free memory is given back first: it would hide what is taken."""
    ctypes.CDLL(None).malloc_trim(0)
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    before = start_of_peak()
    found = outcome(reader, folder, real)
    faulthandler.cancel_dump_traceback_later()
    return found, kib_of("VmHWM") * 1024 - before


def laid_out(contents: Segments, folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for number, content in enumerate(contents, start=1):
        (folder / f"segment-{number:06d}.cwj").write_bytes(content)
    return folder


if __name__ == "__main__":
    sys.exit(main())
