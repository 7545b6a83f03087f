"""What is measured on a GPU runs from end to end, here on a CPU and on small numbers."""

import os
import subprocess
import sys


def test_every_row_of_the_table_is_there() -> None:
    command = [sys.executable, "-m", "benchmarks.gpu.all", "--device", "cpu", "--small"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    rows = [line.split(" | ")[0].removeprefix("| ") for line in done.stdout.splitlines()[2:]]
    assert [row.split(",")[0] for row in rows] == [
        "update",
        "peak memory",
        "0.0 GB to another process",
        "0.0 GB to another process",
        "head",
    ]


def test_without_a_gpu_it_says_so() -> None:
    command = [sys.executable, "-m", "benchmarks.gpu.all"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={"CUDA_VISIBLE_DEVICES": ""}, timeout=300
    )
    assert done.returncode == 1
    assert done.stderr.strip() == "no GPU is visible to torch; --device cpu --small tries the same code"


def test_the_tests_for_a_gpu_pass_on_a_cpu() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "tests/gpu"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"CW_GPU_DEVICE": "cpu"}, timeout=600
    )
    assert done.returncode == 0, done.stdout
