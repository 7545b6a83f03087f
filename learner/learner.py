"""One rank of the learner: takes a batch, makes one optimizer step, lets the teacher absorb its share, and reports.

`update` is a function of the learner's own state and the batch: it reads no clock, no arrival order and no global random state.
A loss or gradient that is not finite ends the run before the weights move. All ranks make the same calls in the same order.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from corewarding.dataflow.carriers import Float32, StepResult, TokenStatistics, TrainBatch, TrainingSample
from corewarding.dataflow.errors import RunError
from corewarding.dataflow.ids import Channel, SetName, Version
from corewarding.dataflow.metrics import Metrics
from corewarding.learner import passes, teacher
from corewarding.learner.checkpoint import learner_state
from corewarding.learner.checkpoint.learner_state import Progress, StagedState
from corewarding.learner.checkpoint.model_export import write_rest, write_weights
from corewarding.learner.device import choose_device, collective_backend, repeat_exactly
from corewarding.learner.lora.files import BaseModel, write_adapter
from corewarding.learner.model import LoadedPolicy, forget_gathered, load_policy
from corewarding.learner.objective.metrics import report
from corewarding.learner.objective.packed_check import check_packed
from corewarding.learner.objective.packing import MicroBatch, pack
from corewarding.learner.offload import OffloadedAdamW
from corewarding.learner.parameter_sets import ParameterSets
from corewarding.learner.schedule import learning_rate
from corewarding.learner.settings import LearnerPlan, TeacherSettings
from corewarding.learner.token_log.log import TokenLog, Watched
from corewarding.weights.architectures import check_architecture
from corewarding.weights.model_config import model_config
from corewarding.weights.stream import Shard


class LearnerError(RunError):
    """A loss or gradient that is not finite, or a batch or checkpoint of another run. The weights did not change."""


def device_of(plan: LearnerPlan) -> torch.device:
    """This rank's device. Makes a default process group of this rank alone if there is none."""
    if plan.learner.deterministic:
        repeat_exactly()
    device = choose_device(plan.learner.device, share=plan.learner.gpus_per_rank)
    if not dist.is_initialized():
        dist.init_process_group(collective_backend(device), store=dist.HashStore(), rank=0, world_size=1)
    return device


class Learner:
    """See the module's docstring."""

    def __init__(
        self,
        plan: LearnerPlan,
        *,
        rank: int = 0,
        world_size: int = 1,
        incarnation: int = 0,
        loaded: LoadedPolicy | None = None,
    ) -> None:
        """The ranks' collectives use torch's default group; without one, a new one of this rank alone.

        loaded: the model, if `loading` has loaded it.
        """
        self.plan = plan
        self.rank, self.world_size = rank, world_size
        self.device = device_of(plan)
        torch.manual_seed(plan.train.seed)
        check_architecture(
            model_config(plan.model_path),
            folder=plan.model_path,
            longest=plan.longest_sequence,
            allow_unlisted=plan.allow_unlisted,
        )
        if loaded is None:
            loaded = load_policy(plan.model_path, plan.learner, self.device, world_size)
        self.model = loaded.model
        self.sets = ParameterSets(self.model)
        self.sets.draw_adapters(plan.train.seed)
        check_packed(self.model, plan.learner, folder=plan.model_path, longest=plan.longest_sequence)
        forget_gathered(self.model)
        if plan.keep_teacher:
            self.sets.keep("teacher", offloaded="teacher" in plan.learner.offload)
        of_all_updates = (plan, *(later for _, later in plan.later))
        if plan.kl_reference == "initial" and any(one.kl_coef > 0 for one in of_all_updates):
            self.sets.keep("initial", loaded.base_dtypes, offloaded="reference" in plan.learner.offload)
        kind = OffloadedAdamW if "optimizer" in plan.learner.offload else torch.optim.AdamW
        self.optimizer = kind(
            self.sets.parameters,
            lr=plan.train.lr,
            betas=plan.train.betas,
            eps=plan.train.eps,
            weight_decay=plan.train.weight_decay,
            fused=True,  # a kernel for all tensors, which needs no memory of their size
        )
        self.version = Version(incarnation=incarnation, updates=0)
        self._teacher_updates = 0
        self._staged = StagedState()
        log = plan.token_log
        self._token_log = None if log is None else TokenLog(log, rank=rank, device=self.device)

    # ---- one update -----------------------------------------------------------------------------------------------

    def update(self, batch: TrainBatch) -> StepResult:
        """One optimizer step, then the teacher's.

        LearnerError for a batch that was made for other weights and for a loss or gradient that is not finite.
        """
        began = time.perf_counter()
        if batch.policy_version != self.version.updates:
            raise LearnerError(f"batch of update {batch.update} came to weights {self.version}")
        trains = any(sample.loss_mask.any() for sample in batch.samples)
        plan = self.plan.of_update(batch.update)
        micros = self.pack(batch.samples, plan) if trains else []
        watched = self._token_log.watch(batch, micros) if self._token_log is not None and trains else None
        metrics = self.accumulate(micros, plan, watched) if trains else {}
        lr = learning_rate(batch.update, plan.train)
        if trains:
            metrics["train/grad_norm"] = self._clip(batch.update, metrics["loss/total"], plan.train.grad_clip)
            for group in self.optimizer.param_groups:
                group["lr"], group["weight_decay"] = lr, plan.train.weight_decay
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.version = Version(incarnation=self.version.incarnation, updates=batch.update)
        metrics |= {
            "train/lr": lr,
            "teacher/alpha": self._teach(plan.teacher),
            "train/num_samples": float(len(batch.samples)),
        }
        if self._token_log is not None and watched is not None:
            self._token_log.write(watched)
        wall = time.perf_counter() - began
        metrics["throughput/train_tokens_per_s"] = sum(s.num_tokens for s in batch.samples) / wall
        digest = self.digest() if self.plan.digest else ""
        return StepResult(
            version=self.version, metrics=Metrics(scalars=metrics), wall_s=wall, skipped=not trains, digest=digest
        )

    def digest(self) -> str:
        """Of the weights, the teacher's included: equal for equal bits, however many ranks hold them. A collective of all ranks."""
        sums = self.sets.checksums()
        if self.world_size > 1:
            dist.all_reduce(sums)  # 64-bit sums wrap around, and so do checksums
        return hashlib.blake2b(sums.cpu().numpy().tobytes(), digest_size=16).hexdigest()

    def pack(self, samples: Sequence[TrainingSample], plan: LearnerPlan | None = None) -> list[MicroBatch]:
        """This rank's micro-batches for `accumulate`, on its device."""
        plan = plan or self.plan
        dealt = self._pack_for_all(samples, lambda sample: passes.has_gradient(sample, plan))
        return [micro.to(self.device) for micro in dealt[self.rank]]

    def accumulate(
        self, micro_batches: Sequence[MicroBatch], plan: LearnerPlan | None = None, watched: Watched | None = None
    ) -> dict[str, float]:
        """Adds the gradient of all micro-batches to the parameters'; returns the metrics over all ranks. plan: None: the first.
        watched: sees every pass."""
        found = passes.accumulate(self.model, micro_batches, sets=self.sets, plan=plan or self.plan, watched=watched)
        return report(found)

    def _clip(self, update: int, loss: float, longest: float) -> float:
        """Clips the gradient and returns its norm before that; LearnerError where loss or norm is not finite."""
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        full = float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
        if not (math.isfinite(loss) and math.isfinite(full)):
            self.optimizer.zero_grad(set_to_none=True)
            raise LearnerError(
                f"update {update}: loss/total is {loss} and train/grad_norm {full}; the weights are still those of "
                f"{self.version}. Lower train.lr, or look at the samples of this update"
            )
        torch.nn.utils.clip_grads_with_norm_(parameters, longest, norm)
        return full

    def _teach(self, settings: TeacherSettings) -> float:
        """The teacher's step, if one is due; returns alpha, or 0 without a step."""
        update = self.version.updates
        if "teacher" not in self.sets.kept or settings.freeze or update % settings.update_every:
            return 0.0
        share = teacher.alpha(update, settings=settings, total_updates=self.plan.train.updates)
        held, policy = self.sets.shards_of("teacher"), self.sets.shards_of("policy")
        teacher.absorb(held, policy, share, offloaded=self.sets.is_offloaded("teacher"))
        self._teacher_updates = update
        return share

    def _pack_for_all(
        self, samples: Sequence[TrainingSample], has_gradient: Callable[[TrainingSample], bool] = lambda sample: True
    ) -> list[list[MicroBatch]]:
        settings = self.plan.learner
        return pack(
            samples,
            micro_batch_tokens=settings.micro_batch_tokens,
            row_tokens=settings.row_length(),
            ranks=self.world_size,
            policy_version=self.version.updates,
            aggregation=self.plan.loss.aggregation,
            has_gradient=has_gradient,
        )

    # ---- what others ask for --------------------------------------------------------------------------------------

    def token_statistics(self, samples: Sequence[TrainingSample]) -> list[TokenStatistics]:
        """Entropy and self-certainty of each sample's loss tokens under the policy, in the order of `samples`, on every rank."""
        found = passes.token_statistics(self.model, self._pack_for_all(samples), self.device)
        forget_gathered(self.model)
        return [found[sample.id] for sample in samples]

    def logprobs(self, samples: Sequence[TrainingSample], which: SetName) -> list[Float32]:
        """[L] of each sample under `which` weights at its own temperature, in the order of `samples`, on every rank."""
        with self.sets.using(which):
            found = passes.logprobs(self.model, self._pack_for_all(samples), self.device)
        return [found[sample.id] for sample in samples]

    def version_of(self, channel: Channel) -> Version:
        """The policy's version; for the teacher, the version of the policy that it absorbed last."""
        updates = self.version.updates if channel == "policy" else self._teacher_updates
        return Version(incarnation=self.version.incarnation, updates=updates)

    def shards(self, channel: Channel) -> list[Shard]:
        """This rank's part of every parameter, under its Hugging Face name."""
        return self.sets.to_send(channel)

    def stage(self) -> None:
        """Copies what a checkpoint keeps to the host's memory, for `write`."""
        progress = Progress(
            updates=self.version.updates,
            teacher_updates=self._teacher_updates,
            total_updates=self.plan.train.updates,
        )
        self._staged.take(self.sets, self.optimizer, progress=progress, rank=self.rank, ranks=self.world_size)
        if self._token_log is not None:
            self._token_log.stage()

    def write(self, folder: Path) -> None:
        """Writes what was staged last as this rank's part of a checkpoint. Another thread may train meanwhile."""
        self._staged.write(folder)
        if self._token_log is not None:
            self._token_log.flush()

    def load(self, folder: Path, *, incarnation: int) -> None:
        """Continues exactly where `stage` was called, on any number of ranks. If train.updates has changed since, the schedules of
        learning rate and teacher continue over the new total."""
        progress = learner_state.load(folder, sets=self.sets, optimizer=self.optimizer)
        forget_gathered(self.model)
        self.version = Version(incarnation=incarnation, updates=progress.updates)
        self._teacher_updates = progress.teacher_updates

    def export(self, written: Path, folder: Path, channel: Channel = "policy") -> None:
        """Makes a Hugging Face folder of what all ranks have written, or an adapter's folder. Another thread may train meanwhile."""
        dtype, plan = getattr(torch, self.plan.export_dtype), self.plan
        shapes = {n: tuple(p.shape) for n, p in zip(self.sets.names, self.sets.parameters, strict=True)}
        if self.sets.adapters:
            base = BaseModel.of(plan.model_path, plan.export_dtype)
            write_adapter(written, channel, folder, shapes=shapes, settings=plan.learner.lora, base=base)
            return
        write_weights(written, channel, folder, parts=self.sets.parts, shapes=shapes, dtype=dtype)
        write_rest(folder, self.plan.model_path, dtype)
