"""The folder of an evaluation: interrupted, continued, graded again, compared, refused."""

import json

import pytest

from corewarding.evals.compare import compare
from corewarding.evals.heldout import Generation, QuestionScore, score_questions, summarize
from corewarding.evals.record import EvalError, EvalRecord, data_hash, differences, model_hash

QUESTIONS = [{"id": name, "question": name, "prompt": name, "answer": "7"} for name in "abcd"]


def manifest(**changed):
    content = {
        "format": 1,
        "model": {"path": "m", "hash": "1"},
        "data": {"source": "s", "hash": "2"},
        "prompt": {"template": "t", "system_prompt": "p"},
        "engine": {"kind": "embedded"},
        "sampling": {"samples": 2, "seed": 0},
        "grading": {"version": "g"},
    }
    for key, value in changed.items():
        section, name = key.split("__")
        content[section][name] = value
    return content


def group(question, answers, *, greedy=False):
    return [
        Generation(
            question_id=question,
            greedy=greedy,
            sample_index=index,
            text=f"\\boxed{{{answer}}}",
            answer=answer,
            finish_reason="stop",
            num_tokens=3,
        )
        for index, answer in enumerate(answers)
    ]


def graded(folder, right, **changed):
    """An evaluation in which the samples of question i are right as `right[i]` says."""
    record = EvalRecord.create(folder, manifest(**changed), QUESTIONS)
    for row, samples in zip(QUESTIONS, right, strict=True):
        record.append(group(row["id"], ["7" if r else "1" for r in samples[:1]], greedy=True))
        record.append(group(row["id"], ["7" if r else "1" for r in samples]))
    generations = record.finished(samples=2)
    scores = score_questions(generations, record.gold)
    record.write_grades(summarize(scores, generations, n=2), scores, record.manifest["grading"], generations)
    return record


def test_what_was_cut_off_in_the_middle_of_a_group_is_sampled_again(tmp_path):
    record = EvalRecord.create(tmp_path / "e", manifest(), QUESTIONS)
    record.append(group("a", ["7"], greedy=True))
    record.append(group("a", ["7", "1"]))
    record.append(group("b", ["7", "1"]))
    path = tmp_path / "e" / "generations.jsonl"
    path.write_bytes(path.read_bytes()[:-20])  # the last line of b's group
    again = EvalRecord.create(tmp_path / "e", manifest(grading__version="other"), QUESTIONS)
    assert again.finished(samples=2) == [*group("a", ["7"], greedy=True), *group("a", ["7", "1"])]
    assert len(path.read_text().splitlines()) == 3  # and the half group is gone from the file
    again.append(group("b", ["7", "1"]))
    assert len(again.finished(samples=2)) == 5


def test_a_damaged_line_in_the_middle_is_named(tmp_path):
    record = EvalRecord.create(tmp_path / "e", manifest(), QUESTIONS)
    record.append(group("a", ["7", "1"]))
    path = tmp_path / "e" / "generations.jsonl"
    path.write_text("{broken\n" + path.read_text())
    with pytest.raises(EvalError, match="line 1 is damaged"):
        record.generations()


def test_a_folder_of_another_evaluation_or_of_something_else_is_refused(tmp_path):
    EvalRecord.create(tmp_path / "e", manifest(), QUESTIONS)
    with pytest.raises(EvalError, match=r"differs in sampling.seed; choose another --out"):
        EvalRecord.create(tmp_path / "e", manifest(sampling__seed=1), QUESTIONS)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("precious")
    with pytest.raises(EvalError, match="holds no evaluation"):
        EvalRecord.create(tmp_path / "other", manifest(), QUESTIONS)
    with pytest.raises(EvalError, match="holds no evaluation"):
        EvalRecord.open(tmp_path / "other")


def test_results_survive_their_files(tmp_path):
    record = graded(tmp_path / "e", [(1, 1), (1, 0), (0, 0), (0, 1)])
    assert EvalRecord.open(tmp_path / "e").scores()[1] == QuestionScore(
        question_id="b", greedy=True, samples=(True, False), elected="7", majority=True
    )
    result = json.loads((record.folder / "result.json").read_text())
    assert (result["mean@2"], result["greedy"], result["pass@2"]) == (0.5, 0.5, 0.75)


def test_a_difference_is_paired_by_question(tmp_path):
    one = graded(tmp_path / "one", [(1, 1), (1, 0), (0, 0), (0, 1)])
    better = graded(tmp_path / "two", [(1, 1), (1, 1), (0, 1), (1, 1)], model__hash="9", prompt__template="u")
    rows = {row.name: row for row in compare(one, better)}
    assert (rows["mean@2"].first, rows["mean@2"].second) == (0.5, 0.875)
    low, high = rows["mean@2"].interval
    assert 0 < low < 0.375 < high <= 0.5  # by question: 0, .5, .5, .5
    assert all(row.interval == (0, 0) for row in compare(one, one))


@pytest.mark.parametrize("key", ["data__hash", "sampling__samples", "prompt__system_prompt"])
def test_results_of_different_things_are_not_compared(tmp_path, key):
    one, two = graded(tmp_path / "one", [(1, 1)] * 4), graded(tmp_path / "two", [(1, 1)] * 4, **{key: "other"})
    with pytest.raises(EvalError, match=f"differ in {key.replace('__', '.')}; evaluate both in the same way"):
        compare(one, two)


def test_other_grading_is_mended_by_grading_again(tmp_path):
    one, two = graded(tmp_path / "one", [(1, 1)] * 4), graded(tmp_path / "two", [(1, 1)] * 4, grading__version="h")
    with pytest.raises(EvalError, match="regrade"):
        compare(one, two)


def test_paths_and_packages_do_not_make_results_different():
    assert differences(manifest(), manifest(model__path="elsewhere", engine__kind="other", data__source="copy")) == []
    assert differences(manifest(), manifest(model__hash="9")) == ["model.hash"]


def test_hashes_are_of_content_alone(tmp_path):
    rows = [("a", "1+1", "2"), ("b", "1+2", "3")]
    assert data_hash(rows) == data_hash(rows[::-1]) != data_hash([("a", "1+1", "2"), ("b", "1+2", "4")])
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"weights")
        (tmp_path / name / "config.json").write_text("{}")
    (tmp_path / "two" / "README.md").write_text("words")
    assert model_hash(tmp_path / "one") == model_hash(tmp_path / "two")
    (tmp_path / "two" / "model.safetensors").write_bytes(b"Weights")
    assert model_hash(tmp_path / "one") != model_hash(tmp_path / "two")
