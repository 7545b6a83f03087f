"""What messages cost: an update's completions and its batch, each carrier by itself and as columns.

    python -m benchmarks.journal.messages [--questions 32] [--group-size 8] [--tokens 20] [--rounds 20]

In turns, in this process. Prints the CPU milliseconds of encoding and decoding, medians over the rounds, and the bytes.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from corewarding.dataflow.carriers import Completion, Timings, TrainBatch, TrainingSample
from corewarding.dataflow.codec import decode, encode
from corewarding.dataflow.ids import AskedId, Source


def group(question: int, source: Source, size: int, tokens: int, draws: np.random.Generator) -> list[Completion]:
    """One group as an engine delivers it. tokens: mean length of a completion."""
    prompt = draws.integers(0, 30_000, 40).astype(np.int32)
    found = []
    for index in range(size):
        length = int(draws.integers(1, 2 * tokens))
        found.append(
            Completion(
                id=AskedId(question_id=f"train-{question}", epoch=0).group("original", source).completion(index),
                incarnation=0,
                attempt=0,
                prompt_token_ids=prompt,
                token_ids=draws.integers(0, 30_000, length).astype(np.int32),
                behavior_logprobs=-draws.random(length, np.float32),
                token_versions=np.full(length, 7, np.int32),
                temperature=1.0,
                text="x" * 3 * length,
                answer=str(index),
                finish_reason="stop",
                actor_id=f"{source}-0",
                timings=Timings(submitted_s=1e9, started_s=1e9 + draws.random(), finished_s=1e9 + 1 + draws.random()),
            )
        )
    return found


def cpu_ms(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return 1e3 * (time.process_time() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=32)
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    draws = np.random.default_rng(0)
    make = partial(group, size=arguments.group_size, tokens=arguments.tokens, draws=draws)
    groups = {
        source: [make(question, source) for question in range(arguments.questions)] for source in ("policy", "teacher")
    }
    samples = [TrainingSample.of(one, advantage=draws.normal()) for its in groups["policy"] for one in its]
    batch = TrainBatch(incarnation=0, update=8, samples=tuple(sorted(samples, key=lambda sample: sample.id)))
    messages: dict[str, list[object]] = {
        "completions, a message a group": [*groups["policy"], *groups["teacher"]],
        "batch": [batch],
    }
    print("| message | form | KB | encode ms | decode ms |\n|---|---|---|---|---|")
    for name, several in messages.items():
        times: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
        sizes = {}
        for _ in range(arguments.rounds):
            for columns, found in times.items():
                data = [encode(one, columns=columns) for one in several]
                sizes[columns] = sum(map(len, data))
                encoding = cpu_ms(lambda: [encode(one, columns=columns) for one in several])  # noqa: B023
                found.append((encoding, cpu_ms(lambda: [decode(one) for one in data])))  # noqa: B023
        for columns, found in times.items():
            encoding, decoding = (statistics.median(part) for part in zip(*found, strict=True))
            form = "columns" if columns else "each by itself"
            print(f"| {name} | {form} | {sizes[columns] / 1e3:.0f} | {encoding:.1f} | {decoding:.1f} |")


if __name__ == "__main__":
    main()
