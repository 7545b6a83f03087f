"""Everything that is measured on a GPU, in one call and one table, in less than 9 minutes. Needs no Ray and no engine.

    python -m benchmarks.gpu.all [--only update memory sync head] [--peak-tflops 989] [--device cpu --small]

update: one update of 32,768 packed tokens (completions of 830 tokens on average, at most 3,072), 8 layers with random weights as wide
as those of Qwen3 0.6B, 1.7B and 8B; MFU counts 6 FLOPs for each parameter of layers and head and the causal attention, forward
and backward, and no recomputing. memory: the peak of such an update beside what `corewarding plan` says. sync: 3.4 GB with
checksums to a second process on the same GPU. head: log-probabilities of 16,384 tokens with their backward pass, beside their four
bare products.

--peak-tflops: dense bfloat16 of this GPU, if launch/plan/gpus.py does not know its name. --device cpu --small: the same code on small
numbers, to try it.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch

from benchmarks.gpu.learners import FULL, SMALL, Size, flop, learner_of, planned_peak, samples_of
from benchmarks.weights.transports import compare
from corewarding.dataflow.carriers import TrainBatch, TrainingSample
from corewarding.launch.plan.gpus import GPUS
from corewarding.learner.learner import Learner
from corewarding.learner.objective.logprobs import float32_product, token_logprobs

BARS = {"0.6B": 25, "1.7B": 35, "8B": 42}
"""Least MFU in percent."""
Row = tuple[str, str, str, str]
"""What, measured, bar, whether it holds."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--peak-tflops", type=float)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--small", action="store_true")
    its = parser.parse_args()
    if its.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no GPU is visible to torch; --device cpu --small tries the same code")
    size = SMALL if its.small else FULL
    print("| what | measured | bar | holds |\n|---|---|---|---|")
    for part in its.only:
        for row in PARTS[part](size, its.device, its.peak_tflops or peak_tflops(its.device)):
            print(f"| {' | '.join(row)} |", flush=True)
        empty(its.device)


def peak_tflops(device: str) -> float | None:
    """Of the GPU by its name; None where that is not known."""
    name = torch.cuda.get_device_name() if device == "cuda" else ""
    known = [gpu.bf16_flops / 1e12 for key, gpu in GPUS.items() if key.split("-")[0] in name]
    return known[0] if known else None


def updates(size: Size, device: str, peak: float | None) -> Iterator[Row]:
    for name in size.widths:
        with tempfile.TemporaryDirectory() as folder:
            learner, config = learner_of(size, name, folder, device)
            samples = samples_of(size)
            seconds = timed(partial(update, learner, samples), device, size.rounds)
            tflop = flop(config, samples) / 1e12
        did = f"{seconds:.3f} s, {tflop / seconds:.1f} TFLOP/s"
        if peak is None:
            yield f"update, width of {name}", did, f"MFU {BARS[name]}%", "peak not known"
        else:
            mfu = 100 * tflop / seconds / peak
            yield f"update, width of {name}", f"{did}, MFU {mfu:.1f}%", f"{BARS[name]}%", holds(mfu >= BARS[name])
        del learner
        empty(device)


def memory(size: Size, device: str, peak: float | None) -> Iterator[Row]:
    for name in size.widths:
        with tempfile.TemporaryDirectory() as folder:
            learner, config = learner_of(size, name, folder, device)
            update(learner, samples_of(size))
            planned = planned_peak(learner, config)
            if device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            update(learner, samples_of(size))
            found = torch.cuda.max_memory_allocated() if device == "cuda" else planned
        words = f"{found / 1e9:.2f} GB, planned {planned / 1e9:.2f} GB"
        verdict = holds(abs(found / planned - 1) <= 0.1) if device == "cuda" else "not counted on a CPU"
        yield f"peak memory, width of {name}", words, "within 10%", verdict
        del learner
        empty(device)


def sync(size: Size, device: str, peak: float | None) -> Iterator[Row]:
    gb, seconds = compare(
        device=device, mb=size.sync_mb, receivers=1, rounds=size.rounds, bucket_mb=64.0, with_checksums=True
    )
    for transport, each in seconds.items():
        middle = statistics.median(each)
        is_ipc = transport == "ipc"
        yield (
            f"{gb:.1f} GB to another process, {transport}",
            f"{middle:.2f} s",
            "0.5 s" if is_ipc else "-",
            holds(middle <= 0.5) if is_ipc else "-",
        )


def head(size: Size, device: str, peak: float | None) -> Iterator[Row]:
    tokens, width, vocabulary = size.head_tokens, size.head_width, size.vocabulary
    hidden = torch.randn(tokens, width, device=device, dtype=torch.bfloat16).requires_grad_()
    weight = (0.02 * torch.randn(vocabulary, width, device=device)).bfloat16().requires_grad_()
    target = torch.randint(vocabulary, (tokens,), device=device)
    ones = torch.ones(tokens, device=device)
    blocks = [slice(start, start + 1024) for start in range(0, tokens, 1024)]

    def ours() -> None:
        token_logprobs(hidden, weight, target, ones, chunk=1024)[0].sum().backward()
        hidden.grad = weight.grad = None

    @torch.no_grad()
    def bare() -> None:
        for part in blocks:
            for _ in range(2):  # the backward pass makes the logits again
                logits = float32_product(hidden[part], weight.T).bfloat16()
            float32_product(logits, weight)
            float32_product(logits.T, hidden[part])

    first, second = timed(ours, device, size.rounds), timed(bare, device, size.rounds)
    words = f"{1000 * first:.0f} ms beside {1000 * second:.0f} ms: {first / second:.2f}x"
    yield f"head, {tokens:,} tokens", words, "1.3x", holds(first <= 1.3 * second)


PARTS: dict[str, Callable[[Size, str, float | None], Iterator[Row]]] = {
    "update": updates,
    "memory": memory,
    "sync": sync,
    "head": head,
}


def holds(value: bool) -> str:
    return "yes" if value else "no"


def empty(device: str) -> None:
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


def timed(call: Callable[[], None], device: str, rounds: int) -> float:
    """Median seconds of a call, after two to warm up."""
    found = []
    for _ in range(rounds + 2):
        began = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        found.append(time.perf_counter() - began)
    return statistics.median(found[2:])


def update(learner: Learner, samples: Sequence[TrainingSample]) -> None:
    learner.update(TrainBatch(incarnation=0, update=learner.version.updates + 1, samples=tuple(samples)))


if __name__ == "__main__":
    main()
