"""The `corewarding` command: train, submit, resume, eval, export, trace, data, rephrase, doctor."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import sys
from pathlib import Path
from typing import Any

import tyro
from pydantic import ValidationError

from corewarding.actors.engine import EngineError
from corewarding.dataflow.errors import RunStoppedError, UserError
from corewarding.launch.config.checks import explain, section_of
from corewarding.launch.config.load import ConfigError, load_config, make_config
from corewarding.launch.config.tree import TrainConfig

USER_ERRORS = (UserError, EngineError)

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
    return make_config(
        _override(base, words[1:], prog=f"corewarding train {words[0]}"),
        where="command line" if words[1:] else words[0],
    )


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
    from corewarding.launch.run.train import check_training, run_training

    return check_training(config) if dry_run else run_training(config)


def _submit(words: list[str]) -> int:
    words, dry_run = _without(words, "--dry-run")
    words, address = _value_of(words, "--address", "the cluster's dashboard, for example http://head:8265")
    words, python = _value_of(words, "--python", "the cluster's interpreter that has our dependencies")
    config = parse_train(words)
    from corewarding.launch.commands.submit import submit

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
    from corewarding.launch.run.train import run_training

    return run_training(config.model_copy(update={"run": run}))


def _eval(words: list[str]) -> int:
    from corewarding.launch.commands.evaluate import (
        CompareArguments,
        EvalArguments,
        RegradeArguments,
        evaluate,
        print_comparison,
        regrade,
    )

    if "--regrade" in words:
        again = tyro.cli(RegradeArguments, args=_without(words, "--regrade")[0], prog="corewarding eval --regrade")
        return regrade(again.folder, fallbacks=again.fallbacks, second_opinion=again.second_opinion)
    if "--compare" in words:
        both = tyro.cli(CompareArguments, args=_without(words, "--compare")[0], prog="corewarding eval --compare")
        return print_comparison(both.first, both.second)
    return evaluate(tyro.cli(EvalArguments, args=words, prog="corewarding eval"))


def _export(words: list[str]) -> int:
    from corewarding.launch.commands.export import ExportArguments, export_run

    arguments = tyro.cli(ExportArguments, args=words, prog="corewarding export")
    print(export_run(arguments.run_dir, arguments.out, arguments.which))
    return 0


def _trace(words: list[str]) -> int:
    from corewarding.launch.report.trace import TraceArguments, write_trace

    arguments = tyro.cli(TraceArguments, args=words, prog="corewarding trace")
    print(write_trace(arguments.run_dir, seconds=arguments.seconds))
    return 0


def _data(words: list[str]) -> int:
    if words[:1] != ["inspect"]:
        raise ConfigError(
            "data knows one thing to do: corewarding data inspect FILE [--rephrased FILE] [--model FOLDER]"
        )
    from corewarding.launch.commands.inspect_data import InspectArguments, inspect_data

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


def _rephrase(words: list[str]) -> int:
    from corewarding.launch.commands.rephrase import RephraseArguments, rephrase_command

    return rephrase_command(tyro.cli(RephraseArguments, args=words, prog="corewarding rephrase"))


def _doctor(words: list[str]) -> int:
    words, vllm = _value_of(words, "--vllm-python", "the interpreter that has vLLM, for example .venv-vllm/bin/python")
    words, sglang = _value_of(words, "--sglang-python", "the interpreter that has SGLang")
    if words:
        raise UserError(f"doctor takes --vllm-python and --sglang-python, not {' '.join(words)}")
    from corewarding.launch.commands.doctor import doctor

    return doctor(vllm_python=vllm, sglang_python=sglang, root=TrainConfig().run.root)


if __name__ == "__main__":
    sys.exit(main())
