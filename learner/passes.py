"""Passes of the model over packed samples: the gradient of an update, logprobs, and token statistics.

All of them are collective. Every rank packs all samples in the same way, so each rank knows the ids and lengths of the numbers that
the others send.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from corewarding.dataflow.carriers import Float32, TokenStatistics, TrainingSample
from corewarding.dataflow.ids import CompletionId
from corewarding.learner.model import PolicyModel
from corewarding.learner.objective.loss import objective
from corewarding.learner.objective.metrics import LossTotals, sums
from corewarding.learner.objective.packing import MicroBatch
from corewarding.learner.parameter_sets import ParameterSets
from corewarding.learner.settings import LearnerPlan
from corewarding.learner.token_log.log import Watched


def accumulate(
    model: PolicyModel,
    micro_batches: Sequence[MicroBatch],
    *,
    sets: ParameterSets,
    plan: LearnerPlan,
    watched: Watched | None = None,
) -> LossTotals:
    """Adds the gradient of all micro-batches to the parameters'. Returns the totals over all ranks. watched: sees every pass.

    Those that do not train are passed forward only, for the totals.
    """
    total: LossTotals | None = None
    references = _references(model, micro_batches, sets, plan)
    for index, (micro, reference) in enumerate(zip(micro_batches, references, strict=True)):
        with torch.set_grad_enabled(micro.trains):
            policy, entropy, certainty = model(micro, statistics=True)
            step = objective(
                policy,
                micro.tokens,
                reference_T=reference,
                beta=plan.kl_coef,
                loss=plan.loss,
                correction=plan.correction,
            )
        if micro.trains:
            (step.loss * dist.get_world_size()).backward()  # FSDP averages over ranks, and the loss is a sum over them
        own = sums(
            step,
            micro.tokens,
            policy,
            loss=plan.loss,
            correction=plan.correction,
            entropy_T=entropy,
            certainty_T=certainty,
        )
        total = own if total is None else total + own
        if watched is not None:
            watched.see(index, step, micro.tokens, policy, plan)
    assert total is not None, "packing gives every rank at least one micro-batch"
    return total.over_ranks()


def has_gradient(sample: TrainingSample, plan: LearnerPlan) -> bool:
    """False where every term of the sample's loss has a gradient of exactly zero: the gain is a multiple of the advantage."""
    return bool(sample.loss_mask.any()) and sample.weight != 0 and (sample.advantage != 0 or _has_kl(plan))


def _has_kl(plan: LearnerPlan) -> bool:
    return plan.kl_reference != "none" and plan.kl_coef > 0


def _references(
    model: PolicyModel, micro_batches: Sequence[MicroBatch], sets: ParameterSets, plan: LearnerPlan
) -> Sequence[Tensor | None]:
    """[T] logprobs under the reference of the KL term for each micro-batch, or None without that term."""
    if plan.kl_reference == "none" or not _has_kl(plan):
        return [None] * len(micro_batches)
    with sets.using(plan.kl_reference), torch.no_grad():
        return [model(micro)[0] for micro in micro_batches]


@torch.no_grad()
def token_statistics(
    model: PolicyModel, packed: Sequence[Sequence[MicroBatch]], device: torch.device
) -> dict[CompletionId, TokenStatistics]:
    """Mean entropy and self-certainty over the loss tokens of each sample. packed: [ranks][micro-batches]."""
    means: list[Tensor] = []
    for micro in packed[dist.get_rank()]:
        _, entropy, certainty = model(micro.to(device), statistics=True)
        for index in range(len(micro.ids)):
            chosen = ((micro.tokens.sequence_T == index) & micro.tokens.mask_T).to(device)
            means += [certainty[chosen].mean(), entropy[chosen].mean()]
    ids = [[one for micro in micros for one in micro.ids] for micros in packed]
    mine = torch.stack(means) if means else torch.empty(0, device=device)
    everyone = _from_all_ranks(mine, [2 * len(ids_of_rank) for ids_of_rank in ids])
    return {
        one: TokenStatistics(id=one, self_certainty=certainty, entropy=entropy)
        for ids_of_rank, values in zip(ids, everyone, strict=True)
        for one, (certainty, entropy) in zip(ids_of_rank, values.reshape(-1, 2).tolist(), strict=True)
    }


@torch.no_grad()
def logprobs(
    model: PolicyModel, packed: Sequence[Sequence[MicroBatch]], device: torch.device
) -> dict[CompletionId, Float32]:
    """[L] logprobs of each sample's tokens at its own temperature. packed: [ranks][micro-batches]."""
    own = [model(micro.to(device))[0] for micro in packed[dist.get_rank()]]
    sizes = [sum(len(micro.target_T) for micro in micros) for micros in packed]
    everyone = _from_all_ranks(torch.cat(own), sizes)
    found: dict[CompletionId, Float32] = {}
    for micros, values in zip(packed, everyone, strict=True):
        ids = [one for micro in micros for one in micro.ids]
        lengths = [
            n for micro in micros for n in torch.bincount(micro.tokens.sequence_T, minlength=len(micro.ids)).tolist()
        ]
        found |= {one: part.numpy() for one, part in zip(ids, values.split(lengths), strict=True)}
    return found


def _from_all_ranks(mine: Tensor, sizes: list[int]) -> list[Tensor]:
    """[sizes[rank]] numbers of each rank, on the CPU."""
    if len(sizes) == 1:
        return [mine.cpu()]
    padded = mine.new_zeros(max(sizes))
    padded[: len(mine)] = mine
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    return [part[:size].cpu() for part, size in zip(parts, sizes, strict=True)]
