"""The check at load: on rows as long as the run's, packed log-probabilities are those of transformers' own forward.

The table says which architectures are right; this shows it for the model that was loaded, with its config.json, its type of weights
and this machine's kernels. An architecture outside of the table has only this check.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from corewarding.dataflow.carriers import TrainingSample
from corewarding.dataflow.ids import AskedId
from corewarding.learner.model import PolicyModel
from corewarding.learner.objective.packing import pack
from corewarding.learner.settings import LearnerSettings
from corewarding.weights.architectures import ArchitectureError, class_of

NUM_CHECKED = 8
"""Tokens of each completion that is compared."""
BOUNDS = {"float32": 1e-3, "bfloat16": 0.05}
"""Mean difference of log-probabilities, in nats, that is always allowed. A dropped window, scale or mask makes it 0.1 to 1."""
ROUNDING, LARGEST = 4.0, 0.25
"""Rounding grows with depth and differs between models, so ROUNDING times its own effect is allowed too, up to LARGEST nats."""
NUM_APPENDED = 24
"""Tokens that are appended to a sequence to see the effect of rounding."""


@torch.no_grad()
def check_packed(policy: PolicyModel, settings: LearnerSettings, *, folder: str, longest: int) -> float:
    """The mean difference, in nats, of packed and plain log-probabilities. ArchitectureError if it is over the bound.

    Compares two trees of half a row and one of a whole row, each a prompt with two completions, and one sequence of `longest` tokens
    if that is more than a row. Tokens are random and always the same. A difference that is not allowed always is compared with that of
    rounding, which is seen by appending tokens to a sequence: nothing else changes what the model says of the earlier ones.
    Collective: every rank compares all of it.
    """
    device = next(policy.parameters()).device
    length = settings.row_length()
    samples = {sample.id: sample for sample in _samples(policy, length, longest)}
    (micros,) = pack(list(samples.values()), micro_batch_tokens=settings.micro_batch_tokens, row_tokens=length)
    compared = list[tuple[Tensor, Tensor]]()  # a sequence, [C] int64, and what transformers says of its last tokens
    differences = list[Tensor]()
    for micro in micros:
        packed = policy(micro.to(device))[0].cpu().split([len(samples[one].token_ids) for one in micro.ids])
        for one, logprobs in zip(micro.ids, packed, strict=True):
            ids = np.concatenate([samples[one].prompt_token_ids, samples[one].token_ids])
            row = torch.from_numpy(ids).long().to(device)
            plain = policy.plain_logprobs(row, NUM_CHECKED).cpu()
            differences.append((logprobs - plain).abs())
            compared.append((row, plain))
    mean, bound = float(torch.cat(differences).mean()), BOUNDS[settings.param_dtype]
    if _on_any_rank(not mean <= bound, device):
        bound = max(bound, min(LARGEST, ROUNDING * _rounding(policy, compared)))
    if not mean <= bound:
        raise ArchitectureError(
            f"model.path {folder}: on rows of {length} tokens (learner.row_tokens) and sequences of up to "
            f"{max(longest, length)}, packed log-probabilities differ from those of transformers by {mean:.2g} nats on "
            f"average; with learner.param_dtype {settings.param_dtype} at most {bound:.2g} is allowed. Packed rows do not compute "
            f"what {class_of(policy.config)} does: take another model"
        )
    return mean


def _on_any_rank(value: bool, device: torch.device) -> bool:
    """Ranks make the same forward passes, so they decide together, even if one computes other last bits."""
    found = torch.tensor(float(value), device=device)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return bool(found.item())


def _rounding(policy: PolicyModel, compared: Sequence[tuple[Tensor, Tensor]]) -> float:
    """The mean difference, in nats, that appended tokens make to what transformers says of the earlier ones."""
    differences = []
    for row, plain in compared:
        longer = torch.cat([row, row.new_zeros(NUM_APPENDED)])
        again = policy.plain_logprobs(longer, NUM_CHECKED + NUM_APPENDED)[:NUM_CHECKED].cpu()
        differences.append((again - plain).abs())
    return float(torch.cat(differences).mean())


def _samples(policy: PolicyModel, row_tokens: int, longest: int) -> list[TrainingSample]:
    config = policy.config
    limit = min(config.max_position_embeddings, max(longest, row_tokens) + NUM_APPENDED) - NUM_CHECKED - NUM_APPENDED
    rng = np.random.default_rng(0)
    room = 2 * (NUM_CHECKED - 1)  # of a tree's two completions
    groups = [(row_tokens // 2 - room, 2), (row_tokens // 2 - room, 2), (row_tokens - room, 2)]
    if longest > row_tokens:
        groups.append((limit, 1))
    samples = []
    for number, (length, copies) in enumerate(groups):
        prompt = rng.integers(0, config.vocab_size, max(2, min(length, limit))).astype(np.int32)
        group = AskedId(question_id=f"check{number}", epoch=0).group("original", "policy")
        for index in range(copies):
            samples.append(
                TrainingSample(
                    id=group.completion(index),
                    prompt_token_ids=prompt,
                    token_ids=rng.integers(0, config.vocab_size, NUM_CHECKED).astype(np.int32),
                    behavior_logprobs=np.zeros(NUM_CHECKED, np.float32),
                    token_versions=np.zeros(NUM_CHECKED, np.int32),
                    advantage=0.0,
                    loss_mask=np.ones(NUM_CHECKED, bool),
                    temperature=1.0,
                    truncated=False,
                )
            )
    return samples
