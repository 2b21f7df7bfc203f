"""Weight formats: the one table of how matrices may be stored on the GPU and in files.

A format's kernels are named by its short name: shaders/include/weight_q8.wgsl reads q8. Layout of
quantized formats: docs/quantization.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.shown import shown


@dataclass(frozen=True)
class WeightFormat:
    """Storage format of a matrix; arithmetic is always f32, or int8 by int8 (nn/w8a8.py)."""

    dtype: str  # in Python and JavaScript, and in the metadata of a converted checkpoint
    name: str  # on the command line and in the names of the kernels' includes
    unit: int  # elements that are stored together
    unit_bytes: int
    file_dtype: str  # of a converted matrix in a safetensors file
    quantized: bool = False  # blocks of 32 that share a scale, eight of them in a unit
    levels: tuple[int, int] = (-127, 127)  # of an element; the self-test's weights are such
    gemv_step: int = 0  # elements that step_{name}.wgsl loads at once; 0: step_eight.wgsl, eight

    @property
    def largest_level(self) -> int:
        """Level of a block's element of largest magnitude, whose sign the scale may keep."""
        lowest, highest = self.levels
        return lowest if -lowest > highest else highest

    @property
    def load_kernel(self) -> str:
        """Kernel that converts a checkpoint's tensor into this format."""
        return "quantize_weight" if self.quantized else "load_weight"


# In the order in which interfaces list them.
WEIGHT_FORMATS = {
    each.dtype: each
    for each in (
        WeightFormat("float32", "f32", 1, 4, "F32"),
        WeightFormat("float16", "f16", 1, 2, "F16"),
        WeightFormat("q8", "q8", 256, 272, "U32", quantized=True, gemv_step=16),
        WeightFormat("q4", "q4", 256, 144, "U32", quantized=True, levels=(-8, 7), gemv_step=32),
    )
}
QUANTIZED = tuple(each.dtype for each in WEIGHT_FORMATS.values() if each.quantized)
CACHE_DTYPES = ("float32", "float16")  # of keys and values
# Values of --dtype: the short names, then the others.
OPTIONS = {each.name: dtype for dtype, each in WEIGHT_FORMATS.items()}
OPTIONS |= {dtype: dtype for dtype in WEIGHT_FORMATS}


def check_weight_format(dtype: str) -> None:
    """Raise ``InvalidArgumentError`` for a name that is not in `WEIGHT_FORMATS`."""
    if not isinstance(dtype, str) or dtype not in WEIGHT_FORMATS:
        raise InvalidArgumentError(
            f"weights are stored as one of {tuple(WEIGHT_FORMATS)}, not {shown(dtype)}"
        )
