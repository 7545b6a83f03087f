"""Rollout actors and a learner without weights or a model, for the control plane's benchmark."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ray
from tokenizers import Tokenizer

from corewarding.actors.engine import EngineContext
from corewarding.actors.rollout_actor import RolloutActor, accept_of
from corewarding.actors.scripted.engine import ScriptedEngine
from corewarding.actors.settings import EngineSettings
from corewarding.dataflow.carriers import StepResult, TrainBatch
from corewarding.dataflow.codec import decode
from corewarding.dataflow.ids import Channel, Source, Version
from corewarding.dataflow.metrics import Metrics
from corewarding.dataflow.weights import Rendezvous, WeightManifest
from corewarding.rewards.answers.extract import extract_answer

MODEL = "models/arithmetic-base"
EOS = 0


class WeightlessEngine(ScriptedEngine):
    """Follows every update of the weights and receives no bytes."""

    async def join(self, rendezvous: Rendezvous, rank: int) -> None: ...

    async def begin(self, manifest: WeightManifest) -> None: ...

    async def receive(self) -> None: ...

    async def commit(self, version: Version) -> None:
        await self.load_weights({}, version)


class ReplayingActor(RolloutActor):
    """A rollout actor around a weightless engine."""

    def __init__(
        self, *, actor_id: str, source: Source, settings: EngineSettings, max_model_len: int, buffer: Any
    ) -> None:
        tokenizer = Tokenizer.from_file(f"{MODEL}/tokenizer.json")
        engine = WeightlessEngine(
            EngineContext(settings=settings, model_path=MODEL, max_model_len=max_model_len, eos_token_ids=(EOS,))
        )
        super().__init__(
            actor_id=actor_id,
            source=source,
            engine=engine,
            decode=lambda ids: str(tokenizer.decode(list(ids), skip_special_tokens=True)),
            extract=extract_answer,
            buffer_accept=accept_of(buffer),
        )


class EngineHost:
    """Several rollout actors in one Ray process."""

    def __init__(self, actors: list[dict[str, Any]], buffer: Any) -> None:
        self._actors = {one["actor_id"]: ReplayingActor(buffer=buffer, **one) for one in actors}

    async def call(self, actor_id: str, method: str, *args: Any) -> Any:
        return await getattr(self._actors[actor_id], method)(*args)


class Tenant:
    """An actor handle for one rollout actor of an EngineHost."""

    def __init__(self, host: Any, actor_id: str) -> None:
        self._host, self._actor_id = host, actor_id

    def __getattr__(self, method: str) -> Any:
        return SimpleNamespace(remote=lambda *args: self._host.call.remote(self._actor_id, method, *args))


@ray.remote(num_cpus=0)
class Taker:
    """The learner's process: decodes a batch."""

    def update(self, batch: bytes) -> tuple[int, int]:
        taken: TrainBatch = decode(batch)
        return taken.update, len(taken.samples)


class IdleLearner:
    """A learner group for controller and publishers, without a model."""

    incarnation = 0
    starting = False

    def __init__(self) -> None:
        self._taker = Taker.remote()
        self._version = Version(incarnation=0, updates=0)

    async def version(self, channel: Channel = "policy") -> Version:
        return self._version

    async def update(self, batch: Any) -> StepResult:
        began = time.time()
        update, num = await self._taker.update.remote(batch)
        self._version = Version(incarnation=0, updates=update)
        metrics = Metrics(scalars={"train/num_samples": float(num)})
        return StepResult(version=self._version, metrics=metrics, wall_s=time.time() - began)

    async def token_statistics(self, samples: Any) -> bytes:
        raise AssertionError("the rule needs no statistics")

    async def serve_channel(
        self, channel: Channel, group_epoch: int, num_receivers: int, backend: str, timeout_s: float
    ) -> Rendezvous:
        return Rendezvous(
            channel=channel, group_epoch=group_epoch, host="127.0.0.1", port=1, world_size=num_receivers + 1, backend=backend,
            timeout_s=timeout_s, key=bytes(32),
        )  # fmt: skip

    async def connect_channel(self, rendezvous: Rendezvous) -> None: ...

    async def announce(
        self, channel: Channel, group_epoch: int, with_checksums: bool, weights: Channel
    ) -> WeightManifest:
        return WeightManifest(
            channel=channel, version=self._version, group_epoch=group_epoch, bucket_bytes=16, tensors=()
        )

    async def send(self, channel: Channel) -> None: ...

    async def close_channel(self, channel: Channel) -> None: ...

    async def stage(self) -> None:
        """Nothing to copy."""

    async def write(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "learner.json").write_text("{}")

    async def export(self, written: Path, folder: Path, which: str) -> None:
        folder.mkdir()
