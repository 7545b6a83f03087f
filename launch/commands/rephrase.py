"""`corewarding rephrase`: the rephrased view of a data set, made by a model, checked, and written beside the original.

OUT/journal.jsonl                      every attempt as it ends: kept, or refused and why; a second call goes on from it
OUT/original.parquet, rephrased.parquet    aligned row by row, in the schema `data.train` and `data.rephrased` read
OUT/report.json                        how many were kept, and what was refused for which reason
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from corewarding.actors.chat import Chat, ChatError, ChatRefusedError, ChatRequest, EndpointChat, EngineChat
from corewarding.actors.settings import EngineSettings
from corewarding.dataflow.errors import RunStoppedError, UserError
from corewarding.launch.config.tree import ModelSettings, TrainConfig
from corewarding.launch.run.inputs import model_length
from corewarding.questions.readers import Entry, read_entries
from corewarding.questions.rephrase import PROMPT, Refusal, read_reply, rephrase_prompt
from corewarding.questions.settings import DEFAULT_SYSTEM_PROMPT
from corewarding.questions.template import PromptTemplate
from corewarding.rewards.answers.extract import extract_answer
from corewarding.rewards.answers.key import answer_key
from corewarding.rewards.voting import majority_vote


@dataclasses.dataclass(frozen=True)
class RephraseArguments:
    """Makes the rephrased view of a data set: same meaning and answer in other words. Called again, it goes on where it stopped."""

    source: tyro.conf.Positional[str]
    """Parquet or JSONL file, folder, or Hugging Face datasets id."""
    out: Path
    """Folder of the pair of files, the journal and the report."""
    model: str | None = None
    """Model folder or hub id, asked on an engine in this process."""
    endpoint: str | None = None
    """OpenAI-compatible server, for example http://localhost:8000/v1; its key is read from OPENAI_API_KEY."""
    endpoint_model: str | None = None
    """Name of the model at the endpoint."""
    split: str = "train"
    """Split of a folder or hub id."""
    limit: int | None = None
    """Only the first so many questions."""
    attempts: int = 3
    """Replies asked for, at most, until one can be kept."""
    agreement: int = 0
    """Also answer both wordings so many times, and keep only those whose votes agree; 0: do not."""
    temperature: float = 0.7
    """Of the replies."""
    max_new_tokens: int = 2048
    """Longest reply."""
    concurrency: int = 64
    """Questions under way at once."""
    seed: int = 0
    """Of the replies, where the model is asked in this process."""
    engine: EngineSettings = dataclasses.field(default_factory=EngineSettings)
    """The sampler of --model."""


SHOWN = 3  # refusals of each reason


@dataclass(frozen=True, slots=True, kw_only=True)
class RephrasePlan:
    """How rephrasings are asked for."""

    source: str  # of the questions, for the record
    model: str  # that writes, for the record
    temperature: float
    max_new_tokens: int
    attempts: int  # at most, for one question
    agreement: int  # answers to each wording whose votes must agree; 0: not asked
    concurrency: int  # questions under way at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One reply to one question."""

    id: str
    attempt: int
    kept: bool
    reason: str  # of the refusal; empty where it was kept
    detail: str
    text: str  # the wording that was kept, or the reply that was refused


class Journal:
    """The attempts so far, on disk."""

    def __init__(self, out: Path, header: dict[str, Any]) -> None:
        """UserError where `out` holds a journal of other questions, another model or prompt, or other files."""
        self.path = out / "journal.jsonl"
        self.attempts: list[Attempt] = []
        if self.path.is_file():
            first, *lines = self.path.read_text(encoding="utf-8").split("\n")[:-1] or [""]
            try:
                saved = json.loads(first) if first else {}
            except json.JSONDecodeError:
                saved = {}
            changed = [key for key in header if saved.get(key) != header[key]]
            if changed:
                raise UserError(
                    f"{out} holds rephrasings of another making (it differs in {', '.join(changed)}); choose another --out"
                )
            self.attempts = [Attempt(**json.loads(line)) for line in lines]
            self.path.write_text(
                "".join(line + "\n" for line in [first, *lines]), encoding="utf-8"
            )  # without a line cut off
        elif out.exists() and any(out.iterdir()):
            raise UserError(f"--out {out} is not empty and holds no rephrasings; choose another folder")
        else:
            out.mkdir(parents=True, exist_ok=True)
            self.path.write_text(json.dumps(header) + "\n", encoding="utf-8")

    def add(self, attempt: Attempt) -> None:
        self.attempts.append(attempt)
        row = {name: getattr(attempt, name) for name in attempt.__slots__}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def kept(self) -> dict[str, str]:
        """Wordings by question id."""
        return {attempt.id: attempt.text for attempt in self.attempts if attempt.kept}


def rephrase_command(arguments: RephraseArguments) -> int:
    """Reads the questions, rephrases them, prints the report; 0."""
    if (arguments.model is None) == (arguments.endpoint is None):
        raise UserError("rephrase needs a model: either --model FOLDER, or --endpoint URL with --endpoint-model NAME")
    if arguments.endpoint is not None and arguments.endpoint_model is None:
        raise UserError("--endpoint needs --endpoint-model, the model's name at the endpoint")
    entries = read_entries(arguments.source, key="the data set", split=arguments.split)[: arguments.limit]
    plan = RephrasePlan(
        source=arguments.source,
        model=arguments.model or f"{arguments.endpoint_model} at {arguments.endpoint}",
        temperature=arguments.temperature,
        max_new_tokens=arguments.max_new_tokens,
        attempts=arguments.attempts,
        agreement=arguments.agreement,
        concurrency=arguments.concurrency,
    )
    print_report(rephrase(entries, _chat(arguments, entries), plan, arguments.out), arguments.out)
    return 0


def _chat(arguments: RephraseArguments, entries: Sequence[Entry]) -> Chat:
    """Whom the arguments name. An engine of ours is as long as the longest request needs, and the model sees."""
    if arguments.endpoint is not None:
        name = arguments.endpoint_model or ""
        return EndpointChat(arguments.endpoint, model=name, api_key=os.environ.get("OPENAI_API_KEY"))
    import torch
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # of the weights' loading
    folder = TrainConfig(model=ModelSettings(path=arguments.model or "")).model_folder
    template = PromptTemplate.from_folder(folder, system_prompt="")
    prompts = template.batch_token_ids([rephrase_prompt(entry.text) for entry in entries])
    return EngineChat(
        folder,
        settings=arguments.engine,
        max_model_len=arguments.engine.max_model_len
        or min(model_length(folder), max(map(len, prompts)) + arguments.max_new_tokens),
        device="cuda" if torch.cuda.is_available() else "cpu",
        seed=arguments.seed,
    )


def rephrase(entries: Sequence[Entry], chat: Chat, plan: RephrasePlan, out: Path) -> dict[str, Any]:
    """Rephrases what the journal in `out` lacks and writes the pair of files; the report.

    UserError for a folder of another making; RunStoppedError where the model cannot be asked: what was made is kept.
    """
    questions = hashlib.sha256(json.dumps([[e.id, e.text] for e in entries]).encode()).hexdigest()[:16]
    header = {
        "questions": questions,
        "model": plan.model,
        "prompt": hashlib.sha256(PROMPT.encode()).hexdigest()[:16],
        "temperature": plan.temperature,
        "agreement": plan.agreement,
    }
    journal = Journal(out, header)
    try:
        asyncio.run(_rephrase_all(entries, chat, plan, journal))
    except* ChatError as errors:
        raise RunStoppedError(
            f"{errors.exceptions[0]}\n{len(journal.kept())} of {len(entries)} rephrasings are kept in {out}; the same command goes on"
        ) from None
    report = _report(entries, journal, plan)
    if journal.kept():
        _write_pair(entries, journal.kept(), plan.source, out)
    (out / "report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return report


async def _rephrase_all(entries: Sequence[Entry], chat: Chat, plan: RephrasePlan, journal: Journal) -> None:
    kept, tried = journal.kept(), Counter(attempt.id for attempt in journal.attempts)
    room = asyncio.Semaphore(plan.concurrency)
    console = Console(highlight=False)
    progress = Progress(
        TextColumn("rephrasing"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[state]}"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )
    bar = progress.add_task("", total=len(entries), completed=len(kept), state="")

    async def one(entry: Entry) -> None:
        async with room:
            for number in range(tried[entry.id], plan.attempts):
                attempt = await _attempt(entry, number, chat, plan)
                journal.add(attempt)
                if attempt.kept:
                    break
        refused = sum(not attempt.kept for attempt in journal.attempts)
        progress.update(bar, advance=1, state=f"{len(journal.kept())} kept, {refused} replies refused")

    with progress:
        async with chat, asyncio.TaskGroup() as asking:
            for entry in entries:
                if entry.id not in kept:
                    asking.create_task(one(entry))


async def _attempt(entry: Entry, number: int, chat: Chat, plan: RephrasePlan) -> Attempt:
    request = ChatRequest(
        id=entry.id,
        attempt=number,
        system="",
        user=rephrase_prompt(entry.text),
        n=1,
        temperature=plan.temperature,
        max_new_tokens=plan.max_new_tokens,
    )
    try:
        (reply,) = await chat.ask(request)
        read = read_reply(entry.text, reply)
        if isinstance(read, str) and plan.agreement:
            read = await _agreed(entry, read, number, chat, plan)
    except ChatRefusedError as error:
        reply, read = "", Refusal("model refuses", str(error))
    if isinstance(read, Refusal):
        return Attempt(id=entry.id, attempt=number, kept=False, reason=read.reason, detail=read.detail, text=reply)
    return Attempt(id=entry.id, attempt=number, kept=True, reason="", detail="", text=read)


async def _agreed(entry: Entry, wording: str, number: int, chat: Chat, plan: RephrasePlan) -> str | Refusal:
    """The wording, where the model's votes on both wordings elect the same answer. Without labels: nobody is right or wrong."""
    elected = []
    for view, text in (("original", entry.text), ("rephrased", wording)):
        request = ChatRequest(
            id=f"{entry.id}/{view}",
            attempt=number,
            system=DEFAULT_SYSTEM_PROMPT,
            user=text,
            n=plan.agreement,
            temperature=plan.temperature,
            max_new_tokens=plan.max_new_tokens,
        )
        elected.append(majority_vote([extract_answer(reply) for reply in await chat.ask(request)]).answer)
    before, after = elected
    if before is None or after is None or answer_key(before) != answer_key(after):
        return Refusal("answers differ", f"the votes elect {before!r} and {after!r}")
    return wording


def _report(entries: Sequence[Entry], journal: Journal, plan: RephrasePlan) -> dict[str, Any]:
    kept = journal.kept()
    refused = [attempt for attempt in journal.attempts if not attempt.kept]
    return {
        "source": plan.source,
        "model": plan.model,
        "questions": len(entries),
        "kept": len(kept),
        "left_out": [entry.id for entry in entries if entry.id not in kept],
        "replies": len(journal.attempts),
        "refused": dict(Counter(attempt.reason for attempt in refused).most_common()),
        "examples": {
            reason: [f"{a.id}: {a.detail}" for a in refused if a.reason == reason][:SHOWN]
            for reason in {attempt.reason: None for attempt in refused}
        },
    }


def _write_pair(entries: Sequence[Entry], kept: dict[str, str], source: str, out: Path) -> None:
    """Both views of the questions that have one, in verl's schema."""
    import pyarrow
    import pyarrow.parquet

    rows = [entry for entry in entries if entry.id in kept]
    whole = all(entry.id.isdecimal() and entry.id == str(int(entry.id)) for entry in rows)
    for name, wordings in (("original", [e.text for e in rows]), ("rephrased", [kept[e.id] for e in rows])):
        columns = [
            {
                "data_source": source,
                "prompt": [
                    {"role": "system", "content": DEFAULT_SYSTEM_PROMPT},
                    {"role": "user", "content": wording},
                ],
                "ability": "math",
                "reward_model": {"ground_truth": entry.answer, "style": "rule"},
                "extra_info": {"index": int(entry.id) if whole else entry.id, "split": "train"},
            }
            for entry, wording in zip(rows, wordings, strict=True)
        ]
        path = out / f"{name}.parquet"
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(columns), path.with_suffix(".partial"))
        path.with_suffix(".partial").replace(path)


def print_report(report: dict[str, Any], out: Path) -> None:
    """What was made, and what was refused and why."""
    console = Console(highlight=False, soft_wrap=True)
    console.print(
        f"{report['kept']} of {report['questions']} questions rephrased, in {report['replies']} replies", markup=False
    )
    for reason, number in report["refused"].items():
        console.print(f"refused {number:>5}  {reason}: {'; '.join(report['examples'][reason])}", markup=False)
    if report["kept"]:
        console.print(
            f"train on them with: --data.kind files --data.train {out / 'original.parquet'} "
            f"--data.rephrased {out / 'rephrased.parquet'}",
            markup=False,
        )
