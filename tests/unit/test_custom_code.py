"""No code of a model folder is ever run, and nobody is asked whether it may: such folders are refused by name."""

import ast
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from corewarding.actors.embedded.model import load_decoder
from corewarding.actors.parameters import parameters_of
from corewarding.dataflow.custom_code import CustomCodeError, refuse_custom_code
from corewarding.learner.learner import Learner
from corewarding.questions import template
from corewarding.questions.template import PromptTemplate
from corewarding.weights import hub
from corewarding.weights import model_config as reader
from corewarding.weights.hub import local_folder
from corewarding.weights.model_config import model_config
from tests.unit.learner.conftest import write_tiny_model
from tests.unit.learner.test_architectures import plan_of

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ("actors", "dataflow", "evals", "launch", "learner", "questions", "rewards", "weights")
CPU = torch.device("cpu")
CODE = """
from pathlib import Path
Path(__file__).with_name("it-ran").touch()
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
class OwnConfig(Qwen3Config): model_type = "own"
class OwnModel(Qwen3ForCausalLM): config_class = OwnConfig
class OwnTokenizer(PreTrainedTokenizerFast): pass
"""
READERS: dict[str, Callable[[str], Any]] = {
    "config": model_config,
    "prompts": lambda folder: PromptTemplate.from_folder(folder, system_prompt=""),
    "folder": local_folder,
    "embedded engine": lambda folder: load_decoder(folder, dtype=torch.float32, device=CPU),
    "other engines": lambda folder: parameters_of(folder, torch.float32),
    "learner": lambda folder: Learner(plan_of(folder)),
}


def plant(folder: Path, *, model_type: str = "own") -> str:
    """A model whose config and tokenizer name Python code in its folder, which would leave a file there."""
    write_tiny_model(folder)
    (folder / "own.py").write_text(CODE)
    entries = {
        "config.json": {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"},
        "tokenizer_config.json": {"AutoTokenizer": ["own.OwnTokenizer", None]},
    }
    for name, auto_map in entries.items():
        content = json.loads((folder / name).read_text()) | {"auto_map": auto_map}
        if name == "config.json":
            content["model_type"] = model_type
        (folder / name).write_text(json.dumps(content))
    return str(folder)


@pytest.mark.parametrize("model_type", ["own", "qwen3"])
@pytest.mark.parametrize("how", READERS)
def test_a_folder_with_code_is_refused_and_the_code_does_not_run(how: str, model_type: str, tmp_path: Path) -> None:
    folder = plant(tmp_path / "model", model_type=model_type)
    with pytest.raises(CustomCodeError, match=r"auto_map in config.json names .*own.OwnConfig.*remove auto_map"):
        READERS[how](folder)
    assert not list(tmp_path.rglob("it-ran"))


@pytest.mark.parametrize("how", READERS)
def test_the_code_would_not_run_either_if_it_were_not_found(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(prompt: str = "") -> str:
        raise AssertionError(f"the user was asked: {prompt}")

    monkeypatch.setattr("builtins.input", asked)
    for module in (template, reader, hub):
        monkeypatch.setattr(module, "refuse_custom_code", lambda folder: None)
    folder = plant(tmp_path / "model")
    if how == "folder":
        assert READERS[how](folder) == Path(folder)
    else:
        with pytest.raises(ValueError, match=r"custom code|chat template"):
            READERS[how](folder)
    assert not list(tmp_path.rglob("it-ran"))


def test_the_tokenizers_code_alone_is_refused_too(tmp_path: Path) -> None:
    folder = plant(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    del config["auto_map"]
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    with pytest.raises(CustomCodeError, match=r"auto_map in tokenizer_config.json names .*own.OwnTokenizer"):
        refuse_custom_code(folder)


def test_a_damaged_or_missing_config_is_left_to_its_reader(tmp_path: Path) -> None:
    refuse_custom_code(tmp_path)
    (tmp_path / "config.json").write_text("[1, 2")
    refuse_custom_code(tmp_path)


def test_every_automatic_class_is_told_not_to_trust_code() -> None:
    calls = 0
    for path in (path for folder in PACKAGE for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not re.fullmatch(r"Auto\w+\.\w+", ast.unparse(node.func)):
                continue
            calls += 1
            trusted = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}.get("trust_remote_code")
            assert trusted == "False", f"{path}:{node.lineno} {ast.unparse(node.func)}"
    assert calls >= 5
