"""The decoder with its slot cache: prefills prefixes into slots and steps all running slots. Refuses other architectures by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

from corewarding.actors.embedded.cache import ATTENTION, SlotCache
from corewarding.actors.embedded.served import refuse_model
from corewarding.actors.engine import EngineSettingsError
from corewarding.weights.model_config import model_config
from corewarding.weights.model_loading import BaseWeights, allocate, empty_model
from corewarding.weights.names import parts_of, stored_views

MASK = 2**24
"""Elements of the largest attention mask (64 MiB, where it is added in float32)."""


def load_decoder(model_path: str | Path, *, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """The model in eval mode, read into its place tensor by tensor.

    EngineSettingsError for an architecture that this engine does not serve; ModelFilesError for a damaged folder.
    """
    refuse_model(model_config(model_path), folder=str(model_path))
    model: PreTrainedModel = empty_model(model_path, dtype=dtype, attention=ATTENTION, device=device)
    weights = BaseWeights(model_path, model)
    allocate(model, device)
    for name, parameter in model.named_parameters():
        for _ in weights.read(name, parameter.detach().view(-1)):
            pass
    return model.eval()


class Decoder:
    """Weights and KV cache. n is the number of running rows, H the hidden size, V the size of the vocabulary.

    fixed_shape: a step always computes all slots over the whole cache, so a row's bits depend only on its own tokens and the
    weights. EngineSettingsError if this machine's kernels compute equal rows of a batch differently.
    """

    def __init__(
        self,
        model_path: str | Path,
        *,
        slots: int,
        max_len: int,
        dtype: torch.dtype,
        device: torch.device,
        fixed_shape: bool = False,
    ) -> None:
        self._device, self._num_slots, self._fixed_shape = device, slots, fixed_shape
        self._model: Any = load_decoder(model_path, dtype=dtype, device=device)
        self._weights = stored_views(parts_of(self._model), dict(self._model.named_parameters()))
        self._cache = SlotCache(self._model.config, slots=slots, max_len=max_len, dtype=dtype, device=device)
        if fixed_shape:
            self._check_rows()

    def parameters(self) -> dict[str, Tensor]:
        """The weights by the checkpoint's names, as views of the parameters; tied ones once."""
        return self._weights

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Copies new values in; the cache is unchanged."""
        for name, own in self._weights.items():
            own.copy_(weights[name])

    def prefill(
        self, prefixes: Sequence[NDArray[np.int32]], rows: NDArray[np.int64], sources: NDArray[np.int64]
    ) -> Tensor:
        """Runs the prefixes once, right-padded; slot rows[i] gets the cache of prefix sources[i].

        Returns [len(prefixes), H], the hidden state at each prefix's last token.
        """
        lengths = [len(prefix) for prefix in prefixes]
        padded = np.zeros((len(prefixes), max(lengths)), np.int64)
        for index, prefix in enumerate(prefixes):
            padded[index, : len(prefix)] = prefix
        cache = DynamicCache(config=self._model.config)
        positions = torch.arange(padded.shape[1], device=self._device)[None].expand(len(prefixes), -1)
        output = self._model.model(
            input_ids=torch.from_numpy(padded).to(self._device),
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        )
        chosen = torch.from_numpy(sources).to(self._device)
        self._cache.fill(torch.from_numpy(rows).to(self._device), cache, chosen)
        ends = torch.tensor(lengths, device=self._device) - 1
        hidden: Tensor = output.last_hidden_state[torch.arange(len(prefixes), device=self._device), ends]
        return hidden

    def step(self, tokens: NDArray[np.int64], lengths: NDArray[np.int64]) -> Tensor:
        """Runs each row's newest token, which enters the cache at the row's length; logits [n, V] of the next token."""
        n, longest = len(tokens), int(lengths.max())
        if self._fixed_shape:  # free rows are computed too; a later prefill overwrites what they write
            tokens, lengths = np.pad(tokens, (0, self._num_slots - n)), np.pad(lengths, (0, self._num_slots - n))
            longest = self._cache.max_len - 1
        positions = torch.from_numpy(lengths.copy()).to(self._device)[:, None]
        hidden = self._over_cache(tokens[:, None], positions, self._cache.aim(positions, longest))
        return self.logits(hidden[:, 0])[:n]

    def extend(
        self, rows: NDArray[np.int64], lengths: NDArray[np.int64], suffixes: Sequence[NDArray[np.int32]]
    ) -> None:
        """Appends suffixes[i] to the cache of rows[i], which holds lengths[i] tokens before it. What is behind it there is lost."""
        longest = max(map(len, suffixes))
        padded = np.zeros((len(suffixes), longest), np.int64)
        for index, suffix in enumerate(suffixes):
            padded[index, : len(suffix)] = suffix
        last = self._cache.max_len - 1  # where padding that would not fit goes: no row's own token is ever cached there
        visible = self._cache.columns(min(int(lengths.max()) + longest - 1, last))
        width = max(1, MASK // (len(rows) * visible))
        where = torch.from_numpy(rows).to(self._device)
        for start in range(0, longest, width):
            tokens = padded[:, start : start + width]
            positions = np.minimum(lengths[:, None] + np.arange(start, start + tokens.shape[1]), last)
            columns = torch.from_numpy(positions).to(self._device)
            self._over_cache(tokens, columns, self._cache.aim(columns, int(positions.max()), where))

    def _over_cache(self, tokens: NDArray[np.int64], positions: Tensor, mask: Tensor) -> Tensor:
        """[n, queries, H] hidden states of tokens [n, queries], which enter the cache where it was aimed at."""
        output = self._model.model(
            input_ids=torch.from_numpy(tokens).to(self._device),
            position_ids=positions,
            attention_mask=mask,
            past_key_values=self._cache,
            use_cache=True,
        )
        hidden: Tensor = output.last_hidden_state
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """[n, H] to [n, V]."""
        values: Tensor = self._model.lm_head(hidden)
        return values

    def copy(self, sources: Sequence[int], targets: Sequence[int], length: int) -> None:
        """Copies the first `length` tokens of each source row's cache to the target row in its place. No row may be in both."""
        self._cache.copy(torch.tensor(sources, device=self._device), torch.tensor(targets, device=self._device), length)

    @torch.inference_mode()
    def _check_rows(self) -> None:
        """EngineSettingsError unless equal rows of a step come out equal to the last bit."""
        token, length = np.ones(self._num_slots, np.int64), np.zeros(self._num_slots, np.int64)
        logits = self.step(token, length)
        differ = (logits != logits[0]).any(-1).nonzero().flatten().tolist()
        if differ:
            raise EngineSettingsError(
                f"engine.deterministic: with engine.slots {self._num_slots} equal rows {differ[:8]} of a step differ from row 0 in "
                "their last bits on this machine; set engine.slots to a multiple of 16"
            )
