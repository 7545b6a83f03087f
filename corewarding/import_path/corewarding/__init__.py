"""A name for the package in a folder of its own: with that folder on PYTHONPATH, `import corewarding` gives the package around it.

A process of another interpreter gets this folder, so that it sees our package and nothing else of the site-packages around it.
"""

import importlib.util
import sys
from pathlib import Path

_package = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location(
    "corewarding", _package / "__init__.py", submodule_search_locations=[str(_package)]
)
assert _spec is not None
assert _spec.loader is not None
sys.modules["corewarding"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(sys.modules["corewarding"])
