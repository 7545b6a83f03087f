"""Starts an SGLang server that ends with the process that started it. Runs in the server's Python; standard library only.

`python launch.py PARENT_PID ARGUMENTS`, with the server's key in COREWARDING_SGLANG_KEY: the kernel ends this process when its
parent ends; SGLang's own children watch this process.
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
    if os.getppid() != parent:  # it ended before the call above
        sys.exit(1)
    sys.path.pop(0)  # this file's folder: nothing may be imported from it
    sys.argv[0] = "sglang.launch_server"
    sys.argv += ["--api-key", os.environ.pop("COREWARDING_SGLANG_KEY")]
    runpy.run_module("sglang.launch_server", run_name="__main__", alter_sys=True)
