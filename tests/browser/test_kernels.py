"""The kernels' tests on Chromium's WebGPU, with NumPy references."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.browser.chromium import required_chromium
from tests.browser.serving import ROOT

CHOSEN = (
    "advance", "attention_flash", "cached_attention", "embedding", "layer_norm",
    "linear", "linear_choice", "load_weight", "losses", "ops_arrays", "ops_attention",
    "ops_elementwise", "ops_matmul", "ops_reductions", "quantization", "sampling", "kernel_checks",
    "queue", "strides", "tensor",
)  # fmt: skip
# 65,537 workgroups with barriers: in software they alone take half a minute.
LARGE = (
    "tests/gpu/tensors/test_ops_reductions.py::"
    "test_more_rows_than_webgpu_allows_workgroups_in_a_row[gpu]"
)
# WGSL promises cos() to 2^-11 and no better, and SwiftShader makes use of that; the test asks for
# what precise adapters give.
LESS_PRECISE = (
    "tests/gpu/nn/test_load_weight.py::test_random_values_follow_the_formula_and_the_distribution"
)
# Which kernels a text uses is decided in Python, and compared natively: here it takes a minute.
CHOICES = "tests/gpu/diagnostics/test_kernel_checks.py::test_what_generation_runs_is_checked"


@pytest.mark.time_limit(1400)  # seconds: a whole run, with a limit of its own for each test
def test_kernels_compute_right_in_chromium() -> None:
    required_chromium()
    tests = ROOT / "tests" / "gpu"
    files = [str(path) for name in CHOSEN for path in tests.rglob(f"test_{name}.py")]
    assert len(files) == len(CHOSEN)
    options = [
        "-q",
        "--no-header",
        *("-p", "tests.flaky"),
        "--gpu=chromium",
        *("-o", "faulthandler_timeout=300", "-o", "faulthandler_exit_on_timeout=true"),
        *(f"--deselect={test}" for test in (LARGE, LESS_PRECISE, CHOICES)),
    ]
    command = [sys.executable, "-m", "pytest", *options, *files]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if run.returncode != 0:
        pytest.fail(f"in Chromium:\n{run.stdout}{run.stderr}", pytrace=False)
