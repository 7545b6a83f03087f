"""Fixed inputs: answers, completions' texts, groups, samples. Written by hand or drawn from a seed."""

from __future__ import annotations

import random

import numpy as np
import torch

from corewarding.dataflow.carriers import Completion, QuestionRollouts, ScoredGroup, TokenStatistics, TrainingSample
from corewarding.dataflow.ids import AskedId, Source, View
from corewarding.learner.objective.loss import TokenBatch
from corewarding.rewards.answers.key import answer_key
from corewarding.rewards.rules.contract import RuleContext
from tests.unit.rewards.answers.test_key import CLASSES, NEAR_MISSES

# What the policy and the teacher answered, by group; every rule finds its groups here.
QUESTIONS: list[dict[tuple[View, Source], list[str | None]]] = [
    {
        ("original", "policy"): ["1", "2", "1", "3", "4", None, "1.0", "2"],
        ("rephrased", "policy"): ["2", "2", "4", "1", "2.", "3", None, "4"],
        ("original", "teacher"): ["3", "3", None, "1"],
        ("rephrased", "teacher"): ["4", "4", "4", "2"],
    },
    {
        ("original", "policy"): [r"\frac12", "0.5", "1/2", "2", "2", "2", "x+1", "1+x"],
        ("rephrased", "policy"): [None, None, None, None, None, None, None, None],
        ("original", "teacher"): ["2", r"\frac{2}{4}", ".5", "50%"],
        ("rephrased", "teacher"): ["(1,2)", "(2,1)", r"\{1,2\}", r"\text{Yes}"],
    },
    {
        ("original", "policy"): ["7"] * 8,
        ("rephrased", "policy"): ["8", "7"] * 4,
        ("original", "teacher"): [None, None, None, "7"],
        ("rephrased", "teacher"): ["7", "8", "9", "10"],
    },
]
RULES = (
    "ground_truth",
    "majority_vote",
    "self_certainty",
    "entropy",
    "random",
    "co_rewarding_i",
    "co_rewarding_ii",
    "co_rewarding_iii",
)
GOLD = {"q0": "1", "q1": r"\frac{1}{2}", "q2": None}

TEXTS = [
    r"so \boxed{7}.", r"\boxed{\frac{1}{2}} and then \boxed{3", r"\boxed{\text{a}} \fbox{3}", r"\boxed 7",
    r"\boxed format \boxed{8}",
    r"\\boxed{9}", r"\boxed{\boxed{4}}", r"\boxed{}", "no box", r"\boxed{\{1,2\}}", r"\boxed{ x }\boxed{y",
    "#### 12", "The answer is 5.",
    r"\boxed{a}b}c", r"\boxed{\left(\frac{1}{2},3\right)}", r"\boxedx{1}", r"\boxed{1}\boxed{2}\boxed{}", "the answer is: **8** . And",
]  # fmt: skip


FORMS = r"""
\frac{A}{B} | A\sqrt{B} | -AX^B+X | (A, -B) | \{A, B\} | [A, \infty) | X \le A | A\% | A \text{ cm}^2
A\pi/B | \log_{B} A | \sin A^\circ | A - Bi | A,B | y = AX - B | \frac{X+A}{X-B} | A.0A | A^{B}
\begin{pmatrix} A & B \\ X & 0 \end{pmatrix} | A \pm \sqrt{B} | \binom{2A}{B} | e^{Ai\pi/B} | A:B | \text{odd} A | \left(X-A\right)^2
\frac{A}{B}+\frac{B}{A} | \sqrt[3]{A} | X=A, X=-B
"""  # A, B: numbers, X: a letter


def answers() -> list[str]:
    """The golden table of the tests, and a few hundred answers generated from FORMS."""
    table = [member for _, members in CLASSES for member in members] + [text for pair in NEAR_MISSES for text in pair]
    rng = random.Random(20)
    forms = [form.strip() for line in FORMS.strip().splitlines() for form in line.split(" | ")]
    for form in forms:
        for _ in range(14):
            values = {"A": str(rng.randint(1, 40)), "B": str(rng.randint(2, 19)), "X": rng.choice("xyn")}
            table.append("".join(values.get(letter, letter) for letter in form))
    return list(dict.fromkeys(table))


def rollouts() -> list[QuestionRollouts]:
    """QUESTIONS as completions, of lengths and versions that differ."""
    made = []
    for number, groups in enumerate(QUESTIONS):
        asked = AskedId(question_id=f"q{number}", epoch=number)
        members = {
            asked.group(view, source): tuple(
                _completion(asked, view, source, index, answer) for index, answer in enumerate(row)
            )
            for (view, source), row in groups.items()
        }
        made.append(QuestionRollouts(asked=asked, groups=members))
    return made


def _completion(asked: AskedId, view: View, source: Source, index: int, answer: str | None) -> Completion:
    length = 2 + (3 * index + len(answer or "")) % 7
    return Completion(
        id=asked.group(view, source).completion(index),
        incarnation=0,
        attempt=0,
        prompt_token_ids=np.arange(3, 9),
        token_ids=np.arange(length) % (3 + index % 3) + 5,
        behavior_logprobs=np.linspace(-2, -0.1, length),
        token_versions=np.arange(length) // 4 + 1,
        temperature=1.0,
        text="" if answer is None else rf"\boxed{{{answer}}}",
        answer=answer,
        finish_reason="length" if index == 3 else "stop",
        actor_id="actor",
    )


def rule_context(questions: list[QuestionRollouts]) -> RuleContext:
    """Gold answers and token statistics for every completion; a vote needs a share of 0.3."""
    completions = [completion for question in questions for completion in question.completions]
    statistics = {
        completion.id: TokenStatistics(
            id=completion.id, self_certainty=1 / (number + 3), entropy=float(np.sin(number) + 1)
        )
        for number, completion in enumerate(completions)
    }
    return RuleContext(key=answer_key, min_share=0.3, run_seed=7, gold=GOLD.get, statistics=statistics)


def reward_groups(scored: list[ScoredGroup]) -> list[ScoredGroup]:
    """`scored` and the same groups under rewards that are no votes."""
    rng = np.random.default_rng(3)
    return scored + [
        ScoredGroup(
            id=group.id,
            completions=group.completions,
            rewards=rng.normal(size=len(group.completions)),
            label=None,
            vote=None,
            abstained=False,
        )
        for group in scored
    ]


def token_batch() -> tuple[torch.Tensor, torch.Tensor, TokenBatch]:
    """(log pi, log ref, batch) of 48 tokens in 6 completions: some far off policy, some masked garbage."""
    rng = np.random.default_rng(11)
    num = 48
    policy = rng.normal(-1.5, 0.6, num)
    behavior = policy + rng.normal(0, 0.4, num)
    behavior[[3, 17]] += [2.5, -2.5]
    behavior[40] = policy[40] + 12  # vetoed
    mask = np.ones(num, bool)
    mask[[5, 6, 30]] = False
    behavior[5] = np.nan
    batch = TokenBatch(
        behavior_T=torch.tensor(behavior, dtype=torch.float32),
        advantage_T=torch.tensor(np.repeat(rng.normal(size=6), 8), dtype=torch.float32),
        mask_T=torch.from_numpy(mask),
        weight_T=torch.tensor(np.repeat([1 / 21, 1 / 24], 24), dtype=torch.float32),
        age_T=torch.tensor(np.arange(num) % 5, dtype=torch.float32),
        sequence_T=torch.arange(6).repeat_interleave(8),
        num_sequences=6,
    )
    reference = torch.tensor(policy + rng.normal(0, 0.3, num), dtype=torch.float32)
    return torch.tensor(policy, dtype=torch.float32), reference, batch


def samples(*, vocabulary: int, seed: int, version: int, num: int = 5) -> list[TrainingSample]:
    """Two wordings of `num` questions, four completions each, with ages, masks and truncation; sorted by id."""
    rng = np.random.default_rng(seed)
    made = []
    for question in range(num):
        for view in ("original", "rephrased"):
            group = AskedId(question_id=f"q{question:02d}", epoch=0).group(view, "policy")
            prompt = rng.integers(5, vocabulary, rng.integers(4, 12))
            for index in range(4):
                length = int(rng.integers(2, 20))
                made.append(
                    TrainingSample(
                        id=group.completion(index),
                        prompt_token_ids=prompt,
                        token_ids=rng.integers(5, vocabulary, length),
                        behavior_logprobs=rng.normal(-1, 0.3, length),
                        token_versions=np.sort(rng.integers(0, version + 1, length)),
                        advantage=float(rng.normal()),
                        loss_mask=np.full(length, (question, index) != (1, 2)),
                        temperature=1.0 if question % 2 else 0.8,
                        truncated=index == 3,
                    )
                )
    return sorted(made, key=lambda sample: sample.id)
