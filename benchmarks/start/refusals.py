"""How long a run that cannot start takes to say so, and whether its dry run says the same.

python -m benchmarks.start.refusals

Calls `corewarding train cpu` with one mistake at a time, once with --dry-run and once without, and prints seconds (and how many of
them it computed, which other work on the machine does not change) and the message. A case fails if the two differ, if either takes
30 s or more, or if anything is left in the run's folder.
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from corewarding.launch.config.paths import PACKAGE

LIMIT_S = 30.0
BASE = PACKAGE / "models" / "arithmetic-base"
WEIGHTS = "model.safetensors"


def cases(folder: Path) -> dict[str, list[str]]:
    """Words of the command by what is wrong with them. folder: for the files that they name."""
    for name in ("truncated", "without"):
        shutil.copytree(BASE, folder / name)
        (folder / name / WEIGHTS).unlink()
    (folder / "truncated" / WEIGHTS).write_bytes((BASE / WEIGHTS).read_bytes()[:1_000_000])
    questions = folder / "questions.jsonl"
    questions.write_text("".join(json.dumps({"question": f"What is {n} + 1?"}) + "\n" for n in range(64)))
    return {
        "interpreter that does not exist": ["--engine.kind", "vllm", "--engine.python", "/nope"],
        "engine that is not installed": ["--engine.kind", "vllm", "--engine.python", sys.executable],
        "truncated weights": ["--model.path", str(folder / "truncated")],
        "missing weights": ["--model.path", str(folder / "without")],
        "NCCL without GPUs": ["--publish.backend", "nccl"],
        "GPUs without CUDA": ["--learner.gpus-per-rank", "1", "--rollout.gpus-per-actor", "1"],
        "dead engine.url": ["--rule", "random", "--engine.kind", "sglang", "--engine.url", "http://127.0.0.1:9"],
        "process larger than the node": ["--learner.cpus-per-rank", "4096"],
        "run.root that cannot be written": ["--run.root", "/proc/runs"],
        "data file that does not exist": ["--data.kind", "files", "--data.train", str(folder / "no.parquet")],
        "rule that reads answers, none there": ["--rule", "ground_truth", "--data.kind", "files", "--data.train", str(questions)],
    }  # fmt: skip


def call(words: list[str], root: Path) -> tuple[float, float, int, str]:
    """Seconds, of which on a core, exit code and the last line of the error."""
    where = [] if "--run.root" in words else ["--run.root", str(root)]
    command = [sys.executable, "-m", "corewarding.launch.cli", "train", "cpu", *where, *words]
    began, computed = time.monotonic(), cpu_s()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (
        time.monotonic() - began,
        cpu_s() - computed,
        done.returncode,
        (done.stderr.strip().splitlines() or ["-"])[-1],
    )


def cpu_s() -> float:
    """Seconds that ended processes of this one have computed."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> int:
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        folder, root = Path(name), Path(name) / "runs"
        for what, words in cases(folder).items():
            (dry_s, dry_cpu_s, dry, message), (run_s, _, run, same) = (
                call([*words, "--dry-run"], root),
                call(words, root),
            )
            good = dry == run == 2 and message == same and max(dry_s, run_s) < LIMIT_S and not root.exists()
            failed += not good
            seconds = f"dry run {dry_s:4.1f} s ({dry_cpu_s:.1f} s computed), run {run_s:4.1f} s"
            print(f"{'ok' if good else 'FAILED':<6} {what:<36} {seconds}: {message}", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
