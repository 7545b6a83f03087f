"""A QuestionSet keeps answers separate; loading refuses missing rephrasings and held-out questions that are trained on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from corewarding.dataflow.carriers import Question
from corewarding.dataflow.errors import DataSetError
from corewarding.questions.load import load_heldout, load_training
from corewarding.questions.settings import DEFAULT_SYSTEM_PROMPT, DataSettings


def write(path: Path, rows: Sequence[Mapping[str, object]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def settings(tmp_path: Path) -> DataSettings:
    train = [{"id": i, "question": f"What is {i}+1?", "answer": str(i + 1)} for i in range(6)]
    rephrased = [{"id": i, "question": f"Add one to {i}."} for i in range(6)]
    heldout = [{"question": f"What is {i}+1?", "answer": str(i + 1)} for i in range(5, 40)]
    return DataSettings(
        kind="files",
        train=write(tmp_path / "train.jsonl", train),
        rephrased=write(tmp_path / "rephrased.jsonl", rephrased),
        heldout=write(tmp_path / "heldout.jsonl", heldout),
    )


def changed(settings: DataSettings, **values: object) -> DataSettings:
    return DataSettings.model_validate(settings.model_dump() | values)


def test_training_questions_keep_order_and_pairs_and_no_answers(settings: DataSettings) -> None:
    loaded = load_training(settings, seed=0, needs_rephrased=True)
    assert loaded.questions[2] == Question(id="2", original="What is 2+1?", rephrased="Add one to 2.")
    assert [question.id for question in loaded.questions] == ["0", "1", "2", "3", "4", "5"]
    assert loaded.gold.read("2", reader="diagnostics") == "3"
    assert "6 questions" in loaded.source


def test_limit_takes_the_first(settings: DataSettings) -> None:
    loaded = load_training(changed(settings, limit=2), seed=0, needs_rephrased=True)
    assert [question.id for question in loaded.questions] == ["0", "1"]
    assert len(loaded.gold) == 2


def test_training_needs_no_answers(tmp_path: Path, settings: DataSettings) -> None:
    source = write(tmp_path / "bare.jsonl", [{"question": "q"}])
    loaded = load_training(changed(settings, train=source, rephrased=None), seed=0, needs_rephrased=False)
    assert len(loaded.gold) == 0
    assert loaded.questions == [Question(id="0", original="q")]


def test_a_column_of_rephrasings_serves_too(tmp_path: Path, settings: DataSettings) -> None:
    source = write(tmp_path / "both.jsonl", [{"question": "q", "rephrased": "r"}, {"question": "s", "rephrased": None}])
    one = changed(settings, train=source, rephrased=None)
    assert load_training(changed(one, limit=1), seed=0, needs_rephrased=True).questions[0].rephrased == "r"
    with pytest.raises(DataSetError, match=r"1 of 2 questions have none \(first: \['1'\]\); set data\.rephrased"):
        load_training(one, seed=0, needs_rephrased=True)
    with pytest.raises(DataSetError, match=r"has a column `rephrased` of its own; leave one of the two out"):
        load_training(changed(one, rephrased=settings.rephrased), seed=0, needs_rephrased=True)


def test_a_rule_of_two_views_needs_rephrasings(settings: DataSettings) -> None:
    with pytest.raises(DataSetError, match=r"6 of 6 questions have none.*set data\.rephrased"):
        load_training(changed(settings, rephrased=None), seed=0, needs_rephrased=True)


def test_files_need_a_source() -> None:
    with pytest.raises(DataSetError, match=r"data\.train must name .* when data\.kind=files"):
        load_training(DataSettings(kind="files"), seed=0, needs_rephrased=False)


def test_heldout_leaves_out_training_questions_and_says_so(
    settings: DataSettings, caplog: pytest.LogCaptureFixture
) -> None:
    loaded = load_heldout(settings, seed=0)
    assert len(loaded.questions) == len(loaded.gold) == 34
    assert all(question.original != "What is 5+1?" for question in loaded.questions)
    assert loaded.notes == (
        f"data.heldout={settings.heldout}: 1 of 35 questions are also training questions and were left out",
    )
    assert loaded.notes[0] in caplog.text
    kept = load_heldout(changed(settings, heldout_overlap="keep"), seed=0)
    assert len(kept.questions) == 35
    assert kept.notes[0].endswith("1 of 35 questions are also training questions and were kept (data.heldout_overlap)")


def test_heldout_knows_a_training_question_by_its_rephrasing_and_by_limit_left_ones(
    tmp_path: Path, settings: DataSettings
) -> None:
    rows: list[dict[str, object]] = [
        {"question": " Add one  to 3.", "answer": "4"},
        {"question": "What is 4+1?", "answer": "5"},
        {"question": "new", "answer": "5"},
    ]
    loaded = load_heldout(changed(settings, heldout=write(tmp_path / "h.jsonl", rows), limit=1), seed=0)
    assert [question.original for question in loaded.questions] == ["new"]


def test_heldout_ids_are_apart_from_training_ids_and_their_order_is_fixed(settings: DataSettings) -> None:
    training = load_training(settings, seed=0, needs_rephrased=True)
    loaded = load_heldout(settings, seed=0)
    ids = [question.id for question in loaded.questions]
    assert not {question.id for question in training.questions} & set(ids)
    assert ids == [question.id for question in load_heldout(settings, seed=5).questions]
    assert ids != sorted(ids, key=lambda i: int(i.removeprefix("heldout-")))
    question = loaded.questions[0]
    value = int(question.original.removeprefix("What is ").removesuffix("+1?"))
    assert loaded.gold.read(question.id, reader="eval") == str(value + 1)


def test_heldout_without_answers_is_refused(tmp_path: Path, settings: DataSettings) -> None:
    some = write(tmp_path / "some.jsonl", [{"question": "a"}, {"question": "b", "answer": "2"}])
    loaded = load_heldout(changed(settings, heldout=some), seed=0)
    assert [question.original for question in loaded.questions] == ["b"]
    assert "1 of 2 questions have no answer and were left out" in loaded.notes[0]
    none = write(tmp_path / "none.jsonl", [{"question": "a"}, {"question": "What is 1+1?", "answer": "2"}])
    with pytest.raises(DataSetError, match=r"of 2 questions 1 are training questions and 1 have no answer"):
        load_heldout(changed(settings, heldout=none), seed=0)


def test_without_a_heldout_source_there_is_nothing_to_evaluate_on(settings: DataSettings) -> None:
    loaded = load_heldout(changed(settings, heldout=None), seed=0)
    assert (loaded.questions, len(loaded.gold)) == ([], 0)
    assert "data.heldout is not set" in loaded.notes[0]


def test_defaults() -> None:
    assert DataSettings().system_prompt == DEFAULT_SYSTEM_PROMPT
    assert DEFAULT_SYSTEM_PROMPT == "Let's think step by step and output the final answer within \\boxed{}."
    assert DataSettings().max_prompt_tokens == 512
    assert all(field.description for field in DataSettings.model_fields.values())


def test_the_arithmetic_world() -> None:
    settings = DataSettings(num_train=40, num_heldout=20)
    train = load_training(settings, seed=3, needs_rephrased=True)
    heldout = load_heldout(settings, seed=3)
    assert (len(train.questions), len(train.gold)) == (40, 40)
    assert (len(heldout.questions), len(heldout.gold)) == (20, 20)
    assert not {q.original for q in train.questions} & {q.original for q in heldout.questions}
    assert not {q.id for q in train.questions} & {q.id for q in heldout.questions}
    assert train.questions == load_training(settings, seed=3, needs_rephrased=True).questions


def test_columns_apply_to_training_and_heldout_questions(tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", [{"key": "a", "task": "1+1?", "reply": "2"}])
    again = write(tmp_path / "again.jsonl", [{"key": "a", "task": "One and one?"}])
    heldout = write(tmp_path / "heldout.jsonl", [{"key": "b", "task": "2+2?", "reply": "4"}])
    columns = {"id": "key", "question": "task", "answer": "reply"}
    one = DataSettings(kind="files", train=train, rephrased=again, heldout=heldout, columns=columns)
    loaded = load_training(one, seed=0, needs_rephrased=True)
    assert loaded.questions == [Question(id="a", original="1+1?", rephrased="One and one?")]
    assert load_heldout(one, seed=0).questions == [Question(id="heldout-b", original="2+2?")]
    other = write(tmp_path / "other.jsonl", [{"question": "3+3?", "answer": "6"}])
    loaded = load_heldout(changed(one, heldout=other, heldout_columns={}), seed=0)
    assert loaded.questions == [Question(id="heldout-0", original="3+3?")]
