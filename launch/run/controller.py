"""The run: asyncio loops in the job's driver that keep questions flowing one way and weights the other.

         cursor ──► _ask ──tasks──► rollout groups ──groups of completions──► replay buffer
                     ▲                    ▲                                        │
                     │ room               │ weights                                │ TrainBatch
                     └──── buffer ◄── _publish ◄── learner ◄──────────── _train ◄──┘
                                                                  │
                                              eval · checkpoint · one line of metrics per update

Two loops run at once. `_train` is finite; any other loop that ends is an error. `_watch` ends the run when nothing has moved
for `run.watchdog_s`. Start and resume are one path: load, broadcast, acknowledge, generate.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from corewarding.dataflow.carriers import BufferProgress, RolloutTask, StepResult, UpdateReport
from corewarding.dataflow.errors import RunError
from corewarding.dataflow.ids import AskedId, Channel, Source, Version, View
from corewarding.dataflow.metrics import Metrics
from corewarding.dataflow.spans import Span
from corewarding.evals.heldout import EvalResult
from corewarding.launch.run.channels import WeightChannels
from corewarding.launch.run.collapse_guard import CollapseGuard
from corewarding.launch.run.parts import Parts
from corewarding.launch.run.self_test import self_test


class StalledError(RunError):
    """No update and no ready question for `run.watchdog_s` seconds."""


class LoopEndedError(RunError):
    """A loop that must run as long as the training did end."""


@dataclass(slots=True)
class Clock:
    """Where the training loop's time went, in seconds."""

    started_s: float = 0.0
    ended_s: float = 0.0
    waited_s: float = 0.0  # learner without a batch
    updating_s: float = 0.0
    publishing_s: float = 0.0
    update_spans: list[tuple[float, float]] = field(default_factory=list)  # wall clock


class Controller:
    """Runs the loops over the parts. `run` returns when `train.updates` updates are made, or the wall time is used up."""

    def __init__(self, parts: Parts, *, version: Version, before: EvalResult | None = None) -> None:
        self.parts = parts
        self.version = version
        self.before = before
        self.after: EvalResult | None = None
        self.clock = Clock()
        self.num_trained_here = 0
        self.stopped_early: str | None = None
        per_update = parts.config.train.questions_per_update
        self.collapse = CollapseGuard(parts.config.collapse, parts.watch, questions_per_update=per_update)
        self.idle: list[dict[Source, float]] = []  # share of each update's time in which the actors had nothing to do
        self.spans: list[tuple[float, float]] = []  # wall clock in which an update's completions were sampled
        self._order = asyncio.Lock()  # the cursor moves with the buffer's admission, and checkpoints see both
        self._quick: asyncio.Future[EvalResult | None] | None = None
        self._writing: asyncio.Task[None] | None = None
        self._weights = WeightChannels(parts.publishers, parts.buffer, parts.watch.trace)
        self._progress_at = time.monotonic()

    # ---- the run --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Broadcast, evaluate, train, evaluate. Raises what ended a loop."""
        phase = self.parts.watch.terminal.phase
        phase("broadcasting the first weights")
        await self._publish(first=True)
        await self._weights.acknowledged()
        phase("comparing log-probabilities of engines and learner")
        self.parts.watch.self_test(await self_test(self.parts))
        if self.before is None:
            phase("evaluating before training")
            self.before = await self.parts.evaluate(False)
            if self.before is not None:
                self.parts.watch.evaluation(self.version.updates, self.before, name="before")
        phase("training")
        self.clock.started_s = time.time()
        self._progress_at = time.monotonic()
        if self.version.updates < self.parts.config.train.updates:
            await self._supervise({"ask": self._ask(), "watch": self._watch(), "train": self._train()})
        self.clock.ended_s = time.time()
        phase("evaluating after training")
        self.after = await self.parts.evaluate(False)
        if self.after is not None:
            self.parts.watch.evaluation(self.version.updates, self.after, name="after")

    async def _supervise(self, loops: dict[str, Any]) -> None:
        tasks = {asyncio.create_task(loop, name=name) for name, loop in loops.items()}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                error = task.exception()
                while isinstance(error, BaseExceptionGroup):
                    error = error.exceptions[0]
                if error is not None:
                    raise error
            if not any(task.get_name() == "train" for task in done):
                raise LoopEndedError(f"loop {min(task.get_name() for task in done)} ended before the training did")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # ---- questions out --------------------------------------------------------------------------------------------

    async def _ask(self) -> None:
        """Consumes the cursor and the buffer's room; produces rollout tasks; waits for room; is unblocked by a publication.
        A task that fails for good ends this loop, and so the run."""
        async with asyncio.TaskGroup() as asking:
            while True:
                room = await self.parts.buffer.room()
                async with self._order:
                    offered = self.parts.cursor.peek(room)
                    questions = self.parts.prepared.questions
                    ids = [AskedId(question_id=questions[index].id, epoch=epoch) for epoch, index in offered]
                    num = await self.parts.buffer.admit(ids)
                    self.parts.cursor.advance(num)
                for asked in ids[:num]:
                    for view, source in self.parts.rule.groups:
                        task = self._task(asked, view, source)
                        asking.create_task(self.parts.groups[source].run(task), name=str(task.id))

    def _task(self, asked: AskedId, view: View, source: Source) -> RolloutTask:
        config = self.parts.config
        return RolloutTask(
            id=asked.group(view, source),
            incarnation=self.version.incarnation,
            attempt=0,
            group_size=config.rollout.group_size,
            prompt_token_ids=self.parts.prepared.prompts[asked.question_id, view],
            temperature=config.rollout.temperature,
            max_new_tokens=config.rollout.max_new_tokens,
            run_seed=config.train.seed,
        )

    # ---- updates --------------------------------------------------------------------------------------------------

    async def _train(self) -> None:
        """Consumes the buffer's batches; produces updates, publications, log lines and checkpoints; waits for a batch that
        admission lets go; is unblocked by completions. Finite."""
        config = self.parts.config
        for update in range(self.version.updates + 1, config.train.updates + 1):
            asked_at = time.time()
            taken = await self.parts.buffer.take(update, self.parts.learner.token_statistics)
            began_at = time.time()
            async with self.parts.learner_lock:
                result = await self.parts.learner.update(taken.batch)
            ended_at = time.time()
            self.version = result.version
            self.clock.waited_s += began_at - asked_at
            self.clock.updating_s += ended_at - began_at
            self.clock.update_spans.append((began_at, ended_at))
            self.num_trained_here += taken.num_samples
            self._progress_at = time.monotonic()
            await self._publish()
            published_at = time.time()
            self.clock.publishing_s += published_at - ended_at
            times = Metrics(
                scalars={
                    "time/learner_wait_s": began_at - asked_at,
                    "time/update_s": ended_at - began_at,
                    "time/update_started_s": began_at,
                    "time/update_ended_s": ended_at,
                    "time/publish_s": published_at - ended_at,
                    "time/total_s": published_at - asked_at,
                }
            )
            self._write_down(result, times, await taken.report)
            await self._after_update(update)
            await self.collapse.pause(update, alive=self._alive)
            if self.collapse.stops:
                self.stopped_early = f"collapse.on_collapse is stop, after update {update}"
                break
            limit = config.run.max_wall_s
            if limit is not None and time.time() - self.clock.started_s > limit and update < config.train.updates:
                self.stopped_early = f"run.max_wall_s = {limit:g} s were used up after update {update}"
                await self._checkpoint()
                break
        await self._finish_quick()
        await self._weights.acknowledged()
        await self._written()

    async def _publish(self, first: bool = False) -> None:
        """Sends the weights that are due; returns when they have left the learner."""
        config, updates = self.parts.config, self.version.updates
        due: dict[Channel, bool] = {
            "teacher": first or (not config.teacher.freeze and updates % config.teacher.publish_every == 0),
            "policy": first or updates % config.publish.every_updates == 0,
        }
        if any(due.values()):
            await self._finish_quick()  # an evaluation is of one version
        await self._weights.send(
            [
                (channel, await self.parts.learner.version(channel))
                for channel, is_due in due.items()
                if is_due and channel in self.parts.publishers
            ]
        )

    def _write_down(self, result: StepResult, times: Metrics, report: UpdateReport) -> None:
        """Logs an update while the next one is under way; updates are written in order."""
        before, published = self._writing, self._weights.last
        if before is not None and before.done():
            before.result()  # a log that cannot be written ends the run
        elapsed = time.time() - self.clock.started_s
        rates = {
            "throughput/completions_per_s": self.num_trained_here / elapsed,
            "time/learner_idle_frac": self.clock.waited_s / elapsed,
        }

        async def write() -> None:
            if before is not None:
                await before
            stats = {source: await group.stats() for source, group in self.parts.groups.items()}
            scalars = rates | {key: value for one in stats.values() for key, value in one.items()}
            sync = await published if published is not None else Metrics()
            metrics = Metrics.union([result.metrics, report.metrics, times, sync, Metrics(scalars=scalars)])
            self.collapse.seen(result.version.updates, metrics.scalars)
            self.idle.append({source: one.get(f"rollout_{source}/idle_frac", 0.0) for source, one in stats.items()})
            known = metrics.scalars
            self.spans.append((known["rollout/first_started_s"], known["rollout/last_finished_s"]))
            self.parts.watch.update(result.version.updates, metrics, report.rows)
            began, ended = known["time/update_started_s"], known["time/update_ended_s"]
            waited = Span("learner", "wait", began - known["time/learner_wait_s"], began)
            trained = Span("learner", f"update {result.version.updates}", began, ended)
            self.parts.watch.trace.write([waited, trained, *report.spans])

        self._writing = asyncio.create_task(write(), name=f"log of update {result.version.updates}")

    async def _written(self) -> None:
        """Returns when every update so far is in the log; raises what kept one out of it."""
        if self._writing is not None:
            await self._writing

    # ---- every so many updates ------------------------------------------------------------------------------------

    async def _after_update(self, update: int) -> None:
        config = self.parts.config
        last = update == config.train.updates
        if (config.checkpoint.every_updates and update % config.checkpoint.every_updates == 0) or last:
            await self._checkpoint()
        if config.eval.every_updates and update % config.eval.every_updates == 0 and not last:
            await self._finish_quick()
            await self._weights.acknowledged()
            self._quick = asyncio.ensure_future(self.parts.evaluate(True))

    async def _finish_quick(self) -> None:
        if self._quick is None:
            return
        result, self._quick = await self._quick, None
        await self._written()
        if result is not None:
            self.parts.watch.evaluation(self.version.updates, result, name="quick")

    async def _checkpoint(self) -> None:
        await self._written()
        store, learner = self.parts.checkpoints, self.parts.learner
        async with self._order:
            state = {
                "incarnation": self.version.incarnation,
                "updates": self.version.updates,
                "cursor": self.parts.cursor.state(),
                "buffer": await self.parts.buffer.state(),
                "before": None if self.before is None else self.before.as_dict(),
            }
        folder = store.begin(self.version.updates)
        await learner.save(folder / "learner")
        await learner.export(folder / "model", "policy")
        store.commit(folder, state)
        self._progress_at = time.monotonic()

    def _alive(self) -> None:
        self._progress_at = time.monotonic()

    async def _watch(self) -> None:
        """Consumes the buffer's progress; produces nothing; ends the run when nothing moved for `run.watchdog_s`."""
        limit, seen = self.parts.config.run.watchdog_s, -1
        while True:
            await asyncio.sleep(min(5.0, limit / 4))
            progress = await self.parts.buffer.progress()
            if progress.num_ready != seen:
                seen, self._progress_at = progress.num_ready, time.monotonic()
            stalled = time.monotonic() - self._progress_at
            if stalled > limit:
                raise StalledError(await self._who_waits(stalled, progress))

    async def _who_waits(self, stalled: float, progress: BufferProgress) -> str:
        lines = [
            f"no update and no ready question for {stalled:.0f} s (run.watchdog_s = {self.parts.config.run.watchdog_s:g})",
            f"  learner: weights {self.version}, {progress.updates_taken} batches taken",
            f"  buffer: room for {progress.room} questions, waits for {progress.num_missing} "
            f"({', '.join(progress.missing)}), dropped {progress.dropped or 'nothing'}",
        ]
        for source, group in self.parts.groups.items():
            healthy = (
                ", ".join(f"{member.id} has {member.load} tasks" for member in group.healthy()) or "none is healthy"
            )
            lines.append(f"  {source} actors: {healthy}")
        return "\n".join(lines)
