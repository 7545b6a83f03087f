"""A run's parts in one process, for any rule and any engine: rollout actors, replay buffer and learner, on the arithmetic world."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from functools import partial
from typing import Any

from corewarding.actors.embedded.engine import EmbeddedEngine
from corewarding.actors.engine import EngineContext, RolloutEngine
from corewarding.actors.rollout_actor import RolloutActor
from corewarding.dataflow.carriers import Completion, RolloutTask, TokenStatistics, TrainBatch, TrainingSample
from corewarding.dataflow.codec import decode_as, decode_list, encode
from corewarding.dataflow.ids import AskedId
from corewarding.dataflow.votes import InitialAnswers
from corewarding.launch.config.load import make_config
from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.run.inputs import Inputs, read_inputs
from corewarding.launch.run.plans import buffer_plan, learner_plan
from corewarding.learner.learner import Learner
from corewarding.learner.replay.actor import BufferActor
from corewarding.rewards.answers.extract import extract_answer

QUESTIONS = 3  # per update


def config_of(rule: str, staleness: int, **sections: Any) -> TrainConfig:
    content = {
        "rule": rule,
        "data": {"kind": "arithmetic", "num_train": 32, "num_heldout": 2, "max_prompt_tokens": 48},
        "rollout": {"group_size": 4, "max_new_tokens": 24} | sections.pop("rollout", {}),
        "staleness": {"max": staleness, "pipeline_depth": staleness},
        "train": {"questions_per_update": QUESTIONS, "updates": 5, "lr": 1e-4, "warmup_frac": 0.0},
        "learner": {"micro_batch_tokens": 512, "row_tokens": 256},
    }
    return make_config(content | sections, where="test")


def context_of(config: TrainConfig, inputs: Inputs) -> EngineContext:
    return EngineContext(
        settings=config.engine,
        model_path=config.model_folder,
        max_model_len=inputs.max_model_len,
        eos_token_ids=inputs.template.eos_token_ids,
    )


class Run:
    """One run's parts; the engine keeps the initial weights, so tokens grow older with every update."""

    def __init__(self, config: TrainConfig, engine: RolloutEngine | None = None) -> None:
        """engine: of the initial weights; None: an embedded one is made."""
        self.config, self.inputs = config, read_inputs(config)
        self.buffer = BufferActor(buffer_plan(config, 0, known=self.inputs.known), self.inputs.gold)
        self.learner = Learner(learner_plan(config))
        template = self.inputs.template
        self.engine = engine or EmbeddedEngine(context_of(config, self.inputs))
        self.actors = {
            source: RolloutActor(
                actor_id=source,
                source=source,
                engine=self.engine,
                decode=template.decode,
                extract=partial(extract_answer, fallbacks=()),
                buffer_accept=self.buffer.accept,
            )
            for source in ("policy", "teacher")
        }

    def tasks(self, inputs: Inputs, asked: AskedId) -> Iterator[RolloutTask]:
        for view, source in inputs.rule.groups:
            yield RolloutTask(
                id=asked.group(view, source),
                incarnation=0,
                attempt=0,
                group_size=self.config.sampled_size((view, source)),
                prompt_token_ids=inputs.prepared.prompts[asked.question_id, view],
                temperature=1.0,
                max_new_tokens=self.config.rollout.max_new_tokens,
                run_seed=0,
            )

    async def initial(self, asked: AskedId) -> list[InitialAnswers]:
        tasks = [t for t in self.tasks(self.inputs, asked) if (t.id.view, t.id.source) in self.inputs.rule.trained]
        sampled = [decode_list(await self.actors["policy"].sample(encode(task)), Completion) for task in tasks]
        return [
            InitialAnswers(question_id=asked.question_id, view=group[0].id.view, answers=tuple(c.answer for c in group))
            for group in sampled
        ]

    async def update(self, number: int) -> tuple[TrainBatch, dict[str, float]]:
        ids = [question.id for question in self.inputs.prepared.questions][
            (number - 1) * QUESTIONS : number * QUESTIONS
        ]
        asked = [AskedId(question_id=one, epoch=0) for one in ids]
        assert await self.buffer.admit(number, encode(asked)) == QUESTIONS
        tasks = [task for one in asked for task in self.tasks(self.inputs, one)]
        await asyncio.gather(*(self.actors[task.id.source].run(encode(task)) for task in tasks))
        _, scored, message = await self.buffer.take(number)
        if not scored:
            statistics: list[TokenStatistics] = self.learner.token_statistics(decode_list(message, TrainingSample))
            _, message = await self.buffer.score(number, encode(statistics))
        batch = decode_as(message, TrainBatch)
        result = self.learner.update(batch)
        await self.buffer.report(number)
        return batch, result.metrics.scalars


async def trained(run: Run, updates: int) -> list[TrainBatch]:
    if "initial_answers" in run.inputs.rule.needs:
        asked = [AskedId(question_id=question.id, epoch=0) for question in run.inputs.prepared.questions]
        found = await asyncio.gather(*map(run.initial, asked))
        await run.buffer.know_initial(encode([answers for one in found for answers in one]))
    batches = []
    for number in range(1, updates + 1):
        batch, metrics = await run.update(number)
        assert math.isfinite(metrics["loss/total"])
        assert math.isfinite(metrics["train/grad_norm"])
        assert all(sample.id.sample_index < run.config.rollout.group_size for sample in batch.samples)
        batches.append(batch)
    return batches
