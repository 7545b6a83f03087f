"""The start of a run: differing keys that read back as the same configuration, and the derived sizes."""

import io
from typing import Any

import pytest
import yaml
from rich.console import Console

from corewarding.launch.config.load import load_config, make_config
from corewarding.launch.config.recipes import recipes
from corewarding.launch.config.secrets import MASK, masked, masked_words
from corewarding.launch.config.shown import differing
from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.report.introduction import introduce

FACTS = {"questions": "4096", "completions per update": "512 (256 trained)"}


def introduced(config: TrainConfig, *, width: int | None) -> str:
    console = Console(
        file=io.StringIO(), force_terminal=width is not None, width=width or 80, soft_wrap=True, no_color=True
    )
    introduce(config, FACTS, console=console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().replace("\x1b[1m", "").replace("\x1b[0m", "")


def test_only_what_differs_and_the_sizes_are_printed() -> None:
    config = make_config({"train": {"lr": 1e-4, "updates": 100}, "run": {"name": "mine"}}, where="here")
    assert introduced(config, width=None).split("\n") == [
        "train: {lr: 0.0001}",  # 100 updates are the default
        "run: {name: mine}",
        "",
        "questions               4096",
        "completions per update  512 (256 trained)",
        "",
        "",
    ]


def test_defaults_print_no_key() -> None:
    assert differing(make_config({}, where="here")) == {}
    assert differing(make_config({"run": {"root": "elsewhere"}}, where="here"))["run"]["root"].endswith("/elsewhere")


@pytest.mark.parametrize("name", recipes())
@pytest.mark.parametrize("width", [80, 120, None])
def test_what_is_printed_is_the_configuration_and_fits(name: str, width: int | None) -> None:
    config = load_config(name)
    told = introduced(config, width=width).split("\n\n")[0]
    assert make_config(yaml.safe_load(told), where="printed") == config
    if width is not None:
        assert max(map(len, told.splitlines())) <= width
    else:
        assert len(told.splitlines()) == len(differing(config))


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        ({"engine": {"api_key": "k1", "kind": "sglang"}}, {"engine": {"api_key": MASK, "kind": "sglang"}}),
        ({"teacher_engine": {"api_key": "k2"}}, {"teacher_engine": {"api_key": MASK}}),
        ({"arguments": {"hf_token": "t", "max_prompt_tokens": 9}}, {"arguments": {"hf_token": MASK, "max_prompt_tokens": 9}}),
        ({"engine": {"api_key": None}}, {"engine": {"api_key": None}}),
        ({"url": "http://me:pass@host:80"}, {"url": f"http://{MASK}@host:80"}),
        ({"columns": {"id": "key"}, "list": [{"password": "p"}]}, {"columns": {"id": "key"}, "list": [{"password": MASK}]}),
    ],
)  # fmt: skip
def test_secrets_are_masked(content: dict[str, Any], shown: dict[str, Any]) -> None:
    assert masked(content) == shown


def test_secrets_on_a_command_line_are_masked() -> None:
    words = [
        "train",
        "cpu",
        "--engine.api-key",
        "k",
        "--engine.api-key=k",
        "engine.api_key=k",
        "--train.lr",
        "1",
        "x://u:p@h",
    ]
    assert masked_words(words) == [
        "train", "cpu", "--engine.api-key", MASK, f"--engine.api-key={MASK}", f"engine.api_key={MASK}", "--train.lr", "1",
        f"x://{MASK}@h",
    ]  # fmt: skip


def test_a_secret_is_not_printed_at_start() -> None:
    config = make_config(
        {"engine": {"kind": "sglang", "url": "http://n:1", "api_key": "hidden"}, "rule": "majority_vote"}, where="here"
    )
    assert "hidden" not in introduced(config, width=80)
    assert f"api_key: '{MASK}'" in introduced(config, width=80)
