"""Turns the rows of a source into entries: id, wording and answer. An Entry goes no further than the loader, which moves its
answer into GoldAnswers.

Two schemas are built in. A plug-in adds others with `question_reader`, and `data.columns` renames columns.

- `verl`: `prompt` (a list of {role, content}; the user message is the question, the system message is ignored because
  data.system_prompt applies), `extra_info.index` (the id), `reward_model.ground_truth` (optional).
- `plain`: `question`, `problem` or `prompt` (a text, or messages as above), and optionally `answer` or `solution` (a final answer
  or a worked solution that ends in one), `id` and `rephrased`. Questions alone are enough for rules that label themselves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from corewarding.dataflow.errors import DataSetError
from corewarding.dataflow.plugins import PluginError, guarded
from corewarding.dataflow.registry import Registry
from corewarding.questions.sources import Table, read_table

QUESTION_COLUMNS, ANSWER_COLUMNS = ("question", "problem", "prompt"), ("answer", "solution")
FIELDS = ("question", "answer", "id", "rephrased")
"""What `data.columns` may rename columns to."""
_WANTED = frozenset({*QUESTION_COLUMNS, *ANSWER_COLUMNS, *FIELDS, "extra_info", "reward_model"})
_GSM8K_ENDING = re.compile(r"^####[ \t]*(\S.*)$", re.MULTILINE)
_THOUSANDS = re.compile(r"[-+]?\d{1,3}(,\d{3})+(\.\d+)?")
_THE_ANSWER_IS = "The answer is:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One row of a source."""

    text: str  # the question
    id: str = ""  # empty: the row's number
    rephrased: str | None = None
    answer: str | None = None


Reader = Callable[[Table], list[Entry]]
READERS: Registry[Reader] = Registry("data.reader")


def question_reader(name: str) -> Callable[[Callable[[dict[str, Any]], Entry]], Callable[[dict[str, Any]], Entry]]:
    """Registers the decorated function as `data.reader: name`. For plug-ins; the function comes back unchanged.

    The function takes one row with all its columns and returns its Entry. It may raise DataSetError for a row that it cannot use;
    the message gets the source and the row in front.
    """

    def register(of_row: Callable[[dict[str, Any]], Entry]) -> Callable[[dict[str, Any]], Entry]:
        safe = guarded(of_row, what=f"reader {name!r}", passes=(DataSetError,))

        def read(table: Table) -> list[Entry]:
            entries = []
            for row, values in enumerate(table.rows):
                try:
                    entry = safe(values)
                except (DataSetError, PluginError) as error:
                    raise type(error)(f"{table.name}: row {row}: {error}") from error
                if not isinstance(entry, Entry):
                    raise PluginError(f"reader {name!r} must return an Entry for each row, got {type(entry).__name__}")
                entries.append(replace(entry, text=_text(table, row, "text", entry.text)))
            return entries

        READERS.register(name, read, depth=2)
        return of_row

    return register


def read_entries(
    source: str, *, key: str, split: str, columns: Mapping[str, str] | None = None, reader: str = "auto"
) -> list[Entry]:
    """The rows of `source` in their order; `key` is the configuration key that names it.

    columns: our field to the source's column, such as {"question": "prompt"}; a dot reaches into a struct. reader: a name of
    READERS, or "auto" for the built-in schema that the columns show.
    DataSetError: unreadable, columns of no schema, an empty question, or an id that occurs twice.
    """
    renamed = dict(columns or {})
    builtin = reader in ("auto", "plain", "verl")
    outer = {column.partition(".")[0] for column in renamed.values()}
    table = read_table(source, key=key, split=split, wanted=_WANTED | outer if builtin else None)
    if renamed:
        table = _renamed(table, renamed)
    if reader == "auto":
        is_verl = "prompt" in table.columns and {"extra_info", "reward_model"} & set(table.columns)
        reader = "verl" if is_verl and not renamed else "plain"
    entries = [entry if entry.id else replace(entry, id=str(row)) for row, entry in enumerate(READERS[reader](table))]
    seen: dict[str, int] = {}
    for row, entry in enumerate(entries):
        if entry.id in seen:
            raise DataSetError(
                f"{table.name}: rows {seen[entry.id]} and {row} have the same id {entry.id!r}; completions and "
                "answers are kept by id, so each row needs its own"
            )
        seen[entry.id] = row
    return entries


def _renamed(table: Table, columns: Mapping[str, str]) -> Table:
    """The table with our names added to those of the source."""
    for field, column in columns.items():
        if field not in FIELDS:
            raise DataSetError(f"data.columns maps {', '.join(FIELDS)} to columns; there is no field {field!r}")
        if column.partition(".")[0] not in table.columns:
            raise DataSetError(
                f"{table.name}: data.columns names a column {column!r} for {field}, found {list(table.columns)}"
            )
    rows = [values | {field: _at(values, column) for field, column in columns.items()} for values in table.rows]
    return replace(table, columns=tuple(dict.fromkeys([*table.columns, *columns])), rows=rows)


def _at(values: Mapping[str, Any], path: str) -> Any:
    """The value under a dotted path of structs; None where the path ends early."""
    if path in values:
        return values[path]
    found: Any = values
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _verl(table: Table) -> list[Entry]:
    if "extra_info" not in table.columns:
        raise DataSetError(
            f"{table.name}: column `extra_info` (with `index`, the question's id) is missing beside `prompt`, "
            f"found {list(table.columns)}"
        )
    entries = []
    for row, values in enumerate(table.rows):
        index = _at(values, "extra_info.index")
        if index is None:
            raise DataSetError(
                f"{table.name}: row {row} has no `extra_info.index`, found {values.get('extra_info')!r}; it is the "
                "question's id"
            )
        entries.append(
            Entry(
                id=str(index),
                text=_text(table, row, "prompt", _user_message(table, row, "prompt", values.get("prompt"))),
                answer=final_answer(_at(values, "reward_model.ground_truth")),
            )
        )
    return entries


def _plain(table: Table) -> list[Entry]:
    column = next((name for name in QUESTION_COLUMNS if name in table.columns), None)
    if column is None:
        raise DataSetError(
            f"{table.name}: needs a column `question`, `problem` or `prompt` (with `answer` or `solution` if there are answers), "
            f"or verl's schema; data.columns maps other names to these; found {list(table.columns)}"
        )
    answer = next((name for name in ANSWER_COLUMNS if name in table.columns), "answer")
    entries = []
    for row, values in enumerate(table.rows):
        identity = values.get("id") if "id" in table.columns else row
        if identity is None:
            raise DataSetError(f"{table.name}: row {row} has no `id` though other rows do")
        question, rephrased = values.get(column), values.get("rephrased")
        if isinstance(question, list):
            question = _user_message(table, row, column, question)
        entries.append(
            Entry(
                id=str(identity),
                text=_text(table, row, column, question),
                rephrased=None if rephrased is None else _text(table, row, "rephrased", rephrased),
                answer=final_answer(values.get(answer)),
            )
        )
    return entries


def _user_message(table: Table, row: int, column: str, prompt: Any) -> str:
    messages = prompt if isinstance(prompt, list) else []
    texts = [m.get("content") for m in messages if isinstance(m, dict) and m.get("role") == "user"]
    if len(texts) != 1 or not isinstance(texts[0], str):
        raise DataSetError(
            f"{table.name}: `{column}` of row {row} must be a list of {{role, content}} with one user message, the "
            f"question; got {str(prompt)[:200]!r}"
        )
    return texts[0]


def _text(table: Table, row: int, column: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise DataSetError(f"{table.name}: `{column}` of row {row} must be a text that is not empty, got {value!r}")
    return value  # unchanged: white space is part of the prompt that the published numbers were measured with


READERS.register("plain", _plain)
READERS.register("verl", _verl)


def final_answer(answer: Any) -> str | None:
    """The final answer in a data set's answer column; None if it is empty. Of a worked solution this is what follows `####` (GSM8K)
    or `The answer is:`, or the inside of its last complete box."""
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
    """Adds to each original the wording in the same row of `rephrasings`. DataSetError names the first rows whose ids differ."""
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
