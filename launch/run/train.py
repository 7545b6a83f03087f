"""`run_training`: the run behind `corewarding train` and `corewarding resume`, which can be called from Python.

Takes the run's folder and starts Ray, while a thread imports run/session.py, which does the rest: it needs torch and transformers,
and either takes seconds. A refusal that needs them comes when Ray runs, and ends it.
"""

from __future__ import annotations

import importlib
import time
from concurrent.futures import ThreadPoolExecutor

from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.report.run_directory import RunDir
from corewarding.launch.report.run_lock import refuse_locked, run_lock
from corewarding.launch.report.summary import RunResult
from corewarding.launch.run.ending.membership import membership
from corewarding.launch.run.ending.stopping import LastResort, Signals, StopRequest
from corewarding.launch.run.preflight.early import check_early


def run_training(config: TrainConfig, *, own_process: bool = False) -> RunResult:
    """Trains, evaluates and leaves a run directory. Blocks until the run ends, also inside a running event loop (a notebook).

    Ctrl-C and SIGTERM end it with a checkpoint if this is the main thread. own_process: this process is there for the run alone and
    may be ended if Ray hangs at its end.

    UserError for a mistake in the input, before anything is started; RunStoppedError if the run failed, with a way to continue;
    SignalStop if a signal came before anything was started.
    """
    stop, last_resort = StopRequest(), LastResort(enabled=own_process)
    signals = Signals(stop)
    with signals.caught():
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
    with run_lock(run_dir.path), membership(config, signals) as ray:
        check_early(config)
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="imports") as beside:
            beside.submit(importlib.import_module, "corewarding.launch.run.session")
            if ray.is_own:
                ray.join()
        from corewarding.launch.run.session import run_in

        return run_in(run_dir, config, began, stop, signals, last_resort, ray)
