"""Nothing in a stranger's run folder is ever run."""

import io
import json
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from corewarding.launch.commands.export import ExportError, export_run
from corewarding.learner.checkpoint.manifest import CheckpointError, describe
from corewarding.learner.checkpoint.store import Checkpoint, CheckpointStore
from tests.unit.learner.checkpoint.states import content, save


class Attack:
    """Unpickled, it leaves a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.canary),)


def run_of(root: Path, base: Path) -> Checkpoint:
    """A run folder with one checkpoint."""
    store = CheckpointStore(root / "checkpoints", keep=1)
    folder = store.begin(7)
    save(base, 2, folder / "learner")
    (folder / "model").mkdir()
    for path in base.iterdir():
        (folder / "model" / path.name).write_bytes(path.read_bytes())
    return store.commit(folder, {"updates": 7})


def recommit(folder: Path) -> None:
    """As a stranger would: the manifest's hashes agree with whatever lies there."""
    (folder / "manifest.json").unlink()
    (folder / "COMMITTED").unlink()
    entries = describe(folder)
    (folder / "manifest.json").write_text(json.dumps(entries))
    (folder / "COMMITTED").touch()


def test_the_attack_works_where_pickles_are_opened(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Attack(tmp_path / "canary")))
    assert (tmp_path / "canary").is_dir()


@pytest.mark.parametrize("with_index", [False, True])
def test_a_stranger_s_pickle_is_refused_by_name(with_index: bool, base: Path, tmp_path: Path) -> None:
    """`.metadata` is what torch's own checkpoints unpickle."""
    folder = run_of(tmp_path / "run", base).folder
    if not with_index:
        (folder / "learner" / "learner.json").unlink()
    (folder / "learner" / ".metadata").write_bytes(pickle.dumps(Attack(tmp_path / "canary")))
    (folder / "learner" / "__0_0.distcp").write_bytes(pickle.dumps(Attack(tmp_path / "canary")))
    recommit(folder)
    for which in ("teacher", "policy"):
        with pytest.raises(
            ExportError, match=r"learner/\.metadata is a pickle, which could run code, and is never opened"
        ):
            export_run(tmp_path / "run", tmp_path / "out", which)
    assert not (tmp_path / "canary").exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("as_zip", [False, True])
@pytest.mark.parametrize(
    "where", ["learner/rank-00001-of-00002.safetensors", "learner/learner.json", "model/model.safetensors"]
)
def test_a_pickle_in_the_place_of_a_file_is_not_run(where: str, as_zip: bool, base: Path, tmp_path: Path) -> None:
    folder = run_of(tmp_path / "run", base).folder
    attack = pickle.dumps(Attack(tmp_path / "canary"))
    if as_zip:  # as torch.save writes it
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("archive/data.pkl", attack)
        attack = packed.getvalue()
    (folder / where).write_bytes(attack)
    recommit(folder)
    with pytest.raises((CheckpointError, ExportError, ValueError), match=Path(where).name):
        export_run(tmp_path / "run", tmp_path / "out", "teacher")
    assert not (tmp_path / "canary").exists()


def test_code_and_configuration_of_a_stranger_are_not_run(base: Path, tmp_path: Path) -> None:
    folder = run_of(tmp_path / "run", base).folder
    plugin = tmp_path / "run" / "plugin.py"
    plugin.write_text(f"import os; os.mkdir({str(tmp_path / 'canary')!r})")
    (tmp_path / "run" / "config.yaml").write_text(f"plugins: [{plugin}]\n")
    export_run(tmp_path / "run", tmp_path / "whole", "teacher")
    config = json.loads((folder / "model" / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"}
    (folder / "model" / "config.json").write_text(json.dumps(config))
    (folder / "model" / "code.py").write_text(plugin.read_text())
    recommit(folder)
    with pytest.raises(ValueError, match="code"):
        export_run(tmp_path / "run", tmp_path / "out", "teacher")
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("which", ["policy", "teacher"])
def test_an_exported_model_opens_and_holds_what_was_committed_alone(which: str, base: Path, tmp_path: Path) -> None:
    made = run_of(tmp_path / "run", base)
    (made.model / "link").symlink_to("/etc/passwd")  # came after the commit
    assert "after update 7" in export_run(tmp_path / "run", tmp_path / "out", which)  # type: ignore[arg-type]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(
        {p.name for p in base.iterdir()} | {"README.md"}
    )
    opened = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    saved = content(made.learner)
    for name, parameter in opened.named_parameters():
        expected = saved[f"teacher/{name}" if which == "teacher" else f"initial/{name}"]
        assert torch.equal(parameter.detach().reshape(-1), expected.bfloat16()), name
