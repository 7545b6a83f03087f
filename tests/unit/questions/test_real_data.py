"""The published data sets load unchanged. Skipped if the folder of real data is absent."""

from __future__ import annotations

from pathlib import Path

import pytest

from corewarding.dataflow.errors import DataSetError
from corewarding.questions.load import load_heldout, load_training
from corewarding.questions.prompts import prepare
from corewarding.questions.settings import DataSettings
from corewarding.questions.template import PromptTemplate


@pytest.mark.parametrize(
    ("name", "rows", "answers", "first_answer"),
    [("math", 7500, 7498, "0"), ("dapo14k", 14109, 14109, "34"), ("openrs", 6999, 6998, "75")],
)
def test_training_sets_load_and_pair(data_folder: Path, name: str, rows: int, answers: int, first_answer: str) -> None:
    train = data_folder / "train"
    settings = DataSettings(
        kind="files", train=str(train / f"{name}_original.parquet"), rephrased=str(train / f"{name}_rephrased.parquet")
    )
    loaded = load_training(settings, seed=0, needs_rephrased=True)
    assert len(loaded.questions) == len({question.id for question in loaded.questions}) == rows
    assert len(loaded.gold) == answers
    assert loaded.gold.read(loaded.questions[0].id, reader="diagnostics") == first_answer
    assert sum(question.original == question.rephrased for question in loaded.questions) <= 2
    assert not any("step by step and output" in question.original for question in loaded.questions)


@pytest.mark.parametrize(
    ("name", "rows", "question_starts", "answer"),
    [
        ("math500.jsonl", 500, "Convert the point $(0,3)$", r"\left( 3, \frac{\pi}{2} \right)"),
        ("math_test.parquet", 5000, "How many vertical asymptotes", "2"),
        ("gsm8k_test.jsonl", 1319, "Josh decides to try flipping", "70000"),
        ("amc.parquet", 83, r"$\frac{m}{n}$ is the Irreducible", "142.0"),
        ("aime24.jsonl", 30, "Every morning Aya goes", "204"),
    ],
)
def test_benchmarks_load_with_answers(
    data_folder: Path, name: str, rows: int, question_starts: str, answer: str
) -> None:
    loaded = load_heldout(DataSettings(kind="files", heldout=str(data_folder / "eval" / name)), seed=0)
    assert len(loaded.questions) == len(loaded.gold) == rows
    found = [question.id for question in loaded.questions if question.original.startswith(question_starts)]
    assert answer in [loaded.gold.read(question_id, reader="eval") for question_id in found]
    longest = max(len(loaded.gold.read(question.id, reader="eval") or "") for question in loaded.questions)
    assert longest < 170  # a final answer, not a worked solution


@pytest.mark.parametrize(
    ("train", "heldout", "rows", "also_trained"),
    [
        ("math", "math_test.parquet", 5000, 1),
        ("openrs", "math_test.parquet", 5000, 253),
        ("dapo14k", "math_test.parquet", 5000, 971),
        ("dapo14k", "amc.parquet", 83, 11),
    ],
)
def test_published_sets_overlap(data_folder: Path, train: str, heldout: str, rows: int, also_trained: int) -> None:
    settings = DataSettings(
        kind="files",
        train=str(data_folder / "train" / f"{train}_original.parquet"),
        heldout=str(data_folder / "eval" / heldout),
    )
    loaded = load_heldout(settings, seed=0)
    assert len(loaded.questions) == rows - also_trained
    assert f"{also_trained} of {rows} questions are also training questions" in loaded.notes[0]


def test_sets_that_do_not_belong_together_are_refused(data_folder: Path) -> None:
    train = data_folder / "train"
    settings = DataSettings(
        kind="files", train=str(train / "math_original.parquet"), rephrased=str(train / "openrs_rephrased.parquet")
    )
    with pytest.raises(DataSetError, match=r"data\.train has 7500 rows and data\.rephrased 6999"):
        load_training(settings, seed=0, needs_rephrased=True)


def test_prompts_of_a_whole_set(data_folder: Path, tokenizer_folder: Path) -> None:
    settings = DataSettings(
        kind="files",
        train=str(data_folder / "train" / "openrs_original.parquet"),
        rephrased=str(data_folder / "train" / "openrs_rephrased.parquet"),
        limit=500,
    )
    loaded = load_training(settings, seed=0, needs_rephrased=True)
    template = PromptTemplate.from_folder(tokenizer_folder, system_prompt=settings.system_prompt)
    prepared = prepare(loaded, template, views=("original", "rephrased"), max_prompt_tokens=settings.max_prompt_tokens)
    assert len(prepared.questions) + prepared.num_dropped == 500
    assert len(prepared.prompts) == 2 * len(prepared.questions)
    kept = {question.id for question in prepared.questions}
    for question in loaded.questions:
        lengths = [len(template.token_ids(text)) for text in (question.original, question.rephrased or "")]
        assert (question.id in kept) == (max(lengths) <= 512)
