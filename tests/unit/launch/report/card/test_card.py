"""The model card says what a run was; an upload goes to a hub only when asked, with a token. The hub is a server process."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard, constants

from corewarding.dataflow.errors import UserError
from corewarding.launch.report.card.model_card import card, write_card
from corewarding.launch.report.card.upload import UploadError, refuse_unready, upload
from corewarding.launch.report.run_directory import RunDir
from tests.hub import SmallHub, small_hub

CONFIG = {
    "rule": "co_rewarding_i",
    "model": {"path": "owner/Base-1B"},
    "data": {"kind": "files", "train": "/secret/place/questions.parquet"},
    "train": {"lr": 1e-4},
    "run": {"name": "mine", "root": "/secret/place"},
    "engine": {"kind": "sglang", "api_key": "***"},
}
SUMMARY = {
    "updates": 7,
    "labels_read": 0,
    "before": {"mean@8": 0.25, "greedy": 0.5},
    "after": {"mean@8": 0.75, "greedy": 0.875, "num_questions": 512, "mean_length": 20.0},
}


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    run_dir = RunDir(tmp_path / "runs", "mine")
    run_dir.path.mkdir(parents=True)
    run_dir.config.write_text(yaml.safe_dump(CONFIG))
    run_dir.summary.write_text(json.dumps(SUMMARY))
    (run_dir.path / "model.json").write_text('{"path": "owner/Base-1B", "revision": "abc", "fingerprint": "x"}')
    return run_dir


def test_a_card_says_what_was_trained_and_how_good_it_is(run_dir: RunDir) -> None:
    text = card(run_dir, which="policy", update=7)
    found = ModelCard(text)
    assert found.data.base_model == "owner/Base-1B"
    assert found.data.library_name == "transformers"
    assert "after update 7 of a run with the reward rule `co_rewarding_i`" in text
    assert "the reward rule has read: 0." in text
    assert "| mean@8 | 0.250 | 0.750 |" in text
    assert "| greedy | 0.500 | 0.875 |" in text
    assert "mean\\_length" not in text
    assert "train.lr: 0.0001" in text
    assert "questions.parquet" in text
    assert "/secret/place" not in text
    assert "engine" not in text


def test_an_adapter_says_so_and_of_which_model(run_dir: RunDir) -> None:
    run_dir.config.write_text(yaml.safe_dump(CONFIG | {"learner": {"lora": {"rank": 8}}}))
    text = card(run_dir, which="policy", update=7, is_adapter=True)
    found = ModelCard(text).data
    assert (found.library_name, found.base_model) == ("peft", "owner/Base-1B")
    assert found.to_dict()["base_model_relation"] == "adapter"
    assert "This is a LoRA adapter of rank 8, and no whole model: peft adds it to `owner/Base-1B`" in text
    merged = card(run_dir, which="policy", update=7)
    assert "A LoRA adapter of rank 8 was trained, and is merged into these weights." in merged
    assert ModelCard(merged).data.library_name == "transformers"
    assert "adapter" not in card(run_dir, which="policy", update=7).split("---")[1]


def test_weights_that_were_not_evaluated_get_no_numbers(run_dir: RunDir) -> None:
    for text in (card(run_dir, which="teacher", update=7), card(run_dir, which="policy", update=6)):
        assert "have not been evaluated" in text
        assert "0.750" not in text


def test_a_run_without_its_files_has_a_card_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    text = card(RunDir(tmp_path, "bare"), which="policy", update=3)
    assert "an unknown rule" in text
    assert "`an unknown model`" in text


@pytest.mark.parametrize(
    "config", ["!!python/object/apply:os.mkdir [canary]\n", "3: {4: 5}\nrule: '`</p>\x1b[2J|'\n", "rule: [1, {a: b}]\n"]
)
def test_a_stranger_s_configuration_is_text(config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_dir = RunDir(tmp_path, "<b>x")
    run_dir.path.mkdir()
    run_dir.config.write_text(config)
    text = card(run_dir, which="policy", update=3)
    assert not (tmp_path / "canary").exists()
    assert "\x1b" not in text
    assert "# \\<b\\>x" in text


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallHub]:
    with small_hub(tmp_path_factory.mktemp("hub")) as hub:
        yield hub


@pytest.fixture
def hub(server: SmallHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallHub:
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    monkeypatch.setenv("HF_TOKEN", "good")
    return server


def test_a_model_is_sent_as_one_commit_into_a_private_repository(
    hub: SmallHub, run_dir: RunDir, tmp_path: Path
) -> None:
    out = tmp_path / "model"
    out.mkdir()
    (out / "config.json").write_text("{}")
    write_card(run_dir, out, which="policy", update=7)
    refuse_unready("owner/Mine")
    address = upload(out, "owner/Mine", public=False, message="policy after update 7")
    commit = (hub.root / "owner/Mine/main").read_text()
    assert address.endswith(f"/owner/Mine/commit/{commit}")
    sent = hub.root / "owner/Mine" / commit
    assert {path.name for path in sent.iterdir()} == {"config.json", "README.md"}
    assert (sent / "README.md").read_bytes() == (out / "README.md").read_bytes()
    assert (hub.root / "owner/Mine/private").read_text() == "True"


def test_what_the_hub_refuses_is_named(hub: SmallHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "other")
    with pytest.raises(UploadError, match=r"did not take owner/New \(status 403\): the token may not write there"):
        upload(tmp_path, "owner/New", public=True, message="m")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UploadError, match=r"http://127.0.0.1:9 cannot be reached .*`hf upload owner/New"):
        upload(tmp_path, "owner/New", public=True, message="m")
    monkeypatch.setenv("HF_TOKEN", "")
    with pytest.raises(UserError, match=r"no token for http://127.0.0.1:9; log in with `hf auth login`"):
        refuse_unready("owner/New")
