"""Secrets are shown and saved as ***, and come back from a file of their owner or from the environment."""

import json
import stat
from pathlib import Path

import pytest

from corewarding.launch.config.load import make_config
from corewarding.launch.config.recipes import ConfigError
from corewarding.launch.config.secrets import FILE, MASK, masked, masked_words, secrets_of, with_secrets, write_secrets

KEYS = {
    "engine": {"kind": "sglang", "api_key": "sk-1", "arguments": {"hf_token": "hf-2", "max_tokens": "9"}},
    "teacher_engine": {"api_key": "sk-3"},
    "data": {"train": "https://me:pw-4@host/x.jsonl"},
}


def test_every_secret_is_masked_and_nothing_else() -> None:
    shown = masked(KEYS)
    assert not any(secret in json.dumps(shown) for secret in ("sk-1", "hf-2", "sk-3", "pw-4"))
    assert shown["engine"]["kind"] == "sglang"
    assert shown["engine"]["arguments"]["max_tokens"] == "9"
    words = [
        "--engine.api-key",
        "sk-1",
        "engine.api_key=sk-1",
        "engine.arguments={api_key: sk-1, a: 2}",
        "--engine.kind",
        "x",
    ]
    assert masked_words(words) == [
        "--engine.api-key", MASK, f"engine.api_key={MASK}", f"engine.arguments={{api_key: {MASK}, a: 2}}", "--engine.kind", "x",
    ]  # fmt: skip


def test_secrets_come_back_from_their_file_which_only_the_owner_reads(tmp_path: Path) -> None:
    write_secrets(KEYS, tmp_path)
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    (tmp_path / FILE).chmod(0o644)  # as Ray unpacks it
    back = with_secrets(masked(KEYS), tmp_path)
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    assert secrets_of(back) == secrets_of(KEYS)
    write_secrets({}, tmp_path)
    assert not (tmp_path / FILE).exists()


def test_the_environment_comes_before_the_file_and_a_mask_alone_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    content = {"engine": {"kind": "sglang", "api_key": MASK}, "rule": "entropy"}
    with pytest.raises(ConfigError, match=r"engine\.api_key is \*\*\*.*COREWARDING_ENGINE_API_KEY"):
        make_config(content, where="test")
    monkeypatch.setenv("COREWARDING_ENGINE_API_KEY", "sk-5")
    assert make_config(content, where="test").engine.api_key == "sk-5"


def test_a_wrong_value_of_a_secret_is_not_printed() -> None:
    with pytest.raises(ConfigError, match=r"engine\.api_key: .*got '\*\*\*'") as refused:
        make_config({"engine": {"api_key": ["sk-6"]}}, where="test")
    assert "sk-6" not in str(refused.value)
