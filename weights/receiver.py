"""New weights on their way in: announced, staged beside the ones in use, and handed over whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from corewarding.dataflow.ids import Version
from corewarding.dataflow.weights import Rendezvous, WeightManifest
from corewarding.weights.group import TransportError, WeightGroup
from corewarding.weights.stream import dtype_name, receive


class WeightReceiver:
    """The receiving end of one engine. join → begin → receive → take, or abort at any point."""

    def __init__(self, parameters: Mapping[str, Tensor], device: torch.device, *, on_host: bool = False) -> None:
        """parameters: of the model by name, on any device (meta will do). Buckets arrive on `device` and are staged there or, where
        the engine's memory is not ours to share, on the host."""
        self._parameters, self._device = parameters, device
        self._staging = torch.device("cpu") if on_host else device
        self._pinned = on_host and device.type == "cuda"
        self._group: WeightGroup | None = None
        self._manifest: WeightManifest | None = None
        self._staged: dict[str, Tensor] = {}
        self._received = False

    def join(self, rendezvous: Rendezvous, rank: int) -> None:
        """Blocks until all members have joined. TransportError where they do not."""
        self.abort()
        try:
            self._group = WeightGroup(rendezvous, rank=rank, device=self._device)
        except TransportError as error:
            raise TransportError(f"cannot join the {rendezvous.channel} weight group: {error}") from error

    def begin(self, manifest: WeightManifest) -> None:
        """TransportError, and nothing changes, unless the manifest names exactly this model's tensors."""
        if self._manifest is not None:
            raise TransportError(f"update {manifest.version} begun while {self._manifest.version} is open")
        announced = {spec.name: (spec.shape, spec.dtype) for spec in manifest.tensors}
        expected = {name: (tuple(p.shape), dtype_name(p.dtype)) for name, p in self._parameters.items()}
        if announced != expected:
            wrong = sorted(
                name for name in announced.keys() | expected.keys() if announced.get(name) != expected.get(name)
            )
            first = wrong[0]
            raise TransportError(
                f"manifest of {manifest.version} does not fit this model in {len(wrong)} tensors; {first}: announced "
                f"{announced.get(first)}, expected {expected.get(first)}"
            )
        if not self._staged:
            self._staged = {
                name: torch.empty(p.shape, dtype=p.dtype, device=self._staging, pin_memory=self._pinned)
                for name, p in self._parameters.items()
            }
        self._manifest, self._received = manifest, False

    def receive(self) -> None:
        """Blocks until the announced stream is staged. TransportError where it breaks off or a checksum differs."""
        if self._manifest is None or self._group is None:
            raise TransportError("receive() without an open update in a joined group")
        try:
            receive(self._group, self._manifest, self._staged)
        except TransportError as error:
            self.abort()
            raise TransportError(f"weights did not arrive: {error}") from error
        self._received = True

    def take(self, version: Version) -> Mapping[str, Tensor]:
        """The staged weights of `version`; the update is closed."""
        if self._manifest is None or not self._received or self._manifest.version != version:
            raise TransportError(f"commit of {version} without its weights")
        self._manifest = None
        return self._staged

    def abort(self) -> None:
        """Drops an open update and leaves the group."""
        self._manifest, self._received = None, False
        if self._group is not None:
            self._group.close()
            self._group = None


def parameters_of(model_path: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """The model's parameters by their Hugging Face names, on the meta device; tied ones once, as a learner sends them."""
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model_path), dtype=dtype)
    return dict(model.named_parameters())
