"""Brings the hub's model to a node of a cluster. One task on each node does it, before its ranks and engines are started."""

from __future__ import annotations

from corewarding.dataflow.errors import UserError
from corewarding.weights.hub import ModelFolder, model_folder


def fetch_here(wanted: ModelFolder) -> list[str]:
    """Puts the driver's model into the same folder on this node; returns messages. A folder that the nodes share has it already."""
    assert wanted.hub_id is not None
    cache = wanted.path.parents[2]  # CACHE/models--OWNER--NAME/snapshots/COMMIT
    try:
        model_folder(wanted.hub_id, wanted.revision, cache=cache)
    except UserError as error:
        return [str(error)]
    return []
