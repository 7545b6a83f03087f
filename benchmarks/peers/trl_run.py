"""One training run of TRL's GRPOTrainer, for benchmarks.peers.beside_trl. Needs TRL, mpmath, pydantic and tyro.

    PYTHONPATH=. OTHER_PYTHON benchmarks/peers/trl_run.py FOLDER

FOLDER holds run.json with the settings, and questions.jsonl with one prompt and its answer a line. Rewards come from the code that
grades ours. Writes times.json, the seconds from the start of training to the end of each update, and model/, the trained model.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from corewarding.rewards.answers.extract import extract_answer
from corewarding.rewards.answers.grading import grade


class Clock(TrainerCallback):
    """Notes when updates end."""

    def __init__(self) -> None:
        self.began, self.ended = 0.0, list[float]()

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.began = time.monotonic()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ended.append(time.monotonic() - self.began)


def reward(completions: list[str], answer: list[str], **_: Any) -> list[float]:
    return [float(grade(extract_answer(text), gold)) for text, gold in zip(completions, answer, strict=True)]


def main(folder: Path) -> None:
    asked = json.loads((folder / "run.json").read_text())
    torch.set_num_threads(asked["threads"])
    rows = [json.loads(line) for line in (folder / "questions.jsonl").read_text().splitlines()]
    clock = Clock()
    trainer = GRPOTrainer(
        model=asked["model"],
        reward_funcs=reward,
        train_dataset=Dataset.from_list(rows),
        args=GRPOConfig(output_dir=str(folder / "out"), **asked["settings"]),
        callbacks=[clock],
    )
    trainer.train()
    (folder / "times.json").write_text(json.dumps(clock.ended))
    trainer.save_model(str(folder / "model"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
