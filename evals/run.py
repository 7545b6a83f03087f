"""`corewarding eval`: held-out accuracy of a model folder or of a run's last checkpoint, on the embedded engine, in process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from actors.engines import make_engine
from actors.rollout_actor import RolloutActor
from actors.settings import EngineSettings
from dataflow.codec import decode, encode
from dataflow.types import Completion
from evals.heldout import EvalResult, score_completions
from evals.tasks import evaluation_tasks
from questions.load import load_heldout
from questions.prompts import PreparedQuestions, prepare
from questions.settings import DataSettings
from questions.template import PromptTemplate
from rewards.extract import Fallback, extract_answer


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalPlan:
    """What is evaluated, and how."""

    model_folder: str
    data: DataSettings
    engine: EngineSettings
    num_questions: int
    samples: int
    temperature: float
    max_new_tokens: int
    seed: int
    fallbacks: Sequence[Fallback] = ()  # see rewards.extract.extract_answer


def evaluate_model(plan: EvalPlan) -> EvalResult:
    """DataSetError or TemplateError for data or a model that cannot be used."""
    template = PromptTemplate.from_folder(plan.model_folder, system_prompt=plan.data.system_prompt)
    questions = load_heldout(plan.data, seed=plan.seed)
    heldout = prepare(questions, template, views=("original",), max_prompt_tokens=plan.data.max_prompt_tokens)
    completions = asyncio.run(_sample(plan, template, heldout))
    return score_completions(completions, questions.gold, n=plan.samples)


def write_result(result: EvalResult, plan: EvalPlan, out: Path) -> None:
    """The result with what it is of, as JSON."""
    content = {
        "model": plan.model_folder,
        "temperature": plan.temperature,
        "max_new_tokens": plan.max_new_tokens,
        "data": plan.data.model_dump(mode="json"),
        **result.as_dict(),
    }
    out.write_text(json.dumps(content, indent=1) + "\n")


async def _sample(plan: EvalPlan, template: PromptTemplate, heldout: PreparedQuestions) -> list[Completion]:
    engine = make_engine(
        plan.engine,
        model_path=plan.model_folder,
        max_model_len=heldout.longest + plan.max_new_tokens,
        device=torch.device("cuda" if torch.cuda.is_available() else "cpu"),
        eos_token_ids=template.eos_token_ids,
    )

    async def keep(_: bytes) -> None:
        raise AssertionError("an evaluation delivers nothing to a buffer")

    actor = RolloutActor(
        actor_id="eval",
        source="policy",
        engine=engine,
        decode=template.decode,
        extract=partial(extract_answer, fallbacks=plan.fallbacks),
        buffer_accept=keep,
    )
    tasks = evaluation_tasks(
        heldout,
        num_questions=plan.num_questions,
        samples=plan.samples,
        temperature=plan.temperature,
        max_new_tokens=plan.max_new_tokens,
        seed=plan.seed,
    )
    try:
        answers = await asyncio.gather(*(actor.sample(encode(task)) for task in tasks))
    finally:
        await actor.close()
    return [completion for answer in answers for completion in decode(answer)]
