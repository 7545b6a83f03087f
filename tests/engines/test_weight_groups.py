"""One stream of weights for several processes: engines of two kinds, and the workers of one engine."""

import pytest

from corewarding.actors.engines import ENGINES
from tests.engines.world import Learner, start
from tests.tiny_models import forward, run, task_of


async def test_two_engines_in_one_weight_group(kind: str, tied: list[str], learner: Learner) -> None:
    """The second is the embedded engine. One stream serves both, over sockets and through mapped memory."""
    engines = [start(kind, tied[0]), start("embedded", tied[0])]
    task = task_of(5, temperature=0.0, group_size=1)
    for updates, backend in [(1, "gloo"), (2, "ipc")]:
        await learner.meet(*engines, backend=backend)
        await learner.publish(tied[updates % 2], updates, *engines)
        (one,), (other,) = [await run(engine, task) for engine in engines]
        assert one.token_ids.tolist() == other.token_ids.tolist()
        assert one.token_ids.tolist() == forward(tied[updates % 2], task, one).argmax(-1).tolist()
        assert set(one.token_versions.tolist()) == {updates}
    for engine in engines:
        await engine.close()


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
