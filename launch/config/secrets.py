"""Secrets in a configuration: API keys, tokens and passwords.

Everything that is printed or saved for reading shows MASK in their place. The values themselves lie in `secrets.json` beside a saved
configuration, readable by its owner only (mode 600), and are read back from there. Instead of the file, a variable of the environment
may hold one: COREWARDING_ENGINE_API_KEY for `engine.api_key`. A variable also works for a configuration whose value is MASK from the
start, so that a key need not stand in a file or in a command.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

MASK = "***"
FILE = "secrets.json"
_SECRET = re.compile(r"(^|[._])(api_?key|token|secret|password|passphrase|credentials?)$", re.IGNORECASE)
_LOGIN = re.compile(r"(?<=://)[^/@\s]+(?=@)")  # user:password of an address
_INNER = re.compile(r"([\w.-]+)(['\"]?\s*:\s*)([^,{}]+)")  # of engine.arguments={api_key: X}


def is_secret(key: str) -> bool:
    """Whether a key, a flag or an environment variable of this name holds a secret."""
    return _SECRET.search(key.lstrip("-").replace("-", "_")) is not None


def masked(content: Any, *, logins: bool = True) -> Any:
    """The same keys and values with MASK for every secret: values of secret keys at any depth, and logins in addresses.

    logins: False leaves those, which `with_secrets` cannot bring back.
    """
    if isinstance(content, Mapping):
        return {
            key: MASK if value and is_secret(str(key)) else masked(value, logins=logins)
            for key, value in content.items()
        }
    if isinstance(content, (list, tuple)):
        return [masked(value, logins=logins) for value in content]
    return _LOGIN.sub(MASK, content) if isinstance(content, str) and logins else content


def masked_words(words: Sequence[str]) -> list[str]:
    """The words of a command line with MASK for every secret: `--engine.api-key X`, `--engine.api-key=X`, `engine.api_key=X`, and
    `engine.arguments={api_key: X}`."""
    shown: list[str] = []
    for previous, word in zip(["", *words], words, strict=False):
        name, equals, _ = word.partition("=")
        if previous.startswith("-") and "=" not in previous and is_secret(previous):
            shown.append(MASK)
        elif equals and is_secret(name):
            shown.append(f"{name}={MASK}")
        else:
            shown.append(_LOGIN.sub(MASK, _INNER.sub(_inner, word) if "{" in word else word))
    return shown


def _inner(found: re.Match[str]) -> str:
    return found[1] + found[2] + MASK if is_secret(found[1]) else found[0]


def secrets_of(content: Mapping[str, Any]) -> dict[str, str]:
    """The secrets by their dotted keys."""
    return dict(_secrets(content, ""))


def with_secrets(content: Mapping[str, Any], folder: Path | None) -> dict[str, Any]:
    """A copy in which every MASK is the value that the environment, or FILE in `folder`, has for its key; else it stays MASK."""
    hidden = [key for key, value in secrets_of(content).items() if value == MASK]
    if not hidden:
        return dict(content)
    file = None if folder is None else folder / FILE
    saved: dict[str, str] = {}
    if file is not None and file.is_file():
        if file.stat().st_mode & 0o077 and file.stat().st_uid == os.getuid():
            file.chmod(0o600)  # Ray unpacks a job's files for everyone to read
        saved = json.loads(file.read_text(encoding="utf-8"))
    found = {key: os.environ.get(variable(key), saved.get(key, MASK)) for key in hidden}
    return _replaced(content, found, "")


def write_secrets(content: Mapping[str, Any], folder: Path) -> None:
    """Writes FILE, for its owner only, if there are secrets; removes an older one if there are none."""
    secrets, file = secrets_of(content), folder / FILE
    file.unlink(missing_ok=True)
    if secrets:
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:
            json.dump(secrets, out)


def variable(key: str) -> str:
    """The environment variable for a secret: COREWARDING_ENGINE_API_KEY for engine.api_key."""
    return "COREWARDING_" + re.sub(r"\W", "_", key).upper()


def _secrets(content: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _secrets(value, f"{prefix}{key}.")
        elif isinstance(value, str) and value and is_secret(str(key)):
            yield f"{prefix}{key}", value


def _replaced(content: Mapping[str, Any], values: Mapping[str, str], prefix: str) -> dict[str, Any]:
    return {
        key: _replaced(value, values, f"{prefix}{key}.")
        if isinstance(value, Mapping)
        else values.get(f"{prefix}{key}", value)
        for key, value in content.items()
    }
