"""Runs in the server's Python, by path: an SGLang server that dies with the process that asked for it. Standard library alone.

`python launch.py PARENT_PID ARGUMENTS`: the kernel ends this process when its parent goes; SGLang's own children watch for
this one.
"""

import ctypes
import os
import runpy
import signal
import sys

_PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    parent = int(sys.argv.pop(1))
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it went before we asked
        sys.exit(1)
    sys.path.pop(0)  # this file's folder, which is no place to import from
    sys.argv[0] = "sglang.launch_server"
    runpy.run_module("sglang.launch_server", run_name="__main__", alter_sys=True)
