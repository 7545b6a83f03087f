"""From a configuration to a run. Ray reads RAY_AUTH_MODE when it is imported, so it is set here, ahead of every import of Ray."""

import os
import sys

if "ray" not in sys.modules:
    os.environ.setdefault("RAY_AUTH_MODE", "token")  # whoever reaches Ray's ports without a token could run code as us
