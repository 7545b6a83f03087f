"""Inspects a data set before training: rows, lengths, answers, pairs that look wrong."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
import tyro
from pydantic import Field
from rich.console import Console
from rich.table import Table
from rich.text import Text

from corewarding.dataflow.errors import UserError
from corewarding.launch.config.arguments import as_flags, read_arguments
from corewarding.launch.config.tree import ModelSettings, TrainConfig
from corewarding.launch.report.tables.output import JsonFlag, json_line
from corewarding.launch.report.terminal import PlainConsole
from corewarding.questions.pairs import check_pair
from corewarding.questions.readers import Entry, pair, read_entries
from corewarding.questions.settings import DEFAULT_SYSTEM_PROMPT
from corewarding.questions.template import PromptTemplate
from corewarding.rewards.answers.explain import AnswerReading, explain_answer
from corewarding.rewards.answers.key import canonical_key


@dataclasses.dataclass(frozen=True)
class InspectArguments:
    """Prints rows, lengths, kinds of answers, pairs that look wrong, and examples of a data set."""

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SOURCE")]
    """Parquet or JSONL file, folder, or Hugging Face datasets id."""
    rephrased: str | None = None
    """The same questions in other words, row by row."""
    split: str = "train"
    """Split of a folder or hub id."""
    model: str | None = None
    """Model folder whose tokenizer and chat template give the lengths; None: lengths in words."""
    system_prompt: str = DEFAULT_SYSTEM_PROMPT
    """System message in the chat template."""
    examples: Annotated[int, Field(ge=0)] = 2
    """Questions to show."""
    explain: bool = False
    """Also show how answers were read: tokens, kind and key of the first of each kind, and of all that are no more than text."""
    json: JsonFlag = False
    """A JSON object on one line, for programs: the numbers, and the ids of repeats and of pairs that look wrong."""


SHOWN = 3  # examples of each kind
LENGTHS = ("mean", "median", "95%", "99%", "longest")
FLAGS = {
    "data.train": "SOURCE",
    "data.rephrased": "--rephrased",
    "SOURCE_split": "--split",
    "--rephrased_split": "--split",
    "model.path": "--model",
    "data.system_prompt": "--system-prompt",
}
"""Keys in the messages of the loader, and the flags of this command."""


def run(words: list[str]) -> int:
    if words[:1] in ([], ["-h"], ["--help"]):
        words = ["inspect", "--help"]
    if words[0] != "inspect":
        raise UserError(
            f"data has one subcommand, inspect, not {words[0]!r}: corewarding data inspect FILE [--rephrased FILE] [--model FOLDER]"
        )
    arguments = read_arguments(InspectArguments, words[1:], prog="corewarding data inspect")
    with as_flags(FLAGS):
        inspect_data(
            arguments.source,
            rephrased=arguments.rephrased,
            split=arguments.split,
            model=arguments.model,
            system_prompt=arguments.system_prompt,
            examples=arguments.examples,
            explain=arguments.explain,
            as_json=arguments.json,
        )
    return 0


def inspect_data(
    source: str,
    *,
    rephrased: str | None,
    split: str,
    model: str | None,
    system_prompt: str,
    examples: int,
    explain: bool = False,
    as_json: bool = False,
) -> dict[str, int]:
    """Prints rows, lengths, answers by kind, pairs that look wrong and example questions; returns the number of pairs by problem.

    model: a folder whose tokenizer gives the lengths; None: lengths in words. explain: also how answers were read. as_json: the
    numbers and ids as one JSON line on standard output instead. DataSetError if a source cannot be read.
    """
    entries = read_entries(source, key="SOURCE", split=split)
    if rephrased is not None:
        entries = pair(entries, read_entries(rephrased, key="--rephrased", split=split))
    lengths, answers = _lengths(entries, model, system_prompt), _answers(entries)
    repeats, pairs = _repeats(entries), _pairs(entries)
    problems = {problem: len(found) for problem, found in pairs.items()}
    unit = "words" if model is None else f"tokens of {model}, template included"
    rephrasings = sum(e.rephrased is not None for e in entries)
    if as_json:
        row = {"source": source, "rows": len(entries), "rephrased": rephrasings, "unit": unit, "lengths": lengths}
        print(json_line(row | {"answers": answers, "repeats": repeats, "pairs": pairs}))
        return problems
    console = PlainConsole()
    console.print(f"{source}: {len(entries)} rows, {rephrasings} with a rephrasing")
    console.print(_length_table(lengths, unit))
    listed = ", ".join(f"{kind} {number}" for kind, number in answers.items()) or "none"
    console.print(f"answers: {sum(answers.values())} of {len(entries)} rows ({listed})")
    if explain:
        _readings(console, entries)
    console.print(f"questions that occur more than once: {len(repeats)} {repeats[:SHOWN] or ''}")
    if rephrasings:
        console.print(_pair_table(pairs))
    for entry in entries[:examples]:
        console.rule(f"question {entry.id}")
        console.print(entry.text)
        if entry.rephrased is not None:
            console.print(f"rephrased: {entry.rephrased}")
        console.print(f"answer: {entry.answer}")
    return problems


def _lengths(entries: Sequence[Entry], model: str | None, system_prompt: str) -> dict[str, dict[str, float]]:
    """By view that the data set has, the lengths in words, or in tokens of the model."""
    views = {
        "original": [e.text for e in entries],
        "rephrased": [e.rephrased for e in entries if e.rephrased is not None],
    }
    if model is not None:
        from corewarding.weights.hub import local_folder

        folder = local_folder(TrainConfig(model=ModelSettings(path=model)).model_folder)
        template = PromptTemplate.from_folder(folder, system_prompt=system_prompt)
    found = {}
    for view, texts in views.items():
        if texts:
            lengths = (
                [len(ids) for ids in template.batch_token_ids(texts)]
                if model
                else [len(text.split()) for text in texts]
            )
            cells = [np.mean(lengths), *np.percentile(lengths, [50, 95, 99]), max(lengths)]
            found[view] = dict(zip(LENGTHS, map(float, cells), strict=True))
    return found


def _length_table(lengths: Mapping[str, Mapping[str, float]], unit: str) -> Table:
    table = Table(title=f"lengths in {unit}")
    for column in ("", *LENGTHS):
        table.add_column(column, justify="left" if not column else "right")
    for view, cells in lengths.items():
        table.add_row(view, *(f"{cell:.0f}" for cell in cells.values()))
    return table


def _answers(entries: Sequence[Entry]) -> dict[str, int]:
    """Answers by kind, the most frequent first."""
    return dict(Counter(canonical_key(e.answer).kind for e in entries if e.answer is not None).most_common())


def _readings(console: Console, entries: Sequence[Entry]) -> None:
    """How answers were read: the first of each kind, and all that are no more than text."""
    kinds: dict[str, list[AnswerReading]] = defaultdict(list)
    for answer in dict.fromkeys(entry.answer for entry in entries if entry.answer is not None):
        kind = canonical_key(answer).kind
        if len(kinds[kind]) < SHOWN or kind in ("text", "unevaluated"):
            kinds[kind].append(explain_answer(answer))
    table = Table(title="how answers were read")
    for column in ("kind", "answer", "tokens", "key", "note"):
        table.add_column(column)
    for kind, readings in sorted(kinds.items()):
        for one in readings:
            tokens = " ".join(token.text for token in one.tokens)
            table.add_row(kind, *map(Text, (one.answer, tokens, one.key, one.note or "")))
    console.print(table)


def _repeats(entries: Sequence[Entry]) -> list[list[str]]:
    """The ids of questions that have the same words."""
    rows: dict[str, list[str]] = defaultdict(list)
    for entry in entries:
        rows[" ".join(entry.text.split())].append(entry.id)
    return [ids for ids in rows.values() if len(ids) > 1]


def _pairs(entries: Sequence[Entry]) -> dict[str, list[str]]:
    """By problem, the ids of the pairs that have it, each with its detail."""
    found: dict[str, list[str]] = defaultdict(list)
    for entry in entries:
        for report in check_pair(entry.text, entry.rephrased) if entry.rephrased is not None else ():
            found[report.problem].append(f"{entry.id} ({report.detail})")
    return found


def _pair_table(pairs: Mapping[str, Sequence[str]]) -> Table:
    table = Table(title="pairs that look wrong")
    for column in ("", "pairs", "first"):
        table.add_column(column)
    for problem, ids in sorted(pairs.items(), key=lambda item: -len(item[1])):
        table.add_row(problem, str(len(ids)), "; ".join(ids[:SHOWN]))
    return table
