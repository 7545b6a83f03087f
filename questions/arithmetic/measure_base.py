"""Measures the arithmetic base model on held-out questions with transformers' own `generate`.

`make_base.py` uses it for the numbers in the model's README. Nothing here changes the model.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase, Qwen3ForCausalLM

from corewarding.dataflow.ids import View
from corewarding.questions.arithmetic.tokenizer import END, PAD
from corewarding.questions.arithmetic.world import arithmetic_questions
from corewarding.questions.settings import DEFAULT_SYSTEM_PROMPT

MAX_NEW_TOKENS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One completion: text, number of tokens with the end token, and whether it was cut off."""

    text: str
    length: int
    truncated: bool


def prompt_token_ids(tokenizer: PreTrainedTokenizerBase, question: str) -> list[int]:
    """The templated prompt with the system message and an open assistant turn."""
    messages = [{"role": "system", "content": DEFAULT_SYSTEM_PROMPT}, {"role": "user", "content": question}]
    text = str(tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))
    return tokenizer.encode(text, add_special_tokens=False)


@torch.no_grad()
def generate(
    model: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    wordings: Sequence[str],
    *,
    samples: int,
    temperature: float,
) -> list[list[Sample]]:
    """For each wording `samples` completions; temperature 0 is greedy."""
    results: list[list[Sample]] = []
    pad, end = tokenizer.convert_tokens_to_ids(PAD), tokenizer.convert_tokens_to_ids(END)
    greedy: dict[str, Any] = {"do_sample": False}
    how = greedy if temperature == 0 else {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    model.eval()
    for start in range(0, len(wordings), 32):
        prompts = [prompt_token_ids(tokenizer, wording) for wording in wordings[start : start + 32]]
        longest = max(map(len, prompts))
        tokens = torch.tensor([[pad] * (longest - len(p)) + p for p in prompts])
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
        out = model.generate(  # type: ignore[misc]
            input_ids=tokens,
            attention_mask=mask,
            max_new_tokens=MAX_NEW_TOKENS,
            num_return_sequences=samples,
            pad_token_id=pad,
            eos_token_id=end,
            **how,
        )[:, longest:]
        found = [
            Sample(
                text=str(tokenizer.decode(row, skip_special_tokens=True)),
                length=int((row != pad).sum()),
                truncated=end not in row.tolist(),
            )
            for row in out
        ]
        results += [found[i : i + samples] for i in range(0, len(found), samples)]
    return results


def boxed(text: str) -> str | None:
    """The integer in the last box, or None. All answers of the arithmetic world are integers."""
    found = re.findall(r"\\boxed\{(\d+)\}", text)
    return found[-1] if found else None


def evaluate(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerBase, view: View, *, num: int, samples: int = 8
) -> dict[str, float]:
    """Held-out mean@n and maj@n at temperature 1, greedy accuracy, shares of mistakes, and lengths in tokens."""
    torch.manual_seed(1234)
    questions, answers = arithmetic_questions(split="heldout", num=num, seed=0)
    gold = [answers[q.id] for q in questions]
    wordings = [q.wording(view) for q in questions]
    sampled = generate(model, tokenizer, wordings, samples=samples, temperature=1.0)
    greedy = generate(model, tokenizer, wordings, samples=1, temperature=0.0)
    picks = [[boxed(sample.text) for sample in group] for group in sampled]
    votes = [Counter(a for a in group if a is not None).most_common(1) for group in picks]
    lengths = np.array([sample.length for group in sampled for sample in group])
    boxes = [a for group in picks for a in group]
    return {
        f"mean@{samples}": float(np.mean([a == g for group, g in zip(picks, gold, strict=True) for a in group])),
        f"maj@{samples}": float(np.mean([bool(v) and v[0][0] == g for v, g in zip(votes, gold, strict=True)])),
        "greedy": float(np.mean([boxed(group[0].text) == g for group, g in zip(greedy, gold, strict=True)])),
        "no_box_frac": boxes.count(None) / len(boxes),
        "truncated_frac": float(np.mean([sample.truncated for group in sampled for sample in group])),
        "length_mean": float(lengths.mean()),
        "length_p5": float(np.percentile(lengths, 5)),
        "length_p50": float(np.percentile(lengths, 50)),
        "length_p95": float(np.percentile(lengths, 95)),
    }
