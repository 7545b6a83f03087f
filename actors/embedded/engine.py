"""The embedded RolloutEngine: admits, decodes and swaps, one step at a time, in a thread of its own (actors/stepped.py).

At a swap `inflight.mode` decides about running sequences: `recompute` rebuilds their KV cache under the new weights before the next
token, `keep_kv` keeps the old cache, `drain` first steps until none runs.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from corewarding.actors.embedded.model import Decoder
from corewarding.actors.embedded.sampling import sample, uniforms
from corewarding.actors.embedded.slots import Slots
from corewarding.actors.engine import EngineContext
from corewarding.actors.stepped import Pending, Request, SteppedEngine
from corewarding.dataflow.ids import Version
from corewarding.dataflow.spans import now_s
from corewarding.weights.receiver import WeightReceiver

T = TypeVar("T")
PATIENCE = 4  # steps that a sequence with a free slot waits for others to start with


class EmbeddedEngine(SteppedEngine):
    """See actors.engine.RolloutEngine for what each method promises."""

    def __init__(self, context: EngineContext) -> None:
        settings = context.settings
        torch.set_num_threads(settings.threads)
        self._device = torch.device(context.device)
        self._prefill_tokens = 1 if settings.deterministic else settings.prefill_tokens  # 1: each prompt alone
        self._decoder = Decoder(
            context.model_path,
            slots=settings.slots,
            max_len=context.max_model_len,
            dtype=getattr(torch, settings.dtype),
            device=self._device,
            fixed_shape=settings.deterministic,
        )
        self._slots = Slots(settings.slots, context.max_model_len)
        self._ends: dict[
            bytes, Tensor
        ] = {}  # of running prompts under these weights: [H], the hidden state at the last token
        self._held_back = 0  # steps
        self._eos = np.array(sorted(context.eos_token_ids), np.int64)
        super().__init__("embedded", context, WeightReceiver(self._decoder.parameters(), self._device))
        self._start()

    def _run(self) -> None:
        with torch.inference_mode():
            super()._run()

    def step(self) -> None:
        if self._may_admit():
            self._admit()
        self._decode()

    def num_running(self) -> int:
        return self._slots.num_running

    def drop(self, request: Request) -> None:
        for row in [row for row, owner in self._slots.running() if owner.request is request]:
            self._slots.release(row)

    def _admit(self) -> None:
        """Fills free slots. Sequences with the same prompt share one prefill of it, also while an earlier one of them still runs."""
        while self._waiting and self._slots.num_free:
            running = {_prompt(owner): row for row, owner in self._slots.running() if self._slots.fresh[row]}
            self._ends = {prompt: end for prompt, end in self._ends.items() if prompt in running}
            prompts: dict[bytes, NDArray[np.int32]] = {}
            rows: list[int] = []
            sources: list[bytes] = []
            longest = 0
            while self._waiting and self._slots.num_free:
                pending = self._waiting[0]
                prompt = _prompt(pending)
                if prompt not in prompts:
                    longest = max(longest, len(pending.task.prompt_token_ids))
                    if prompts and longest * (len(prompts) + 1) > self._prefill_tokens:
                        break
                    prompts[prompt] = pending.task.prompt_token_ids
                self._waiting.popleft()
                pending.started_s = now_s()
                rows.append(self._slots.take(pending))
                sources.append(prompt)
            self._place(prompts, rows, sources, running)
            places = {prompt: place for place, prompt in enumerate(prompts)}
            logits = self._decoder.logits(torch.stack([self._ends[prompt] for prompt in prompts]))
            self._emit(logits[[places[prompt] for prompt in sources]], np.array(rows))

    def _place(
        self,
        prompts: Mapping[bytes, NDArray[np.int32]],
        rows: Sequence[int],
        sources: Sequence[bytes],
        running: Mapping[bytes, int],
    ) -> None:
        """Fills the cache of `rows` with their prompts: copies those whose end is known from a running row, prefills the others."""
        new = [prompt for prompt in prompts if prompt not in self._ends]
        known = {row: running[prompt] for row, prompt in zip(rows, sources, strict=True) if prompt in self._ends}
        if known:
            longest = max(len(tokens) for prompt, tokens in prompts.items() if prompt in self._ends)
            self._decoder.copy(list(known.values()), list(known), longest)
        if new:
            places = {prompt: place for place, prompt in enumerate(new)}
            filled = [(row, places[prompt]) for row, prompt in zip(rows, sources, strict=True) if prompt in places]
            hidden = self._decoder.prefill([prompts[prompt] for prompt in new], *np.array(filled).T)
            self._prefilled += sum(len(prompts[prompt]) for prompt in new)
            self._ends.update(zip(new, hidden, strict=True))

    def _may_admit(self) -> bool:
        """A prefill costs about as much as a step, however short: sequences start together, once an eighth of the slots is free."""
        free = self._slots.num_free
        if not (self._waiting and free):
            return False
        self._held_back += 1
        enough = min(len(self._waiting), len(self._slots.owner) // 8)
        if free < enough and self.num_running() and self._held_back < PATIENCE:
            return False
        self._held_back = 0
        return True

    def _decode(self) -> None:
        """Samples one token for every running sequence."""
        slots = self._slots
        sources, targets = slots.close_holes()
        if sources:
            self._decoder.copy(sources, targets, int(slots.length[targets].max()))
        n = slots.count
        if n == 0:
            return
        logits = self._decoder.step(slots.last_tokens(), slots.length[:n])
        slots.length[:n] += 1
        self._steps += 1
        self._emit(logits, np.arange(n))

    def _emit(self, logits: Tensor, rows: NDArray[np.int64]) -> None:
        """Samples a token for each of `rows` from logits [len(rows), V], records it and delivers finished sequences."""
        slots = self._slots
        draws = torch.from_numpy(uniforms(slots.key[rows], slots.num_new[rows])).to(self._device)
        temperatures = torch.from_numpy(slots.temperature[rows]).to(self._device)
        chosen, logprobs = sample(logits, temperatures, draws)
        tokens = chosen.cpu().numpy()
        slots.record(rows, tokens, logprobs.cpu().numpy(), self._version.updates)
        self._tokens += len(tokens)
        stopped = np.isin(tokens, self._eos)
        for index in np.flatnonzero(stopped | (slots.num_new[rows] >= slots.max_new[rows])).tolist():
            self._finish(int(rows[index]), stopped=bool(stopped[index]))

    def _finish(self, row: int, *, stopped: bool) -> None:
        owner = self._slots.owner[row]
        assert owner is not None
        sequence = self._slots.sequence(row, "stop" if stopped else "length", now_s())
        self._slots.release(row)
        self._deliver(owner, sequence)

    def swap(self, weights: Mapping[str, Tensor], version: Version) -> None:
        if self._inflight == "drain":
            self._drain(version, self._decode)
        began = time.perf_counter()
        self._decoder.load(weights)
        self._ends.clear()
        self._slots.fresh[:] = False
        if self._inflight == "recompute":
            self._rebuild()
        self._version = version
        self._swap_s += time.perf_counter() - began

    def _rebuild(self) -> None:
        """Recomputes every running sequence's cache under the new weights: each prompt once, then what was sampled after it."""
        slots = self._slots
        readers: dict[bytes, list[int]] = defaultdict(list)  # rows by prompt
        prompts: dict[bytes, NDArray[np.int32]] = {}
        for row, owner in slots.running():
            readers[_prompt(owner)].append(row)
            prompts[_prompt(owner)] = owner.task.prompt_token_ids
        for batch in self._batches({prompt: len(tokens) for prompt, tokens in prompts.items()}):
            filled = [(row, place) for place, prompt in enumerate(batch) for row in readers[prompt]]
            hidden = self._decoder.prefill([prompts[prompt] for prompt in batch], *np.array(filled).T)
            self._prefilled += sum(len(prompts[prompt]) for prompt in batch)
            self._ends.update(zip(batch, hidden, strict=True))
        slots.fresh[[row for row, _ in slots.running()]] = True
        sampled = {row: len(tokens) for row, _ in slots.running() if len(tokens := slots.cached_sampled(row))}
        for rows in self._batches(sampled):
            suffixes = [slots.cached_sampled(row) for row in rows]
            lengths = np.array([slots.length[row] - len(tokens) for row, tokens in zip(rows, suffixes, strict=True)])
            self._decoder.extend(np.array(rows), lengths, suffixes)
            self._prefilled += sum(map(len, suffixes))

    def _batches(self, lengths: Mapping[T, int]) -> Iterator[list[T]]:
        """The keys, longest first, as many at one time as `prefill_tokens` allows, at least one."""
        order = sorted(lengths, key=lambda key: lengths[key])
        while order:
            most = max(1, self._prefill_tokens // lengths[order[-1]])
            yield [order.pop() for _ in range(min(len(order), most))]


def _prompt(pending: Pending) -> bytes:
    return pending.task.prompt_token_ids.tobytes()
