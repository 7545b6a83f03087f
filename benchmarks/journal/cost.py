"""What the journal costs: a run with it and a run without it, in turns, and one buffer at full speed.

    python -m benchmarks.journal.cost [--pairs 9] [--updates 30] [--seconds 120] [--tokens 500]

One buffer is given groups of completions of --tokens tokens for --seconds seconds, as fast as it takes them; prints completions per
minute, megabytes written, and resident memory after a quarter of the time and at the end. Then each pair is two asynchronous runs of
configs/cpu.yaml, in changing order; prints the completions per second of both, and the median of the ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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


def speed(root: Path, retain: str, updates: int) -> float:
    """Completions per second of one run."""
    words = ["--run.root", str(root), "--run.name", retain, "--journal.retain", retain, "--train.updates", str(updates)]
    words += ["--eval.num-questions", "4", "--eval.every-updates", "0", "--checkpoint.every-updates", "10"]
    command = [sys.executable, "-m", "corewarding.launch.cli", "train", "cpu", *words]
    subprocess.run(command, check=True, capture_output=True)
    summary = json.loads((root / retain / "summary.json").read_text())
    return float(summary["completions_per_s"])


def pairs(number: int, updates: int) -> None:
    ratios = []
    for index in range(number):
        root = Path(tempfile.mkdtemp(prefix="journal-"))
        order = ("all", "off") if index % 2 else ("off", "all")
        found = {retain: speed(root, retain, updates) for retain in order}
        ratios.append(found["all"] / found["off"])
        print(f"with {found['all']:.2f}, without {found['off']:.2f} completions/s: {ratios[-1]:.3f}", flush=True)
    if ratios:
        print(f"median of {number} ratios: {statistics.median(ratios):.3f}")


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
    parser.add_argument("--updates", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--tokens", type=int, default=500)
    arguments = parser.parse_args()
    asyncio.run(full_speed(arguments.seconds, arguments.tokens))
    pairs(arguments.pairs, arguments.updates)


if __name__ == "__main__":
    main()
