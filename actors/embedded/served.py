"""Which models the embedded engine serves: those of the table with full attention in all layers and logits without a scale.

Imports no torch, so that a run can ask before it starts anything.
"""

from __future__ import annotations

from typing import Any

from corewarding.actors.engine import EngineSettingsError
from corewarding.weights.architectures import ARCHITECTURES, FULL, class_of, logit_scale, windows


def refuse_model(config: Any, *, folder: str) -> None:
    """EngineSettingsError if the embedded engine would sample otherwise than the model. config: transformers' of `folder`."""
    if class_of(config) not in ARCHITECTURES:
        reason = "an architecture outside of the table in docs/architecture.md"
    elif windows(config) != {FULL: None}:
        kinds = [kind if size is None else f"{kind} over {size} tokens" for kind, size in windows(config).items()]
        reason = f"layers with {' and '.join(kinds)}"
    elif logit_scale(config) != 1:
        reason = f"logits that are multiplied by {logit_scale(config):g}"
    else:
        return
    raise EngineSettingsError(
        f"engine.kind embedded does not serve {folder}: {class_of(config)} has {reason}; set engine.kind vllm or sglang"
    )
