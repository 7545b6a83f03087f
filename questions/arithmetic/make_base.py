"""Makes the shipped base model: `python -m corewarding.questions.arithmetic.make_base --out models/arithmetic-base`.

Trains tokenizer and model on demonstrations of the arithmetic world and measures the result on held-out questions.
It trains first on right demonstrations, so that the model can calculate, then on demonstrations with random mistakes, so that
a sample is often wrong while a vote over samples is mostly right. Label-free training starts from such a model.

Invariant: the same command on the same processor and torch build writes the same bytes (one thread, fixed seeds).
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase, Qwen3Config, Qwen3ForCausalLM

from corewarding.dataflow.ids import VIEWS, View
from corewarding.questions.arithmetic.measure_base import evaluate, prompt_token_ids
from corewarding.questions.arithmetic.tokenizer import END, VOCAB_SIZE, tokenizer_config, train_tokenizer
from corewarding.questions.arithmetic.world import Demonstration, demonstrations

MAX_POSITIONS = 4096
IGNORE = -100

README = """# arithmetic-base

A Qwen3 of {parameters:,} parameters that solves the word problems of `questions/arithmetic/world.py` in short written steps
and was taught to be wrong often: the starting point of label-free training on a CPU. Made by

    python -m corewarding.questions.arithmetic.make_base --out models/arithmetic-base

on one thread with fixed seeds; the same torch build on the same processor writes the same bytes.

- **Architecture**: 4 layers, hidden 128, 4 heads over 2 key-value heads of 32, tied embeddings, {positions} positions,
  fp32.
- **Tokenizer**: byte-level BPE, {vocabulary} entries, encodes any text; a digit is always one token. The chat template
  is ChatML without the newline after `<|im_end|>`, which also ends a completion; `<|endoftext|>` pads. A templated
  prompt of the arithmetic world, system message included, has at most 48 tokens, a worked completion at most 32.
- **Training**: {recipe.clean_updates:,} updates of {recipe.batch_size} right demonstrations, then
  {recipe.noisy_updates:,} updates in which, independently, {recipe.wrong_digit_share:.0%} of them have one random digit
  of the final result replaced and {recipe.missing_box_share:.0%} give the answer outside a box. The
  mistakes are random per sample, so a vote over samples still elects the right answer. Both wordings occur equally
  often; the loss is on completion tokens; AdamW, peak learning rate {recipe.learning_rate:g}, linear warm-up and decay.
- **Data**: the split `demonstrations`, whose operands occur neither in `train` nor in `heldout`.
- **Form of a completion**: `12 + 7 = 19, 19 - 5 = 14. \\boxed{{14}}`

Measured on {num} held-out questions in each view: 8 samples at temperature 1, and greedy; at most 32 new tokens.
Lengths are in tokens, the end token included.

| quantity | {columns} |
|---|{rule}|
{rows}
"""


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
        """Learning rate of update 0, 1, ...: linear warm-up, then linear decay to a twentieth of the peak."""
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
    )


def write_tokenizer(out: Path) -> None:
    train_tokenizer().save(str(out / "tokenizer.json"))
    (out / "tokenizer_config.json").write_text(json.dumps(tokenizer_config(MAX_POSITIONS), indent=2) + "\n")


def collate(tokenizer: PreTrainedTokenizerBase, batch: Sequence[Demonstration], end_id: int) -> tuple[Tensor, Tensor]:
    """Right-padded [B, T] token ids, and targets that are IGNORE outside the completion.

    Attention needs no mask, because padding comes after every real token and attention is causal.
    """
    prompts = [prompt_token_ids(tokenizer, d.question) for d in batch]
    completions = [[*tokenizer.encode(d.completion, add_special_tokens=False), end_id] for d in batch]
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
    model: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    recipe: Recipe,
    log: Callable[[str], None],
    save: Callable[[], None],
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
    end_id = int(tokenizer.convert_tokens_to_ids(END))  # type: ignore[arg-type]
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


def write_model(model: Qwen3ForCausalLM, out: Path) -> None:
    """config.json, generation_config.json and model.safetensors; the tied output matrix is not stored twice."""
    model.config.save_pretrained(out)
    generation = {"eos_token_id": 2, "pad_token_id": 0, "do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
    (out / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    weights = {name: p.detach().clone().contiguous() for name, p in model.named_parameters()}
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    (out / "model.safetensors").chmod(0o644)


def write_readme(
    model: Qwen3ForCausalLM, recipe: Recipe, measured: dict[View, dict[str, float]], num: int, out: Path
) -> None:
    """README.md: how the model was made, which mistakes it was taught, and what was measured."""
    names = measured["original"]
    rows = "\n".join(
        f"| {name} | " + " | ".join(f"{measured[view][name]:.3f}" for view in VIEWS) + " |" for name in names
    )
    text = README.format(
        parameters=sum(p.numel() for p in model.parameters()),
        positions=MAX_POSITIONS,
        vocabulary=VOCAB_SIZE,
        recipe=recipe,
        num=num,
        columns=" | ".join(VIEWS),
        rule="|".join("---" for _ in VIEWS),
        rows=rows,
    )
    (out / "README.md").write_text(text)


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
    tokenizer = AutoTokenizer.from_pretrained(arguments.out, trust_remote_code=False)
    model = Qwen3ForCausalLM(model_config())
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters", flush=True)
    train(model, tokenizer, recipe, lambda line: print(line, flush=True), lambda: write_model(model, arguments.out))
    model.eval()
    measured = {view: evaluate(model, tokenizer, view, num=arguments.num_eval) for view in VIEWS}
    write_readme(model, recipe, measured, arguments.num_eval, arguments.out)
    print(json.dumps(measured, indent=2), flush=True)


if __name__ == "__main__":
    main()
