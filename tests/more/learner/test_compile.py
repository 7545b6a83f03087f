"""learner.compile: the same gradient to rounding, and one compilation for all layers and all shapes of rows."""

import shutil
from pathlib import Path

import pytest
import torch
from torch._dynamo.utils import counters

from corewarding.learner.learner import Learner
from corewarding.learner.settings import LearnerSettings
from tests.toy_models import write_toy
from tests.unit.learner.test_learner import batch, gradients, plan_of


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile on a CPU needs g++")
def test_compiled_layers_give_the_same_gradient_and_share_what_is_compiled(tmp_path: Path) -> None:
    """12 layers, recomputed in the backward pass. If each compiled for itself, they would need at least 12 graphs of the forward pass
    alone; and updates with other rows must need no further one."""
    folder = str(write_toy("qwen3", tmp_path, num_hidden_layers=12))
    samples, found = batch(1, num=12).samples, []
    for on in (False, True):
        keys = LearnerSettings(micro_batch_tokens=200, row_tokens=32, compile=on, activation_checkpointing=True)
        learner = Learner(plan_of(folder, learner=keys))
        loss = learner.accumulate(learner.pack(samples))["loss/total"]
        found.append((loss, torch.cat([part.flatten() for part in gradients(learner)])))
    (loss, plain), (loss_compiled, compiled) = found
    assert loss_compiled == pytest.approx(loss, rel=1e-4)
    assert plain.norm() > 0
    assert (plain - compiled).norm() < 1e-4 * plain.norm()
    graphs = [counters["stats"]["unique_graphs"]]
    for number in (1, 2, 3):
        learner.update(batch(number, num=4 + 4 * number))
        graphs.append(counters["stats"]["unique_graphs"])
    assert 0 < graphs[0] < 36
    assert graphs[1] == graphs[3]  # the first update also computes without gradients
