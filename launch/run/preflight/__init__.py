"""Checks before a run starts anything: `train` and `train --dry-run` make the same ones, so a dry run refuses what a run would.

`node.py` checks one node, `interpreter.py` another Python, `checks.py` holds the lists and runs them.
"""
