"""Fixtures of all tests, and `pytest --hypothesis-profile benchmark`: the laws on 10,000 examples each.

CW_TESTS_END: the moment, in seconds since 1970, from which on no test begins: what is left is skipped, and says so.
"""

import multiprocessing
import os
import time
from collections.abc import Iterator

import pytest
import torch.distributed as dist
from hypothesis import HealthCheck, settings

from corewarding.actors.engines import ENGINES
from corewarding.dataflow import plugins
from corewarding.evals.named import NAMED_SETS
from corewarding.launch.run.forked.fork_server import MODULES
from corewarding.learner.objective.corrections import CORRECTION_MODES
from corewarding.questions.readers import READERS
from corewarding.rewards.diagnostics import QUESTION_METRICS
from corewarding.rewards.rules.table import REWARD_RULES

settings.register_profile("unhurried", deadline=None)  # a busy machine fails no law; tests of speed measure CPU time
settings.load_profile("unhurried")
settings.register_profile("benchmark", max_examples=10_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])

multiprocessing.set_forkserver_preload([*MODULES])  # for tests whose ranks are processes without Ray

TABLES = (REWARD_RULES, READERS, ENGINES, NAMED_SETS, QUESTION_METRICS, CORRECTION_MODES)


def pytest_runtest_setup() -> None:
    if time.time() > float(os.environ.get("CW_TESTS_END", "inf")):
        pytest.skip("the time for tests is over (CW_TESTS_END)")


@pytest.fixture(scope="module", autouse=True)
def no_default_group() -> Iterator[None]:
    """In-process learners open torch's default process group; the tests of another file must not find it."""
    yield
    if dist.is_initialized():
        dist.destroy_process_group()


@pytest.fixture
def fresh_tables() -> Iterator[None]:
    """Removes what a test registers or loads as a plug-in."""
    before = [set(table) for table in TABLES]
    yield
    for table, names in zip(TABLES, before, strict=True):
        for name in set(table) - names:
            table.unregister(name)
    plugins.unload()
