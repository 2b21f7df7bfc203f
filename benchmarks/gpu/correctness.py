"""Part 2: the self-test, products against NumPy, and the kernels' tests on this adapter."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.gpu.parts import Context, Section, WrongResultsError
from benchmarks.gpu.plan import DTYPES
from gpt2_wgpu import nn
from gpt2_wgpu.models.self_test import self_check
from gpt2_wgpu.tensors import tensor, tidy

ROOT = Path(__file__).parents[2]
TOLERANCE = 1e-5  # of a product, as a share of the sum of its terms' magnitudes
TOLERANCE_W8A8 = 2e-2  # activations rounded to int8, on software adapters
_RESULT = re.compile(r"^(tests/\S+?)(\[.*\])? (PASSED|FAILED|ERROR|SKIPPED)", re.M)


def measure(context: Context, section: Section) -> None:
    """Check everything; `WrongResultsError` names what is wrong."""
    _self_test(context, section)
    context.check_time()
    if importlib.util.find_spec("numpy") is None:
        section["products"] = "not checked: no NumPy"
    else:
        _products(context, section)
    context.check_time()
    _tests(context, section)


def _self_test(context: Context, section: Section) -> None:
    """Run the self-test of `gpt2-wgpu doctor`."""
    report = self_check(context.device, DTYPES)
    section["self_test"] = {
        "checks": len(report.checks),
        "failed": [f"{one.name}: {one.detail}" for one in report.checks if not one.passed],
    }
    if not report.passed:
        raise WrongResultsError(f"the self-test fails: {report.describe_wrong()}")


def note_compiling(context: Context, section: Section) -> None:
    """Write down the pipelines compiled so far: this part's, later also those of the models."""
    times = context.compile_seconds
    slowest = sorted(times, key=times.__getitem__, reverse=True)[:5]
    section["compile"] = {
        "pipelines": len(times),
        "seconds": sum(times.values()),
        "slowest": {name: times[name] for name in slowest},
    }


def _products(context: Context, section: Section) -> None:
    """Compare x Wᵀ with NumPy: all weight formats, for numbers of tokens on each kernel's edge."""
    import numpy as np

    from tests.gpu.guard_bands import GuardBands
    from tests.gpu.matrices import free, matrix_of
    from tests.gpu.quantization import rounded

    random, device = np.random.default_rng(1), context.device
    found = {"products": 0, "largest_error": 0.0}
    section["products"] = found
    for out_features, in_features in context.plan.sweep_shapes:
        w = random.standard_normal((out_features, in_features), np.float32)
        for dtype in DTYPES:
            right = rounded(w, dtype).astype(np.float64)
            for rows in context.plan.sweep_rows:
                context.check_time()
                x = random.standard_normal((rows, in_features), np.float32)
                with _Patches() as patch:
                    bands = GuardBands(device, patch)
                    matrix = matrix_of(device, w, dtype)
                    with tidy("product"):
                        result = nn.linear(tensor(x, device=device), matrix).numpy()
                    free(matrix)
                    error, share = _error(result, x, right)
                    name = f"{rows} x {in_features} by {out_features} x {in_features}, {dtype}"
                    try:
                        bands.check()
                    except AssertionError as damage:
                        raise WrongResultsError(f"{name}: {damage}") from None
                w8a8 = nn.rounds_activations(device, matrix)
                if not share <= (TOLERANCE_W8A8 if w8a8 else TOLERANCE):  # NaN compares false
                    raise WrongResultsError(
                        f"{name}: off by {error:.3g} ({share:.2g} of the terms)"
                    )
                found["products"] += 1
                if not w8a8:
                    found["largest_error"] = max(found["largest_error"], share)


def _error(result: Any, x: Any, w: Any) -> tuple[float, float]:
    """Return the largest error of a product, and as a share of the terms' magnitudes."""
    import numpy as np

    error = np.abs(result - x.astype(np.float64) @ w.T)
    terms = np.abs(x.astype(np.float64)) @ np.abs(w.T)
    return float(error.max()), float((error / terms).max())


class _Patches(ExitStack):
    """Replaced attributes; has the part of pytest's MonkeyPatch that guard bands use."""

    def setattr(self, owner: Any, name: str, value: Any) -> None:
        self.enter_context(mock.patch.object(owner, name, value))


def _tests(context: Context, section: Section) -> None:
    """Run the kernels' tests in a process of their own, as many as there is time for."""
    missing = [name for name in ("pytest", "numpy") if importlib.util.find_spec(name) is None]
    if missing:
        section["tests"] = f"not run: no {' and no '.join(missing)} (see --wheels)"
        return
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    environment["WGPUPY_WGPU_ADAPTER_NAME"] = context.device.info.name
    options = ["-v", "-p", "no:cacheprovider", "--tb=short", *context.plan.test_options]
    command = [sys.executable, "-m", "pytest", *options, *context.plan.tests]
    if importlib.util.find_spec("hypothesis") is None:
        command += ["--ignore=tests/gpu/tensors/test_ops_matmul.py"]
    cut = False
    with tempfile.TemporaryFile() as file:
        try:
            status = subprocess.run(
                command, cwd=ROOT, env=environment, stdout=file, stderr=file, timeout=context.left
            ).returncode
        except subprocess.TimeoutExpired:
            status, cut = 0, True
        file.seek(0)
        text = file.read().decode(errors="replace")
    results = [(path + (case or ""), verdict) for path, case, verdict in _RESULT.findall(text)]
    failed = [name for name, verdict in results if verdict in ("FAILED", "ERROR")]
    section["tests"] = {
        "passed": sum(verdict == "PASSED" for _, verdict in results),
        "failed": failed,
        "cut": cut,
    }
    if failed or status:
        what = f"tests of the kernels fail: {', '.join(failed[:5])}"
        section["tests"]["output"] = text[-4000:]
        if not failed or not context.keep_going:
            raise WrongResultsError(f"{what} (--keep-going measures all the same)\n{text[-1500:]}")
        context.say(what)
