"""The `corewarding` command: train, submit, resume, eval, export, trace, data, rephrase, doctor."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import sys
from pathlib import Path
from typing import Any, Literal

import tyro
from pydantic import ValidationError

from actors.engine import EngineError
from actors.settings import EngineSettings
from dataflow.types import DataError
from evals.record import EvalError
from launch.config import ConfigError, TrainConfig, explain, load_config, make_config, section_of
from launch.errors import RunStoppedError, UserError
from learner.admission import CapacityError
from questions.errors import DataSetError, TemplateError
from questions.settings import DEFAULT_SYSTEM_PROMPT

USER_ERRORS = (UserError, DataSetError, TemplateError, CapacityError, DataError, EvalError, EngineError)

HELP = """corewarding: label-free reinforcement learning of reasoning models

  corewarding train CONFIG.yaml [--any.key value ...]   train; --help after CONFIG lists every key; --dry-run only checks
  corewarding submit CONFIG.yaml [--address URL] [--python PATH] [--any.key value ...]
                                                        the same as a job on a Ray cluster; follows its log
  corewarding resume RUN_DIR                            go on from the run's last checkpoint
  corewarding eval MODEL_OR_RUN [--data math500|gsm8k|amc|aime24|arithmetic|FILE]
                                                        held-out accuracy with intervals; everything sampled is kept
  corewarding eval --regrade FOLDER                     grade saved generations again; --compare FOLDER FOLDER: two results
  corewarding export RUN_DIR --out FOLDER               copy the trained Hugging Face model out of a run
  corewarding data inspect FILE [--rephrased FILE]      rows, lengths, answers, pairs that look wrong
  corewarding rephrase FILE --out FOLDER (--model FOLDER | --endpoint URL --endpoint-model NAME)
                                                        the rephrased view, made by a model and checked
  corewarding doctor [--vllm-python PATH] [--sglang-python PATH]
                                                        is this machine fit for a run? Each fault with its remedy
  corewarding trace RUN_DIR [--seconds 30]              a Perfetto trace and a Gantt picture of who did what when
"""


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; 0 on success, 2 for a mistake in the input, 1 for a run that had to end; both explained in one message."""
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] in ("-h", "--help"):
        print(HELP)
        return 0
    commands = {
        "train": _train,
        "submit": _submit,
        "resume": _resume,
        "eval": _eval,
        "export": _export,
        "trace": _trace,
        "data": _data,
        "rephrase": _rephrase,
        "doctor": _doctor,
    }
    if words[0] not in commands:
        print(f"corewarding: unknown command {words[0]!r}\n\n{HELP}", file=sys.stderr)
        return 2
    try:
        return commands[words[0]](words[1:])
    except USER_ERRORS as error:
        print(f"corewarding: {error}", file=sys.stderr)
        return 2
    except RunStoppedError as error:
        print(f"corewarding: {error}", file=sys.stderr)
        return 1


def parse_train(words: list[str]) -> TrainConfig:
    """CONFIG.yaml and overrides as one validated configuration."""
    if not words or words[0].startswith("-"):
        if words and words[0] in ("-h", "--help"):
            tyro.cli(TrainConfig, args=["--help"], prog="corewarding train CONFIG.yaml")
        raise ConfigError("train needs a configuration file, for example `corewarding train configs/cpu.yaml`")
    base = load_config(words[0])
    return make_config(_override(base, words[1:], prog=f"corewarding train {words[0]}"), where=words[0])


def _override(base: TrainConfig, words: list[str], *, prog: str) -> dict[str, Any]:
    """The configuration with the command line's values. Mistakes pydantic finds are told in our words, the others in tyro's."""
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            config = tyro.cli(TrainConfig, default=base, args=words, prog=prog, config=(tyro.conf.AvoidSubcommands,))
    except SystemExit as stop:
        cause: BaseException | None = stop
        while cause is not None and not isinstance(cause, ValidationError):
            cause = cause.__cause__ or cause.__context__
        if cause is None:
            print(told.getvalue(), end="", file=sys.stderr)
            raise
        raise ConfigError(f"command line: {explain(cause, inside=section_of(cause.title))}") from None
    return config.model_dump()


def _train(words: list[str]) -> int:
    words, dry_run = _without(words, "--dry-run")
    config = parse_train(words)
    from launch.train import check_training, run_training

    return check_training(config) if dry_run else run_training(config)


def _submit(words: list[str]) -> int:
    words, dry_run = _without(words, "--dry-run")
    words, address = _value_of(words, "--address", "the cluster's dashboard, for example http://head:8265")
    words, python = _value_of(words, "--python", "the cluster's interpreter that has our dependencies")
    config = parse_train(words)
    from launch.submit import submit

    return submit(config, address=address, python=python, dry_run=dry_run)


def _value_of(words: list[str], flag: str, meaning: str) -> tuple[list[str], str | None]:
    """The words without `flag VALUE`, and the value."""
    if flag not in words:
        return words, None
    place = words.index(flag)
    if place + 1 == len(words):
        raise ConfigError(f"{flag} needs a value: {meaning}")
    return [*words[:place], *words[place + 2 :]], words[place + 1]


def _without(words: list[str], flag: str) -> tuple[list[str], bool]:
    return [word for word in words if word != flag], flag in words


def _resume(words: list[str]) -> int:
    @dataclasses.dataclass
    class Resume:
        """Goes on from the last checkpoint of a run."""

        run_dir: tyro.conf.Positional[Path]

    folder = tyro.cli(Resume, args=words, prog="corewarding resume").run_dir
    saved = folder / "config.yaml"
    if not saved.is_file():
        raise ConfigError(f"{folder} is no run directory: it holds no config.yaml")
    config = load_config(saved)
    run = config.run.model_copy(
        update={"resume": "must", "name": folder.resolve().name, "root": str(folder.resolve().parent)}
    )
    from launch.train import run_training

    return run_training(config.model_copy(update={"run": run}))


@dataclasses.dataclass(frozen=True)
class EvalArguments:
    """Held-out accuracy with intervals: mean@n, maj@n, pass@k and greedy. Everything sampled is kept, and not sampled again."""

    model: tyro.conf.Positional[str]
    """A model folder or hub id, or a run directory (its last checkpoint)."""
    data: str | None = None
    """math500, gsm8k, amc, aime24 (from the hub), arithmetic, or a Parquet or JSONL file, folder or hub id; None: the run's."""
    split: str = "test"
    """Split of a folder or hub id."""
    config: Path | None = None
    """Configuration whose data, engine and lengths apply; of a run, its own."""
    num_questions: int | None = None
    """Only the first so many, in a fixed shuffled order; None: all, or 512 of the arithmetic world."""
    samples: int | None = None
    """n of mean@n, maj@n, pass@k; 0: greedy only; None: as the benchmark is usually reported, else 8."""
    temperature: float = 1.0
    """Of the n samples."""
    max_new_tokens: int | None = None
    """Longest completion; None: the configuration's, else 32 for the arithmetic world and 3072."""
    seed: int | None = None
    """Of the n samples; None: the configuration's."""
    fallbacks: tuple[Literal["hashes", "phrase"], ...] = ()
    """Where a completion has no box; as vote.fallbacks."""
    engine: EngineSettings = dataclasses.field(default_factory=EngineSettings)
    """The sampler."""
    second_opinion: bool = False
    """Also grade by math-verify, in a process that can be killed, and list where it differs."""
    out: Path | None = None
    """Folder of the evaluation; None: one under runs/evals."""


@dataclasses.dataclass(frozen=True)
class RegradeArguments:
    """Extracts and grades saved generations again; needs neither model nor data set."""

    folder: tyro.conf.Positional[Path]
    """Of an evaluation."""
    fallbacks: tuple[Literal["hashes", "phrase"], ...] = ()
    """Where a completion has no box; as vote.fallbacks."""
    second_opinion: bool = False
    """Also grade by math-verify."""


@dataclasses.dataclass(frozen=True)
class CompareArguments:
    """Two evaluations side by side; refused where they are not of the same questions, sampled and graded in the same way."""

    first: tyro.conf.Positional[Path]
    """Folder of an evaluation."""
    second: tyro.conf.Positional[Path]
    """Folder of another."""


def _eval(words: list[str]) -> int:
    from launch.evaluate import evaluate, print_comparison, regrade

    if "--regrade" in words:
        again = tyro.cli(RegradeArguments, args=_without(words, "--regrade")[0], prog="corewarding eval --regrade")
        return regrade(again.folder, fallbacks=again.fallbacks, second_opinion=again.second_opinion)
    if "--compare" in words:
        both = tyro.cli(CompareArguments, args=_without(words, "--compare")[0], prog="corewarding eval --compare")
        return print_comparison(both.first, both.second)
    return evaluate(tyro.cli(EvalArguments, args=words, prog="corewarding eval"))


@dataclasses.dataclass(frozen=True)
class ExportArguments:
    """Copies the trained model, a Hugging Face folder, out of a run."""

    run_dir: tyro.conf.Positional[Path]
    out: Path
    """Folder to write; must not exist."""
    which: Literal["policy", "teacher"] = "policy"
    """The policy, or the EMA teacher."""


def _export(words: list[str]) -> int:
    from launch.export import export_run

    arguments = tyro.cli(ExportArguments, args=words, prog="corewarding export")
    print(export_run(arguments.run_dir, arguments.out, arguments.which))
    return 0


@dataclasses.dataclass(frozen=True)
class TraceArguments:
    """Writes trace.json (for Perfetto) and trace.png (a Gantt picture) into a run directory."""

    run_dir: tyro.conf.Positional[Path]
    seconds: float = 30.0
    """How much of the run's end the picture shows."""


def _trace(words: list[str]) -> int:
    from launch.trace import write_trace

    arguments = tyro.cli(TraceArguments, args=words, prog="corewarding trace")
    print(write_trace(arguments.run_dir, seconds=arguments.seconds))
    return 0


@dataclasses.dataclass(frozen=True)
class InspectArguments:
    """What is in a data set: rows, lengths, kinds of answers, pairs that look wrong, examples."""

    source: tyro.conf.Positional[str]
    """Parquet or JSONL file, folder, or Hugging Face datasets id."""
    rephrased: str | None = None
    """The same questions reworded, row by row."""
    split: str = "train"
    """Split of a folder or hub id."""
    model: str | None = None
    """Model folder whose tokens and chat template lengths are counted in; None: words."""
    system_prompt: str = DEFAULT_SYSTEM_PROMPT
    """System message of the template."""
    examples: int = 2
    """Questions to show."""


def _data(words: list[str]) -> int:
    if words[:1] != ["inspect"]:
        raise ConfigError(
            "data knows one thing to do: corewarding data inspect FILE [--rephrased FILE] [--model FOLDER]"
        )
    from launch.inspect_data import inspect_data

    arguments = tyro.cli(InspectArguments, args=words[1:], prog="corewarding data inspect")
    inspect_data(
        arguments.source,
        rephrased=arguments.rephrased,
        split=arguments.split,
        model=arguments.model,
        system_prompt=arguments.system_prompt,
        examples=arguments.examples,
    )
    return 0


@dataclasses.dataclass(frozen=True)
class RephraseArguments:
    """Makes the rephrased view of a data set: same meaning and answer in other words. Called again, it goes on where it stopped."""

    source: tyro.conf.Positional[str]
    """Parquet or JSONL file, folder, or Hugging Face datasets id."""
    out: Path
    """Folder of the pair of files, the journal and the report."""
    model: str | None = None
    """Model folder or hub id, asked on an engine in this process."""
    endpoint: str | None = None
    """OpenAI-compatible server, for example http://localhost:8000/v1; its key is read from OPENAI_API_KEY."""
    endpoint_model: str | None = None
    """Name of the model at the endpoint."""
    split: str = "train"
    """Split of a folder or hub id."""
    limit: int | None = None
    """Only the first so many questions."""
    attempts: int = 3
    """Replies asked for, at most, until one can be kept."""
    agreement: int = 0
    """Also answer both wordings so many times, and keep only those whose votes agree; 0: do not."""
    temperature: float = 0.7
    """Of the replies."""
    max_new_tokens: int = 2048
    """Longest reply."""
    concurrency: int = 64
    """Questions under way at once."""
    seed: int = 0
    """Of the replies, where the model is asked in this process."""
    engine: EngineSettings = dataclasses.field(default_factory=EngineSettings)
    """The sampler of --model."""


def _rephrase(words: list[str]) -> int:
    from launch.rephrase import rephrase_command

    return rephrase_command(tyro.cli(RephraseArguments, args=words, prog="corewarding rephrase"))


def _doctor(words: list[str]) -> int:
    words, vllm = _value_of(words, "--vllm-python", "the interpreter that has vLLM, for example .venv-vllm/bin/python")
    words, sglang = _value_of(words, "--sglang-python", "the interpreter that has SGLang")
    if words:
        raise UserError(f"doctor takes --vllm-python and --sglang-python, not {' '.join(words)}")
    from launch.doctor import doctor

    return doctor(vllm_python=vllm, sglang_python=sglang, root=TrainConfig().run.root)


if __name__ == "__main__":
    sys.exit(main())
