"""Where the package is, in a checkout or installed, and what it ships: recipes and the built-in base model."""

from __future__ import annotations

from pathlib import Path

import corewarding

PACKAGE = Path(corewarding.__file__).parent
IMPORT_PATH = PACKAGE.parent
"""Folder from which `import corewarding` works."""
RECIPES = PACKAGE / "configs"
