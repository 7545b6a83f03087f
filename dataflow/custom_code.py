"""Refuses model folders that bring Python code of their own. No such code is ever run, and nobody is asked whether it may.

transformers imports the files that `auto_map` names when it is told to trust them; here it never is. Such a folder is refused, and not
loaded by transformers' own class of the same model_type, because its code may compute something else.
"""

from __future__ import annotations

import json
from pathlib import Path

from corewarding.dataflow.errors import UserError

_FILES = ("config.json", "tokenizer_config.json")


class CustomCodeError(UserError):
    """A model folder whose loading needs Python code that it brings along."""


def refuse_custom_code(folder: str | Path) -> None:
    """CustomCodeError, with file, entry and remedy, if the folder's model or tokenizer is defined by code of its own."""
    for name in _FILES:
        path = Path(folder) / name
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # missing or damaged: its reader says so
        entries = content.get("auto_map") if isinstance(content, dict) else None
        if entries:
            named = sorted({str(code) for code in (entries.values() if isinstance(entries, dict) else [entries])})
            raise CustomCodeError(
                f"model.path {folder}: auto_map in {name} names Python code of the folder ({', '.join(named)}), which is never run. "
                "Take a model that transformers has itself; if this is one and the code only repeats it, remove auto_map from "
                f"{name} in a copy of the folder"
            )
