"""The model card of an exported model: README.md, made of what the run wrote. The run may be a stranger's, so all of it is data."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml

import corewarding
from corewarding.launch.config.recipes import ConfigError
from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.report.changes import differences
from corewarding.launch.report.files import write_whole
from corewarding.launch.report.plain import plain
from corewarding.launch.report.run_directory import RunDir, RunDirError
from corewarding.launch.report.tables.runs import summary_of

FILE = "README.md"
PAPER = "https://arxiv.org/abs/2508.00410"
_PATHS = ("model.path", "data.train", "data.rephrased", "data.heldout")


def write_card(
    run_dir: RunDir, out: Path, *, which: Literal["policy", "teacher"], update: int, is_adapter: bool = False
) -> None:
    """Writes the card of the model in the folder `out`. update: after which its weights were saved. is_adapter: `out` holds an adapter
    alone."""
    write_whole(out / FILE, card(run_dir, which=which, update=update, is_adapter=is_adapter))


def card(run_dir: RunDir, *, which: Literal["policy", "teacher"], update: int, is_adapter: bool = False) -> str:
    """The card: base model, rule, how far it was trained, accuracies before and after, and the keys that differ from the defaults."""
    saved = _saved(run_dir)
    rule = _code(saved.get("rule", TrainConfig().rule)) if saved else "an unknown rule"
    base = _base(run_dir, saved)
    front = {
        "library_name": "peft" if is_adapter else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["corewarding", "reinforcement-learning", "label-free"],
        **({"base_model": base} if _is_hub_id(base) else {}),
        **({"base_model_relation": "adapter"} if _is_hub_id(base) and is_adapter else {}),
    }
    head = yaml.safe_dump(front, sort_keys=False)
    whose = "The policy" if which == "policy" else "The EMA teacher"
    parts = [
        f"---\n{head}---",
        f"# {_text(run_dir.path.name)}",
        f"{whose} after update {update} of a run with the reward rule {rule}, started from {_code(base or 'an unknown model')}. "
        f"Trained with corewarding {corewarding.__version__}; the method is [Co-rewarding]({PAPER}). The licence and the terms of "
        "the base model apply.",
        *_adapter(saved, base, is_adapter),
        *_labels(run_dir),
        *_accuracies(run_dir, which, update),
        *_settings(saved),
    ]
    return "\n\n".join(parts) + "\n"


def _saved(run_dir: RunDir) -> dict[str, Any]:
    try:
        return {str(key): value for key, value in run_dir.saved().items()} if run_dir.config.is_file() else {}
    except (RunDirError, ConfigError):
        return {}


def _base(run_dir: RunDir, saved: Mapping[str, Any]) -> str | None:
    """Hub id of the base model, or the name of its folder."""
    try:
        record = json.loads((run_dir.path / "model.json").read_text(encoding="utf-8"))
        path, revision = str(record["path"]), record["revision"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        model = saved.get("model")
        path, revision = str(model.get("path", "")) if isinstance(model, dict) else "", None
    return (path if revision else Path(path).name) or None


def _is_hub_id(base: str | None) -> bool:
    return base is not None and "/" in base


def _adapter(saved: Mapping[str, Any], base: str | None, is_adapter: bool) -> Iterator[str]:
    """Of a run with learner.lora: whether the folder is the adapter alone, and of which model."""
    learner = saved.get("learner")
    lora = learner.get("lora") if isinstance(learner, dict) else None
    rank = lora.get("rank") if isinstance(lora, dict) else None
    size = f" of rank {rank}" if isinstance(rank, int) else ""
    if is_adapter:
        yield (
            f"This is a LoRA adapter{size}, and no whole model: peft adds it to {_code(base or 'an unknown model')}, whose "
            "weights are not in this folder (`peft.AutoPeftModelForCausalLM.from_pretrained` loads both)."
        )
    elif size:
        yield f"A LoRA adapter{size} was trained, and is merged into these weights."


def _labels(run_dir: RunDir) -> Iterator[str]:
    read = summary_of(run_dir).get("labels_read")
    if isinstance(read, int):
        yield f"Answers of the data set that the reward rule has read: {read}."


def _accuracies(run_dir: RunDir, which: str, update: int) -> Iterator[str]:
    summary = summary_of(run_dir)
    before, after = summary.get("before") or {}, summary.get("after") or {}
    if which != "policy" or summary.get("updates") != update or not after:
        yield "These weights have not been evaluated on held-out questions."
        return
    names = [name for name in after if ("@" in name or name == "greedy") and isinstance(after[name], float | int)]
    rows = "\n".join(f"| {_text(name)} | {_share(before.get(name))} | {_share(after[name])} |" for name in names)
    yield f"On {int(after.get('num_questions', 0))} held-out questions:\n\n| | before | after |\n|---|---|---|\n{rows}"


def _settings(saved: Mapping[str, Any]) -> Iterator[str]:
    """The keys that say what was computed, where they differ from the defaults. Paths lose their folders."""
    found: dict[str, Any] = {
        change.key: Path(str(change.new)).name if change.key in _PATHS and "/" in str(change.new) else change.new
        for change in differences({}, saved)
        if not change.is_free and change.key != "model.path"
    }
    if found:
        text = plain(yaml.safe_dump(found, sort_keys=False, width=100)).replace("```", "'''")
        yield f"Settings that differ from the defaults:\n\n```yaml\n{text}```"


def _share(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float | int) else "-"


def _text(value: object) -> str:
    """Text from outside in one line of Markdown."""
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>|#" else letter for letter in plain(str(value), keep=""))


def _code(value: object) -> str:
    return f"`{plain(str(value), keep='').replace('`', chr(39)).replace('|', '/')}`"
