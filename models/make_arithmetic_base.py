"""Makes the shipped base model: `python models/make_arithmetic_base.py --out models/arithmetic-base`.

Trains tokenizer and model on demonstrations of the arithmetic world and measures the result on held-out questions. First
clean demonstrations, so that the model can calculate; then demonstrations with random mistakes, so that a sample is
often wrong while a vote over samples is mostly right: what label-free training starts from.

Invariant: the same command on the same machine and torch build writes the same bytes (one thread, fixed seeds).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from arithmetic_tokenizer import END, PAD, VOCAB_SIZE, tokenizer_config, train_tokenizer
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from dataflow.types import VIEWS, View
from questions.arithmetic import SYSTEM_MESSAGE, Demonstration, arithmetic_questions, demonstrations

MAX_POSITIONS = 4096
IGNORE = -100


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything the weights depend on besides the world itself."""

    seed: int = 0
    batch_size: int = 128
    clean_updates: int = 1200
    noisy_updates: int = 600
    wrong_digit_share: float = 0.30
    missing_box_share: float = 0.20
    learning_rate: float = 2e-3
    warmup_updates: int = 50

    @property
    def updates(self) -> int:
        return self.clean_updates + self.noisy_updates

    def learning_rate_at(self, update: int) -> float:
        """Of update 0, 1, ...: linear warm-up, then linear to a twentieth of the peak at the end."""
        if update < self.warmup_updates:
            return self.learning_rate * (update + 1) / self.warmup_updates
        left = (self.updates - update) / max(self.updates - self.warmup_updates, 1)
        return self.learning_rate * (0.05 + 0.95 * left)


def model_config() -> Qwen3Config:
    """About 0.8 million parameters; head_dim 32 and sizes in multiples of 32 suit every engine's CPU attention."""
    return Qwen3Config(
        vocab_size=VOCAB_SIZE,
        hidden_size=128,
        intermediate_size=320,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        tie_word_embeddings=True,
        max_position_embeddings=MAX_POSITIONS,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=2,
        dtype="float32",
        architectures=["Qwen3ForCausalLM"],
        attn_implementation="sdpa",
    )


def write_tokenizer(out: Path) -> None:
    train_tokenizer().save(str(out / "tokenizer.json"))
    (out / "tokenizer_config.json").write_text(json.dumps(tokenizer_config(MAX_POSITIONS), indent=2) + "\n")


def prompt_token_ids(tokenizer: object, question: str) -> list[int]:
    """The templated prompt with the system message and an open assistant turn."""
    messages = [{"role": "system", "content": SYSTEM_MESSAGE}, {"role": "user", "content": question}]
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)  # type: ignore[attr-defined]


def collate(tokenizer: object, batch: Sequence[Demonstration], end_id: int) -> tuple[Tensor, Tensor]:
    """Right-padded [B, T] token ids, and targets that are IGNORE outside the completion. Nothing attends to the padding,
    since it stands behind every real token and attention is causal."""
    prompts = [prompt_token_ids(tokenizer, d.question) for d in batch]
    completions = [[*tokenizer.encode(d.completion, add_special_tokens=False), end_id] for d in batch]  # type: ignore[attr-defined]
    longest = max(len(p) + len(c) for p, c in zip(prompts, completions, strict=True))
    tokens = np.zeros((len(batch), longest), np.int64)
    targets = np.full((len(batch), longest), IGNORE, np.int64)
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        end = len(prompt) + len(completion)
        tokens[row, :end] = prompt + completion
        targets[row, len(prompt) : end] = completion
    return torch.from_numpy(tokens), torch.from_numpy(targets)


def completion_loss(model: Qwen3ForCausalLM, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
    """Mean cross entropy over completion tokens; logits are computed at those positions only."""
    hidden = model.model(input_ids=tokens_BT[:, :-1], use_cache=False).last_hidden_state
    targets = targets_BT[:, 1:]
    wanted = targets != IGNORE
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[wanted]), targets[wanted])


def train(
    model: Qwen3ForCausalLM, tokenizer: object, recipe: Recipe, log: Callable[[str], None], save: Callable[[], None]
) -> None:
    """Clean updates, then updates with mistakes, under one learning-rate schedule; saves every 200 updates."""
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}],
        lr=recipe.learning_rate,
        betas=(0.9, 0.98),
    )
    clean = demonstrations(num=recipe.clean_updates * recipe.batch_size, seed=recipe.seed + 1)
    noisy = demonstrations(
        num=recipe.noisy_updates * recipe.batch_size,
        seed=recipe.seed + 2,
        wrong_digit_share=recipe.wrong_digit_share,
        missing_box_share=recipe.missing_box_share,
    )
    end_id = tokenizer.convert_tokens_to_ids(END)  # type: ignore[attr-defined]
    started = time.perf_counter()
    model.train()
    for update in range(recipe.updates):
        stream = clean if update < recipe.clean_updates else noisy
        tokens, targets = collate(tokenizer, [next(stream) for _ in range(recipe.batch_size)], end_id)
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate_at(update)
        loss = completion_loss(model, tokens, targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, error_if_nonfinite=True)
        optimizer.step()
        if update % 50 == 49 or update + 1 == recipe.updates:
            seconds = time.perf_counter() - started
            log(
                f"update {update + 1}/{recipe.updates} loss {loss.item():.4f} grad_norm {norm:.2f} wall_s {seconds:.0f}"
            )
        if update % 200 == 199 or update + 1 == recipe.updates:
            save()


@torch.no_grad()
def generate(
    model: Qwen3ForCausalLM, tokenizer: object, wordings: Sequence[str], *, samples: int, temperature: float
) -> list[list[tuple[str, int]]]:
    """For each wording `samples` pairs (text, completion tokens with the end token); temperature 0 is greedy."""
    results: list[list[tuple[str, int]]] = []
    pad, end = (tokenizer.convert_tokens_to_ids(t) for t in (PAD, END))  # type: ignore[attr-defined]
    how = (
        {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
        if temperature
        else {"do_sample": False}
    )
    model.eval()
    for start in range(0, len(wordings), 32):
        prompts = [prompt_token_ids(tokenizer, wording) for wording in wordings[start : start + 32]]
        longest = max(map(len, prompts))
        tokens = torch.tensor([[pad] * (longest - len(p)) + p for p in prompts])
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
        out = model.generate(
            input_ids=tokens,
            attention_mask=mask,
            max_new_tokens=32,
            num_return_sequences=samples,
            pad_token_id=pad,
            eos_token_id=end,
            **how,
        )[:, longest:]
        pairs = [
            (tokenizer.decode(row, skip_special_tokens=True), int((row != pad).sum()))  # type: ignore[attr-defined]
            for row in out
        ]
        results += [pairs[i : i + samples] for i in range(0, len(pairs), samples)]
    return results


def boxed(text: str) -> str | None:
    found = re.findall(r"\\boxed\{(\d+)\}", text)
    return found[-1] if found else None


def evaluate(model: Qwen3ForCausalLM, tokenizer: object, view: View, *, num: int, samples: int = 8) -> dict[str, float]:
    """Held-out mean@n and maj@n at temperature 1, greedy accuracy, shares of mistakes and lengths, 32 new tokens at most."""
    torch.manual_seed(1234)
    questions, answers = arithmetic_questions(split="heldout", num=num, seed=0)
    gold = [answers[q.id] for q in questions]
    wordings = [q.wording(view) for q in questions]
    sampled = generate(model, tokenizer, wordings, samples=samples, temperature=1.0)
    greedy = generate(model, tokenizer, wordings, samples=1, temperature=0.0)
    picks = [[boxed(text) for text, _ in group] for group in sampled]
    votes = [Counter(a for a in group if a is not None).most_common(1) for group in picks]
    lengths = np.array([length for group in sampled for _, length in group])
    boxes = [a for group in picks for a in group]
    return {
        f"mean@{samples}": float(np.mean([a == g for group, g in zip(picks, gold, strict=True) for a in group])),
        f"maj@{samples}": float(np.mean([bool(v) and v[0][0] == g for v, g in zip(votes, gold, strict=True)])),
        "greedy": float(np.mean([boxed(group[0][0]) == g for group, g in zip(greedy, gold, strict=True)])),
        "no_box_frac": boxes.count(None) / len(boxes),
        "truncated_frac": float(np.mean([length >= 32 for length in lengths])),
        "length_mean": float(lengths.mean()),
        "length_p5": float(np.percentile(lengths, 5)),
        "length_p50": float(np.percentile(lengths, 50)),
        "length_p95": float(np.percentile(lengths, 95)),
    }


def write_model(model: Qwen3ForCausalLM, out: Path) -> None:
    """config.json, generation_config.json and model.safetensors; the tied output matrix is not stored twice."""
    model.config.save_pretrained(out)
    generation = {"eos_token_id": 2, "pad_token_id": 0, "do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
    (out / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    weights = {name: p.detach().clone().contiguous() for name, p in model.named_parameters()}
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    (out / "model.safetensors").chmod(0o644)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write the model to")
    parser.add_argument("--clean-updates", type=int, default=Recipe().clean_updates)
    parser.add_argument("--noisy-updates", type=int, default=Recipe().noisy_updates)
    parser.add_argument("--num-eval", type=int, default=512, help="held-out questions measured, per view")
    arguments = parser.parse_args()
    recipe = Recipe(clean_updates=arguments.clean_updates, noisy_updates=arguments.noisy_updates)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(recipe.seed)
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_tokenizer(arguments.out)
    tokenizer = AutoTokenizer.from_pretrained(arguments.out)
    model = Qwen3ForCausalLM(model_config())
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters", flush=True)
    train(model, tokenizer, recipe, lambda line: print(line, flush=True), lambda: write_model(model, arguments.out))
    model.eval()
    measured = {view: evaluate(model, tokenizer, view, num=arguments.num_eval) for view in VIEWS}
    print(json.dumps(measured, indent=2), flush=True)


if __name__ == "__main__":
    main()
