"""A model of the hub is fetched once, pinned to a commit, without what is not read; what the hub refuses is named with the remedy.

The hub is a server process; the client is the real one.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import constants
from transformers import AutoModelForCausalLM

from corewarding.dataflow.custom_code import CustomCodeError
from corewarding.dataflow.errors import UserError
from corewarding.launch.run.preflight.fetch import fetch_here
from corewarding.weights.hub import HubError, ModelFolder, model_folder
from corewarding.weights.model_check import check_weights
from corewarding.weights.model_files import INDEX, SINGLE
from tests.hub import FIRST, SECOND, SmallHub, small_hub
from tests.tiny_models import write_model

ID = "owner/Model-1B"
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallHub]:
    with small_hub(tmp_path_factory.mktemp("hub")) as hub:
        yield hub


def point_to(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with HF_ENDPOINT, which huggingface_hub reads when it is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")


@pytest.fixture
def hub(server: SmallHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallHub:
    """The server with nothing in it, and an empty cache here."""
    for old in server.root.iterdir():
        old.rename(tmp_path / f"old-{old.name}")
    point_to(server.url, monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return server


def sharded(folder: Path, *, seed: int = 0) -> Path:
    """A model in several shards, with what else people put into a repository."""
    one = write_model(folder / "one", seed=seed)
    whole = folder / "whole"
    AutoModelForCausalLM.from_pretrained(one, dtype=torch.float32).save_pretrained(whole, max_shard_size="40KB")
    (whole / "tokenizer.json").write_text("{}")
    for name in ("consolidated.safetensors", "original/params.json", "README.md", "pytorch_model.bin"):
        (whole / name).parent.mkdir(exist_ok=True)
        (whole / name).write_text("not read")
    return whole


def test_a_model_is_fetched_once_and_without_what_is_not_read(hub: SmallHub, tmp_path: Path) -> None:
    served = hub.add(ID, sharded(tmp_path))
    said: list[str] = []
    found = model_folder(ID, say=said.append)
    assert (found.hub_id, found.revision, found.path.name) == (ID, FIRST, FIRST)
    shards = sorted(path.name for path in served.glob("model-*.safetensors"))
    assert len(shards) > 2
    wanted = ["config.json", "generation_config.json", INDEX, "tokenizer.json", *shards]
    assert sorted(hub.downloads()) == sorted(wanted)
    assert sorted(path.name for path in found.path.iterdir()) == sorted(wanted)
    assert all((found.path / name).read_bytes() == (served / name).read_bytes() for name in wanted)
    check_weights(found.path)
    (line,) = said
    assert line.startswith(
        f"model.path {ID}: downloading 0.00 GB in {len(shards)} files of revision aaaaaaaaaaaa into {tmp_path}"
    )
    assert model_folder(ID, say=said.append) == found
    assert len(hub.downloads()) == len(wanted)
    assert len(said) == 1


def test_a_revision_is_kept_while_the_branch_moves_on(hub: SmallHub, tmp_path: Path) -> None:
    hub.add(ID, write_model(tmp_path / "first"))
    assert model_folder(ID).revision == FIRST
    hub.add(ID, write_model(tmp_path / "second", seed=1), SECOND)
    assert model_folder(ID).revision == SECOND
    found = model_folder(ID, FIRST)
    assert (found.revision, found.path.name) == (FIRST, FIRST)
    assert (found.path / SINGLE).read_bytes() == (tmp_path / "first" / SINGLE).read_bytes()


def test_an_unreachable_hub_leaves_what_is_in_the_cache(
    hub: SmallHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(ID, sharded(tmp_path))
    point_to(NOWHERE, monkeypatch)
    nothing = rf"model.path={ID}: there is no such folder, and as a hub id it cannot be fetched: http://127.0.0.1:9 cannot be reached"
    with pytest.raises(HubError, match=f"{nothing} .* does not hold it whole; connect this machine"):
        model_folder(ID)
    point_to(hub.url, monkeypatch)
    found = model_folder(ID)
    point_to(NOWHERE, monkeypatch)
    said: list[str] = []
    assert model_folder(ID, say=said.append) == found
    assert said[0].startswith("note: http://127.0.0.1:9 cannot be reached (")
    assert model_folder(ID, FIRST) == found
    with pytest.raises(HubError, match="does not hold it whole"):
        model_folder(ID, SECOND)
    next(found.path.glob("model-*.safetensors")).unlink()
    with pytest.raises(HubError, match="does not hold it whole"):
        model_folder(ID)


def test_offline_mode_is_named(hub: SmallHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match=r"HF_HUB_OFFLINE.*unset HF_HUB_OFFLINE, or download the model elsewhere"):
        model_folder(ID)
    assert hub.requests("GET") == []


def test_another_node_gets_the_same_commit_into_the_same_folder(
    hub: SmallHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache that a node uses by itself does not matter."""
    hub.add(ID, write_model(tmp_path / "first"))
    wanted = model_folder(ID)
    hub.add(ID, write_model(tmp_path / "second", seed=1), SECOND)
    shutil.rmtree(tmp_path / "cache")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "another"))
    assert fetch_here(wanted) == []
    assert (wanted.path / SINGLE).read_bytes() == (tmp_path / "first" / SINGLE).read_bytes()
    assert not (tmp_path / "another").exists()
    sent = len(hub.downloads())
    point_to(NOWHERE, monkeypatch)
    assert fetch_here(wanted) == [], "nodes that share the cache ask for nothing"
    assert len(hub.downloads()) == sent
    shutil.rmtree(tmp_path / "cache")
    (said,) = fetch_here(wanted)
    assert "cannot be reached" in said


def test_an_index_of_files_that_are_nowhere_is_refused(hub: SmallHub, tmp_path: Path) -> None:
    shard = sorted(hub.add(ID, sharded(tmp_path)).glob("model-*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(HubError, match=f"names {shard.name}, which the hub does not hold"):
        model_folder(ID)


def test_an_interrupted_download_goes_on(hub: SmallHub, tmp_path: Path) -> None:
    served = hub.add(ID, sharded(tmp_path))
    shard = sorted(served.glob("model-*.safetensors"))[1]
    (hub.root / "hidden").write_text(shard.name)
    with pytest.raises(HubError, match=f"{ID}: its download into {tmp_path}.* broke off .*; the same command goes on"):
        model_folder(ID)
    (hub.root / "hidden").unlink()
    check_weights(model_folder(ID).path)
    assert len(hub.downloads()) == len(set(hub.downloads())), "no file was sent twice"


REFUSALS = {
    "a model that does not exist": (None, {}, "has no such model, or it is private; correct the id, or log in with `hf auth login`"),
    "a private model": ("private good", {"HF_TOKEN": "other"}, "has no such model, or it is private"),
    "terms that were not accepted": ("gated good", {"HF_TOKEN": "other"}, "accept them at http.*/owner/Model-1B, and log in"),
    "a token that is not valid": ("gated good", {"HF_TOKEN": "old"}, r"refuses this machine's token \(401\); log in with"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_what_the_hub_refuses_is_named(
    hub: SmallHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    token, environment, message = REFUSALS[case]
    if token is not None:
        hub.add(ID, write_model(tmp_path / "model"))
        (hub.root / ID / "token").write_text(token)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(HubError, match=f"model.path {ID}: .*{message}"):
        model_folder(ID)
    monkeypatch.setenv("HF_TOKEN", "good")
    if token is not None:
        assert model_folder(ID).revision == FIRST


def test_a_revision_that_does_not_exist_is_named(hub: SmallHub, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    hub.add(ID, folder)
    with pytest.raises(HubError, match=f"model.revision v9: {ID} has no such branch, tag or commit"):
        model_folder(ID, "v9")
    with pytest.raises(HubError, match=r"is a folder, which has no revisions; remove model.revision"):
        model_folder(folder, "main")


def test_nothing_large_is_fetched_of_a_model_that_cannot_be_used(hub: SmallHub, tmp_path: Path) -> None:
    served = hub.add(ID, sharded(tmp_path))

    def refuse(folder: Path) -> None:
        assert (folder / "config.json").is_file()
        raise UserError("not this one")

    with pytest.raises(UserError, match="not this one"):
        model_folder(ID, check=refuse)
    config = json.loads((served / "config.json").read_text())
    (served / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoConfig": "own.Config"}}))
    os.rename(served, hub.root / ID / SECOND)
    (hub.root / ID / "main").write_text(SECOND)
    with pytest.raises(CustomCodeError, match="which is never run"):
        model_folder(ID)
    assert not [name for name in hub.downloads() if name.endswith(".safetensors")]


def test_a_model_without_safetensors_is_refused(hub: SmallHub, tmp_path: Path) -> None:
    served = hub.add(ID, write_model(tmp_path / "model"))
    (served / SINGLE).rename(served / "pytorch_model.bin")
    with pytest.raises(
        HubError, match=r"holds no safetensors of it \(config.json, generation_config.json, pytorch_model.bin\)"
    ):
        model_folder(ID)


def test_a_full_disk_is_named_before_the_download(
    hub: SmallHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(ID, write_model(tmp_path / "model"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(HubError, match="GB free; make room, or set HF_HOME to a folder on a larger disk"):
        model_folder(ID)


def test_a_folder_is_itself(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    assert model_folder(folder) == ModelFolder(path=tmp_path)
    with pytest.raises(
        HubError, match=r"model.path=nowhere: there is no such folder; a folder that from_pretrained opens"
    ):
        model_folder("nowhere")
