"""A backend of vLLM's weight-transfer API that loads weights which have arrived already.

The rollout actor has received, checked and staged the weights under Hugging Face names while the engine went on sampling; the update
only loads them. One worker finds the staged tensors in its own process; several workers map them from shared memory, and each loads
its part. vLLM's own loader loads layer by layer, so packed, fused and quantized weights are built again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from vllm.distributed.weight_transfer.base import WeightTransferEngine, WeightTransferInitInfo, WeightTransferUpdateInfo
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

from corewarding.weights.stream import DTYPES

BACKEND = "staged"
STAGED: dict[str, Mapping[str, Tensor]] = {}  # by handle, for the engines in this process


@dataclass
class StagedInitInfo(WeightTransferInitInfo):
    """Nothing to set up."""


@dataclass
class StagedUpdateInfo(WeightTransferUpdateInfo):
    """Where the staged tensors are: in STAGED of this process or, with a layout, in shared memory, whose path the handle is."""

    handle: str
    layout: list[tuple[str, str, list[int]]] | None = None  # name, dtype, shape


class StagedTransferEngine(WeightTransferEngine[StagedInitInfo, StagedUpdateInfo]):
    """Loads the staged weights."""

    init_info_cls = StagedInitInfo
    update_info_cls = StagedUpdateInfo

    def init_transfer_engine(self, init_info: StagedInitInfo) -> None: ...

    def start_weight_update(self) -> None:
        from vllm.model_executor.model_loader.reload import initialize_layerwise_reload

        initialize_layerwise_reload(self.model)

    def update_weights(self, update_info: dict[str, object]) -> None:
        self.receive_weights(self.parse_update_info(update_info))
        if self.device.type != "cpu":
            torch.accelerator.synchronize()

    def receive_weights(self, update_info: StagedUpdateInfo) -> None:
        if update_info.layout is None:
            self.model.load_weights(STAGED[update_info.handle].items())
            return
        mapped = np.memmap(update_info.handle, np.uint8, mode="r+")
        self.model.load_weights(laid_out(torch.from_numpy(mapped), update_info.layout).items())

    def finish_weight_update(self) -> None:
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

        finalize_layerwise_reload(self.model, self.model_config)
        if self.device.type == "cpu":
            _repack_output_layer(self.model)

    def shutdown(self) -> None: ...


class Extension:
    """vLLM's worker extension; naming it makes worker processes import this module, which registers the backend."""


def share(weights: Mapping[str, Tensor], handle: str) -> list[tuple[str, str, list[int]]]:
    """Copies the tensors in order into the file at the path `handle`; returns their layout."""
    layout = [(name, str(t.dtype).removeprefix("torch."), list(t.shape)) for name, t in weights.items()]
    mapped = np.memmap(handle, np.uint8, mode="r+", shape=(sum(t.nbytes for t in weights.values()),))
    for name, target in laid_out(torch.from_numpy(mapped), layout).items():
        target.copy_(weights[name])
    return layout


def laid_out(memory: Tensor, layout: Iterable[tuple[str, str, list[int]]]) -> dict[str, Tensor]:
    """The tensors of `layout` as views of flat `memory`, [bytes] uint8."""
    tensors, offset = {}, 0
    for name, dtype, shape in layout:
        num_bytes = math.prod(shape) * DTYPES[dtype].itemsize
        tensors[name] = memory[offset : offset + num_bytes].view(DTYPES[dtype]).view(shape)
        offset += num_bytes
    return tensors


def _repack_output_layer(model: torch.nn.Module) -> None:
    """Packs the output layer again: on a CPU it uses a packed copy, which loading leaves unchanged if it is tied to the embedding."""
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

    head = getattr(model, "lm_head", None)
    if head is not None and getattr(head, "weight", None) is not None:
        dispatch_cpu_unquantized_gemm(head, remove_weight=False)


if BACKEND not in WeightTransferEngineFactory._registry:
    WeightTransferEngineFactory.register_engine(BACKEND, StagedTransferEngine)
