"""One training run from a configuration: reads the data, places the actors, runs the controller, leaves a run directory.

`run_training` is the run behind `corewarding train` and `corewarding resume`, and can be called from Python. Every mistake in the
input is found before an actor is started.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ray.exceptions import RayError

from corewarding.dataflow.errors import RunError, RunStoppedError, UserError, origin
from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.report.introduction import introduce
from corewarding.launch.report.log import RunLog
from corewarding.launch.report.plain import say
from corewarding.launch.report.run_directory import RunDir
from corewarding.launch.report.run_lock import refuse_locked, run_lock
from corewarding.launch.report.summary import build_summary, print_summary, write_summary
from corewarding.launch.report.terminal import Terminal
from corewarding.launch.report.trackers.kinds import load, opened_by, started
from corewarding.launch.run import placement
from corewarding.launch.run.controller import Controller
from corewarding.launch.run.ending import consequences, local_ray
from corewarding.launch.run.ending.driver_log import driver_log
from corewarding.launch.run.ending.guard import Guard
from corewarding.launch.run.ending.last_words import cause_of, collapse_words, failure_kept, remedy, stop_words
from corewarding.launch.run.ending.stopping import LastResort, Signals, StoppedError, StopRequest
from corewarding.launch.run.forked.fork_server import forking
from corewarding.launch.run.inputs import Inputs, located, sizes
from corewarding.launch.run.journal.beginning import LearnerReturnError
from corewarding.launch.run.journal.resume import Past, resumption
from corewarding.launch.run.model_record import recorded_revision, write_model
from corewarding.launch.run.parts import placed
from corewarding.launch.run.preflight.checks import claim, prepare
from corewarding.launch.run.preflight.needs import can_fork
from corewarding.learner.checkpoint.store import CheckpointStore

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """The result of a finished run."""

    folder: Path  # the run directory
    summary: dict[str, Any]  # of summary.json
    stopped_early: str | None  # the reason, if the run ended before train.updates
    exit_code: int = 0  # of the command; run.sigterm_exit_code if SIGTERM ended the run


def run_training(config: TrainConfig, *, own_process: bool = False) -> RunResult:
    """Trains, evaluates and leaves a run directory. Blocks until the run ends, also inside a running event loop (a notebook).

    Ctrl-C and SIGTERM end it with a checkpoint if this is the main thread. own_process: this process is there for the run alone and
    may be ended if Ray hangs at its end.

    UserError for a mistake in the input, before anything is started; RunStoppedError if the run failed, with a way to continue;
    SignalStop if a signal came before anything was started.
    """
    stop, last_resort = StopRequest(), LastResort(enabled=own_process)
    signals = Signals(stop)
    with signals.caught(), forking(enabled=can_fork(config)):
        return _training(config, stop, signals, last_resort)


def _training(config: TrainConfig, stop: StopRequest, signals: Signals, last_resort: LastResort) -> RunResult:
    began = time.monotonic()
    run_dir = RunDir(config.run.root, config.run.name)
    refuse_locked(run_dir.path)
    run_dir.check(config)  # before data is read
    if config.run.resume == "must" and (summary := run_dir.finished(config)) is not None:
        print(
            f"{run_dir.path} is finished: {summary['updates']} of {config.train.updates} updates; nothing was written. "
            f"`corewarding resume {run_dir.path} --train.updates N` extends it"
        )
        return RunResult(folder=run_dir.path, summary=summary, stopped_early=None)
    with run_lock(run_dir.path):
        return _locked(config, run_dir, began, stop, signals, last_resort)


def _locked(
    config: TrainConfig, run_dir: RunDir, began: float, stop: StopRequest, signals: Signals, last_resort: LastResort
) -> RunResult:
    """The run, in a folder that no other process writes into."""
    asked = config
    store = CheckpointStore(run_dir.checkpoints, config.checkpoint.keep, keep_best=config.checkpoint.keep_best)
    continues = run_dir.last_update() is not None or run_dir.journal.is_dir()
    inputs = prepare(config, revision=recorded_revision(run_dir.path, config.model.path) if continues else None)
    notes = list[str]()

    def past() -> Past:
        checkpoint = store.latest()
        again = resumption(asked, inputs, run_dir, checkpoint, notes) if run_dir.config.is_file() else None
        return Past(checkpoint=checkpoint, again=again)

    first = past()
    run_dir.open(config, goes_on=first.again is not None)
    write_model(
        run_dir.path, path=config.model.path, revision=inputs.folder.revision, fingerprint=inputs.model.fingerprint
    )
    if first.checkpoint is None and run_dir.last_update() is not None:
        raise UserError(
            f"no checkpoint in {run_dir.checkpoints} is valid ({'; '.join(store.refused)}); restore one, or remove the folder, "
            "and the run starts again"
        )
    introduce(config, sizes(config, inputs) | {"run directory": str(run_dir.path)} | first.words(run_dir))
    for note in notes:
        say(f"note: {note}")
    config = located(config, inputs.folder)
    load(config.report.trackers)
    with failure_kept(run_dir), driver_log(run_dir.logs / "driver.log", enabled=last_resort.enabled):
        keep: Path | None = None
        try:
            with signals.held():
                placement.connect(config)
            with signals.running():
                return run_to_end(_runs(config, inputs, run_dir, store, past, first, began, stop, last_resort))
        except RunStoppedError:
            raise
        except UserError as error:
            raise origin(error) from None
        except (RunError, RayError, OSError) as error:  # RayError: what an actor did not expect. OSError: a full disk
            keep = run_dir.logs
            raise RunStoppedError(f"{cause_of(error)}\n{remedy(run_dir, store)}") from error
        finally:
            local_ray.shut_down(keep=keep)
            last_resort.disarm()


def run_to_end(work: Coroutine[Any, Any, T]) -> T:
    """asyncio.run, in a thread of its own if this thread already runs an event loop. An interrupt cancels the work."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any] | None]] = []

    async def recorded() -> T:
        running.append((asyncio.get_running_loop(), asyncio.current_task()))
        return await work

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="run") as thread:
        outcome = thread.submit(asyncio.run, recorded())
        try:
            return outcome.result()
        except KeyboardInterrupt:
            for loop, task in running:
                if task is not None and not loop.is_closed():
                    loop.call_soon_threadsafe(task.cancel)
            raise


async def _runs(
    config: TrainConfig,
    inputs: Inputs,
    run_dir: RunDir,
    store: CheckpointStore,
    past: Callable[[], Past],
    first: Past,
    began: float,
    stop: StopRequest,
    last_resort: LastResort,
) -> RunResult:
    """The run; again with all its actors if the learner came back with other weights, at most `learner.max_restarts` times.

    past: what it goes on from then.
    """
    goes_on_from, restarts = first, 0
    while True:
        try:
            return await _run(config, inputs, run_dir, store, goes_on_from, began, stop, last_resort)
        except RunError as error:
            if not isinstance(origin(error), LearnerReturnError) or restarts == config.learner.max_restarts:
                raise
            last_resort.disarm()
            restarts += 1
            say(f"{origin(error)}; the actors are started again ({restarts} of {config.learner.max_restarts})")
        goes_on_from = past()


async def _run(
    config: TrainConfig,
    inputs: Inputs,
    run_dir: RunDir,
    store: CheckpointStore,
    past: Past,
    began: float,
    stop: StopRequest,
    last_resort: LastResort,
) -> RunResult:
    stop.listen()
    controller, summary = None, dict[str, Any]()
    shown = Terminal(total_updates=config.train.updates, resumed_at=past.updates)
    with consequences.kept_off_the_terminal(), shown as terminal:
        trackers = started(config, run_dir.path, terminal.warn, resumed_at=past.updates)
        log = RunLog(run_dir, terminal, trackers, resumed_at=past.updates)
        try:
            guard = Guard(
                enabled=last_resort.enabled,
                limit_s=config.run.watchdog_s,
                logs=run_dir.logs,
                remedy=lambda: remedy(run_dir, store),
            )
            async with guard.watching():
                controller = await _control(config, inputs, store, past, log, stop, last_resort)
            if stop.reason is None or not controller.stopped_early:
                summary = _summarized(config, controller, run_dir, began)
        except StoppedError as error:
            log.say(str(error))
        finally:
            log.close(summary)
    if controller is None or not summary:
        assert stop.reason is not None, "only a request gives a run up"
        return _stopped(config, run_dir, store, stop.reason)
    latest = store.latest()
    model = str(latest.model) if latest else "no checkpoint"
    commands = opened_by(config, run_dir.path)
    print_summary(run_dir, summary, model, before=controller.before, after=controller.after, trackers=commands)
    if controller.stopped_early:
        print(f"stopped early: {controller.stopped_early}")
    if controller.collapse.stops:
        raise RunStoppedError(collapse_words(controller.collapse.stops, run_dir))
    return RunResult(folder=run_dir.path, summary=summary, stopped_early=controller.stopped_early)


def _summarized(config: TrainConfig, controller: Controller, run_dir: RunDir, began: float) -> dict[str, Any]:
    """Writes summary.json and returns its content."""
    summary = build_summary(
        config,
        updates=controller.version.updates,
        wall_s=time.monotonic() - began,
        labels_read=controller.answers_read,
        before=controller.before,
        after=controller.after,
        measured=controller.statistics.summary(),
    )
    write_summary(run_dir, summary)
    return summary


async def _control(
    config: TrainConfig,
    inputs: Inputs,
    store: CheckpointStore,
    past: Past,
    log: RunLog,
    stop: StopRequest,
    last_resort: LastResort,
) -> Controller:
    """Starts the parts, runs the controller over them and ends them. StoppedError if a request to end gave up what was under way."""
    room = await stop.unless(claim(config, inputs))
    log.phase("starting the actors")
    async with AsyncExitStack() as stack:
        error: BaseException | None = None
        try:
            parts = await stop.unless(
                stack.enter_async_context(placed(config, inputs, store, log, past.checkpoint, room, past.again))
            )
            controller = Controller(parts, before=past.evaluation(RunDir(config.run.root, config.run.name)), stop=stop)
            await stop.within(config.run.grace_s, controller.run())
        except BaseException as raised:
            error = raised
            raise
        finally:
            last_resort.arm(None if isinstance(error, StoppedError) else error)  # before the parts are ended
    return controller


def _stopped(config: TrainConfig, run_dir: RunDir, store: CheckpointStore, reason: str) -> RunResult:
    """Says what a run that was asked to end leaves, and how it goes on."""
    early, how = stop_words(reason, run_dir, store)
    print(f"{early}{how}")
    code = config.run.sigterm_exit_code if reason == "SIGTERM" else 0
    return RunResult(folder=run_dir.path, summary={}, stopped_early=early, exit_code=code)
