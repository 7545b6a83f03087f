"""The control plane at scale.

    python -m benchmarks.control_plane [--engines 200] [--processes 2] [--seconds 300] [--tokens 500]

Engines without a model replay completions as fast as they are asked; controller, admission, replay buffer, scoring, publishing and
logging are the program's own. The learner decodes each batch and computes nothing; weights are announced and committed without
bytes. Each engine has its own rollout actor and gets its calls through Ray. --processes sets how many Ray processes hold them: an
idle process costs 1% of a core (its main thread wakes 100 times a second), which is not to be measured. Prints completions per
second through buffer and scoring, resident memory early and at the end, and whether admission and the ledger were exact.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
from tokenizers import Tokenizer

from corewarding.actors.group import RolloutGroup
from corewarding.dataflow.ids import Source, Version
from corewarding.evals.heldout import EvalResult
from corewarding.launch.config.load import load_config, make_config
from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.report.log import RunLog
from corewarding.launch.report.run_directory import RunDir
from corewarding.launch.report.terminal import Terminal
from corewarding.launch.report.trackers.kinds import started
from corewarding.launch.run import placement
from corewarding.launch.run.controller import Controller
from corewarding.launch.run.inputs import Inputs, read_inputs
from corewarding.launch.run.plans import buffer_plan
from corewarding.launch.run.preflight.needs import process_environment
from corewarding.launch.run.protocols import Parts
from corewarding.launch.run.publishing.publisher import Publisher
from corewarding.launch.run.publishing.turns import LearnerTurns
from corewarding.learner.checkpoint.store import CheckpointStore
from corewarding.learner.replay.actor import start_buffer
from corewarding.learner.replay.client import BufferClient
from corewarding.questions.order import QuestionCursor
from tests.weightless import EOS, MODEL, EngineHost, IdleLearner, Tenant


def configuration(root: Path, script: Path, seconds: float, tokens: int) -> TrainConfig:
    content = load_config("configs/cpu.yaml").model_dump()
    content["model"] = {**content["model"], "path": MODEL}
    changes: dict[str, dict[str, Any]] = {
        "engine": {"kind": "scripted", "script": str(script), "slots": 64},
        "data": {"num_train": 256},
        "rollout": {"max_new_tokens": tokens, "group_size": 8},
        "train": {"questions_per_update": 256, "updates": 1_000_000},
        "eval": {"every_updates": 0},
        "checkpoint": {"every_updates": 0},
        "run": {"root": str(root), "name": "control-plane", "max_wall_s": seconds},
    }
    for section, values in changes.items():
        content[section] |= values
    return make_config(content, where="benchmark")


def write_script(path: Path, texts: list[str], tokens: int) -> None:
    """Recorded tokens of 8 completions of `tokens` tokens for each question; two of three agree on an answer."""
    tokenizer = Tokenizer.from_file(f"{MODEL}/tokenizer.json")

    def encode(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False).ids)

    with path.open("w") as file:
        for number, question in enumerate(texts):
            completions = []
            for sample in range(8):
                end = [*encode(f" The answer is \\boxed{{{number + sample % 3 // 2}}}."), EOS]
                steps = encode(f"{number} + {sample} = {number + sample}. " * (tokens // 8))
                completions.append(steps[: tokens - len(end)] + end)
            file.write(json.dumps({"question": question, "completions": completions}) + "\n")


def group_of(
    source: Source, num: int, processes: int, config: TrainConfig, inputs: Inputs, buffer: Any
) -> RolloutGroup:
    remote = ray.remote(num_cpus=0, max_concurrency=10_000, runtime_env=process_environment(1))(EngineHost)
    names = [f"{source}-{index}" for index in range(num)]
    shared: dict[str, Any] = {"source": source, "settings": config.engine, "max_model_len": inputs.max_model_len}
    hosts = [
        remote.remote([{"actor_id": name} | shared for name in names[first::processes]], buffer)
        for first in range(processes)
    ]

    def make(index: int, restart: int) -> Any:
        return Tenant(hosts[index % processes], names[index])

    return RolloutGroup(source, make, num_actors=num, max_restarts=0, start_timeout_s=1800.0)


def resident_mb() -> dict[str, float]:
    """Resident memory of the driver, and the mean over processes of each kind of actor."""
    found: dict[str, list[float]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            name = (folder / "cmdline").read_text().split("\0")[0]
            pages = int((folder / "statm").read_text().split()[1])
        except (OSError, ValueError):
            continue
        for kind in ("BufferActor", "EngineHost", "Taker"):
            if name.startswith(f"ray::{kind}"):
                found.setdefault(kind, []).append(pages * 4096 / 2**20)
    own = int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20
    return {"driver": own} | {kind: statistics.fmean(values) for kind, values in found.items()}


async def measure(
    config: TrainConfig, inputs: Inputs, num_engines: int, num_processes: int
) -> tuple[Controller, list[tuple[float, dict[str, float]]]]:
    buffer = start_buffer(buffer_plan(config, 0), inputs.gold, None, runtime_env=process_environment(1))
    sources: tuple[Source, ...] = ("policy", "teacher")
    groups = {
        source: group_of(source, num_engines // 2, num_processes // 2, config, inputs, buffer) for source in sources
    }
    began = time.monotonic()
    await asyncio.gather(*(group.start() for group in groups.values()))
    print(f"{num_engines} engines are up after {time.monotonic() - began:.0f} s", flush=True)
    run_dir = RunDir(config.run.root, config.run.name)
    run_dir.open(config)
    memory: list[tuple[float, dict[str, float]]] = []

    async def look() -> None:
        while True:
            memory.append((time.monotonic() - began, resident_mb()))
            await asyncio.sleep(10.0)

    with Terminal(total_updates=config.train.updates) as terminal:
        log = RunLog(run_dir, terminal, started(config, run_dir.path, terminal.warn))
        controller = Controller(parts_of(config, inputs, groups, BufferClient(buffer), run_dir, log))
        began = time.monotonic()
        looking = asyncio.create_task(look())
        try:
            await controller.run()
        finally:
            looking.cancel()
            memory.append((time.monotonic() - began, resident_mb()))
            log.close()
    return controller, memory


def parts_of(
    config: TrainConfig,
    inputs: Inputs,
    groups: dict[Source, RolloutGroup],
    buffer: BufferClient,
    run_dir: RunDir,
    log: RunLog,
) -> Parts:
    learner: Any = IdleLearner()
    turns = LearnerTurns()

    async def evaluate(quick: bool) -> EvalResult | None:
        return None

    return Parts(
        config=config,
        version=Version(incarnation=0, updates=0),
        rule=inputs.rule,
        prepared=inputs.prepared,
        cursor=QuestionCursor(len(inputs.prepared.questions), 0, drop_remainder_of=config.train.questions_per_update),
        buffer=buffer,
        learner=learner,
        turns=turns,
        groups=groups,
        publishers={
            source: Publisher(source, learner, group, settings=config.publish, turns=turns)
            for source, group in groups.items()
        },
        checkpoints=CheckpointStore(run_dir.checkpoints, 1),
        log=log,
        initial_answers=run_dir.initial_answers,
        evaluate=evaluate,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", type=int, default=200)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--tokens", type=int, default=500)
    arguments = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="control-plane-"))
    script = root / "script.jsonl"
    script.write_text('{"question": "x", "completions": ["y"]}\n')
    config = configuration(root, script, arguments.seconds, arguments.tokens)
    inputs = read_inputs(config)
    write_script(script, [question.original for question in inputs.prepared.questions], arguments.tokens)
    placement.connect(config)
    try:
        controller, memory = asyncio.run(measure(config, inputs, arguments.engines, arguments.processes))
    finally:
        ray.shutdown()
    rows = [json.loads(line) for line in (RunDir(root, "control-plane").metrics).read_text().splitlines()]
    last = rows[-1]
    seconds = controller.statistics.elapsed_s
    gone = last["ledger/num_trained"] + last["ledger/num_voted_only"]
    limit = 8 * 2 * config.train.questions_per_update * (config.staleness.depth + 1)
    print(
        f"\n{arguments.engines} engines in {arguments.processes} processes, {seconds:.0f} s, {last['update']} updates"
    )
    print(f"tokens per completion: {last['length/generated_tokens_mean']:.0f}")
    print(f"completions per second through buffer and scoring: {gone / seconds:.0f}")
    early = next(values for at, values in memory if at >= min(60.0, seconds / 4))
    for kind, value in memory[-1][1].items():
        print(f"resident memory of {kind}: {early[kind]:.0f} MB early, {value:.0f} MB at the end")
    exact = all(
        row["ledger/num_trained"] + row["ledger/num_voted_only"]
        == 16 * config.train.questions_per_update * row["update"]
        and row["ledger/num_dropped"] == 0
        and row["ledger/num_waiting"] <= limit
        and row["staleness/max"] <= config.staleness.max
        for row in rows
    )
    print(f"admission exact in every update: {exact}")


if __name__ == "__main__":
    main()
