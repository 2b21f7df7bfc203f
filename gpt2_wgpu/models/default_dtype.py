"""Default weight dtype: float16; on CPU adapters q8 if a microbenchmark finds it faster.

Results are cached by adapter, driver, machine and hash of the kernels: in the process, and in the
user's cache directory or the browser's storage.
"""

from __future__ import annotations

import math
import os
import platform
import sys
import warnings
from pathlib import Path
from typing import Any

from gpt2_wgpu.diagnostics.dtype_timing import kernel_hash, seconds_of_products
from gpt2_wgpu.errors import OutOfGPUMemoryError
from gpt2_wgpu.models import remembered
from gpt2_wgpu.models.config import GPT2Config
from gpt2_wgpu.models.weight_sizes import layouts
from gpt2_wgpu.nn import w8a8
from gpt2_wgpu.webgpu import Device

USUAL, ROUNDED = "float16", "q8"
MIN_SPEEDUP = 1.1  # of q8 over the default, since rounding costs some quality

_FILE = "default_dtype.json"
_PACKAGE = os.path.join(Path(__file__).parents[1], "")

_measured: dict[str, dict[str, float]] = {}  # adapter -> dtype -> seconds


async def default_dtype(device: Device, config: GPT2Config) -> str:
    """Return "float16", or "q8" on a CPU adapter where a microbenchmark finds it faster.

    In the latter case a ``UserWarning`` is issued. Nothing is measured on a GPU, or for a model
    whose in_features are not whole blocks of 32, which the faster kernel does not support.
    """
    info = device.info
    matrices = (layout for layout in layouts(config).values() if layout.chosen)
    if not info.is_software or not all(
        w8a8.possible(matrix.padded_in_features) for matrix in matrices
    ):
        return USUAL
    gain = await _speedup(device)
    if gain < MIN_SPEEDUP:
        return USUAL
    native = sys.platform != "emscripten"
    remedy = ". If this machine has a GPU, install its driver" if native else ""
    warnings.warn(
        f"running on the CPU ({info.name}) with {ROUNDED} weights, {gain:.1f} times as fast as "
        f'{USUAL} here; pass dtype="{USUAL}" to override{remedy}',
        stacklevel=_stack_level(),
    )
    return ROUNDED


async def likely_dtype(device: Device) -> str:
    """Return `default_dtype` of a model whose in_features are whole blocks; no warning."""
    if device.info.is_software and await _speedup(device) >= MIN_SPEEDUP:
        return ROUNDED
    return USUAL


async def _speedup(device: Device) -> float:
    """Return the measured speed of q8 over float16; 0 if the weights do not fit."""
    info = device.info
    machine = platform.node(), *filter(None, [remembered.user_agent()])
    adapter = " | ".join((info.name, info.driver, info.backend, *machine, kernel_hash()))
    seconds = _measured.get(adapter) or _usable(await remembered.recall(_FILE, adapter))
    if seconds is None:
        try:
            seconds = await seconds_of_products(device, (USUAL, ROUNDED))
        except OutOfGPUMemoryError:
            return 0.0  # loading may succeed, or reports the lack of memory
        await remembered.remember(_FILE, adapter, seconds)
    _measured[adapter] = seconds
    return seconds[USUAL] / seconds[ROUNDED]


def _stack_level() -> int:
    """Return the ``stacklevel`` of the first caller outside of the package.

    (Python 3.12 has ``skip_file_prefixes``.)
    """
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    return level


def _usable(seconds: Any) -> dict[str, float] | None:
    """Return an adapter's cached measurements; None if malformed."""
    if not isinstance(seconds, dict) or seconds.keys() != {USUAL, ROUNDED}:
        return None
    for value in seconds.values():
        if not isinstance(value, float) or not 0 < value < math.inf:
            return None
    return seconds
