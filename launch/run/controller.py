"""The run: asyncio loops in the driver that move questions one way and weights the other.

         cursor ──► _ask ──tasks──► rollout groups ──groups of completions──► replay buffer
                     ▲                    ▲                                        │
                     │ room               │ weights                                │ TrainBatch
                     └──── buffer ◄── publish ◄── learner ◄────────────── _train ◄─┘
                                                                  │
                                              eval · checkpoint · one line of metrics per update

Three loops run at once: `_ask`, `_train` and the watchdog, which also watches what comes before and after the training. `_train` is
finite; any other loop that ends is an error. A fresh start and a resume take one path: load, publish, acknowledge, sample.
A StopRequest gives up whatever waits, lets an update under way finish, and saves a checkpoint.
"""

from __future__ import annotations

import asyncio
from collections import Counter

from corewarding.dataflow.carriers import RolloutTask
from corewarding.dataflow.errors import TaskFailedError
from corewarding.dataflow.ids import Source
from corewarding.dataflow.metrics import Metrics
from corewarding.dataflow.spans import now_s
from corewarding.evals.heldout import EvalResult
from corewarding.launch.report.run_directory import RunDir
from corewarding.launch.report.statistics import RunStatistics, UpdateTimes
from corewarding.launch.run.cadence import Checkpoints, Evaluations
from corewarding.launch.run.collapse_guard import CollapseGuard
from corewarding.launch.run.ending.stopping import StoppedError, StopRequest
from corewarding.launch.run.ending.supervision import StalledError, Supervisor, Watchdog
from corewarding.launch.run.feed import QuestionFeed
from corewarding.launch.run.initial import initial_answers
from corewarding.launch.run.protocols import Parts, TakenBatch
from corewarding.launch.run.publishing.channels import WeightChannels, intervals
from corewarding.launch.run.self_test import self_test
from corewarding.launch.run.writer import UpdateWriter
from corewarding.learner.token_log.entries import forget_before


class Controller:
    """Runs the loops over the parts. `run` returns after `train.updates` updates, or earlier with a reason in `stopped_early`."""

    def __init__(self, parts: Parts, *, before: EvalResult | None = None, stop: StopRequest | None = None) -> None:
        """before: the evaluation before training, from the checkpoint of a resumed run. stop: a way to end the run early."""
        config, log = parts.config, parts.log
        total = config.train.updates
        self.version = parts.version
        self.before = before
        self.after: EvalResult | None = None
        self.answers_read: dict[str, int] = {}
        self.stopped_early: str | None = None
        self.statistics = RunStatistics()
        self.collapse = CollapseGuard(config.collapse, log, questions_per_update=config.train.questions_per_update)
        self._config, self._log = config, log
        self._buffer, self._learner, self._turns = parts.buffer, parts.learner, parts.turns
        self._parts, self._groups = parts, parts.groups
        self._stop = stop or StopRequest()
        self._stop.told = self._say_stopping
        self._started_at = parts.version.updates
        self._supervisor = Supervisor()
        self._sampling: Counter[Source] = Counter()  # groups that were asked of actors and have not ended
        self._feed = QuestionFeed(parts)
        self._weights = WeightChannels(
            parts.publishers, learner=parts.learner, buffer=parts.buffer, trace=log.trace, every=intervals(config)
        )
        self._watchdog = Watchdog(
            parts.buffer,
            parts.learner,
            parts.groups,
            limit_s=config.run.watchdog_s,
            version=lambda: self.version,
            logs=RunDir(config.run.root, config.run.name).logs,
        )
        self._writer = UpdateWriter(log, parts.groups, self.statistics, self.collapse, self._supervisor.start)
        self._evaluations = Evaluations(
            parts.evaluate,
            log,
            every=config.eval.every_updates,
            total_updates=total,
            scored=parts.checkpoints.score,
        )
        self._checkpoints = Checkpoints(
            parts.checkpoints,
            parts.learner,
            self._feed,
            self._supervisor.start,
            every=config.checkpoint.every_updates,
            total_updates=total,
            forget=self._forget if config.journal.retain == "since_oldest_checkpoint" else None,
        )

    async def run(self) -> None:
        """Publishes, evaluates, trains, evaluates. Raises the first error of any loop. A StopRequest ends it early."""
        self._stop.listen()
        watches = {source: group.watch() for source, group in self._groups.items()}
        in_time = True
        try:
            await Supervisor().run(self._phases(), watchdog=self._watchdog.watch(), **watches)
        except (StalledError, asyncio.CancelledError):
            in_time = False
            raise
        finally:
            await self._keep_the_last(self._config.run.grace_s if in_time else 0.0)

    async def _keep_the_last(self, within_s: float) -> None:
        """A checkpoint that was being written when the run failed is still finished, in so many seconds."""
        if self._checkpoints.under_way is not None:
            if within_s > 0:
                self._log.say(
                    f"the run ends by an error; before that, the {self._checkpoints.under_way} may take {within_s:g} s (run.grace_s)"
                )
            await self._checkpoints.finish(within_s)

    async def _phases(self) -> None:
        try:
            await self._stop.unless(self._prepare())
            if self.version.updates < self._config.train.updates:
                await self._supervisor.run(self._train(), ask=self._ask())
            else:
                await self._evaluate_before()
            self.statistics.stop()
            await self._stop.unless(self._finish())
        except StoppedError:
            self.stopped_early = f"{self._stop.reason} after update {self.version.updates}"

    async def _prepare(self) -> None:
        """Everything before the first update."""
        log = self._log
        log.phase("publishing the first weights")
        await self._weights.publish()
        await self._weights.acknowledged()
        self._watchdog.alive()
        log.phase("self-test of engines and learner")
        log.self_test(self.version.updates, await self_test(self._parts))
        await self._know_initial()
        self._watchdog.alive()
        if self._parts.num_redone:
            await self._checkpoint()

    async def _evaluate_before(self) -> None:
        """The evaluation before training, if it is not known yet. The engines sample for the first update once they have room."""
        if self.before is None:
            self._log.phase("evaluating before training")
            self.before = await self._stop.unless(self._evaluations.full(self.version.updates, "before"))
        self._log.training()
        self.statistics.start()

    async def _finish(self) -> None:
        """Everything after the last update."""
        self._log.phase("evaluating after training")
        if self._weights.version("policy") != self.version:  # the last update may have been between two publications
            await self._weights.publish(["policy"])
            await self._weights.acknowledged()
        if self.before is not None and self._teacher_is_free():
            await self._weights.lend()
        self.after = await self._evaluations.full(self.version.updates, "after")
        self.answers_read = await self._buffer.answers_read()

    def _teacher_is_free(self) -> bool:
        """Whether its engines are like the policy's, live and idle: what they still sampled would count as the teacher's."""
        if "teacher" not in self._groups or self._config.engine_of("teacher") != self._config.engine:
            return False
        return bool(self._groups["teacher"].healthy()) and not self._sampling["teacher"]

    async def _know_initial(self) -> None:
        """Gives the buffer the initial model's answers, if the rule needs them."""
        if "initial_answers" in self._parts.rule.needs:
            self._log.phase("sampling the initial model's answers")
            await self._buffer.know_initial(await initial_answers(self._parts))

    async def _ask(self) -> None:
        """Consumes the cursor and the buffer's room; produces rollout tasks; waits for room; is unblocked by an acknowledged
        version. A rollout task that fails for good ends the run. What an interrupted run asked for and did not get comes first."""
        for task in self._feed.unanswered():
            self._supervisor.start(self._roll_out(task), str(task.id))
        while True:
            for asked in await self._feed.next():
                for task in self._feed.tasks(asked):
                    self._supervisor.start(self._roll_out(task), str(task.id))

    async def _train(self) -> None:
        """Consumes the buffer's batches; produces updates, publications, log lines and checkpoints; waits for a batch that admission
        releases; is unblocked by completions. Finite."""
        try:
            await self._evaluate_before()
            for update in range(self.version.updates + 1, self._config.train.updates + 1):
                await self._update(update)
                if self._checkpoints.due(update):
                    await self._checkpoint()
                if self._evaluations.due(update):
                    await self._stop.unless(self._weights.acknowledged())
                    await self._evaluations.begin(self._weights.version("policy").updates)
                await self._stop.unless(self.collapse.pause(update, alive=self._watchdog.alive))
                if await self._stops(update):
                    break
            await self._stop.unless(self._evaluations.finish())
            await self._stop.unless(self._weights.acknowledged())
        except StoppedError:
            if self.version.updates > self._started_at:
                await self._checkpoint()
            await self._checkpoints_written()
            raise
        finally:
            self._evaluations.give_up()
        await self._writer.written()
        await self._checkpoints_written()

    async def _roll_out(self, task: RolloutTask) -> None:
        """One group: sampled by the actors of its source, and delivered by them to the buffer, or its question is dropped."""
        source = task.id.source
        self._sampling[source] += 1  # stays where this is cancelled: the actor goes on
        try:
            await self._groups[source].run(task)
            self._sampling[source] -= 1
        except TaskFailedError as error:
            self._sampling[source] -= 1
            await self._feed.give_up(error, task.id.asked)

    async def _update(self, update: int) -> None:
        """One turn: take, update, publish, log. StoppedError if the run is asked to end while it waits for the batch."""
        asked = now_s()
        taken = await self._take(update)
        began = now_s()
        async with self._turns.alone():
            result = await self._learner.update(taken.batch)
        ended = now_s()
        self.version = result.version
        self._watchdog.alive()
        if result.digest:
            self._supervisor.start(self._buffer.updated(update, result.digest), f"journal of update {update}")
        published = await self._publish(update)
        times = UpdateTimes(asked=asked, began=began, ended=ended, published=now_s())
        self.statistics.updated(times, num_samples=taken.num_samples)
        self._writer.begin(result, times, taken.report, published)

    async def _publish(self, update: int) -> asyncio.Task[Metrics] | None:
        """Publishes the weights that are due, unless the run is asked to end. Returns the publication, which ends later."""
        due = self._weights.due(update)
        if not due:
            return None
        try:
            await self._stop.unless(self._evaluations.finish())  # before the engines' weights change
        except StoppedError:
            return None
        await self._weights.publish(due)
        return self._weights.last

    async def _take(self, update: int) -> TakenBatch:
        """The batch of this update. StoppedError if the run is asked to end before the buffer gave it."""
        taking = asyncio.ensure_future(self._buffer.take(update, self._learner.token_statistics))
        heard = asyncio.ensure_future(self._stop.heard())
        try:
            await asyncio.wait({taking, heard}, return_when=asyncio.FIRST_COMPLETED)
            if not taking.done() and await self._buffer.halt() < update:
                raise StoppedError("the run was asked to end")
            return await taking
        finally:
            heard.cancel()
            taking.cancel()

    async def _checkpoint(self) -> None:
        await self._writer.written()
        await self._checkpoints.save(self.version, before=self.before)
        self._watchdog.alive()

    async def _forget(self, segment: int, updates: int) -> None:
        """Removes what the journal holds before this segment, and the token log up to this update."""
        await self._buffer.keep_from(segment)
        tokens = RunDir(self._config.run.root, self._config.run.name).tokens
        await asyncio.to_thread(forget_before, tokens, updates + 1)

    async def _checkpoints_written(self) -> None:
        """Returns when every checkpoint is committed; one that died with the learner's ranks is made anew."""
        await self._checkpoints.written()
        while self._checkpoints.lost:
            await self._checkpoint()
            await self._checkpoints.written()

    async def _stops(self, update: int) -> bool:
        """Whether the run ends before its last update, for a reason that it then keeps."""
        limit = self._config.run.max_wall_s
        if self.collapse.stops:
            self.stopped_early = f"collapse.on_collapse is stop, after update {update}"
        elif limit is not None and self.statistics.elapsed_s > limit and update < self._config.train.updates:
            self.stopped_early = f"run.max_wall_s = {limit:g} s were used up after update {update}"
            await self._checkpoint()
        elif self._stop.reason is not None:
            raise StoppedError("the run was asked to end")
        return self.stopped_early is not None

    def _say_stopping(self, reason: str) -> None:
        grace_s = self._config.run.grace_s
        self._log.say(
            f"{reason}: ending, with a checkpoint, in at most {grace_s:g} s (run.grace_s); Ctrl-C again ends at once"
        )
