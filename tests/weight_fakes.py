"""For tests of actors and weights: a small tokenizer, a script to replay, a learner in this process."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
import torch

from corewarding.actors.engine import RolloutEngine
from corewarding.dataflow.carriers import RolloutTask
from corewarding.dataflow.ids import Channel, Source, Version
from corewarding.dataflow.weights import Rendezvous, WeightManifest
from corewarding.weights.sender import WeightSender
from corewarding.weights.stream import Shard
from tests.fakes import fake_task

QUESTION = "What is 2 + 3?"
COMPLETIONS = ["It is \\boxed{5}", "Perhaps \\boxed{6}?", "5"]


def write_model_folder(folder: Path) -> str:
    """A byte-level tokenizer, saved where from_pretrained finds it; token 0 ends a sequence."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<end>": 0, **{letter: i for i, letter in enumerate(alphabet, start=1)}}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")
    fast.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    fast.save_pretrained(folder)
    return str(folder)


def write_script(path: Path) -> str:
    path.write_text(json.dumps({"question": QUESTION, "completions": COMPLETIONS}) + "\n", encoding="utf-8")
    return str(path)


def byte_ids(text: str) -> np.ndarray:
    """[P] the tokens of `text` by the tokenizer of write_model_folder."""
    from tokenizers import pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    ((pieces, _),) = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
    return np.array([alphabet.index(letter) + 1 for letter in pieces], np.int32)


def make_task(
    question_id: str = "q",
    *,
    group_size: int = 2,
    max_new_tokens: int = 64,
    source: Source = "policy",
    text: str = QUESTION,
) -> RolloutTask:
    prompt = byte_ids(f"User: {text}\n")
    return fake_task(question_id, prompt, group_size=group_size, max_new_tokens=max_new_tokens, source=source)


class LocalLearner:
    """A ChannelLearner of one rank in this process; its weights are all equal to its number of updates."""

    def __init__(self, *, elements: int = 1000, bucket_bytes: int = 1024, device: str = "cpu") -> None:
        self.updates = self.group_epoch = 0
        self.device = torch.device(device)
        self.sender = WeightSender(0, 1, self.device, bucket_bytes=bucket_bytes, wire_dtype=torch.float32)
        self.elements = elements
        self.announced: dict[Channel, WeightManifest] = {}

    def shards(self) -> list[Shard]:
        local = torch.full((self.elements,), float(self.updates))
        return [Shard(name="w", shape=(self.elements,), start=0, local=local)]

    async def serve_channel(
        self, channel: Channel, group_epoch: int, num_receivers: int, backend: str, timeout_s: float
    ) -> Rendezvous:
        return await asyncio.to_thread(self.sender.serve, channel, group_epoch, num_receivers, backend, timeout_s)

    async def connect_channel(self, rendezvous: Rendezvous) -> None:
        await asyncio.to_thread(self.sender.connect, rendezvous)

    async def announce(
        self, channel: Channel, group_epoch: int, with_checksums: bool, weights: Channel
    ) -> WeightManifest:
        version = Version(incarnation=0, updates=self.updates)
        manifest = self.sender.manifest(channel, version, self.shards(), with_checksums=with_checksums)
        assert manifest.group_epoch == group_epoch
        self.announced[channel] = manifest
        return manifest

    async def send(self, channel: Channel) -> None:
        await asyncio.to_thread(self.sender.send, channel, self.announced[channel], self.shards())

    async def close_channel(self, channel: Channel) -> None:
        await asyncio.to_thread(self.sender.close, channel)

    async def meet(self, *engines: RolloutEngine, backend: str = "gloo", timeout_s: float = 30.0) -> None:
        """Builds a new weight group with the engines."""
        self.group_epoch += 1
        rendezvous = await self.serve_channel("policy", self.group_epoch, len(engines), backend, timeout_s)
        joins = [engine.join(rendezvous, rank) for rank, engine in enumerate(engines, start=1)]
        await asyncio.gather(self.connect_channel(rendezvous), *joins)

    async def transfer(self, *engines: RolloutEngine) -> None:
        """Gives the present weights to the group's engines: begin, receive and commit."""
        manifest = await self.announce("policy", self.group_epoch, True, "policy")
        for engine in engines:
            await engine.begin(manifest)
        await asyncio.gather(self.send("policy"), *(engine.receive() for engine in engines))
        await asyncio.gather(*(engine.commit(manifest.version) for engine in engines))

    def close(self) -> None:
        self.sender.close("policy")
