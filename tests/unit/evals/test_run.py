"""`corewarding eval` on the shipped model, in this process."""

import json

import pytest

from corewarding.evals.record import EvalRecord
from corewarding.launch.cli import main

WORDS = ["eval", "models/arithmetic-base", "--num-questions", "6", "--samples", "2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("evals") / "base"
    assert main([*WORDS, "--out", str(out)]) == 0
    return out


def result(folder):
    return json.loads((folder / "result.json").read_text())


def test_everything_sampled_is_kept_with_what_it_takes_to_grade_it(folder):
    record = EvalRecord.open(folder)
    assert len(record.generations()) == 6 * 3
    assert {row["id"] for row in record.questions().values()} == {g.question_id for g in record.generations()}
    assert result(folder)["num_questions"] == 6
    assert result(folder)["pass@1"] == pytest.approx(result(folder)["mean@2"])
    assert len(record.manifest["model"]["hash"]) == 16


def test_an_interrupted_evaluation_goes_on_and_ends_with_the_same_numbers(folder, capsys):
    before, path = result(folder), folder / "generations.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:7]) + lines[7][:30])
    assert main([*WORDS, "--out", str(folder)]) == 0
    assert result(folder) == before
    assert len(path.read_text().splitlines()) == len(lines)


def test_grading_again_needs_the_folder_alone_and_sees_a_changed_text(folder, tmp_path, capsys):
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in folder.iterdir():
        text = path.read_text()
        (copy / path.name).write_text(text.replace("boxed", "bxed") if path.name == "generations.jsonl" else text)
    (copy / "scores.jsonl").unlink()
    assert main(["eval", "--regrade", str(copy)]) == 0
    assert result(copy)["greedy"] == 0
    assert result(copy)["no_answer_frac"] == 1
    assert main(["eval", "--compare", str(folder), str(copy)]) == 0
    assert "mean@2" in capsys.readouterr().out
    assert main(["eval", "--regrade", str(copy), "--json"]) == 0
    assert main(["eval", "--compare", str(folder), str(copy), "--json"]) == 0
    graded, *differences = map(json.loads, capsys.readouterr().out.splitlines())
    assert graded["greedy"] == 0
    assert graded["folder"] == str(copy)
    assert {row["name"] for row in differences} == {"greedy", "mean@2", "maj@2"}


def test_a_benchmark_in_a_file(tmp_path, capsys):
    rows = [{"question": f"{n} + 1", "answer": f"so it is \n#### {n + 1}"} for n in range(3)]
    data = tmp_path / "sums.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["eval", "models/arithmetic-base", "--data", str(data), "--samples", "0", "--max-new-tokens", "16"]
    assert main([*words, "--out", str(tmp_path / "e")]) == 0
    assert {row["answer"] for row in EvalRecord.open(tmp_path / "e").questions().values()} == {"1", "2", "3"}
    assert "pass@" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--data", "nowhere.jsonl"], "no such file"),
        (["--max-new-tokens", "100000"], "lower --max-new-tokens"),
    ],
)
def test_what_cannot_be_evaluated_is_one_message(words, told, capsys):
    assert main([*WORDS, *words]) == 2
    assert told in capsys.readouterr().err
