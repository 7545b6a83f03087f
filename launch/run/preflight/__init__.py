"""Checks before a run starts anything: `train` and `train --dry-run` make the same ones, so a dry run refuses what a run would.

`needs.py` says what the processes of a run need; `node.py` checks one node, `interpreter.py` another Python; `early.py` runs what
needs no torch, `checks.py` the rest, and `dry_run.py` all of them for `--dry-run`.
"""
