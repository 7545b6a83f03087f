"""`corewarding runs` and `compare`: status and numbers from files alone, as tables and as JSON lines."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from corewarding.launch.cli import main
from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.report.run_lock import run_lock
from corewarding.launch.report.tables.output import json_line

CONFIG: dict[str, Any] = {"rule": "majority_vote", "train": {"updates": 4, "lr": 1e-4}}


def make_run(folder: Path, *, updates: int, config: dict[str, Any] = CONFIG, **files: str) -> Path:
    """A run folder after so many updates; rewards are 0.1, 0.2, ..."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    rows: list[dict[str, Any]] = [{"kind": "eval_before", "update": 0, "mean@8": 0.25, "maj@8": 0.5}]
    rows += [
        {"kind": "update", "update": n, "reward/mean": n / 10, "label/accuracy_frac": 0.5}
        for n in range(1, updates + 1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"kind": "upd')
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def summary(updates: int, **after: float) -> str:
    numbers = {"rule": "majority_vote", "updates": updates, "completions_per_s": 12.5, "wall_s": 60.0, "labels_read": 0}
    return json.dumps({**numbers, "before": {"mean@8": 0.25}, "after": after or None})


def rows(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    assert main([*words, "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_every_status_is_read_from_the_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / "ended", updates=4, summary__json=summary(4, **{"mean@8": 0.75}))
    make_run(tmp_path / "early", updates=3, summary__json=summary(3))  # by run.max_wall_s
    make_run(tmp_path / "extended", updates=4, summary__json=summary(3))  # resumed after its end, then killed
    make_run(tmp_path / "cut", updates=4, summary__json=summary(4)[:20])
    make_run(tmp_path / "killed", updates=2)
    make_run(tmp_path / "failed", updates=2, failure__txt="the disk is full\nmake room\n")
    make_run(tmp_path / "sweep" / "a", updates=1, config={"rule": "random"})
    (tmp_path / "sweep" / "config.yaml").write_text("rule: random\n")
    (tmp_path / "sweep" / "sweep.json").write_text("{}")
    (tmp_path / "evals").mkdir()
    with run_lock(make_run(tmp_path / "live", updates=3, failure__txt="of its start before\n")):
        found = {row["name"]: row for row in rows(capsys, "runs", str(tmp_path))}
    assert {name: row["status"] for name, row in found.items()} == {
        "ended": "ended",
        "early": "ended",
        "extended": "interrupted",
        "cut": "interrupted",
        "killed": "interrupted",
        "failed": "failed",
        "sweep/a": "interrupted",
        "live": "running",
    }
    assert found["failed"]["reason"] == "the disk is full\nmake room"
    assert (found["killed"]["updates"], found["killed"]["total_updates"]) == (2, 4)
    ended = found["ended"]
    assert (ended["measure"], ended["before"], ended["after"]) == ("mean@8", 0.25, 0.75)
    assert (ended["reward"], ended["label_accuracy_frac"], ended["completions_per_s"]) == (0.4, 0.5, 12.5)
    assert (found["killed"]["before"], found["killed"]["after"]) == (0.25, None)


def test_the_newest_run_comes_first_and_a_failure_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for age, name in enumerate(("new", "old")):
        folder = make_run(tmp_path / name, updates=1, failure__txt=f"{name}\x1b[2J cause\nremedy\n")
        for path in folder.iterdir():
            os.utime(path, (10**9 - age, 10**9 - age))
    assert main(["runs", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert told.index("new ") < told.index("old ")
    assert "new: new\\x1b[2J cause\n" in told
    assert "\x1b" not in told


def test_a_folder_of_one_run_and_one_of_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / "one", updates=1)
    assert [row["name"] for row in rows(capsys, "runs", str(tmp_path / "one"))] == ["one"]
    (tmp_path / "one" / "config.yaml").write_text("- no mapping\n")
    (row,) = rows(capsys, "runs", str(tmp_path))
    assert "is empty or garbled" in row["reason"]
    (tmp_path / "none").mkdir()
    assert main(["runs", str(tmp_path / "none")]) == 0
    assert capsys.readouterr().out.endswith("holds no run\n")
    assert rows(capsys, "runs", str(tmp_path / "none")) == []


def test_two_runs_are_compared_in_configuration_environment_and_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = make_run(
        tmp_path / "a",
        updates=8,
        summary__json=summary(8, **{"mean@8": 0.5}),
        environment__json='{"packages": {"ray": "1"}}',
    )
    second = make_run(
        tmp_path / "b",
        updates=12,
        config=CONFIG | {"train": {"updates": 4}, "run": {"name": "b"}, "staleness": {"max": 0}},
        environment__json='{"packages": {"ray": "2"}}',
    )
    found = rows(capsys, "compare", str(first), str(second))
    keys = {row["name"]: (row["first"], row["second"]) for row in found if row["kind"] == "configuration"}
    assert keys == {"staleness.max": (4, 0), "train.lr": (1e-4, TrainConfig().train.lr)}
    assert [row for row in found if row["kind"] == "environment"] == [
        {"kind": "environment", "name": "ray", "first": "1", "second": "2", "change": None}
    ]
    results = {row["name"]: row for row in found if row["kind"] == "result"}
    assert (results["status"]["first"], results["status"]["second"]) == ("ended", "interrupted")
    assert (results["updates"]["first"], results["updates"]["second"]) == (8, 12)
    assert results["reward/mean"]["first"] == pytest.approx(0.75)  # updates 7 and 8: the last quarter of 8
    assert results["reward/mean"]["change"] == pytest.approx(0)
    assert (results["mean@8 after"]["first"], results["mean@8 after"]["second"]) == (0.5, None)
    assert main(["compare", str(first), str(second)]) == 0
    told = capsys.readouterr().out
    assert "staleness.max" in told
    assert "what came out" in told


def test_the_points_of_a_sweep_are_json_lines_and_the_words_go_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sweep", "cpu", "--over", "staleness.max=0,1", "--root", str(tmp_path), "--dry-run", "--json"]
    assert main(words) == 0
    out, err = capsys.readouterr()
    found = [json.loads(line) for line in out.splitlines()]
    assert [row["point"] for row in found] == [{"staleness.max": "0"}, {"staleness.max": "1"}]
    assert "2 trials, 0 of them impossible; nothing was started" in err


def test_json_lines_are_json_and_plain_ascii() -> None:
    row = {"nan": float("nan"), "inside": [float("inf"), {"text": "\x1b[2J \u202e é"}], "tuple": (1, 2.5)}
    line = json_line(row)
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line) == {"nan": None, "inside": [None, {"text": "\x1b[2J \u202e é"}], "tuple": [1, 2.5]}


def test_a_data_set_is_inspected_as_one_json_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    questions = ["What is 1 + 1?", "What is 1  + 1?", "What is 2 + 2, in few words?"]
    lines = [{"question": text, "rephrased": "Add them.", "answer": "2"} for text in questions]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (found,) = rows(capsys, "data", "inspect", str(tmp_path / "q.jsonl"))
    assert (found["rows"], found["rephrased"], found["unit"]) == (3, 3, "words")
    assert found["lengths"]["original"] == pytest.approx(
        {"mean": 6.0, "median": 5.0, "95%": 7.7, "99%": 7.94, "longest": 8.0}
    )
    assert sum(found["answers"].values()) == 3
    assert [len(ids) for ids in found["repeats"]] == [2]
    assert all(isinstance(ids, list) for ids in found["pairs"].values())


@pytest.mark.parametrize("command", [("recipes",), ("recipes", "cpu"), ("doctor",)])
def test_other_commands_print_json_lines(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--json"]) in (0, 1)
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert found
    if command == ("recipes",):
        assert {row["kind"] for row in found} == {"recipe", "part"}
    elif command == ("doctor",):
        assert all(row.keys() == {"what", "status", "found", "remedy"} for row in found)
    else:
        assert found[0]["rule"] == "co_rewarding_ii"
