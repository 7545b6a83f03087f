"""The learner's part of a checkpoint: parameter sets, optimizer and counters, by torch.distributed.checkpoint.

All functions are collective.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp

from corewarding.learner.parameter_sets import ParameterSets


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The learner's counters."""

    updates: int
    teacher_updates: int  # updates in the policy that the teacher absorbed last
    total_updates: int  # of the run: the schedules' length


def save(folder: Path, *, sets: ParameterSets, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
    """Writes everything that `load` restores."""
    dcp.save({**_tensors(sets, optimizer), "numbers": dataclasses.asdict(progress)}, checkpoint_id=folder)


def read_progress(folder: Path) -> Progress:
    """The counters of a saved state."""
    numbers = {field.name: 0 for field in dataclasses.fields(Progress)}
    state = {"numbers": numbers}
    dcp.load(state, checkpoint_id=folder)
    return Progress(**{name: int(value) for name, value in state["numbers"].items()})


def load(folder: Path, *, sets: ParameterSets, optimizer: torch.optim.Optimizer) -> None:
    """Restores parameter sets and optimizer in place."""
    for parameter in sets.parameters:  # AdamW makes its moments at the first step, and DCP loads in place
        optimizer.state[parameter] = {
            "step": torch.tensor(0.0),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
    state = _tensors(sets, optimizer)
    saved = dcp.FileSystemReader(folder).read_metadata().state_dict_metadata
    if not any(key.startswith("optimizer.") for key in saved):  # saved before the first step
        state.pop("optimizer")
        optimizer.state.clear()
    dcp.load(state, checkpoint_id=folder)


def _tensors(sets: ParameterSets, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    named = zip(sets.names, sets.parameters, strict=True)
    return {
        "policy": sets.tensors("policy"),
        "sets": {name: sets.tensors(name) for name in sets.kept},
        "optimizer": {name: dict(optimizer.state.get(parameter, {})) for name, parameter in named},
    }
