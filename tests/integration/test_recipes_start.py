"""`train RECIPE --dry-run` accepts every shipped recipe on the cluster it names, and refuses it on a smaller one.

Ray is told of GPUs that are not there. The stand-ins: a small model in place of one from the hub, arithmetic questions in place of
a data set, an empty package called vllm, and a plug-in that says that torch sees a GPU. Everything else is the command itself.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from corewarding.dataflow import plugins
from corewarding.launch.cli import main
from corewarding.launch.config.load import load_config
from corewarding.launch.config.paths import PACKAGE
from corewarding.launch.config.recipes import recipes
from corewarding.launch.run.preflight.checks import NODES_S
from corewarding.launch.run.preflight.needs import needed
from corewarding.questions.arithmetic.world import arithmetic_questions
from tests.ray_token import a_token

NODES = {0: (1, 0), 1: (1, 1), 2: (1, 2), 8: (1, 8), 32: (4, 8)}
"""By the GPUs that a recipe reserves: nodes, and GPUs of each."""
CPUS = 32  # of a node; the 2 of a test machine for the recipe without GPUs


def gpus_of(name: str) -> int:
    return round(needed(load_config(name)).get("GPU", 0.0))


BY_SIZE = sorted(recipes(), key=gpus_of)
"""In this order one cluster serves all recipes of its size."""


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """The words that put them in place."""
    folder = tmp_path_factory.mktemp("stand-ins")
    shutil.copytree(PACKAGE / "models" / "arithmetic-base", folder / "model")
    config = json.loads((folder / "model" / "config.json").read_text())
    (folder / "model" / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 40960}))
    for name in ("train", "heldout"):
        questions, answers = arithmetic_questions(split=name, num=200, seed=0, levels=(1, 2))
        rows = [{"id": q.id, "question": q.original, "answer": answers[q.id]} for q in questions]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        rows = [{"id": q.id, "question": q.rephrased} for q in questions]
        (folder / f"{name}-rephrased.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "packages" / "vllm").mkdir(parents=True)
    (folder / "packages" / "vllm" / "__init__.py").touch()
    plugin = folder / "torch_with_gpu.py"
    plugin.write_text(
        "import torch\ntorch.version.cuda = '13.0'\ntorch.cuda.is_available = lambda: True\n"
        "torch.distributed.is_nccl_available = lambda: True\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder / "packages"), prepend=":")
        patch.syspath_prepend(str(folder / "packages"))
        for name in ("cuda.is_available", "version.cuda", "distributed.is_nccl_available"):
            owner, _, attribute = f"torch.{name}".rpartition(".")
            module = __import__(owner, fromlist=[attribute])
            patch.setattr(module, attribute, getattr(module, attribute))  # undone after the tests
        yield [
            "--plugins", str(plugin), "--model.path", str(folder / "model"), "--data.train", str(folder / "train.jsonl"),
            "--data.rephrased", str(folder / "train-rephrased.jsonl"), "--data.heldout", str(folder / "heldout.jsonl"),
        ]  # fmt: skip
        plugins.unload()


@pytest.fixture(scope="module")
def cluster_for() -> Iterator[Callable[[int], None]]:
    """Starts the cluster for that many GPUs, in place of the one before, and joins it as a submitted job does."""
    running: dict[int, Cluster] = {}

    def stop() -> None:
        ray.shutdown()
        os.environ.pop("RAY_ADDRESS", None)
        for cluster in running.values():
            cluster.shutdown()
        running.clear()

    def start(gpus: int) -> None:
        if gpus in running:
            return
        stop()
        nodes, each = NODES[gpus]
        cluster = running[gpus] = Cluster()
        for _ in range(nodes):
            cluster.add_node(num_cpus=CPUS if each else 2, num_gpus=each, object_store_memory=80 * 2**20)
        ray.init(cluster.address, log_to_driver=False)
        os.environ["RAY_ADDRESS"] = cluster.address

    with a_token():
        yield start
        stop()


def dry_run(name: str, stand_ins: list[str], tmp_path: Path, *words: str) -> int:
    root = ["--run.root", str(tmp_path / "runs")]
    return main(["train", name, *(stand_ins if gpus_of(name) else []), *root, *words, "--dry-run"])


@pytest.mark.parametrize("name", BY_SIZE)
def test_a_recipe_can_start_on_the_cluster_it_names(
    name: str,
    stand_ins: list[str],
    cluster_for: Callable[[int], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cluster_for(gpus_of(name))
    code = dry_run(name, stand_ins, tmp_path)
    said = capsys.readouterr()
    assert code == 0, said.err
    assert "nothing was started; the configuration can run here (learner on " in said.out
    assert ray.cluster_resources().get("GPU", 0) == gpus_of(name), "it needs the whole cluster, and no more"
    assert not list(tmp_path.iterdir())


def test_what_the_cluster_lacks_is_named_soon(
    stand_ins: list[str], cluster_for: Callable[[int], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster_for(32)  # as after the recipes
    began = time.monotonic()
    assert dry_run("qwen3_32b", stand_ins, tmp_path, "--learner.ranks", "17") == 2
    assert time.monotonic() - began < NODES_S / 2  # nothing was waited for until its limit
    assert "the cluster lacks 1 GPU" in capsys.readouterr().err


def test_what_a_node_lacks_is_found_on_that_node(
    stand_ins: list[str], cluster_for: Callable[[int], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster_for(32)
    began = time.monotonic()
    assert dry_run("qwen3_32b", stand_ins, tmp_path, "--engine.python", "/nope") == 2
    assert time.monotonic() - began < NODES_S / 2  # nothing was waited for until its limit
    (line,) = capsys.readouterr().err.splitlines()  # one, because all nodes of this cluster have one address
    assert "node " in line
    assert "engine.python /nope cannot be started: No such file or directory" in line
