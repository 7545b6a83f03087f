"""What a node lacks is named with key, value and remedy. Real interpreters, sockets and files; nothing is started."""

import dataclasses
import http.server
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from corewarding.launch.config.load import make_config
from corewarding.launch.config.paths import PACKAGE
from corewarding.launch.run.preflight import node
from corewarding.launch.run.preflight.needs import bundles
from corewarding.launch.run.preflight.node import NodePlan, node_problems
from corewarding.weights.model_check import check_weights
from corewarding.weights.model_files import StoredModel
from tests.tiny_models import write_model


def problems(stored: StoredModel | None = None, **content: Any) -> list[str]:
    """All processes on this node. stored: what the driver's model folder holds."""
    config = make_config(content, where="test")
    processes = {kind: len(several) for kind, several in bundles(config).items()}
    return node_problems(NodePlan(config=config, processes=processes, model=stored))


def package(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).mkdir()
        (folder / name / "__init__.py").touch()


def test_the_default_run_lacks_nothing() -> None:
    assert problems() == []


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_an_interpreter_that_does_not_exist_or_lacks_the_engine(kind: str) -> None:
    (said,) = problems(engine={"kind": kind, "python": "/nope"})
    assert said.startswith(
        "engine.python /nope cannot be started: No such file or directory; set engine.python to one that"
    )
    (said,) = problems(engine={"kind": kind, "python": sys.executable})
    assert said.startswith(f"engine.kind {kind}: {sys.executable} has no {kind}; set engine.python")
    (said,) = problems(engine={"kind": kind})
    assert f"has no {kind}; set engine.python to one that has it" in said


def test_only_the_teachers_engine_is_named_where_only_it_lacks() -> None:
    (said,) = problems(teacher_engine={"kind": "sglang", "python": "/nope"})
    assert said.startswith("teacher_engine.python /nope")
    assert (
        problems(rule="majority_vote", teacher_engine={"kind": "sglang", "python": "/nope"}) == []
    )  # no teacher is asked


def test_adapters_need_peft(monkeypatch: pytest.MonkeyPatch) -> None:
    assert problems(learner={"lora": {"rank": 8}}) == []
    monkeypatch.setitem(sys.modules, "peft", None)  # as if it were not installed
    (said,) = problems(learner={"lora": {"rank": 8}})
    assert said.startswith(
        f"learner.lora.rank 8 needs the package peft, which {sys.executable} lacks; `pip install 'corewarding[lora]'`"
    )
    assert problems() == []


def test_an_engine_that_is_installed_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(tmp_path, "vllm")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert problems(engine={"kind": "vllm", "python": sys.executable}) == []


def test_an_actors_interpreter_needs_our_packages_and_the_same_ray(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node, "version", lambda _: "2.0.0")
    package(tmp_path, "vllm")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (said,) = problems(engine={"kind": "vllm", "python": sys.executable})
    assert "the run " in said
    assert "2.0.0: Ray needs the same in all processes" in said
    bare = Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    if bare.exists() and bare.resolve() != Path(sys.executable).absolute():
        (said,) = problems(engine={"kind": "vllm", "python": str(bare)})
        assert "msgpack" in said


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        known = self.headers.get("Authorization") == "Bearer right"
        self.send_response(503 if known else 401)  # a paused server is not healthy, and runs
        self.end_headers()

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_address[1]}"
        serving.shutdown()


def test_a_server_must_answer_and_take_the_key(server: str) -> None:
    one = {"rule": "majority_vote"}
    assert problems(engine={"kind": "sglang", "url": server, "api_key": "right"}, **one) == []
    (said,) = problems(engine={"kind": "sglang", "url": server, "api_key": "wrong"}, **one)
    assert f"engine.url {server} refuses engine.api_key (401)" in said
    (said,) = problems(engine={"kind": "sglang", "url": "http://127.0.0.1:9"}, **one)
    assert said.startswith("engine.url http://127.0.0.1:9: no server answers there (")


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
def test_gpus_need_a_torch_that_can_use_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    (said,) = problems(learner={"gpus_per_rank": 1}, rollout={"gpus_per_actor": 1})
    assert said.startswith("learner.gpus_per_rank 1 and rollout.gpus_per_actor 1: torch")
    assert "is built without CUDA" in said
    (said,) = problems(learner={"device": "cuda"})
    assert said.startswith("learner.device cuda: torch")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (said,) = problems(learner={"gpus_per_rank": 1})
    assert "sees no GPU" in said


def test_a_gpu_engine_in_another_interpreter_is_asked_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(tmp_path, "vllm", "torch")
    version = tmp_path / "torch" / "version.py"
    version.write_text("cuda = None\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    keys = {"engine": {"kind": "vllm", "python": sys.executable}, "rollout": {"gpus_per_actor": 1}, "rule": "random"}
    (said,) = problems(**keys)
    assert f"the torch of engine.python {sys.executable} is built without CUDA" in said
    version.write_text("cuda = '13.0'\n")
    assert problems(**keys) == []


def test_cores_that_the_machine_lacks_are_named() -> None:
    absent = max(os.sched_getaffinity(0)) + 1
    said = problems(learner={"cores": [absent]}, engine={"cores": [absent]})
    assert [one.partition(" names")[0] for one in said] == ["learner.cores", "engine.cores"]
    assert f"[{absent}]" in said[0]


def test_a_model_folder_must_be_there(tmp_path: Path) -> None:
    (said,) = problems(model={"path": str(tmp_path / "model")})
    assert "every node needs it" in said


def test_every_node_must_hold_the_model_of_the_driver(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "here")
    there = check_weights(write_model(tmp_path / "there", seed=1))
    assert problems(check_weights(folder), model={"path": folder}) == []
    (said,) = problems(there, model={"path": folder})
    assert said.startswith(f"model.path {folder} holds another model here than where the run was started (")
    assert "copy the folder to every node" in said
    (tmp_path / "here" / "model.safetensors").write_bytes(b"")
    (said,) = problems(there, model={"path": folder})
    assert "model.safetensors was cut or damaged" in said


def test_the_room_for_staged_weights_counts_all_engines_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(tmp_path, "vllm")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    keys = {"engine": {"kind": "vllm", "python": sys.executable, "tensor_parallel": 2}, "rollout": {"policy_actors": 3}}
    shipped = check_weights(PACKAGE / "models" / "arithmetic-base")
    assert problems(shipped, **keys) == []
    *_, said = problems(dataclasses.replace(shipped, num_parameters=2**58), **keys)
    assert "for 4 engines" in said
    assert "engine.tensor_parallel above 1 stages new weights in /dev/shm" in said
