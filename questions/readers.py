"""From rows to entries: id, wording and answer, whatever the columns are called. An Entry goes no further than the
loader, which splits its answer off into GoldAnswers.

Two schemas are known, by their columns:

- verl's: `prompt` (list of {role, content}; the user message is the question, the system message is ignored because the
  recipe's applies), `extra_info.index` (the id), `reward_model.ground_truth` (optional).
- plain: `question` or `problem`, and optionally `answer` (a final answer or a worked solution that ends in one), `id`
  and `rephrased`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from corewarding.dataflow.errors import DataSetError
from corewarding.questions.sources import Table, read_table

_WANTED = frozenset({"prompt", "extra_info", "reward_model", "question", "problem", "answer", "id", "rephrased"})
_GSM8K_ENDING = re.compile(r"^####[ \t]*(\S.*)$", re.MULTILINE)
_THOUSANDS = re.compile(r"[-+]?\d{1,3}(,\d{3})+(\.\d+)?")
_THE_ANSWER_IS = "The answer is:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One row of a source."""

    id: str
    text: str
    rephrased: str | None
    answer: str | None


def read_entries(source: str, *, key: str, split: str) -> list[Entry]:
    """The rows of `source` in their order; `key` is the configuration key that names it.

    DataSetError: unreadable, columns of neither schema, an empty question, or an id that occurs twice.
    """
    table = read_table(source, key=key, split=split, wanted=_WANTED)
    if "prompt" in table.columns:
        entries = _verl(table)
    elif "question" in table.columns or "problem" in table.columns:
        entries = _plain(table)
    else:
        raise DataSetError(
            f"{table.name}: needs a column `prompt` (verl's schema, with `extra_info` and `reward_model`), or "
            f"`question` or `problem` (with `answer`), found {list(table.columns)}"
        )
    seen: dict[str, int] = {}
    for row, entry in enumerate(entries):
        if entry.id in seen:
            raise DataSetError(
                f"{table.name}: rows {seen[entry.id]} and {row} have the same id {entry.id!r}; completions and "
                "answers are kept by id, so each row needs its own"
            )
        seen[entry.id] = row
    return entries


def _verl(table: Table) -> list[Entry]:
    if "extra_info" not in table.columns:
        raise DataSetError(
            f"{table.name}: column `extra_info` (with `index`, the question's id) is missing beside `prompt`, "
            f"found {list(table.columns)}"
        )
    entries = []
    for row, values in enumerate(table.rows):
        index = _inside(values, "extra_info", "index")
        if index is None:
            raise DataSetError(
                f"{table.name}: row {row} has no `extra_info.index`, found {values.get('extra_info')!r}; it is the "
                "question's id"
            )
        answer = _inside(values, "reward_model", "ground_truth")
        entries.append(
            Entry(
                id=str(index),
                text=_user_message(table, row, values.get("prompt")),
                rephrased=None,
                answer=final_answer(answer),
            )
        )
    return entries


def _inside(values: dict[str, Any], column: str, name: str) -> Any:
    """A field of a struct column; None where the column, the struct or the field is absent."""
    struct = values.get(column)
    return struct.get(name) if isinstance(struct, dict) else None


def _user_message(table: Table, row: int, prompt: Any) -> str:
    messages = prompt if isinstance(prompt, list) else []
    texts = [m.get("content") for m in messages if isinstance(m, dict) and m.get("role") == "user"]
    if len(texts) != 1 or not isinstance(texts[0], str):
        raise DataSetError(
            f"{table.name}: `prompt` of row {row} must be a list of {{role, content}} with one user message, the "
            f"question; got {str(prompt)[:200]!r}"
        )
    return _text(table, row, "prompt", texts[0])


def _plain(table: Table) -> list[Entry]:
    column = "question" if "question" in table.columns else "problem"
    with_id = "id" in table.columns
    entries = []
    for row, values in enumerate(table.rows):
        identity = values.get("id") if with_id else row
        if identity is None:
            raise DataSetError(f"{table.name}: row {row} has no `id` though other rows do")
        rephrased = values.get("rephrased")
        entries.append(
            Entry(
                id=str(identity),
                text=_text(table, row, column, values.get(column)),
                rephrased=None if rephrased is None else _text(table, row, "rephrased", rephrased),
                answer=final_answer(values.get("answer")),
            )
        )
    return entries


def _text(table: Table, row: int, column: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise DataSetError(f"{table.name}: `{column}` of row {row} must be a text that is not empty, got {value!r}")
    return value  # as it is: white space is part of the prompt that the recipe's numbers were measured with


def final_answer(answer: Any) -> str | None:
    """What a data set's answer column states, None for nothing. A worked solution is cut to what it ends in: `#### 18`
    (GSM8K), `The answer is: x`, or its last complete box."""
    if answer is None:
        return None
    text = str(answer).strip()
    if marked := _GSM8K_ENDING.findall(text):
        last: str = marked[-1].strip()
        return last.replace(",", "") if _THOUSANDS.fullmatch(last) else last
    if _THE_ANSWER_IS in text:
        text = text.rpartition(_THE_ANSWER_IS)[2].strip()
    elif (boxed := _last_box(text)) is not None:
        text = boxed
    return text or None


def _last_box(text: str) -> str | None:
    """The inside of the last `\\boxed{...}` whose braces close."""
    opening = r"\boxed{"
    end = len(text)
    while (start := text.rfind(opening, 0, end)) >= 0:
        depth, inside = 1, start + len(opening)
        for position in range(inside, len(text)):
            depth += {"{": 1, "}": -1}.get(text[position], 0)
            if depth == 0:
                return text[inside:position].strip()
        end = start
    return None


def pair(originals: list[Entry], rephrasings: list[Entry]) -> list[Entry]:
    """`originals` with the wording of the row beside it; DataSetError naming the first rows whose ids differ."""
    if len(originals) != len(rephrasings):
        raise DataSetError(
            f"data.train has {len(originals)} rows and data.rephrased {len(rephrasings)}: they are paired row by row, "
            "so a missing row would ask every later question in the wrong words"
        )
    wrong = [
        f"row {row}: {original.id!r} and {other.id!r}"
        for row, (original, other) in enumerate(zip(originals, rephrasings, strict=True))
        if original.id != other.id
    ]
    if wrong:
        raise DataSetError(
            f"data.train and data.rephrased disagree in the ids of {len(wrong)} of {len(originals)} rows "
            f"({'; '.join(wrong[:3])}{'; ...' if len(wrong) > 3 else ''}): the same row must hold the same question"
        )
    return [
        Entry(id=original.id, text=original.text, rephrased=other.text, answer=original.answer)
        for original, other in zip(originals, rephrasings, strict=True)
    ]
