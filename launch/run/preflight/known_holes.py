"""Versions of our dependencies in which critical holes are known. `doctor` refuses them."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Hole:
    """Critical holes of a package, and the first version without them."""

    package: str
    fixed: tuple[int, ...]
    ids: str
    what: str

    @property
    def remedy(self) -> str:
        return f'{self.what} ({self.ids}): pip install "{self.package}>={".".join(map(str, self.fixed))}"'


HOLES = (
    Hole(
        "ray",
        (2, 52),
        "CVE-2023-48022, CVE-2025-62593",
        "whoever reaches its ports, or a page in a browser here, runs code",
    ),
    Hole("torch", (2, 6), "CVE-2025-32434", "torch.load runs code of a file even with weights_only"),
    Hole("torch", (2, 10), "CVE-2026-24747", "torch.load of a hostile file corrupts memory even with weights_only"),
    Hole("transformers", (4, 48), "CVE-2024-11392, CVE-2024-11393, CVE-2024-11394", "hostile model files run code"),
    Hole("vllm", (0, 8, 5), "CVE-2025-32444", "its Mooncake transfer unpickles what anyone sends"),
    Hole("vllm", (0, 11, 1), "CVE-2025-62164", "prompt embeddings of a request corrupt memory"),
    Hole("vllm", (0, 14), "CVE-2026-22807", "code in a model folder runs without trust_remote_code"),
    Hole("vllm", (0, 14, 1), "CVE-2026-22778", "a hostile video runs code"),
    Hole("sglang", (0, 5, 10), "CVE-2026-3059, CVE-2026-3060", "its ZeroMQ sockets unpickle what anyone sends"),
    Hole("sglang", (0, 5, 11), "CVE-2026-7301", "its multimodal scheduler unpickles what anyone sends"),
)
"""The versions that pyproject.toml pins have none of these. An engine may live in an environment of its own, with other versions."""


def holes_of(package: str, version: str) -> list[Hole]:
    """The known holes of this version; a version that is not a number has none that we know."""
    number = tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])
    return [hole for hole in HOLES if hole.package == package and number and number < hole.fixed]
