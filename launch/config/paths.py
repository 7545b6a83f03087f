"""Where the package is, in a checkout or installed, and what it ships: recipes and the built-in base model."""

from __future__ import annotations

from pathlib import Path

import corewarding

PACKAGE = Path(corewarding.__file__).parent
IMPORT_PATH = PACKAGE / "import_path"
"""Folder for PYTHONPATH: `import corewarding` works from it, and it holds nothing else."""
RECIPES = PACKAGE / "configs"
RECIPE_PARTS = RECIPES / "parts"
"""Files that recipes build on: training, models, data, hardware."""
