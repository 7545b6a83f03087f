"""The receiving end of a weight transfer: stages new weights beside the ones in use and hands over all of them or none."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from corewarding.dataflow.ids import Version
from corewarding.dataflow.weights import Rendezvous, WeightManifest
from corewarding.weights.group import TransportError, WeightGroup
from corewarding.weights.stream import DTYPES, Buckets, dtype_name, receive


class WeightReceiver:
    """One engine's receiving end. Calls go join → begin → receive → take; abort at any point."""

    def __init__(self, parameters: Mapping[str, Tensor] | None, device: torch.device, *, on_host: bool = False) -> None:
        """parameters: the model's, by name, on any device (also meta). None: there is no model, and any manifest fits.

        Buckets arrive on `device`. The weights are staged there or, with on_host, in host memory.
        """
        self._parameters, self._device = parameters, device
        self._staging = torch.device("cpu") if on_host else device
        self._pinned = on_host and device.type == "cuda"
        self._group: WeightGroup | None = None
        self._buckets = Buckets(device)
        self._manifest: WeightManifest | None = None
        self._staged: dict[str, Tensor] = {}
        self._received = False

    def join(self, rendezvous: Rendezvous, rank: int) -> None:
        """Leaves any earlier group and blocks until all members have joined. TransportError if they do not."""
        self.abort()
        try:
            self._group = WeightGroup(rendezvous, rank=rank, device=self._device)
        except TransportError as error:
            raise TransportError(f"cannot join the {rendezvous.channel} weight group: {error}") from error

    def begin(self, manifest: WeightManifest) -> None:
        """Opens an update. TransportError, and nothing changes, unless the manifest names exactly this model's tensors."""
        if self._manifest is not None:
            raise TransportError(f"update {manifest.version} cannot begin: update {self._manifest.version} is open")
        if self._parameters is not None:
            _check_fit(manifest, self._parameters)
        if self._group is None or self._group.rendezvous.group_epoch != manifest.group_epoch:
            raise TransportError(f"not a member of {manifest.channel} weight group {manifest.group_epoch}")
        if not self._staged and self._parameters is not None:
            self._staged = {name: self._empty(p.shape, p.dtype) for name, p in self._parameters.items()}
        self._manifest, self._received = manifest, False

    def receive(self) -> None:
        """Blocks until the announced stream is staged. TransportError if it breaks off or a checksum differs."""
        if self._manifest is None or self._group is None:
            raise TransportError("no update is open")
        try:
            if self._parameters is None:
                self._staged = {s.name: self._empty(s.shape, DTYPES[s.dtype]) for s in self._manifest.tensors}
            receive(self._group, self._manifest, self._staged, self._buckets)
        except TransportError as error:
            self.abort()
            raise TransportError(f"weights did not arrive: {error}") from error
        self._received = True

    def take(self, version: Version) -> Mapping[str, Tensor]:
        """The staged weights of `version`, and closes the update. TransportError if they were not received."""
        if self._manifest is None:
            raise TransportError(f"{version} cannot be committed: no update is open")
        if not self._received or self._manifest.version != version:
            raise TransportError(
                f"{version} cannot be committed: update {self._manifest.version} is open, received: {self._received}"
            )
        self._manifest, staged = None, self._staged
        if self._parameters is None:
            self._staged = {}
        return staged

    def abort(self) -> None:
        """Drops an open update and leaves the group."""
        self._manifest, self._received = None, False
        if self._group is not None:
            self._group.close()
            self._group = None

    def _empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=self._staging, pin_memory=self._pinned)


def _check_fit(manifest: WeightManifest, parameters: Mapping[str, Tensor]) -> None:
    announced = {spec.name: (spec.shape, spec.dtype) for spec in manifest.tensors}
    expected = {name: (tuple(p.shape), dtype_name(p.dtype)) for name, p in parameters.items()}
    if announced != expected:
        wrong = sorted(name for name in announced.keys() | expected.keys() if announced.get(name) != expected.get(name))
        first = wrong[0]
        raise TransportError(
            f"manifest of {manifest.version} does not fit this model in {len(wrong)} tensors; {first}: announced "
            f"{announced.get(first)}, expected {expected.get(first)}"
        )
