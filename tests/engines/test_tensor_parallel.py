"""An engine whose model is shared by two workers takes new weights."""

import pytest

from corewarding.actors.engines import ENGINES
from tests.engines.world import Learner, start
from tests.tiny_models import forward, run, task_of


async def test_a_model_shared_by_two_workers_takes_new_weights(kind: str, wide: list[str], learner: Learner) -> None:
    if not ENGINES[kind].tensor_parallel:
        pytest.skip("this engine is one process")
    engine = start(kind, wide[0], tensor_parallel=2)
    await learner.meet(engine)
    await learner.publish(wide[1], 1, engine)
    task = task_of(5, temperature=0.0, group_size=1, max_new_tokens=40)
    (sequence,) = await run(engine, task)
    assert forward(wide[1], task, sequence).argmax(-1).tolist() == sequence.token_ids.tolist()
    assert set(sequence.token_versions.tolist()) == {1}
    await engine.close()
