"""`corewarding export` and `eval` of a run that trains an adapter: merged or as a folder that peft loads, of policy or teacher."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from corewarding.dataflow.errors import UserError
from corewarding.launch.api import Run
from corewarding.launch.commands.export import ExportError, export_run
from corewarding.learner.checkpoint.store import CheckpointStore
from corewarding.learner.learner import Learner
from tests.unit.learner.conftest import write_tiny_model
from tests.unit.learner.lora.learners import adapted, weights
from tests.unit.learner.test_learner import batch, plan_of, save


def run_of(learner: Learner, folder: Path) -> Path:
    """A run directory with one checkpoint of this learner."""
    store = CheckpointStore(folder / "checkpoints", keep=1)
    unfinished = store.begin(learner.version.updates)
    save(learner, unfinished / "learner")
    learner.export(unfinished / "learner", unfinished / "model")
    store.commit(unfinished, {"updates": learner.version.updates})
    (folder / "config.yaml").write_text("{}\n")
    return folder


@pytest.fixture
def learner(tmp_path: Path) -> Learner:
    write_tiny_model(tmp_path / "base")
    learner = adapted(str(tmp_path / "base"))
    learner.update(batch(1))
    return learner


@pytest.mark.parametrize("which", ["policy", "teacher"])
def test_an_export_is_merged_and_the_adapter_alone_is_what_peft_merges_to_the_same(
    which: Any, learner: Learner, tmp_path: Path
) -> None:
    run, sent = run_of(learner, tmp_path / "run"), weights(learner, which)
    said = export_run(run, tmp_path / "whole", which)
    assert said == f"{which} after update 1 written to {tmp_path / 'whole'}"
    whole = load_file(tmp_path / "whole" / "model.safetensors")
    assert all(torch.equal(whole[name], sent[name]) for name in sent)
    assert json.loads((tmp_path / "whole" / "config.json").read_text())["dtype"] == "float32"
    said = export_run(run, tmp_path / "adapter", which, adapter=True)
    assert said.startswith(f"{which}'s adapter after update 1")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    merged = PeftModel.from_pretrained(base, tmp_path / "adapter").merge_and_unload().state_dict()
    for name, weight in sent.items():
        torch.testing.assert_close(merged[name], weight, rtol=0, atol=1e-7)


def test_a_run_s_model_is_whole_and_made_once(learner: Learner, tmp_path: Path) -> None:
    run = run_of(learner, tmp_path / "run")
    made = Run(run).model
    assert made == run / "merged" / "step-000001"
    assert [path.name for path in made.parent.iterdir()] == [made.name]
    stamp = (made / "model.safetensors").stat().st_mtime_ns
    assert Run(run).model == made
    assert (made / "model.safetensors").stat().st_mtime_ns == stamp
    learner.update(batch(2))
    run_of(learner, run)
    assert Run(run).model.name == "step-000002"
    assert not made.exists()


def test_a_base_model_elsewhere_is_named_and_flags_that_do_not_fit_are_refused(
    learner: Learner, tmp_path: Path
) -> None:
    run = run_of(learner, tmp_path / "run")
    shutil.move(tmp_path / "base", tmp_path / "moved")
    with pytest.raises(UserError, match=r"there is no such folder.*--base"):
        export_run(run, tmp_path / "out", "policy")
    export_run(run, tmp_path / "out", "policy", base=tmp_path / "moved")
    with pytest.raises(ExportError, match=r"--base .* is not needed for --adapter"):
        export_run(run, tmp_path / "again", "policy", adapter=True, base=tmp_path / "moved")
    plain = Learner(plan_of(str(tmp_path / "moved")))
    whole = run_of(plain, tmp_path / "plain")
    with pytest.raises(
        ExportError, match=r"--adapter: .*plain trains all weights, without learner.lora; leave --adapter out"
    ):
        export_run(whole, tmp_path / "again", "policy", adapter=True)
    with pytest.raises(ExportError, match=r"--base: .*plain trains all weights"):
        export_run(whole, tmp_path / "again", "policy", base=tmp_path / "moved")
