"""The self-test against a learner whose log-probabilities are written by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from corewarding.dataflow.carriers import Completion, Timings
from corewarding.launch.config.load import make_config
from corewarding.launch.run.self_test import SelfTestError, self_test

LOGITS = np.log(np.array([0.1, 0.2, 0.3, 0.4]))


def at(temperature, logits=LOGITS):
    """[4] log-probabilities of the four tokens."""
    scaled = logits / temperature
    return scaled - np.log(np.exp(scaled).sum())


class Group:
    """Samples tokens 0 to 3 and reports them as `engine` says."""

    def __init__(self, engine):
        self.engine = engine

    async def sample(self, tasks):
        return [
            Completion(
                id=task.id.completion(0), incarnation=0, attempt=0, prompt_token_ids=task.prompt_token_ids,
                token_ids=np.arange(4, dtype=np.int32), behavior_logprobs=self.engine(task.temperature).astype(np.float32),
                token_versions=np.zeros(4, np.int32), temperature=task.temperature, text="", answer=None, finish_reason="length",
                actor_id="policy-0", timings=Timings(submitted_s=0.0, started_s=0.0, finished_s=0.0),
            )
            for task in tasks
        ]  # fmt: skip


class Learner:
    """Policy weights give LOGITS; the teacher's give them in reverse."""

    async def logprobs(self, samples, which):
        logits = LOGITS if which == "policy" else LOGITS[::-1]
        return [at(sample.temperature, logits).astype(np.float32) for sample in samples]


def parts(reported, **keys):
    config = make_config({"rollout": {"temperature": 0.5}, **keys}, where="test")
    questions = [SimpleNamespace(id=f"q{number}") for number in range(3)]
    prompts = {(question.id, "original"): np.array([1, 2], np.int32) for question in questions}
    prepared = SimpleNamespace(questions=questions, prompts=prompts)
    return SimpleNamespace(config=config, groups={"policy": Group(reported)}, learner=Learner(), prepared=prepared)


async def test_engines_that_agree_are_measured():
    found = await self_test(parts(lambda temperature: at(temperature) + 1e-5))
    assert found["policy"].mean == pytest.approx(1e-5, rel=0.05)
    assert found["policy"].highest == pytest.approx(1e-5, rel=0.05)
    assert found["policy"].num_tokens == 8 * 4


@pytest.mark.parametrize(
    ("engine", "reason"),
    [
        (lambda temperature: at(1.0), "temperature 1 instead of 0.5"),
        (lambda temperature: at(temperature, LOGITS[::-1]), "the teacher's weights"),
        (lambda temperature: at(temperature) + 0.03, "coarser dtype"),
        (lambda temperature: at(temperature) - np.arange(4), "weights or its model differ"),
        (lambda temperature: np.full(4, np.nan), "policy engines"),
    ],
)
async def test_what_differs_is_named(engine, reason):
    with pytest.raises(SelfTestError, match=reason):
        await self_test(parts(engine))


async def test_bfloat16_is_judged_by_mean_and_99th_percentile_never_by_the_maximum():
    def rare(temperature):
        rare.calls += 1
        return at(temperature) + (5.0 * (np.arange(4) == 0) if rare.calls == 1 else 0.01)

    rare.calls = 0
    wide = parts(rare, engine={"dtype": "bfloat16"}, rollout={"temperature": 1.0, "policy_actors": 16})
    found = await self_test(wide)  # 1 token of 512 is far off
    assert found["policy"].highest == pytest.approx(5.0, rel=0.01)
    with pytest.raises(SelfTestError):
        await self_test(parts(lambda temperature: at(temperature) + 0.2, engine={"dtype": "bfloat16"}))
