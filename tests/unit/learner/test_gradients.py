"""The gradient of an update does not depend on rows, micro-batches or shared prompts: it is that of separate sequences."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corewarding.learner.learner import Learner
from tests.toy_models import write_toy
from tests.unit.learner.gradients import distance, learner_gradient, plain_gradient, plan_for, samples_of

NAMES = ("qwen3_moe", "gemma3")


@pytest.fixture(scope="module")
def learners(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Learner]:
    return {name: Learner(plan_for(write_toy(name, tmp_path_factory.mktemp(name)))) for name in NAMES}


@settings(max_examples=6)
@given(
    seed=st.integers(0, 2**20),
    group_size=st.integers(1, 4),
    micro_batch_tokens=st.integers(24, 200),
    row_tokens=st.integers(1, 80),
)
@pytest.mark.parametrize("name", NAMES)
def test_any_cut_into_rows_and_micro_batches_has_the_gradient_of_separate_sequences(
    name: str, learners: dict[str, Learner], seed: int, group_size: int, micro_batch_tokens: int, row_tokens: int
) -> None:
    learner = learners[name]
    samples = samples_of(seed, num=3, group_size=group_size)
    expected = plain_gradient(name, samples, learner.plan)
    found = learner_gradient(learner, samples, micro_batch_tokens=micro_batch_tokens, row_tokens=row_tokens)
    assert distance(found, expected) < 1e-5
