"""Checks on the driver, through the command: refused before Ray is started, with nothing left behind."""

import json
import os
from pathlib import Path

import pytest
import torch

from corewarding.launch.cli import main
from corewarding.launch.config.load import make_config
from corewarding.launch.run.preflight import node
from corewarding.launch.run.preflight.checks import warnings
from corewarding.launch.run.preflight.memory import Memory
from corewarding.launch.run.preflight.needs import fit_gpus


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(_: object) -> None:
        raise AssertionError("Ray was asked for")

    monkeypatch.setattr("corewarding.launch.run.placement.connect", connect)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.mark.parametrize("dry_run", [True, False], ids=["dry run", "run"])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--engine.kind", "vllm", "--engine.python", "/nope"], "engine.python /nope cannot be started"),
        (["--engine.kind", "sglang"], "has no sglang; set engine.python"),
        (["--engine.kind", "sglang", "--engine.url", "http://127.0.0.1:9", "--rule", "random"], "no server answers there"),
        (["--publish.backend", "nccl"], "publish.backend nccl needs a whole GPU"),
        (["--learner.gpus-per-rank", "1"], "learner.gpus_per_rank 1: torch"),
        (["--learner.cpus-per-rank", "4096"], "learner.cpus_per_rank 4096: one process needs more cores than the"),
        (["--rollout.cpus-per-actor", "4096"], "rollout.cpus_per_actor 4096: one process needs more cores than the"),
        (["--learner.gpus-per-rank", "2", "--publish.backend", "ipc"], "publish.backend ipc needs all processes on one GPU"),
        (["--run.root", "/proc/runs"], "run.root /proc/runs cannot be written: /proc: "),
        (["--run.root", "/dev/null/runs"], "run.root /dev/null/runs: /dev/null is a file, not a folder"),
        (["--data.kind", "files", "--data.train", "/no/data.parquet"], "data.train=/no/data.parquet: there is no such file"),
        (["--model.path", "/no/model"], "/no/model"),
    ],
)  # fmt: skip
def test_what_cannot_start_is_refused_at_once(
    words: list[str], message: str, dry_run: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if torch.cuda.is_available() and message.startswith("learner.gpus_per_rank"):
        pytest.skip("for machines without a GPU")
    where = [] if "--run.root" in words else ["--run.root", str(tmp_path / "runs")]
    assert main(["train", "cpu", *where, *words, *(["--dry-run"] if dry_run else [])]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dry_run", [True, False], ids=["dry run", "run"])
def test_a_model_that_this_machine_cannot_hold_is_refused(
    dry_run: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(node, "memory_here", lambda: Memory(main=10**7, gpu=None))
    where = ["--run.root", str(tmp_path / "runs"), *(["--dry-run"] if dry_run else [])]
    assert main(["train", "cpu", *where]) == 2
    assert "million parameters) does not fit: its processes here keep at least " in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_questions_without_answers_suffice_for_no_rule_that_reads_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps({"question": f"What is {n} + 1?"}) + "\n" for n in range(40)))
    words = ["--data.kind", "files", "--data.train", str(questions), "--run.root", str(tmp_path / "runs"), "--dry-run"]
    assert main(["train", "cpu", *words, "--rule", "ground_truth"]) == 2
    assert "rule ground_truth needs the answer of every question" in capsys.readouterr().err
    assert main(["train", "cpu", *words, "--rule", "majority_vote"]) == 0
    said = capsys.readouterr().out
    assert "none: data.heldout is not set, so nothing is evaluated and eval.every_updates 10 has no effect" in said


def test_processes_that_take_turns_are_a_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cores = os.cpu_count() or 1
    words = ["--learner.cpus-per-rank", str(cores), "--rollout.cpus-per-actor", "0.5", "--run.root", str(tmp_path)]
    assert main(["train", "cpu", *words, "--dry-run"]) == 0
    assert f"reserve {cores + 1:g} CPUs and this machine has {cores}: they take turns" in capsys.readouterr().out


def test_a_watchdog_that_would_come_before_a_hanging_engine_is_given_up_is_named() -> None:
    content = {"publish": {"timeout_s": 20.0}, "run": {"watchdog_s": 20.0}}
    assert any(
        "run.watchdog_s 20 is not over publish.timeout_s 20" in note
        for note in warnings(make_config(content, where="t"))
    )
    content["run"]["watchdog_s"] = 21.0
    assert not any("watchdog" in note for note in warnings(make_config(content, where="t")))


@pytest.mark.parametrize(
    ("ranks", "per_rank", "actors", "per_actor", "gpus"),
    [
        (1, 0.0, 1, 0.0, 0),
        (1, 0.5, 1, 0.25, 1),  # learner, policy and teacher on one
        (1, 0.5, 1, 0.3, 2),  # 1.1 GPUs
        (1, 0.6, 1, 0.6, 3),  # 1.8 GPUs, but no two of them share one
        (2, 1.0, 1, 1.0, 4),
        (1, 1.0, 2, 2.0, 7),  # 1 + 2 x 2 policies + 1 x 2 teachers
    ],
)
def test_the_gpus_of_one_machine_have_room_or_not(
    ranks: int, per_rank: float, actors: int, per_actor: float, gpus: int
) -> None:
    config = make_config(
        {
            "learner": {"ranks": ranks, "gpus_per_rank": per_rank},
            "rollout": {"policy_actors": actors, "gpus_per_actor": per_actor},
        },
        where="test",
    )
    assert fit_gpus(config, gpus)
    assert gpus == 0 or not fit_gpus(config, gpus - 1)
