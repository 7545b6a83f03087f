"""Runs an evaluation from a plan: reads questions, samples in this process and grades. Its output is an EvalRecord."""

from __future__ import annotations

import asyncio
import hashlib
import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from corewarding.actors.engine import EngineContext, engine_seed
from corewarding.actors.engines import make_engine
from corewarding.actors.rollout_actor import RolloutActor
from corewarding.actors.settings import EngineSettings
from corewarding.dataflow.codec import decode, encode
from corewarding.dataflow.errors import RunError
from corewarding.evals.heldout import EvalResult, Generation, score_questions, summarize
from corewarding.evals.record import FORMAT, EvalError, EvalRecord, data_hash, model_hash
from corewarding.evals.tasks import evaluation_tasks
from corewarding.questions.load import load_heldout
from corewarding.questions.prompts import PreparedQuestions, prepare
from corewarding.questions.settings import DataSettings
from corewarding.questions.template import PromptTemplate
from corewarding.rewards.answers.extract import Fallback, extract_answer
from corewarding.rewards.answers.grading import grader_version
from corewarding.weights.hub import local_folder

AHEAD = 4  # sequences given to the engine for each of its slots


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalPlan:
    """Model, questions and settings of an evaluation."""

    model_path: str  # folder or hub id
    data: DataSettings  # its held-out questions are asked
    engine: EngineSettings
    num_questions: int | None  # None: all
    samples: int  # n of mean@n; 0: greedy only
    temperature: float
    max_new_tokens: int
    max_model_len: int  # most tokens of prompt and completion that the model can read
    data_seed: int  # seed of the arithmetic world's questions
    seed: int  # seed of the samples
    fallbacks: Sequence[Fallback] = ()  # see rewards.answers.extract.extract_answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A plan whose inputs are read and checked."""

    plan: EvalPlan
    template: PromptTemplate
    heldout: PreparedQuestions
    rows: list[dict[str, str]]  # the rows of questions.jsonl
    manifest: dict[str, Any]
    notes: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        """8 hex digits of the manifest, without grading, place and time."""
        counted = {
            key: value for key, value in self.manifest.items() if key not in ("created", "environment", "grading")
        }
        return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()[:8]


def prepare_evaluation(plan: EvalPlan) -> Evaluation:
    """Reads the inputs. DataSetError, TemplateError or EvalError for data or a model that cannot be used."""
    folder = local_folder(plan.model_path)
    template = PromptTemplate.from_folder(folder, system_prompt=plan.data.system_prompt)
    questions = load_heldout(plan.data, seed=plan.data_seed)
    if not questions.questions:
        raise EvalError("there are no held-out questions: name them by --data, or data.heldout of the configuration")
    heldout = prepare(
        questions,
        template,
        views=("original",),
        max_prompt_tokens=plan.data.max_prompt_tokens,
        max_model_len=plan.max_model_len,
        max_new_tokens=plan.max_new_tokens,
    )
    heldout = replace(heldout, questions=heldout.questions[: plan.num_questions])
    notes = list(questions.notes)
    if heldout.num_dropped:
        notes.append(
            f"{heldout.num_dropped} questions are longer than data.max_prompt_tokens={plan.data.max_prompt_tokens}"
        )
    rows = [
        {
            "id": question.id,
            "question": question.original,
            "prompt": template.text(question.original),
            "answer": questions.gold.read(question.id, reader="eval") or "",
        }
        for question in heldout.questions
    ]
    return Evaluation(
        plan=plan,
        template=template,
        heldout=heldout,
        rows=rows,
        manifest=_manifest(plan, folder, template, questions.source, rows),
        notes=tuple(notes),
    )


def _manifest(
    plan: EvalPlan, folder: Path, template: PromptTemplate, source: str, rows: Sequence[dict[str, str]]
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "model": {"path": plan.model_path, "hash": model_hash(folder)},
        "data": {
            "source": source,
            "hash": data_hash((row["id"], row["question"], row["answer"]) for row in rows),
            "num_questions": len(rows),
        },
        "prompt": {"template": template.fingerprint, "system_prompt": plan.data.system_prompt},
        "engine": {
            "kind": plan.engine.kind,
            "dtype": plan.engine.dtype,
            **{name: version(name) for name in ("corewarding", "torch", "transformers")},
        },
        "sampling": {
            "samples": plan.samples,
            "temperature": plan.temperature,
            "max_new_tokens": plan.max_new_tokens,
            "seed": plan.seed,
        },
        "grading": grading(plan.fallbacks),
        "environment": {"python": platform.python_version(), "machine": platform.machine()},
    }


def grading(fallbacks: Sequence[Fallback]) -> dict[str, Any]:
    """What grades depend on besides the text."""
    return {"version": grader_version(), "fallbacks": list(fallbacks)}


def sample_into(
    evaluation: Evaluation, record: EvalRecord, *, on_group: Callable[[list[Generation]], None]
) -> list[Generation]:
    """Samples the groups that the record lacks, and returns all generations. `on_group` is called with each group, first with those
    of an earlier attempt."""
    done = record.finished(samples=evaluation.plan.samples)
    on_group(done)
    finished = {(generation.question_id, generation.greedy) for generation in done}

    def keep(group: list[Generation]) -> None:
        record.append(group)
        on_group(group)

    asyncio.run(_sample(evaluation, finished, keep))
    return record.generations()


def grade_record(record: EvalRecord, *, fallbacks: Sequence[Fallback], num_samples: int) -> EvalResult:
    """Extracts and grades the record's completions again from their texts, and writes the grades into the record."""
    generations = [
        replace(generation, answer=extract_answer(generation.text, fallbacks=fallbacks))
        for generation in record.generations()
    ]
    scores = score_questions(generations, record.gold)
    result = summarize(scores, generations, n=num_samples)
    record.write_grades(result, scores, grading(fallbacks), generations)
    return result


async def _sample(
    evaluation: Evaluation, finished: set[tuple[str, bool]], keep: Callable[[list[Generation]], None]
) -> None:
    plan, template = evaluation.plan, evaluation.template
    tasks = [
        task
        for task in evaluation_tasks(
            evaluation.heldout,
            num_questions=len(evaluation.heldout.questions),
            samples=plan.samples,
            temperature=plan.temperature,
            max_new_tokens=plan.max_new_tokens,
            seed=plan.seed,
        )
        if (task.id.question_id, task.temperature == 0) not in finished
    ]
    if not tasks:
        return
    engine = make_engine(
        EngineContext(
            settings=plan.engine,
            model_path=str(local_folder(plan.model_path)),
            max_model_len=plan.engine.max_model_len or evaluation.heldout.longest + plan.max_new_tokens,
            eos_token_ids=template.eos_token_ids,
            device="cuda" if torch.cuda.is_available() else "cpu",
            seed=engine_seed(plan.seed, "eval", 0),
        )
    )

    async def accept(_: bytes) -> None:
        raise AssertionError("an evaluation delivers nothing to a buffer")

    actor = RolloutActor(
        actor_id="eval",
        source="policy",
        engine=engine,
        decode=template.decode,
        extract=partial(extract_answer, fallbacks=plan.fallbacks),
        buffer_accept=accept,
    )
    room = asyncio.Semaphore(
        max(1, AHEAD * plan.engine.slots // max(1, plan.samples))
    )  # groups sampled at the same time

    async def ask(task: Any) -> None:
        async with room:
            keep([Generation.of(completion) for completion in decode(await actor.sample(encode(task)))])

    try:
        async with asyncio.TaskGroup() as asking:
            for task in tasks:
                asking.create_task(ask(task))
    except* RunError as errors:
        raise errors.exceptions[0] from None
    finally:
        await actor.close()
