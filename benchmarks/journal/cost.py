"""What the journal costs: one buffer at full speed, and a run with it beside a run without it.

    python -m benchmarks.journal.cost [--pairs 9] [--window 60] [--seconds 120] [--tokens 500]

One buffer is given groups of completions of --tokens tokens for --seconds seconds, as fast as it takes them; prints completions per
minute, megabytes written, and resident memory after a quarter of the time and at the end. Then two asynchronous runs of
configs/cpu.yaml, one without a journal, train at the same time on a core each, which they exchange in the middle of each of --pairs
windows of --window seconds; prints the ratios of their completions per second, and the median. Needs two cores.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

from benchmarks import side_by_side
from corewarding.dataflow.codec import encode
from corewarding.dataflow.ids import AskedId
from corewarding.learner.replay.actor import BufferActor
from corewarding.learner.replay.admission import AdmissionLimits
from corewarding.learner.replay.journal.journal import JournalPlan
from corewarding.learner.replay.journal.records import Start
from corewarding.learner.replay.scoring import BufferPlan
from corewarding.questions.gold import GoldAnswers
from tests.fakes import fake_group

QUESTIONS, GROUP = 64, 8
BAR = 0.97


async def full_speed(seconds: float, tokens: int) -> None:
    folder = Path(tempfile.mkdtemp(prefix="journal-"))
    limits = AdmissionLimits(questions_per_update=QUESTIONS, total_updates=10**9, staleness_max=1, depth=1)
    plan = BufferPlan(rule="majority_vote", group_size=GROUP, run_seed=1, incarnation=0, limits=limits)
    start = Start(start="one", goes_on=False, incarnation=0, updates=0, time_s=0.0, config="", setting={})
    actor = BufferActor(plan, GoldAnswers.without(), journal=JournalPlan(folder=folder, start=start, cursor={}))
    began, update, early = time.monotonic(), 0, 0.0
    answers = ["1", "1", "2", None, "1", "3", "2", "1"]
    while (passed := time.monotonic() - began) < seconds:
        early = early or (resident_mb() if passed > seconds / 4 else 0.0)
        offered = [AskedId(question_id=f"q{k}", epoch=update) for k in range(QUESTIONS)]
        assert await actor.admit(update, encode(offered)) == QUESTIONS
        for asked in offered:
            group = fake_group(asked.question_id, answers, epoch=update, version=update, length=tokens)
            await actor.accept(encode(group))
        update += 1
        await actor.take(update)
        await actor.report(update)
        await actor.updated(update, "0" * 32)
        await actor.acknowledged("policy", update)
        if update % 20 == 0:
            await actor.state({})
    passed = time.monotonic() - began
    written = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    print(
        f"one buffer: {update * QUESTIONS * GROUP / passed * 60:.0f} completions of {tokens} tokens a minute, the sender included; "
        f"{written:.0f} MB written; resident memory {early:.0f} MB after a quarter, {resident_mb():.0f} MB at the end"
    )


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--window", type=float, default=60.0)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--tokens", type=int, default=500)
    arguments = parser.parse_args()
    asyncio.run(full_speed(arguments.seconds, arguments.tokens))
    words = {name: ["--journal.retain", name] for name in ("all", "off")}
    found = side_by_side.ratios(words, windows=arguments.pairs, window_s=arguments.window)
    side_by_side.report("with a journal, for a run without", found, BAR)


if __name__ == "__main__":
    main()
