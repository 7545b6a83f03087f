"""The self-test: before the first question, compares the engines' log-probabilities with the learner's.

Each engine samples eight prompts at the run's temperature; the learner computes the same tokens under the weights that were just
published. Importance weights are ratios of these two numbers, so a run whose engine differs trains on noise. In float32 the largest
difference is bounded. In bfloat16 single tokens may differ a lot, so only the mean and the 99th percentile are bounded.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from corewarding.actors.engines import ENGINES
from corewarding.dataflow.carriers import Completion, RolloutTask, TrainingSample
from corewarding.dataflow.errors import UserError
from corewarding.dataflow.ids import AskedId, SetName, Source
from corewarding.launch.report.statistics import LogprobDifferences
from corewarding.launch.run.protocols import Parts

QUESTIONS = 8  # per engine
MAX_NEW_TOKENS = 64
EPOCH = -1000  # and below; training and evaluation use other epochs
SUSPECT = 0.1  # a cause is likely if undoing it leaves less than this share of the mean difference


class SelfTestError(UserError):
    """Engines and learner disagree about log-probabilities."""


@dataclass(frozen=True, slots=True)
class Bound:
    """Largest allowed |engine − learner| of a token's logprob at temperature 1; at T it is 1 / T times as large."""

    mean: float
    p99: float
    highest: float


BOUNDS = {
    "float32": Bound(mean=1e-4, p99=5e-4, highest=2e-2),
    "bfloat16": Bound(mean=5e-2, p99=0.5, highest=float("inf")),
}


async def self_test(parts: Parts) -> dict[Source, LogprobDifferences]:
    """Compares engines and learner, by source. SelfTestError, with the likely cause, if the differences exceed the bound."""
    return {
        source: await _compare(parts, source)
        for source in parts.groups
        if ENGINES[parts.config.engine_of(source).kind].has_model_logprobs
    }


async def _compare(parts: Parts, source: Source) -> LogprobDifferences:
    completions = await parts.groups[source].sample(_tasks(parts, source))
    samples = [TrainingSample.of(completion, advantage=0.0) for completion in completions]
    differences = _differences(completions, await parts.learner.logprobs(samples, source))
    found = LogprobDifferences(
        mean=float(differences.mean()),
        p99=float(np.quantile(differences, 0.99)),
        highest=float(differences.max()),
        num_tokens=len(differences),
    )
    bound = bound_of(parts, source)
    if found.mean <= bound.mean and found.p99 <= bound.p99 and found.highest <= bound.highest:  # never for NaN
        return found
    raise SelfTestError(
        f"self-test: log-probabilities of the {source} engines ({parts.config.engine_of(source).kind}) differ from the "
        f"learner's by mean {found.mean:.2g}, p99 {found.p99:.2g}, max {found.highest:.2g} over {found.num_tokens} tokens; "
        f"allowed are mean {bound.mean:.2g}, p99 {bound.p99:.2g}, max {bound.highest:.2g}. "
        f"{await _explain(parts, source, completions, samples, found.mean)}"
    )


def bound_of(parts: Parts, source: Source) -> Bound:
    """The bound of the coarser of the two dtypes, scaled by the temperature, which divides logits and their errors."""
    config = parts.config
    coarse = "bfloat16" in (config.engine_of(source).dtype, config.learner.param_dtype)
    bound, temperature = BOUNDS["bfloat16" if coarse else "float32"], config.rollout.temperature
    scale = 1 / min(temperature, 1.0)
    return Bound(mean=bound.mean * scale, p99=bound.p99 * scale, highest=bound.highest * scale)


def _tasks(parts: Parts, source: Source) -> list[RolloutTask]:
    rollout, prepared = parts.config.rollout, parts.prepared
    num_actors = rollout.policy_actors if source == "policy" else rollout.teacher_actors
    questions = [prepared.questions[index % len(prepared.questions)] for index in range(QUESTIONS * num_actors)]
    return [
        RolloutTask(
            id=AskedId(question_id=question.id, epoch=EPOCH - index).group("original", source),
            incarnation=0,
            attempt=0,
            group_size=1,
            prompt_token_ids=prepared.prompts[question.id, "original"],
            temperature=rollout.temperature,
            max_new_tokens=min(rollout.max_new_tokens, MAX_NEW_TOKENS),
            run_seed=parts.config.train.seed,
        )
        for index, question in enumerate(questions)
    ]


def _differences(completions: Sequence[Completion], expected: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
    pairs = zip(completions, expected, strict=True)
    return np.concatenate([np.abs(c.behavior_logprobs.astype(np.float64) - e) for c, e in pairs])


async def _explain(
    parts: Parts, source: Source, completions: Sequence[Completion], samples: Sequence[TrainingSample], mean: float
) -> str:
    """Names the likely cause: tries the known ones until undoing one removes the difference."""

    async def mean_with(which: SetName, changed: Sequence[TrainingSample]) -> float:
        return float(_differences(completions, await parts.learner.logprobs(changed, which)).mean())

    temperature = parts.config.rollout.temperature
    if temperature != 1.0:
        cold = [dataclasses.replace(sample, temperature=1.0) for sample in samples]
        if await mean_with(source, cold) < SUSPECT * mean:
            return (
                f"They are those of temperature 1 instead of {temperature:g}: the engine must report processed logprobs; "
                "remove what engine.arguments says about logprobs"
            )
    other: Source = "teacher" if source == "policy" else "policy"
    if (other == "policy" or parts.config.keeps_teacher) and await mean_with(other, samples) < SUSPECT * mean:
        return f"They are those of the {other}'s weights: the engine took the wrong stream, or none"
    if mean < BOUNDS["bfloat16"].mean:
        return (
            "The size is that of a coarser dtype: compare engine.dtype, learner.param_dtype, engine.quantization and what "
            "engine.arguments sets"
        )
    return (
        "Neither temperature nor dtype explains it: the engine's weights or its model differ. Look at model.path, "
        "engine.arguments and engine.url (does the server serve this model, unquantized?)"
    )
