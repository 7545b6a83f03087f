"""metrics.jsonl is read on from where the reading stopped, and anew when it was written anew."""

import json
from pathlib import Path
from typing import Any

import pytest

from corewarding.launch.view.live.numbers import POINTS, Numbers, step_of


def row(update: int, kind: str = "update", **values: Any) -> str:
    return json.dumps({"update": update, "kind": kind, "time_s": 100.0 + update, **values}) + "\n"


def test_whole_lines_are_read_as_they_come(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    numbers = Numbers(path)
    numbers.read()
    assert (numbers.last, numbers.written_s, numbers.place) == (0, None, 0)
    path.write_text(
        row(0, "eval_before", greedy=0.25) + row(1, **{"reward/mean": 0.5}) + row(2, **{"reward/mean": 1.0})[:-9]
    )
    numbers.read()
    assert numbers.last == 1
    with path.open("a") as file:
        file.write(row(2, **{"reward/mean": 1.0})[-9:] + "no JSON\n" + row(2, "eval_quick", greedy=0.75))
    numbers.read()
    assert numbers.values("reward/mean") == {1: 0.5, 2: 1.0}
    assert numbers.curve("eval/greedy", 1) == [[0, 0.25]]
    assert numbers.curve("eval_quick/greedy", 1) == [[2, 0.75]]
    assert numbers.written_s == 102.0


def test_a_resumed_run_that_cut_its_file_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(row(update, **{"reward/mean": 0.1 * update}) for update in range(1, 6)))
    numbers = Numbers(path)
    numbers.read()
    path.write_text("".join(row(update, **{"reward/mean": 0.1 * update}) for update in range(1, 3)))
    numbers.read()
    assert numbers.last == 2
    assert list(numbers.values("reward/mean")) == [1, 2]
    path.write_text(row(9, **{"reward/mean": 0.9}) * 9)  # longer than what was read, and another file
    numbers.read()
    assert numbers.values("reward/mean") == {9: 0.9}


def test_an_update_that_was_made_again_counts_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(row(1, **{"reward/mean": 0.1}) + row(2, **{"reward/mean": 0.2}) + row(1, **{"reward/mean": 0.3}))
    numbers = Numbers(path)
    numbers.read()
    assert numbers.values("reward/mean") == {1: 0.3, 2: 0.2}


def test_points_of_a_long_run_are_means(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(row(update, **{"reward/mean": float(update)}) for update in range(1, 8)))
    numbers = Numbers(path)
    numbers.read()
    assert numbers.curve("reward/mean", 3) == [[3, 2.0], [6, 5.0], [7, 7.0]]
    assert (step_of(0), step_of(POINTS), step_of(POINTS + 1), step_of(10 * POINTS)) == (1, 1, 2, 10)


@pytest.mark.parametrize(
    "text",
    ['{"update": "1", "kind": "update", "x/y": 1}\n', '[1]\n{"kind": "update"}\n', '{"update": 1, "kind": "other", "x/y": 1}\n',
     '{"update": 1, "kind": "update", "x/y": NaN, "x/z": "a", "x/w": [1], "x/v": null}\n'],
)  # fmt: skip
def test_what_is_no_number_is_left_out(tmp_path: Path, text: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(text)
    numbers = Numbers(path)
    numbers.read()
    assert numbers.names == []
