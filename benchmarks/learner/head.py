"""What the head costs on the CPU: log-probabilities from hidden states with their backward pass, and the embedded engine's sampler.

    python -m benchmarks.learner.head [--vocabulary 151936] [--tokens 4096] [--width 1024] [--rounds 3]

The plain path makes the logits of all tokens (`hidden @ head.T`, log_softmax, gather); ours is the learner's, with its default
settings, with and without statistics. Each runs in a process of its own; prints memory beyond weights and gradients at its peak, and
CPU seconds (the fastest of the rounds), as a ratio to the plain path. Then sampling --rows tokens, beside the product before it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time

import torch

from corewarding.actors.embedded.sampling import sample
from corewarding.learner.objective.logprobs import token_logprobs
from corewarding.learner.settings import LearnerSettings

MB = 10**6
PATHS = ("plain", "ours", "ours with statistics")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--rows", type=int, default=64, help="sequences that the sampler draws a token for")
    parser.add_argument("--rounds", type=int, default=3)
    its = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    found = {}
    for path in PATHS:
        with spawn.Pool(1) as pool:
            found[path] = pool.apply(cost, (path, its.vocabulary, its.tokens, its.width, its.rounds))
    plain_mb, plain_s = found["plain"]
    for path, (mb, seconds) in found.items():
        print(
            f"{path}: {mb:,.0f} MB ({mb / plain_mb:.1%} of plain), {seconds:.2f} s ({seconds / plain_s:.2f} x)",
            flush=True,
        )
    drawn, product = sampler(its.vocabulary, its.rows, its.width, its.rounds)
    print(
        f"sampler, {its.rows} rows: {1000 * drawn:.0f} ms, the head's product {1000 * product:.0f} ms ({drawn / product:.2f} x)"
    )


def cost(path: str, vocabulary: int, tokens: int, width: int, rounds: int) -> tuple[float, float]:
    """Megabytes beyond weights and gradients, and CPU seconds of the fastest round."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(tokens, width, generator=generator)
    head = torch.empty(vocabulary, width).normal_(0, 0.02, generator=generator)
    target = torch.randint(vocabulary, (tokens,), generator=generator)
    temperature, gradients = torch.ones(tokens), 4 * (hidden.numel() + head.numel())
    warm_up()
    before, seconds = peak(), []
    for _ in range(rounds):
        hidden.requires_grad_().grad, head.requires_grad_().grad = None, None
        began = time.process_time()
        if path == "plain":
            logprobs = (hidden @ head.T).log_softmax(-1).gather(-1, target[:, None]).squeeze(-1)
        else:
            chunk = LearnerSettings().logprob_chunk_tokens
            logprobs, *_ = token_logprobs(
                hidden, head, target, temperature, chunk=chunk, statistics="statistics" in path
            )
        logprobs.mean().backward()
        seconds.append(time.process_time() - began)
        del logprobs
    return (peak() - before - gradients) / MB, min(seconds)


def warm_up() -> None:
    """A small step, for what torch allocates once."""
    left = torch.randn(64, 64, requires_grad=True)
    (left @ left).log_softmax(-1).mean().backward()


def peak() -> int:
    """The most bytes that this process has had in memory."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def sampler(vocabulary: int, rows: int, width: int, rounds: int) -> tuple[float, float]:
    """CPU seconds of the draw, and of the product before it."""
    torch.set_num_threads(1)
    hidden, head = torch.randn(rows, width), torch.empty(vocabulary, width).normal_(0, 0.02)
    temperatures, draws = torch.ones(rows), torch.rand(rows, dtype=torch.float64)
    drawn, product = [], []
    for _ in range(rounds):
        began = time.process_time()
        logits = hidden @ head.T
        middle = time.process_time()
        sample(logits, temperatures, draws)
        drawn.append(time.process_time() - middle)
        product.append(middle - began)
    return min(drawn), min(product)


if __name__ == "__main__":
    main()
