"""How far the bfloat16 gradient is from the float32 one.

    python -m benchmarks.bf16_gradient [--model FOLDER] [--batches 5]

For each batch of sampled completions it prints 1 - cosine with the float32 gradient, for our learner with
learner.param_dtype=bfloat16 and for a plain Hugging Face model in bfloat16 (logits.float(), log_softmax). One
batch's distance is a draw of rounding errors, and now and then a single token makes it three times as large.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

from corewarding.dataflow.carriers import TrainingSample
from corewarding.dataflow.ids import AskedId, CompletionId
from corewarding.learner.learner import Learner
from corewarding.learner.settings import CorrectionSettings, LearnerPlan, LearnerSettings
from corewarding.questions.arithmetic.world import arithmetic_questions
from corewarding.questions.settings import DEFAULT_SYSTEM_PROMPT
from corewarding.questions.template import PromptTemplate
from corewarding.rewards.advantages import group_advantages
from corewarding.rewards.answers.extract import extract_answer
from corewarding.rewards.answers.grading import grade


@dataclass(frozen=True, slots=True, kw_only=True)
class Distances:
    """1 - cosine with the float32 gradient of the same batch."""

    ours: float
    hugging_face: float


@torch.no_grad()
def sampled_batch(model_path: str, *, seed: int, questions: int = 16, group_size: int = 8) -> list[TrainingSample]:
    """Completions of arithmetic questions at temperature 1, with the advantages of right and wrong answers."""
    torch.manual_seed(seed)
    template = PromptTemplate.from_folder(model_path, system_prompt=DEFAULT_SYSTEM_PROMPT)
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32).eval()
    asked, gold = arithmetic_questions(split="train", num=questions, seed=seed)
    prompts = template.batch_token_ids([question.original for question in asked])
    longest = max(map(len, prompts))
    padded = torch.from_numpy(np.stack([np.pad(prompt, (longest - len(prompt), 0)) for prompt in prompts])).long()
    present = torch.arange(longest) >= torch.tensor([[longest - len(prompt)] for prompt in prompts])
    written = model.generate(
        padded, attention_mask=present.long(), do_sample=True, top_k=0, top_p=1.0, max_new_tokens=32,
        num_return_sequences=group_size, eos_token_id=list(template.eos_token_ids), pad_token_id=0,
    )[:, longest:].numpy()  # fmt: skip
    samples = []
    for row, (question, prompt) in enumerate(zip(asked, prompts, strict=True)):
        group = AskedId(question_id=question.id, epoch=0).group("original", "policy")
        answers = [
            _until_end(one, template.eos_token_ids) for one in written[row * group_size : (row + 1) * group_size]
        ]
        rewards = [grade(extract_answer(template.decode(answer)), gold[question.id]) for answer in answers]
        advantages = group_advantages(np.array(rewards, np.float32), normalize="std")
        for index, (answer, advantage) in enumerate(zip(answers, advantages, strict=True)):
            samples.append(_sample(group.completion(index), prompt, answer, float(advantage)))
    return sorted(samples, key=lambda sample: sample.id)


def _until_end(tokens: np.ndarray, eos_token_ids: Sequence[int]) -> np.ndarray:
    ends = np.flatnonzero(np.isin(tokens, eos_token_ids))
    return tokens[: ends[0] + 1] if len(ends) else tokens


def _sample(one: CompletionId, prompt: np.ndarray, answer: np.ndarray, advantage: float) -> TrainingSample:
    return TrainingSample(
        id=one,
        prompt_token_ids=prompt,
        token_ids=answer,
        behavior_logprobs=np.zeros(len(answer), np.float32),
        token_versions=np.zeros(len(answer), np.int32),
        advantage=advantage,
        loss_mask=np.ones(len(answer), bool),
        temperature=1.0,
        truncated=False,
    )


def learner_gradient(model_path: str, samples: Sequence[TrainingSample], dtype: str, **settings: Any) -> Tensor:
    """[all parameters] by the learner, on policy, without a KL term: every token's ratio and weight are 1."""
    learner = Learner(
        LearnerPlan(
            model_path=model_path,
            kl_coef=0.0,
            kl_reference="none",
            keep_teacher=False,
            learner=LearnerSettings.model_validate({"param_dtype": dtype, "micro_batch_tokens": 8192, **settings}),
            correction=CorrectionSettings(mode="none", veto=None),
        )
    )
    learner.accumulate(learner.pack(samples))
    return _flat(learner.model.parameters())


def hugging_face_gradient(model_path: str, samples: Sequence[TrainingSample], dtype: torch.dtype) -> Tensor:
    """[all parameters] of -sum advantage * logprob / tokens, by one padded forward and backward pass."""
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32).to(dtype).train()
    rows = [np.concatenate([sample.prompt_token_ids, sample.token_ids]) for sample in samples]
    longest = max(map(len, rows))
    tokens = torch.from_numpy(np.stack([np.pad(row, (0, longest - len(row))) for row in rows])).long()
    present = torch.arange(longest) < torch.tensor([len(row) for row in rows])[:, None]
    weight = torch.zeros(tokens.shape)
    total = sum(len(sample.token_ids) for sample in samples)
    for row, sample in enumerate(samples):
        weight[row, len(sample.prompt_token_ids) : len(rows[row])] = sample.advantage / total
    logits = model(input_ids=tokens, attention_mask=present.long(), use_cache=False).logits
    logprobs = logits[:, :-1].float().log_softmax(-1).gather(-1, tokens[:, 1:, None]).squeeze(-1)
    (-(weight[:, 1:] * logprobs).sum()).backward()
    return _flat(model.parameters())


def _flat(parameters: Iterator[torch.nn.Parameter]) -> Tensor:
    gradients = [p.grad for p in parameters if p.grad is not None]
    return torch.cat([(g.full_tensor() if isinstance(g, DTensor) else g).flatten().double() for g in gradients])


def distances(model_path: str, samples: Sequence[TrainingSample], **settings: Any) -> Distances:
    """settings: of the learner in bfloat16, such as activation_checkpointing."""
    exact = learner_gradient(model_path, samples, "float32")
    ours = learner_gradient(model_path, samples, "bfloat16", **settings)
    theirs = hugging_face_gradient(model_path, samples, torch.bfloat16)
    return Distances(ours=1 - _cosine(ours, exact), hugging_face=1 - _cosine(theirs, exact))


def _cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="models/arithmetic-base")
    parser.add_argument("--batches", type=int, default=5)
    arguments = parser.parse_args()
    disable_progress_bar()
    print("| batch | ours | plain Hugging Face | ratio |\n|---|---|---|---|")
    measured = []
    for seed in range(arguments.batches):
        one = distances(arguments.model, sampled_batch(arguments.model, seed=seed))
        measured.append(one)
        print(f"| {seed} | {one.ours:.5f} | {one.hugging_face:.5f} | {one.ours / one.hugging_face:.3f} |", flush=True)
    for name, average in (("mean", statistics.mean), ("median", statistics.median)):
        ours = average([one.ours for one in measured])
        theirs = average([one.hugging_face for one in measured])
        print(f"| {name} | {ours:.5f} | {theirs:.5f} | {ours / theirs:.3f} |")


if __name__ == "__main__":
    main()
