"""The shipped base model's folder: prompt lengths, a lossless tokenizer, and a model of the stated size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from corewarding.questions.arithmetic.world import arithmetic_questions, demonstrations
from corewarding.questions.settings import DEFAULT_SYSTEM_PROMPT

FOLDER = Path(__file__).resolve().parents[4] / "models" / "arithmetic-base"
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(FOLDER)


def prompt(tokenizer: PreTrainedTokenizerBase, wording: str) -> list[int]:
    messages = [{"role": "system", "content": DEFAULT_SYSTEM_PROMPT}, {"role": "user", "content": wording}]
    text = str(tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))
    return tokenizer.encode(text, add_special_tokens=False)


def test_system_message_is_the_papers() -> None:
    assert DEFAULT_SYSTEM_PROMPT == r"Let's think step by step and output the final answer within \boxed{}."


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_templated_prompts_have_at_most_48_tokens(tokenizer: PreTrainedTokenizerBase, split: str) -> None:
    questions, _ = arithmetic_questions(split=split, num=1500, seed=2)  # type: ignore[arg-type]
    lengths = [len(prompt(tokenizer, q.wording(view))) for q in questions for view in ("original", "rephrased")]
    assert max(lengths) <= 48


def test_worked_completions_fit_in_32_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    noisy = demonstrations(num=1500, seed=2, wrong_digit_share=0.3, missing_box_share=0.2)
    lengths = [len(tokenizer.encode(d.completion, add_special_tokens=False)) + 1 for d in noisy]
    assert max(lengths) <= 32
    assert 15 <= sum(lengths) / len(lengths) <= 25


def test_chat_template_marks_every_turn_and_opens_the_assistants(tokenizer: PreTrainedTokenizerBase) -> None:
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]
    whole = tokenizer.apply_chat_template(messages, tokenize=False)
    assert whole == "<|im_start|>user\nHi<|im_end|><|im_start|>assistant\nYes<|im_end|>"
    opened = tokenizer.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True)
    assert opened == "<|im_start|>user\nHi<|im_end|><|im_start|>assistant\n"


def test_special_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL)) == [0, 1, 2]
    assert (tokenizer.pad_token, tokenizer.eos_token) == ("<|endoftext|>", "<|im_end|>")
    assert (
        tokenizer.decode([1, 2, 0, *tokenizer.encode("ok", add_special_tokens=False)], skip_special_tokens=True) == "ok"
    )


@settings(max_examples=300, deadline=None)
@given(text=st.text(max_size=60).filter(lambda text: not any(token in text for token in SPECIAL)))
def test_any_text_comes_back_as_it_was(text: str) -> None:
    tokenizer = _cached_tokenizer()
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_latex_and_every_byte_come_back_as_they_were(tokenizer: PreTrainedTokenizerBase) -> None:
    texts = [
        r"Let $f(x)=\frac{\sqrt{3}}{2}\left(x^{2}-1\right)$ , find \boxed{f'(0)} .",
        "\\begin{align*}\n a &= b \\\\\n\t c &< d\n\\end{align*}\r\n\r\n",
        "  don 't , n't !  \n\n ½ ∑ 𝔽 \u200d 日本 ١٢٣",
        "".join(map(chr, range(256))),
    ]
    for text in texts:
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_a_digit_is_always_one_token(tokenizer: PreTrainedTokenizerBase) -> None:
    digits = {tokenizer.convert_tokens_to_ids(digit): digit for digit in "0123456789"}
    assert len(digits) == 10
    for text in ("1234567890", "a 12,345.60 b", r"\boxed{1007}", "x2y33z", " 7 77 777"):
        found = [digits[token] for token in tokenizer.encode(text, add_special_tokens=False) if token in digits]
        assert found == [character for character in text if character.isdigit()]
    assert [t for t in tokenizer.get_vocab() if any(c.isdigit() and c.isascii() for c in t) and len(t) > 1] == []


def test_model_is_a_small_qwen3_in_fp32(tokenizer: PreTrainedTokenizerBase) -> None:
    model = AutoModelForCausalLM.from_pretrained(FOLDER)
    config = model.config
    assert config.architectures == ["Qwen3ForCausalLM"]
    assert (config.hidden_size, config.num_hidden_layers, config.head_dim) == (128, 4, 32)
    assert config.max_position_embeddings == 4096
    assert config.vocab_size == len(tokenizer)
    assert config.tie_word_embeddings
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    assert 700_000 < sum(parameter.numel() for parameter in model.parameters()) < 900_000
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert (FOLDER / "model.safetensors").stat().st_size < 6_000_000
    with safe_open(FOLDER / "model.safetensors", "pt") as file:
        assert set(file.keys()) == {name for name, _ in model.named_parameters()}


def test_generation_config_samples_the_whole_distribution() -> None:
    generation = json.loads((FOLDER / "generation_config.json").read_text())
    assert (generation["temperature"], generation["top_p"], generation["top_k"]) == (1.0, 1.0, 0)
    assert generation["eos_token_id"] == 2


@torch.no_grad()
def test_greedy_answers_are_mostly_right(tokenizer: PreTrainedTokenizerBase) -> None:
    model = AutoModelForCausalLM.from_pretrained(FOLDER).eval()
    questions, answers = arithmetic_questions(split="heldout", num=48, seed=9)
    prompts = [prompt(tokenizer, q.wording("rephrased" if i % 2 else "original")) for i, q in enumerate(questions)]
    longest = max(map(len, prompts))
    tokens = torch.tensor([[0] * (longest - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    out = model.generate(input_ids=tokens, attention_mask=mask, max_new_tokens=32, do_sample=False, pad_token_id=0)
    texts = [tokenizer.decode(row, skip_special_tokens=True) for row in out[:, longest:]]
    right = sum(f"\\boxed{{{answers[q.id]}}}" in text for q, text in zip(questions, texts, strict=True))
    assert right / len(questions) >= 0.8


_TOKENIZERS: list[PreTrainedTokenizerBase] = []


def _cached_tokenizer() -> PreTrainedTokenizerBase:
    """Hypothesis does not mix with function fixtures; the tokenizer is loaded once all the same."""
    if not _TOKENIZERS:
        _TOKENIZERS.append(AutoTokenizer.from_pretrained(FOLDER))
    return _TOKENIZERS[0]
