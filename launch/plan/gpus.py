"""GPUs: memory, and the peak numbers of their data sheets, in decimal units, dense (without sparsity)."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU."""

    memory: int  # bytes, as nvidia-smi reports the total
    bf16_flops: float  # per second, of its tensor cores
    bandwidth: float  # bytes per second, of its memory
    link: float  # bytes per second to another GPU of its node, one direction: NVLink, else PCIe


GPUS: dict[str, Gpu] = {
    "A100-40GB": Gpu(memory=40960 * MIB, bf16_flops=312e12, bandwidth=1.555e12, link=300e9),
    "A100": Gpu(memory=81920 * MIB, bf16_flops=312e12, bandwidth=2.039e12, link=300e9),
    "L40S": Gpu(memory=46068 * MIB, bf16_flops=362e12, bandwidth=0.864e12, link=32e9),
    "H100": Gpu(memory=81559 * MIB, bf16_flops=989e12, bandwidth=3.35e12, link=450e9),
    "H200": Gpu(memory=143771 * MIB, bf16_flops=989e12, bandwidth=4.8e12, link=450e9),
    "B200": Gpu(memory=183359 * MIB, bf16_flops=2250e12, bandwidth=8.0e12, link=900e9),
}
"""By the name that --gpu takes; the SXM boards, A100 with 80 GB if nothing else is said. Sources: NVIDIA's data sheets "A100 Tensor
Core GPU", "L40S", "H100 Tensor Core GPU", "H200 Tensor Core GPU" and "DGX B200" (an eighth of the system)."""
