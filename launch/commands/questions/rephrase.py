"""Makes the rephrased view of a data set with a model, and checks it.

OUT/journal.jsonl                          every attempt as it ends, kept or refused with its reason; a second call continues from it
OUT/original.parquet, rephrased.parquet    aligned row by row, in the schema that `data.train` and `data.rephrased` read
OUT/report.json                            how many were kept, and how many were refused for which reason
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
from typing import Annotated, Any

import tyro
from pydantic import Field

from corewarding.actors.chat import Chat, ChatError, ChatRefusedError, ChatRequest, EndpointChat, EngineChat
from corewarding.actors.settings import EngineSettings
from corewarding.dataflow.errors import RunStoppedError, UserError
from corewarding.launch.config.addresses import problem_of
from corewarding.launch.config.arguments import as_flags, checked_engine, read_arguments
from corewarding.launch.config.tree import ModelSettings, TrainConfig
from corewarding.launch.report.plain import plain
from corewarding.launch.report.progress import progress_bar
from corewarding.launch.report.terminal import PlainConsole
from corewarding.questions.readers import Entry, read_entries
from corewarding.questions.rephrase import PROMPT, Refusal, read_reply, rephrase_prompt
from corewarding.questions.rephrasings import Attempt, Journal, report, write_pair
from corewarding.questions.settings import DEFAULT_SYSTEM_PROMPT
from corewarding.questions.template import PromptTemplate
from corewarding.rewards.answers.extract import extract_answer
from corewarding.rewards.answers.key import answer_key
from corewarding.rewards.voting import majority_vote

FLAGS = {"model.path": "--model", "data.train": "SOURCE", "SOURCE_split": "--split"}
"""Keys in the messages of shared code, and the flags of this command."""


@dataclasses.dataclass(frozen=True)
class RephraseArguments:
    """Makes the rephrased view of a data set: same meaning and answer in other words. A second call continues the first."""

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SOURCE")]
    """Parquet or JSONL file, folder, or Hugging Face datasets id."""
    out: Path
    """Folder for the pair of files, the journal and the report."""
    model: str | None = None
    """Model folder or hub id, run by an engine in this process."""
    endpoint: str | None = None
    """OpenAI-compatible server, for example http://localhost:8000/v1; its key is read from OPENAI_API_KEY."""
    endpoint_model: str | None = None
    """Name of the model at the endpoint."""
    split: str = "train"
    """Split of a folder or hub id."""
    limit: Annotated[int | None, Field(ge=1)] = None
    """Number of questions, from the first; None: all."""
    attempts: Annotated[int, Field(ge=1)] = 3
    """Most replies per question until one is kept."""
    agreement: Annotated[int, Field(ge=0)] = 0
    """Answers per wording: a rephrasing is kept only if the votes on both wordings agree; 0: no such check."""
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.7
    """Sampling temperature."""
    max_new_tokens: Annotated[int, Field(ge=1)] = 2048
    """Longest reply in tokens."""
    concurrency: Annotated[int, Field(ge=1)] = 64
    """Questions asked at the same time."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the replies of --model."""
    engine: EngineSettings = dataclasses.field(default_factory=EngineSettings)
    """The engine of --model."""


def run(words: list[str]) -> int:
    arguments = read_arguments(RephraseArguments, words, prog="corewarding rephrase")
    with as_flags(FLAGS):
        return rephrase_command(arguments)


@dataclass(frozen=True, slots=True, kw_only=True)
class RephrasePlan:
    """How rephrasings are requested."""

    source: str  # data set, for the record
    model: str  # its name, for the record
    temperature: float
    max_new_tokens: int
    attempts: int  # most replies per question
    agreement: int  # answers per wording whose votes must agree; 0: no check
    concurrency: int  # questions asked at the same time


def rephrase_command(arguments: RephraseArguments) -> int:
    """Reads the questions, rephrases them and prints the report. Exit code 1 if no rephrasing is kept."""
    if (arguments.model is None) == (arguments.endpoint is None):
        raise UserError("rephrase needs a model: either --model FOLDER, or --endpoint URL with --endpoint-model NAME")
    if arguments.endpoint is not None and arguments.endpoint_model is None:
        raise UserError("--endpoint needs --endpoint-model, the model's name at the endpoint")
    if arguments.endpoint is not None and (problem := problem_of(arguments.endpoint)):
        raise UserError(f"--endpoint {arguments.endpoint} {problem}; start the server, or correct the address")
    checked_engine(arguments.engine)
    entries = read_entries(arguments.source, key="SOURCE", split=arguments.split)[: arguments.limit]
    plan = RephrasePlan(
        source=arguments.source,
        model=arguments.model or f"{arguments.endpoint_model} at {arguments.endpoint}",
        temperature=arguments.temperature,
        max_new_tokens=arguments.max_new_tokens,
        attempts=arguments.attempts,
        agreement=arguments.agreement,
        concurrency=arguments.concurrency,
    )
    result = rephrase(entries, _chat(arguments, entries), plan, arguments.out)
    print_report(result, arguments.out)
    if not result["kept"]:
        raise RunStoppedError(
            f"none of {result['questions']} questions has a rephrasing that can be kept; {arguments.out / 'journal.jsonl'} holds the "
            "replies and why they were refused. Use a model that follows instructions, or raise --max-new-tokens or --attempts"
        )
    return 0


def _chat(arguments: RephraseArguments, entries: Sequence[Entry]) -> Chat:
    """Builds the chat backend. An engine's context fits the longest request, capped at the model's limit."""
    if arguments.endpoint is not None:
        name = arguments.endpoint_model or ""
        return EndpointChat(arguments.endpoint, model=name, api_key=os.environ.get("OPENAI_API_KEY"))
    import torch
    from transformers.utils.logging import disable_progress_bar

    from corewarding.launch.run.inputs import model_length
    from corewarding.weights.hub import local_folder

    disable_progress_bar()  # while weights load
    folder = str(local_folder(TrainConfig(model=ModelSettings(path=arguments.model or "")).model_folder))
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
    """Rephrases the questions that the journal in `out` lacks, writes the pair of files and returns the report.

    UserError if `out` was made with other settings; RunStoppedError if the model cannot be asked. The journal keeps all replies.
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
            f"{errors.exceptions[0]}\n"
            f"{len(journal.kept())} of {len(entries)} rephrasings are kept in {out}; run the same command to continue"
        ) from None
    result = {"source": plan.source, "model": plan.model, **report(entries, journal)}
    if journal.kept():
        write_pair(entries, journal.kept(), plan.source, out)
    (out / "report.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return result


async def _rephrase_all(entries: Sequence[Entry], chat: Chat, plan: RephrasePlan, journal: Journal) -> None:
    kept, tried = journal.kept(), Counter(attempt.id for attempt in journal.attempts)
    room = asyncio.Semaphore(plan.concurrency)
    progress = progress_bar(PlainConsole(), "rephrasing")
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
    """The wording if the model's votes on both wordings elect the same answer, else a refusal. No label is read."""
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


def print_report(report: dict[str, Any], out: Path) -> None:
    """Prints how many questions were rephrased, and the refusals by reason."""
    console = PlainConsole(soft_wrap=True)
    console.print(f"{report['kept']} of {report['questions']} questions rephrased, in {report['replies']} replies")
    for reason, number in report["refused"].items():
        shown = plain("; ".join(report["examples"][reason]), keep="")
        console.print(f"refused {number:>5}  {reason}: {shown}")
    if report["kept"]:
        console.print(
            f"train on them with: --data.kind files --data.train {out / 'original.parquet'} "
            f"--data.rephrased {out / 'rephrased.parquet'}",
        )
