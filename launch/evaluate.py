"""Turns the words of `corewarding eval` into a plan, and prints what comes of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from evals.run import EvalPlan, evaluate_model, write_result
from launch.config import ModelSettings, TrainConfig, load_config
from launch.export import last_checkpoint

if TYPE_CHECKING:
    from launch.cli import EvalArguments

ARITHMETIC_TOKENS = 32


def evaluate(arguments: EvalArguments) -> int:
    """Prints the accuracies; 0."""
    folder = Path(arguments.model)
    is_run = (folder / "config.yaml").is_file()
    source = arguments.config or (folder / "config.yaml" if is_run else None)
    config = load_config(source) if source else TrainConfig(model=ModelSettings(path=arguments.model))
    longest = arguments.max_new_tokens or (config.rollout.max_new_tokens if source else ARITHMETIC_TOKENS)
    model = (
        str(last_checkpoint(folder).model)
        if is_run
        else TrainConfig(model=ModelSettings(path=arguments.model)).model_folder
    )
    plan = EvalPlan(
        model_folder=model,
        data=config.data,
        engine=config.engine,
        num_questions=arguments.num_questions,
        samples=arguments.samples,
        temperature=arguments.temperature,
        max_new_tokens=longest,
        seed=config.train.seed,
        fallbacks=config.vote.fallbacks,
    )
    result = evaluate_model(plan)
    print(f"model: {model}")
    for key, value in result.as_dict().items():
        print(f"{key:<16} {value:.4f}" if isinstance(value, float) else f"{key:<16} {value}")
    if arguments.out is not None:
        write_result(result, plan, arguments.out)
    return 0
