"""Our reward rules beside their authors' code, on random answer tables.

    python -m benchmarks.authors.rules --empo FILE --evol-rl FILE --scope FILE [--tables 2000]

FILE: verl-empo/verl/utils/reward_score/empo/compute_metrics.py of QingyangZhang/EMPO,
verl/verl/workers/reward_manager/semantic_novelty.py of YujunZhou/EVOL-RL, verl/trainer/ppo/myutils.py of szu-tera/SCOPE. Functions
are taken out of the files and run on answers that need no parsing. Prints the largest difference and fails over 1e-5.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import io
import math
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from corewarding.dataflow.carriers import Completion, QuestionRollouts
from corewarding.dataflow.ids import AskedId
from corewarding.rewards.rules.contract import POLICY_ORIGINAL, RuleContext
from corewarding.rewards.rules.evol_rl import banded
from corewarding.rewards.rules.table import REWARD_RULES
from corewarding.rewards.voting import majority_vote

Table = list[str | None]
BOUND = 1e-5  # similarities are float32 on both sides


def function(path: Path, name: str, **names: Any) -> Callable[..., Any]:
    """The function or method `name` of a file, without the imports of the file; names: what it uses of them."""
    source = path.read_text()
    found = next(n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef) and n.name == name)
    found.decorator_list = []
    scope: dict[str, Any] = {"np": np, "math": math, "List": list, **names}
    exec(compile(ast.unparse(found), str(path), "exec"), scope)  # the file named on the command line
    taken: Callable[..., Any] = scope[name]
    return taken


def table(draws: random.Random) -> Table:
    size = draws.choice((4, 8, 16))
    answers = draws.choice((["1", "2"], ["1", "2", "3", "4"], [str(n) for n in range(20)]))
    return [None if draws.random() < 0.15 else draws.choice(answers) for _ in range(size)]


def rollouts_of(answers: Table) -> QuestionRollouts:
    group = AskedId(question_id="q", epoch=0).group(*POLICY_ORIGINAL)
    completions = tuple(
        Completion(
            id=group.completion(index), incarnation=0, attempt=0, prompt_token_ids=[1], token_ids=[1], behavior_logprobs=[-1.0],
            token_versions=[0], temperature=1.0, text="", answer=answer, finish_reason="stop", actor_id="",
        )  # type: ignore[arg-type]
        for index, answer in enumerate(answers)
    )  # fmt: skip
    return QuestionRollouts(asked=group.asked, groups={group: completions})


def empo(path: Path, answers: Table) -> float:
    """Their frequencies, with their rule for missing answers (0) and for the entropy of all-different answers (all 0)."""
    cluster = function(path, "post_semantic_cluster")
    texts = ["" if answer is None else answer for answer in answers]
    equality = [[int(one == other) for other in texts] for one in texts]
    frequencies, _, unique = cluster(texts, equality)
    entropy = -sum(p * math.log(p) for p in unique)
    different = entropy >= math.log(len(answers)) - 1e-9
    theirs = [0.0 if different or not text else f for text, f in zip(texts, frequencies, strict=True)]
    context = RuleContext(key=str, min_share=0.0, run_seed=0)
    (ours,) = REWARD_RULES["empo"].score(rollouts_of(answers), context)
    return float(np.abs(ours.rewards - np.array(theirs)).max())


def evol_rl(path: Path, draws: random.Random) -> float:
    """Their rewards and ours from the same embeddings and verdicts."""
    compute = function(path, "_compute_similarity_based_rewards")
    size = draws.randint(2, 16)
    vectors = np.array([[draws.gauss(0, 1) for _ in range(4)] for _ in range(size)], np.float32)
    right = [float(draws.random() < 0.5) for _ in range(size)]

    class Manager:
        debug_mode = False

        def _get_semantic_embeddings_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
            return list(vectors)

    with contextlib.redirect_stdout(io.StringIO()):
        theirs = compute(Manager(), [""] * size, right)
    normal = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-8)
    ours = banded(np.clip(normal @ normal.T, 0.0, 1.0), np.array(right) > 0)
    return float(np.abs(ours - np.array(theirs)).max())


def scope(path: Path, answers: Table, draws: random.Random) -> float:
    """0 if both elect the same answer with the same weight; 1 else. Theirs misplaces weights after a missing answer: none here."""
    texts = [answer or "0" for answer in answers]
    weights = [draws.uniform(0.1, 1.0) for _ in texts]
    elect = function(
        path,
        "_majority_vote_with_confidence",
        defaultdict=defaultdict,
        extract_answer=lambda text: text,
        simplify_expression_string=lambda text: text,
    )
    label, score = elect(texts, weights)
    ours = majority_vote(texts, key=str, weights=weights)
    return float(label != ours.answer or abs(score - ours.share * math.fsum(weights)) > BOUND)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--empo", type=Path)
    parser.add_argument("--evol-rl", type=Path)
    parser.add_argument("--scope", type=Path)
    parser.add_argument("--tables", type=int, default=2000)
    arguments = parser.parse_args()
    draws = random.Random(0)
    found: dict[str, float] = {}
    for name, path, difference in (
        ("empo", arguments.empo, lambda p: empo(p, table(draws))),
        ("evol_rl", arguments.evol_rl, lambda p: evol_rl(p, draws)),
        ("confidence-weighted votes", arguments.scope, lambda p: scope(p, table(draws), draws)),
    ):
        if path is not None:
            found[name] = max(difference(path) for _ in range(arguments.tables))
            print(f"{name}: {arguments.tables} tables, largest difference {found[name]:.1e}")
    return int(any(value > BOUND for value in found.values()))


if __name__ == "__main__":
    raise SystemExit(main())
