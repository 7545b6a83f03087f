"""One fault: a run is started, hurt in its phase, judged from outside, and resumed with the same command."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.chaos.faults import CALLS, Fault, in_phase, pids_of, rule_of, title_of
from tests.more.runs import Run, started

UPDATES, PER_UPDATE, WATCHDOG_S, STALENESS = 6, 4, 15.0, 2
LIMIT_S = WATCHDOG_S + 30
"""Within this time after a fault the run ends or goes on."""
PATIENCE_S = 400.0
LEFT_S = 30.0
LOOK_S = 0.1
KEYS: dict[str, object] = {
    "train__updates": UPDATES,
    "train__questions_per_update": PER_UPDATE,
    "data__num_train": UPDATES * PER_UPDATE,  # so each question is asked once
    "data__num_heldout": 32,
    "eval__num_questions": 32,
    "eval__quick_questions": 8,
    "eval__every_updates": 2,
    "checkpoint__every_updates": 1,
    "learner__ranks": 2,
    "staleness__max": STALENESS,
    "rollout__silent_s": 6,
    "run__watchdog_s": WATCHDOG_S,
    "publish__timeout_s": WATCHDOG_S / 3,  # a receiver that hangs is fenced before the watchdog sees it
    "run__sample_questions": PER_UPDATE,
}
NOISE = ("Traceback", "*** SIG", "Check failed", "Stack trace", "core_worker")


def attempt(fault: Fault | None, folder: Path) -> dict[str, Any]:
    """The result of one fault, JSON-ready; None runs undisturbed. `violations` is empty if all held."""
    folder.mkdir(parents=True, exist_ok=True)
    began, violations = time.monotonic(), Counter[str]()
    rule = rule_of(fault)
    with started(folder, rule=rule, **KEYS) as run:
        hit = fault is not None and _hit(run, fault)
        code = _end(run, violations) if hit else _wait(run, PATIENCE_S)
        if fault is not None and hit:
            _judge_end(run, fault, code, violations)
    resumed = None
    if code != 0 or len(run.updates()) < UPDATES:
        finished = run.folder.joinpath("summary.json").is_file()  # killed after its last word: it goes on as finished
        with started(folder, rule=rule, **KEYS, run__resume="must" if finished else "auto") as run:
            resumed = _wait(run, PATIENCE_S)
            if resumed != 0:
                violations["resume failed"] += 1
            _judge_words(run, violations)
    _judge_samples(run, violations)
    return {
        "fault": str(fault or "none"),
        "hit": hit,
        "code": code,
        "resumed": resumed,
        "violations": dict(violations),
        "accuracy": _accuracy(run),
        "seconds": round(time.monotonic() - began),
        "words": run.text()[-1500:] if violations else "",
    }


def _hit(run: Run, fault: Fault) -> bool:
    """Waits for the fault's phase and its process, and sends the signal. False if that did not come."""
    deadline, learner, pids = time.monotonic() + PATIENCE_S, list[int](), list[int]()
    while run.driver.poll() is None and time.monotonic() < deadline:
        learner = learner or pids_of(run, "learner-0")  # looked for once: some phases last a millisecond
        pids = pids or pids_of(run, fault.target)
        near = bool(pids) and len(run.updates()) >= fault.after and (learner or fault.phase not in CALLS)
        close = time.monotonic() + LOOK_S
        while near and time.monotonic() < close:
            if in_phase(run, fault, learner):
                for pid in pids:
                    os.kill(pid, getattr(signal, fault.signal))
                return True
            time.sleep(0.0005 if fault.phase in CALLS else 0.01)
        if not near:
            time.sleep(LOOK_S)
    return False


def _end(run: Run, violations: Counter[str]) -> int | None:
    """Waits until the run ends, as long as it goes on; a run that hangs is ended."""
    sizes, moved_at, began = (0, 0), time.monotonic(), time.monotonic()
    while (code := run.driver.poll()) is None:
        now, logs = time.monotonic(), [run.log, run.folder / "logs" / "driver.log"]
        if (new := tuple(log.stat().st_size if log.exists() else 0 for log in logs)) != sizes:
            sizes, moved_at = new, now
        if now - moved_at > LIMIT_S or now - began > PATIENCE_S:
            violations["hang"] += 1
            return None
        time.sleep(0.1)
    return code


def _wait(run: Run, seconds: float) -> int | None:
    deadline = time.monotonic() + seconds
    while (code := run.driver.poll()) is None and time.monotonic() < deadline:
        time.sleep(0.1)
    return code


def _judge_end(run: Run, fault: Fault, code: int | None, violations: Counter[str]) -> None:
    if code is not None and code not in fault.codes:
        violations["exit code"] += 1
    log = run.folder / "logs" / "driver.log"
    said = run.text() + (log.read_text(errors="replace") if log.exists() else "")
    if fault.target != "driver" and fault.phase != "exit" and fault.name not in said:
        violations["not named"] += 1
    _judge_words(run, violations)
    deadline = time.monotonic() + LEFT_S
    while run.pids() and time.monotonic() < deadline:
        time.sleep(0.5)
    for title in filter(None, map(title_of, run.pids())):
        violations[f"process left: {title[:100]}"] += 1


def _judge_words(run: Run, violations: Counter[str]) -> None:
    if any(noise in run.text() for noise in NOISE):
        violations["traceback"] += 1


def _judge_samples(run: Run, violations: Counter[str]) -> None:
    """Each question is trained once, by samples that are fresh enough, and each update is logged once."""
    if run.updates() != list(range(1, UPDATES + 1)):
        violations["updates logged"] += 1
    trained: Counter[str] = Counter()
    for update in range(1, UPDATES + 1):
        path = run.folder / "samples" / f"update-{update:06d}.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        trained.update({row["id"].rsplit("/", 3)[0] for row in rows})
        policy = [row for row in rows if row["source"] == "policy"]
        violations["stale trained"] += sum(row["versions"][0] < update - 1 - STALENESS for row in policy)
    violations["trained twice"] += sum(num - 1 for num in trained.values())
    violations["questions lost"] += UPDATES * PER_UPDATE - len(trained)
    for name in ("stale trained", "trained twice", "questions lost"):
        if not violations[name]:
            del violations[name]


def _accuracy(run: Run) -> float | None:
    """Held-out accuracy after the last update."""
    path = run.folder / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    after = [row["greedy"] for row in rows if row["kind"] == "eval_after"]
    return after[-1] if after else None
