r"""Label-free reinforcement learning of reasoning models: Co-rewarding on Ray.

    import corewarding as cw

    cw.majority_vote([r"\frac12", "0.5", "1/3"])         # answers to a label
    run = cw.train(cw.recipe("cpu").override(train={"updates": 10}))
    run.metrics(), run.samples(update=10), run.summary, run.model
    cw.load_run("runs/cpu").metrics()

Answers: `extract_answer`, `canonical_key`, `explain_answer`, `same_answer`, `grade`, `majority_vote`.
Training: `recipe`, `recipes`, `train`, `load_run`. Errors: `UserError` for the input, `RunError` for a run that failed.
Plug-ins, files named in `plugins:` of the configuration: `reward_rule` with `judge_by_vote`, `judge_by_label`,
`without_label` and `trained_completions`;
`question_reader` with `Entry`; `evaluation_set`, `question_metric`, `engine_kind`, `correction_mode`.

Names are imported at first use, so `import corewarding` loads neither torch nor ray.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from corewarding.actors.engines import engine_kind
    from corewarding.dataflow.errors import RunError, UserError
    from corewarding.dataflow.votes import Vote
    from corewarding.evals.named import evaluation_set
    from corewarding.launch.api import Recipe, Run, load_run, recipe, train
    from corewarding.launch.config.recipes import recipes
    from corewarding.learner.objective.corrections import correction_mode
    from corewarding.questions.readers import Entry, question_reader
    from corewarding.rewards.answers.explain import explain_answer
    from corewarding.rewards.answers.extract import extract_answer
    from corewarding.rewards.answers.grading import grade
    from corewarding.rewards.answers.key import canonical_key, same_answer
    from corewarding.rewards.diagnostics import question_metric
    from corewarding.rewards.rules.labels import judge_by_label, judge_by_vote, trained_completions, without_label
    from corewarding.rewards.rules.table import reward_rule
    from corewarding.rewards.voting import majority_vote

__version__ = "0.1.0"

_MODULES = {
    "Entry": "questions.readers",
    "Recipe": "launch.api",
    "Run": "launch.api",
    "RunError": "dataflow.errors",
    "UserError": "dataflow.errors",
    "Vote": "dataflow.votes",
    "canonical_key": "rewards.answers.key",
    "correction_mode": "learner.objective.corrections",
    "engine_kind": "actors.engines",
    "evaluation_set": "evals.named",
    "explain_answer": "rewards.answers.explain",
    "extract_answer": "rewards.answers.extract",
    "grade": "rewards.answers.grading",
    "judge_by_label": "rewards.rules.labels",
    "judge_by_vote": "rewards.rules.labels",
    "load_run": "launch.api",
    "majority_vote": "rewards.voting",
    "question_metric": "rewards.diagnostics",
    "question_reader": "questions.readers",
    "recipe": "launch.api",
    "recipes": "launch.config.recipes",
    "reward_rule": "rewards.rules.table",
    "same_answer": "rewards.answers.key",
    "train": "launch.api",
    "trained_completions": "rewards.rules.labels",
    "without_label": "rewards.rules.labels",
}

__all__ = [
    "Entry",
    "Recipe",
    "Run",
    "RunError",
    "UserError",
    "Vote",
    "canonical_key",
    "correction_mode",
    "engine_kind",
    "evaluation_set",
    "explain_answer",
    "extract_answer",
    "grade",
    "judge_by_label",
    "judge_by_vote",
    "load_run",
    "majority_vote",
    "question_metric",
    "question_reader",
    "recipe",
    "recipes",
    "reward_rule",
    "same_answer",
    "train",
    "trained_completions",
    "without_label",
]


if "CW_COLLECTS_RARELY" in os.environ:  # before anything large is imported
    importlib.import_module("corewarding.dataflow.process").collect_rarely()


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'corewarding' has no attribute {name!r}; there are {', '.join(__all__)}")
    value = getattr(importlib.import_module(f"corewarding.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
