"""Loads the questions that the configuration names. Answers go into GoldAnswers here; a Question carries none."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Literal

from corewarding.dataflow.carriers import Question
from corewarding.dataflow.errors import DataSetError
from corewarding.questions.gold import GoldAnswers
from corewarding.questions.order import shuffled
from corewarding.questions.readers import Entry, pair, read_entries
from corewarding.questions.settings import DataSettings

_log = logging.getLogger(__name__)
_HELDOUT_SEED = 0  # fixed, so that all runs that evaluate on the first n questions use the same n


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class QuestionSet:
    """Questions and, separately, their known answers."""

    questions: list[Question]
    gold: GoldAnswers
    source: str
    notes: tuple[str, ...] = ()  # which questions were left out, and why


def load_training(settings: DataSettings, *, seed: int, needs_rephrased: bool) -> QuestionSet:
    """The training questions in the order of their source, answers optional.

    DataSetError: sources that are unreadable or do not match, or missing rephrased wordings if `needs_rephrased`.
    """
    if settings.kind == "arithmetic":
        questions, gold = _arithmetic(settings, split="train", num=settings.num_train, seed=seed)
        source = f"arithmetic world, {len(questions)} questions of levels {list(settings.levels)}"
        result = QuestionSet(questions=questions, gold=gold, source=source)
    else:
        entries = _training_entries(settings)[: settings.limit]
        parts = [f"data.train={settings.train}"]
        if settings.rephrased is not None:
            parts.append(f"data.rephrased={settings.rephrased}")
        result = _question_set(entries, source=f"{', '.join(parts)}, {len(entries)} questions", prefix="", notes=())
    if needs_rephrased:
        _require_rephrased(result)
    return result


def load_heldout(settings: DataSettings, *, seed: int) -> QuestionSet:
    """The held-out questions in a fixed shuffled order. All have answers, and no id is a training id.

    Questions without an answer are left out, and so are questions with the text of a training question, unless
    `heldout_overlap` is keep; `notes` says how many. Without `data.heldout` the set is empty.
    DataSetError: an unreadable source, or no question left to evaluate on.
    """
    if settings.kind == "arithmetic":
        questions, gold = _arithmetic(settings, split="heldout", num=settings.num_heldout, seed=seed)
        return QuestionSet(
            questions=questions, gold=gold, source=f"arithmetic world, {len(questions)} held-out questions"
        )
    if settings.heldout is None:
        note = "data.heldout is not set: there is nothing to evaluate on"
        return QuestionSet(questions=[], gold=GoldAnswers.without(), source="none", notes=(note,))
    entries = read_entries(
        settings.heldout,
        key="data.heldout",
        split=settings.heldout_split,
        columns=settings.columns if settings.heldout_columns is None else settings.heldout_columns,
        reader=settings.heldout_reader or settings.reader,
    )
    # Sources are often sorted by subject, so their first n questions may all have the same subject.
    entries = [entries[row] for row in shuffled(len(entries), seed=_HELDOUT_SEED, epoch=0)]
    kept, notes = _usable_heldout(entries, settings, training=_training_texts(settings))
    for note in notes:
        _log.warning(note)
    source = f"data.heldout={settings.heldout}, {len(kept)} questions"
    return _question_set(kept, source=source, prefix="heldout-", notes=notes)


def _training_entries(settings: DataSettings) -> list[Entry]:
    if settings.train is None:
        raise DataSetError("data.train must name a file, a folder or a Hugging Face datasets id when data.kind=files")
    how: dict[str, Any] = {"columns": settings.columns, "reader": settings.reader}
    entries = read_entries(settings.train, key="data.train", split=settings.train_split, **how)
    if settings.rephrased is None:
        return entries
    if any(entry.rephrased is not None for entry in entries):
        raise DataSetError(
            f"data.rephrased={settings.rephrased} is set, but data.train={settings.train} has a column `rephrased` "
            "of its own; leave one of the two out"
        )
    how["columns"] = {field: column for field, column in settings.columns.items() if field in ("question", "id")}
    rephrasings = read_entries(settings.rephrased, key="data.rephrased", split=settings.rephrased_split, **how)
    return pair(entries, rephrasings)


def _training_texts(settings: DataSettings) -> set[str]:
    """Every wording that the run may train on. `limit` is ignored: raising it later then invalidates no earlier evaluation."""
    if settings.train is None:
        return set()
    entries = _training_entries(settings)
    return {_same(text) for entry in entries for text in (entry.text, entry.rephrased) if text is not None}


def _same(text: str) -> str:
    """Texts that differ only in white space are the same question."""
    return " ".join(text.split())


def _usable_heldout(
    entries: list[Entry], settings: DataSettings, *, training: set[str]
) -> tuple[list[Entry], tuple[str, ...]]:
    """The entries to evaluate on, and notes about the others."""
    trained = {entry.id for entry in entries if _same(entry.text) in training}
    left_out = trained if settings.heldout_overlap == "drop" else set()
    unseen = [entry for entry in entries if entry.id not in left_out]
    kept = [entry for entry in unseen if entry.answer is not None]
    of_all = f"of {len(entries)} questions"
    notes = []
    if trained:
        fate = "left out" if left_out else "kept (data.heldout_overlap)"
        notes.append(
            f"data.heldout={settings.heldout}: {len(trained)} {of_all} are also training questions and were {fate}"
        )
    if unanswered := len(unseen) - len(kept):
        notes.append(f"data.heldout={settings.heldout}: {unanswered} {of_all} have no answer and were left out")
    if not kept:
        raise DataSetError(
            f"data.heldout={settings.heldout}: nothing to evaluate on: {of_all} {len(left_out)} are training questions "
            f"and {unanswered} have no answer (`answer`, or `reward_model.ground_truth`); set data.heldout to a set "
            "with answers, or leave it out"
        )
    return kept, tuple(notes)


def _question_set(entries: list[Entry], *, source: str, prefix: str, notes: tuple[str, ...]) -> QuestionSet:
    questions = [Question(id=prefix + e.id, original=e.text, rephrased=e.rephrased) for e in entries]
    gold = GoldAnswers({prefix + e.id: e.answer for e in entries if e.answer is not None})
    return QuestionSet(questions=questions, gold=gold, source=source, notes=notes)


def _require_rephrased(question_set: QuestionSet) -> None:
    missing = [question.id for question in question_set.questions if question.rephrased is None]
    if missing:
        raise DataSetError(
            f"{question_set.source}: the rule asks rephrased wordings, but {len(missing)} of "
            f"{len(question_set.questions)} questions have none (first: {missing[:3]}); set data.rephrased, add a "
            "column `rephrased`, or choose a rule that asks the original wording only"
        )


def _arithmetic(
    settings: DataSettings, *, split: Literal["train", "heldout"], num: int, seed: int
) -> tuple[list[Question], GoldAnswers]:
    from corewarding.questions.arithmetic.world import arithmetic_questions

    questions, answers = arithmetic_questions(split=split, num=num, seed=seed, levels=settings.levels)
    return questions, GoldAnswers(answers)
