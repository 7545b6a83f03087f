"""One rank of the learner. `update` is a function of its own state and the batch: no clock, no arrival order, no global draw.

Policy, teacher and initial are named parameter sets over one module: fp32 local shards that can be put into the module and
taken out again. A bad number stops the run before the weights move.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from corewarding.dataflow.carriers import Float32, StepResult, TokenStatistics, TrainBatch, TrainingSample
from corewarding.dataflow.errors import RunError
from corewarding.dataflow.ids import Version
from corewarding.dataflow.metrics import Metrics
from corewarding.learner import teacher
from corewarding.learner.device import choose_device, collective_backend
from corewarding.learner.model import PREFIX, PolicyModel, forget_gathered, load_policy, shard
from corewarding.learner.objective import metrics as loss_metrics
from corewarding.learner.objective.loss import objective
from corewarding.learner.objective.packing import MicroBatch, pack
from corewarding.learner.settings import (
    CorrectionSettings,
    LearnerSettings,
    LossSettings,
    TeacherSettings,
    TrainSettings,
)
from corewarding.weights.stream import Shard

Which = Literal["policy", "teacher", "initial"]


class LearnerError(RunError):
    """A number that must not reach the weights, or a batch for other weights; nothing was changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerPlan:
    """What a learner must know of the run's configuration."""

    model_path: str
    kl_coef: float
    kl_reference: Literal["initial", "teacher", "none"]
    keep_teacher: bool  # the rule asks a teacher, or the KL term does
    train: TrainSettings = field(default_factory=TrainSettings)
    learner: LearnerSettings = field(default_factory=LearnerSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    correction: CorrectionSettings = field(default_factory=CorrectionSettings)
    teacher: TeacherSettings = field(default_factory=TeacherSettings)


def learning_rate(update: int, settings: TrainSettings) -> float:
    """Of update 1, 2, ...: linear warm-up, then cosine to zero or constant."""
    warmup, step = math.ceil(settings.warmup_frac * settings.updates), update - 1
    if step < warmup:
        return settings.lr * (step + 1) / warmup
    if settings.schedule == "constant":
        return settings.lr
    return settings.lr / 2 * (1 + math.cos(math.pi * (step - warmup) / max(1, settings.updates - warmup)))


class Learner:
    """See the module's docstring. All ranks make the same calls in the same order."""

    def __init__(
        self,
        plan: LearnerPlan,
        *,
        rank: int = 0,
        world_size: int = 1,
        init_method: str | None = None,
        incarnation: int = 0,
    ) -> None:
        """init_method: `tcp://host:port` the ranks meet at; None joins the default group that exists, or one of this rank alone."""
        self.plan = plan
        self.rank, self.world_size = rank, world_size
        self.device = choose_device(plan.learner.device, share=plan.learner.gpus_per_rank)
        if not dist.is_initialized():
            store = None if init_method else dist.HashStore()
            dist.init_process_group(
                collective_backend(self.device), init_method=init_method, store=store, rank=rank, world_size=world_size
            )
        torch.manual_seed(plan.train.seed)
        mesh = init_device_mesh(self.device.type, (world_size,))
        self.model: PolicyModel = load_policy(
            plan.model_path,
            chunk_tokens=plan.learner.logprob_chunk_tokens,
            activation_checkpointing=plan.learner.activation_checkpointing,
        ).to(self.device)
        shard(self.model, mesh, param_dtype=getattr(torch, plan.learner.param_dtype))
        self.names = [name.removeprefix(PREFIX) for name, _ in self.model.named_parameters()]
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=plan.train.lr,
            betas=plan.train.betas,
            eps=plan.train.eps,
            weight_decay=plan.train.weight_decay,
        )
        self.version = Version(incarnation=incarnation, updates=0)
        self.teacher_updates = 0  # the policy version the teacher has absorbed
        self.sets: dict[str, list[Tensor]] = {}
        if plan.keep_teacher:
            self.sets["teacher"] = self._copy()
        if plan.kl_reference == "initial" and plan.kl_coef > 0:
            self.sets["initial"] = self._copy()

    # ---- one update -----------------------------------------------------------------------------------------------

    def update(self, batch: TrainBatch) -> StepResult:
        """One optimizer step, then the teacher's. LearnerError, and nothing moves, for a batch of other weights or a loss
        or gradient that is not finite."""
        began = time.perf_counter()
        if batch.policy_version != self.version.updates:
            raise LearnerError(f"batch of update {batch.update} came to weights {self.version}")
        micro_batches = self.pack(batch.samples)
        num_tokens = sum(int(sample.loss_mask.sum()) for sample in batch.samples)
        metrics = self.accumulate(micro_batches) if num_tokens else {}
        lr = learning_rate(batch.update, self.plan.train)
        if num_tokens:
            metrics["train/grad_norm"] = self._finite_norm(batch.update, metrics)
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.version = Version(incarnation=self.version.incarnation, updates=batch.update)
        metrics |= {"train/lr": lr, "teacher/alpha": self._teach(), "train/num_samples": float(len(batch.samples))}
        wall = time.perf_counter() - began
        metrics["throughput/train_tokens_per_s"] = sum(s.num_tokens for s in batch.samples) / wall
        return StepResult(version=self.version, metrics=Metrics(scalars=metrics), wall_s=wall, skipped=not num_tokens)

    def accumulate(self, micro_batches: list[MicroBatch]) -> dict[str, float]:
        """Gradients of all micro-batches; FSDP averages over ranks, so each local loss counts world_size times."""
        plan = self.plan
        references = self._references(micro_batches)
        total: dict[str, Tensor] = {}
        for micro, reference in zip(micro_batches, references, strict=True):
            policy, entropy, certainty = self.model(micro, statistics=True)
            step = objective(
                policy,
                micro.tokens,
                reference_T=reference,
                beta=plan.kl_coef,
                loss=plan.loss,
                correction=plan.correction,
            )
            (step.loss * self.world_size).backward()
            sums = loss_metrics.sums(step, micro.tokens, policy, loss=plan.loss, correction=plan.correction)
            mask = micro.tokens.mask_T
            sums |= {
                "loss": step.loss.detach().double(),
                "entropy": entropy[mask].double().sum(),
                "certainty": certainty[mask].double().sum(),
            }
            for key, value in sums.items():
                if key not in total:
                    total[key] = value.clone()
                else:
                    total[key] = torch.maximum(total[key], value) if key.startswith("max_") else total[key] + value
        for key, value in total.items():
            dist.all_reduce(value, op=dist.ReduceOp.MAX if key.startswith("max_") else dist.ReduceOp.SUM)
        num = max(float(total["tokens"]), 1.0)
        return loss_metrics.report(total) | {
            "loss/total": float(total["loss"]),
            "policy/entropy": float(total["entropy"]) / num,
            "policy/self_certainty": float(total["certainty"]) / num,
        }

    def _references(self, micro_batches: list[MicroBatch]) -> Sequence[Tensor | None]:
        plan = self.plan
        if plan.kl_reference == "none" or plan.kl_coef == 0:
            return [None] * len(micro_batches)
        with self.using(plan.kl_reference), torch.no_grad():
            return [self.model(micro)[0] for micro in micro_batches]

    def _finite_norm(self, update: int, metrics: dict[str, float]) -> float:
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        whole = float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
        if not (math.isfinite(metrics["loss/total"]) and math.isfinite(whole)):
            self.optimizer.zero_grad(set_to_none=True)
            raise LearnerError(
                f"update {update}: loss/total is {metrics['loss/total']} and train/grad_norm {whole}; the weights are those of "
                f"{self.version}. Lower train.lr, or look at the samples of this update"
            )
        torch.nn.utils.clip_grads_with_norm_(parameters, self.plan.train.grad_clip, norm)
        return whole

    def _teach(self) -> float:
        settings, update = self.plan.teacher, self.version.updates
        if "teacher" not in self.sets or settings.freeze or update % settings.update_every:
            return 0.0
        share = teacher.alpha(update, settings=settings, total_updates=self.plan.train.updates)
        teacher.absorb(self.sets["teacher"], self._locals(), share)
        self.teacher_updates = update
        return share

    # ---- forward passes without gradient --------------------------------------------------------------------------

    @torch.no_grad()
    def token_statistics(self, samples: Sequence[TrainingSample]) -> list[TokenStatistics]:
        """Entropy and self-certainty of each sample's loss tokens under the policy, in the order given (on every rank)."""
        values: dict[Any, TokenStatistics] = {}
        for micro in self.pack(samples):
            _, entropy, certainty = self.model(micro, statistics=True)
            for index, one in enumerate(micro.ids):
                chosen = (micro.tokens.sequence_T == index) & micro.tokens.mask_T
                values[one] = TokenStatistics(
                    id=one, self_certainty=float(certainty[chosen].mean()), entropy=float(entropy[chosen].mean())
                )
        forget_gathered(self.model)
        everyone = self._gather(values)
        return [everyone[sample.id] for sample in samples]

    @torch.no_grad()
    def logprobs(self, samples: Sequence[TrainingSample], which: Which) -> list[Float32]:
        """[L] of each sample under `which` weights at its own temperature, in the order given (on every rank)."""
        values: dict[Any, Float32] = {}
        with self.using(which):
            for micro in self.pack(samples):
                logprobs = self.model(micro)[0].cpu()
                for index, one in enumerate(micro.ids):
                    values[one] = logprobs[micro.tokens.sequence_T.cpu() == index].numpy()
        everyone = self._gather(values)
        return [everyone[sample.id] for sample in samples]

    def _gather(self, values: dict[Any, Any]) -> dict[Any, Any]:
        if self.world_size == 1:
            return values
        parts: list[dict[Any, Any]] = [{} for _ in range(self.world_size)]
        dist.all_gather_object(parts, values)
        return {key: value for part in parts for key, value in part.items()}

    def pack(self, samples: Sequence[TrainingSample]) -> list[MicroBatch]:
        settings = self.plan.learner
        mine = pack(
            samples,
            micro_batch_tokens=settings.micro_batch_tokens,
            row_tokens=settings.row_tokens,
            ranks=self.world_size,
            policy_version=self.version.updates,
            aggregation=self.plan.loss.aggregation,
        )[self.rank]
        return [micro.to(self.device) for micro in mine]

    # ---- parameter sets -------------------------------------------------------------------------------------------

    @contextmanager
    def using(self, which: Which) -> Iterator[None]:
        """The module holds `which` weights inside the block and the policy's again after it, also after an error."""
        if which == "policy":
            yield
            return
        if which not in self.sets:
            raise LearnerError(f"this learner keeps no {which} weights")
        policy = self._copy()
        self._put(self.sets[which])
        try:
            yield
        finally:
            self._put(policy)

    @torch.no_grad()
    def _put(self, values: list[Tensor]) -> None:
        forget_gathered(self.model)
        torch._foreach_copy_(self._locals(), values)

    @torch.no_grad()
    def _locals(self) -> list[Tensor]:
        """This rank's shard of every parameter, sharing its memory."""
        return [p.to_local() if isinstance(p, DTensor) else p for p in self.model.parameters()]

    def _copy(self) -> list[Tensor]:
        return [local.clone() for local in self._locals()]

    def version_of(self, which: Literal["policy", "teacher"]) -> Version:
        """Of the teacher: the policy version it has absorbed."""
        if which == "policy":
            return self.version
        return Version(incarnation=self.version.incarnation, updates=self.teacher_updates)

    def shards(self, which: Literal["policy", "teacher"]) -> list[Shard]:
        """What this rank holds of every parameter under its Hugging Face name; contiguous, because FSDP2 cuts along dim 0."""
        values = self._locals() if which == "policy" else self.sets["teacher"]
        shards = []
        for name, parameter, local in zip(self.names, self.model.parameters(), values, strict=True):
            shape = tuple(parameter.shape)
            rows = -(-shape[0] // self.world_size)
            start = min(self.rank * rows, shape[0]) * math.prod(shape[1:])
            shards.append(Shard(name=name, shape=shape, start=start, local=local.detach().reshape(-1)))
        return shards

    # ---- checkpoints ----------------------------------------------------------------------------------------------

    def _state(self) -> dict[str, Any]:
        """Tensors as DTensors, so that a checkpoint loads on another number of ranks."""
        parameters = dict(zip(self.names, self.model.parameters(), strict=True))
        sets: dict[str, dict[str, Tensor]] = {}
        for which, values in self.sets.items():
            sets[which] = {
                name: DTensor.from_local(v, p.device_mesh, p.placements, shape=p.shape, stride=p.stride())
                if isinstance(p, DTensor)
                else v
                for (name, p), v in zip(parameters.items(), values, strict=True)
            }
        moments = {name: dict(self.optimizer.state.get(p, {})) for name, p in parameters.items()}
        return {"policy": parameters, "sets": sets, "optimizer": moments}

    def save(self, folder: Path) -> None:
        """Policy, optimizer, teacher and initial, by torch.distributed.checkpoint. Collective."""
        numbers = {
            "updates": self.version.updates,
            "teacher_updates": self.teacher_updates,
            "total_updates": self.plan.train.updates,
        }
        dcp.save({**self._state(), "numbers": numbers}, checkpoint_id=folder)

    def load(self, folder: Path, *, incarnation: int) -> None:
        """Goes on exactly where `save` was; LearnerError where the teacher's schedule would change. Collective."""
        for parameter in self.model.parameters():  # AdamW makes its moments at the first step; DCP loads in place
            local = torch.zeros_like(parameter)
            self.optimizer.state[parameter] = {
                "step": torch.tensor(0.0),
                "exp_avg": local,
                "exp_avg_sq": torch.zeros_like(parameter),
            }
        saved = dcp.FileSystemReader(folder).read_metadata().state_dict_metadata
        numbers = {key.removeprefix("numbers."): 0 for key in saved if key.startswith("numbers.")}
        state = {**self._state(), "numbers": numbers}
        if not any(key.startswith("optimizer.") for key in saved):
            state.pop("optimizer")
            self.optimizer.state.clear()
        dcp.load(state, checkpoint_id=folder)
        numbers = state["numbers"]
        if numbers["total_updates"] != self.plan.train.updates:
            raise LearnerError(
                f"train.updates is {self.plan.train.updates}, the checkpoint's run had {numbers['total_updates']}: the "
                "learning rate's and the teacher's schedules run over the total. Resume with the same number"
            )
        forget_gathered(self.model)
        self.version = Version(incarnation=incarnation, updates=int(numbers["updates"]))
        self.teacher_updates = int(numbers["teacher_updates"])

    def export(self, folder: Path, which: Literal["policy", "teacher"] = "policy") -> None:
        """A Hugging Face folder that from_pretrained opens: weights gathered tensor by tensor to rank 0. Collective."""
        from corewarding.learner.export import write_folder

        with self.using(which):
            write_folder(self.names, list(self.model.parameters()), folder, self.plan.model_path, rank=self.rank)
