"""How matrices are stored when nobody says: as float16, but on a CPU adapter as is fastest there.

What was measured is remembered for an adapter, its driver, the machine, and the kernels that were
measured: while the process lasts and, except in browsers, in the user's cache directory.
"""

from __future__ import annotations

import math
import os
import platform
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2_wgpu.diagnostics.dtype_timing import checksum, seconds_of_products
from gpt2_wgpu.errors import OutOfGPUMemoryError
from gpt2_wgpu.models import remembered
from gpt2_wgpu.models.weight_sizes import layouts
from gpt2_wgpu.nn import w8a8

if TYPE_CHECKING:
    from gpt2_wgpu.models.config import GPT2Config
    from gpt2_wgpu.webgpu import Device

USUAL, ROUNDED = "float16", "q8"
WORTH_IT = 1.1  # times as fast as the usual: rounding costs a little of a model's quality

_FILE = "default_dtype.json"
_PACKAGE = os.path.join(Path(__file__).parents[1], "")

_measured: dict[str, dict[str, float]] = {}  # adapter -> dtype -> seconds


async def default_dtype(device: Device, config: GPT2Config) -> str:
    """Float16; on a CPU adapter q8 where a short measurement finds it faster.

    A ``UserWarning`` says so then. Nothing is measured on a GPU, nor for a model with lines of
    other than whole blocks: the kernel that is faster does not take them.
    """
    info = device.info
    matrices = (layout for layout in layouts(config).values() if layout.chosen)
    if not info.is_software or not all(
        w8a8.possible(matrix.padded_in_features) for matrix in matrices
    ):
        return USUAL
    adapter = " | ".join((info.name, info.driver, info.backend, platform.node(), checksum()))
    seconds = _measured.get(adapter) or _usable(remembered.read(_FILE).get(adapter))
    if seconds is None:
        try:
            seconds = await seconds_of_products(device, (USUAL, ROUNDED))
        except OutOfGPUMemoryError:
            return USUAL  # loading will say what lacks, or has room where this had none
        remembered.write(_FILE, adapter, seconds)
    _measured[adapter] = seconds
    gain = seconds[USUAL] / seconds[ROUNDED]
    if gain < WORTH_IT:
        return USUAL
    native = sys.platform != "emscripten"
    remedy = ". If this machine has a GPU, install its driver" if native else ""
    warnings.warn(
        f"running on the CPU ({info.name}) with {ROUNDED} weights, {gain:.1f} times as fast as "
        f'{USUAL} here; pass dtype="{USUAL}" to override{remedy}',
        stacklevel=_stack_level(),
    )
    return ROUNDED


def _stack_level() -> int:
    """The ``stacklevel`` at which a warning names the caller's line, and not one of the package.

    (From Python 3.12 on ``skip_file_prefixes`` does so, too.)
    """
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    return level


def _usable(seconds: Any) -> dict[str, float] | None:
    """What a file holds of an adapter, if it is what was written there."""
    if not isinstance(seconds, dict) or seconds.keys() != {USUAL, ROUNDED}:
        return None
    for value in seconds.values():
        if not isinstance(value, float) or not 0 < value < math.inf:
            return None
    return seconds
