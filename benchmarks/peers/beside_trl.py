"""A whole run beside TRL's GRPOTrainer: the same model, questions, rewards, updates and cores.

    python -m benchmarks.peers.beside_trl --python OTHER_ENVIRONMENT/bin/python [--rounds 3] [--updates 40]

Both train the built-in base model with the rule ground_truth, without a KL term, on 32 questions x 8 completions an update; TRL with
its fastest settings here, in an environment of its own (`pip install torch==2.13.0 trl==1.16.0 mpmath pydantic tyro`). In turns; the
first two updates of a run are not counted. Prints for each run its seconds an update and its held-out accuracy, then medians. The last
line is the ratio of trained completions per second. The exit code is 1 if our accuracy is below the interval of TRL's.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

from corewarding.launch.commands.train import TrainArguments
from corewarding.launch.config.command_line import parse_config
from corewarding.launch.config.paths import PACKAGE
from corewarding.launch.run.inputs import read_inputs

WARM_UP, QUESTIONS, GROUP, TOKENS, LR = 2, 32, 8, 32, 2e-4
MODEL = PACKAGE / "models" / "arithmetic-base"
OURS = {
    "rule": "ground_truth",
    "kl.coef": 0,
    "eval.every_updates": 0,
    "checkpoint.every_updates": 0,
    "run.sample_questions": 0,
    "train.lr": LR,
}
THEIRS: dict[str, Any] = {
    "learning_rate": LR,
    "lr_scheduler_type": "constant",
    "per_device_train_batch_size": QUESTIONS * GROUP,
    "num_generations": GROUP,
    "max_completion_length": TOKENS,
    "temperature": 1.0,
    "beta": 0.0,
    "loss_type": "grpo",
    "disable_dropout": True,
    "gradient_checkpointing": False,
    "bf16": False,
    "use_cpu": True,
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
    "logging_steps": 10**6,
    "max_grad_norm": 1.0,
}
"""One batch an update, so one generation and one pass; without a reference model, reports or memory savings."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True, help="of an environment that has TRL")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=40)
    arguments = parser.parse_args()
    rates: dict[str, list[float]] = {"ours": [], "TRL": []}
    scores: dict[str, list[dict[str, Any]]] = {"ours": [], "TRL": []}
    for number in range(arguments.rounds):
        folder = Path(tempfile.mkdtemp())
        for who in ("ours", "TRL") if number % 2 else ("TRL", "ours"):
            seconds, model = (
                ours(folder, arguments.updates)
                if who == "ours"
                else theirs(folder, arguments.updates, python=arguments.python)
            )
            score = accuracy(model, folder / f"eval-{who}")
            rates[who].append(QUESTIONS * GROUP / seconds)
            scores[who].append(score)
            low, high = score["mean_interval"]
            print(
                f"{who}: {seconds:.2f} s an update, mean@8 {score['mean@8']:.3f} ({low:.3f} to {high:.3f})", flush=True
            )
    ratio = statistics.median(rates["ours"]) / statistics.median(rates["TRL"])
    middle = {who: statistics.median(score["mean@8"] for score in several) for who, several in scores.items()}
    low = min(score["mean_interval"][0] for score in scores["TRL"])
    print(
        f"mean@8, median of {arguments.rounds}: ours {middle['ours']:.3f}, TRL {middle['TRL']:.3f} (lowest bound {low:.3f})"
    )
    print(f"{ratio:.2f}x")
    return 0 if middle["ours"] >= low else 1


def ours(folder: Path, updates: int) -> tuple[float, Path]:
    """Median seconds of an update, and the trained model."""
    words = [f"{key}={value}" for key, value in OURS.items()] + [f"train.updates={updates}", "eval.num_questions=1"]
    command = [
        sys.executable,
        "-m",
        "corewarding.launch.cli",
        "train",
        "cpu",
        *words,
        f"run.root={folder}",
        "run.name=ours",
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    rows = [json.loads(line) for line in (folder / "ours" / "metrics.jsonl").read_text().splitlines()]
    ended = [row["time/update_ended_s"] for row in rows if row["kind"] == "update"]
    return _typical(ended), folder / "ours"


def theirs(folder: Path, updates: int, *, python: str) -> tuple[float, Path]:
    words = [f"{key}={value}" for key, value in OURS.items()]
    inputs = read_inputs(parse_config(TrainArguments, ["cpu", *words], command="train").settings)
    asked = [
        {
            "prompt": inputs.template.text(question.original),
            "answer": inputs.gold.read(question.id, reader="reward"),
        }
        for question in inputs.prepared.questions
    ]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    run = {"model": str(MODEL), "threads": os.cpu_count(), "settings": THEIRS | {"max_steps": updates}}
    (folder / "run.json").write_text(json.dumps(run))
    env = os.environ | {"PYTHONPATH": str(PACKAGE.parent), "OMP_NUM_THREADS": str(os.cpu_count())}
    script = Path(__file__).with_name("trl_run.py")
    subprocess.run([python, str(script), str(folder)], check=True, env=env, stdout=subprocess.DEVNULL)
    return _typical(json.loads((folder / "times.json").read_text())), folder / "model"


def _typical(ended: list[float]) -> float:
    return statistics.median(after - before for before, after in pairwise(ended[WARM_UP - 1 :]))


def accuracy(model: Path, out: Path) -> dict[str, Any]:
    command = [
        *(sys.executable, "-m", "corewarding.launch.cli", "eval", str(model), "--data", "arithmetic"),
        *("--out", str(out), "--json"),
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    sys.exit(main())
