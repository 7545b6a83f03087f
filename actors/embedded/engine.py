"""The embedded RolloutEngine: admits, decodes and swaps, one step at a time, in a thread of its own (actors/stepped.py).

At a swap `inflight.mode` decides about running sequences: `recompute` rebuilds their KV cache under the new weights before the next
token, `keep_kv` keeps the old cache, `drain` first steps until none runs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from corewarding.actors.embedded.model import Decoder
from corewarding.actors.embedded.sampling import sample, uniforms
from corewarding.actors.embedded.slots import Slots
from corewarding.actors.engine import EngineContext
from corewarding.actors.stepped import Request, SteppedEngine
from corewarding.dataflow.ids import Version
from corewarding.dataflow.spans import now_s
from corewarding.weights.receiver import WeightReceiver


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
        self._eos = np.array(sorted(context.eos_token_ids), np.int64)
        super().__init__("embedded", context, WeightReceiver(self._decoder.parameters(), self._device))
        self._start()

    def _run(self) -> None:
        with torch.inference_mode():
            super()._run()

    def step(self) -> None:
        self._admit()
        self._decode()

    def num_running(self) -> int:
        return self._slots.count

    def drop(self, request: Request) -> None:
        for row in reversed(range(self._slots.count)):
            owner = self._slots.owner[row]
            if owner is not None and owner.request is request:
                self._free(row)

    def _admit(self) -> None:
        """Fills free slots. Sequences of one group that start together share one prefill of their prompt."""
        while self._waiting and self._slots.num_free:
            first = self._slots.count
            prompts: list[np.ndarray] = []
            sources: list[int] = []
            longest, before = 0, None
            while self._waiting and self._slots.num_free:
                pending = self._waiting[0]
                if pending.request is not before:
                    length = max(longest, len(pending.task.prompt_token_ids))
                    if prompts and length * (len(prompts) + 1) > self._prefill_tokens:
                        break
                    prompts.append(pending.task.prompt_token_ids)
                    longest, before = length, pending.request
                self._waiting.popleft()
                pending.started_s = now_s()
                self._slots.take(pending)
                sources.append(len(prompts) - 1)
            hidden = self._decoder.prefill(prompts, np.arange(first, self._slots.count), np.array(sources))
            self._prefilled += sum(map(len, prompts))
            self._emit(self._decoder.logits(hidden)[sources], slice(first, self._slots.count))

    def _decode(self) -> None:
        """Samples one token for every running sequence."""
        slots, n = self._slots, self._slots.count
        if n == 0:
            return
        logits = self._decoder.step(slots.last_tokens(), slots.length[:n])
        slots.length[:n] += 1
        self._steps += 1
        self._emit(logits, slice(0, n))

    def _emit(self, logits: Tensor, rows: slice) -> None:
        """Samples a token for each of `rows` from logits [rows, V], records it and delivers finished sequences."""
        slots = self._slots
        draws = torch.from_numpy(uniforms(slots.key[rows], slots.num_new[rows])).to(self._device)
        temperatures = torch.from_numpy(slots.temperature[rows].copy()).to(self._device)
        chosen, logprobs = sample(logits, temperatures, draws)
        tokens = chosen.cpu().numpy()
        slots.record(rows, tokens, logprobs.cpu().numpy(), self._version.updates)
        self._tokens += len(tokens)
        stopped = np.isin(tokens, self._eos)
        ended = np.flatnonzero(stopped | (slots.num_new[rows] >= slots.max_new[rows]))
        for offset in reversed(ended.tolist()):
            self._finish(rows.start + offset, stopped=bool(stopped[offset]))

    def _finish(self, row: int, *, stopped: bool) -> None:
        owner = self._slots.owner[row]
        assert owner is not None
        sequence = self._slots.sequence(row, "stop" if stopped else "length", now_s())
        self._free(row)
        self._deliver(owner, sequence)

    def _free(self, row: int) -> None:
        moved = self._slots.release(row)
        if moved != row:
            self._decoder.move(moved, row, int(self._slots.length[row]))

    def swap(self, weights: Mapping[str, Tensor], version: Version) -> None:
        if self._inflight == "drain":
            self._drain(version, self._decode)
        began = time.perf_counter()
        self._decoder.load(weights)
        if self._inflight == "recompute":
            self._rebuild()
        self._version = version
        self._swap_s += time.perf_counter() - began

    def _rebuild(self) -> None:
        """Recomputes every running sequence's cache under the new weights, longest first."""
        order = sorted(range(self._slots.count), key=lambda row: int(self._slots.length[row]))
        while order:
            longest = int(self._slots.length[order[-1]])
            rows = [order.pop() for _ in range(min(len(order), max(1, self._prefill_tokens // longest)))]
            prefixes = [self._slots.cached_tokens(row) for row in rows]
            self._decoder.prefill(prefixes, np.array(rows), np.arange(len(rows)))
            self._prefilled += sum(map(len, prefixes))
