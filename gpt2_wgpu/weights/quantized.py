"""Checkpoints whose matrices are quantised: how they say so (docs/quantization.md).

Their metadata hold ``gpt2_wgpu_dtype`` ("q8", "q4") and ``gpt2_wgpu_layout``, the version of the
layout. A matrix is a U32 tensor [units, words of a unit], as the GPU reads it; all other tensors
are as in any checkpoint.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpt2_wgpu.errors import WeightsError
from gpt2_wgpu.shown import shown

if TYPE_CHECKING:
    from gpt2_wgpu.weights.checkpoint import WeightSource

DTYPES = ("q8", "q4")
LAYOUT = "1"
_DTYPE_KEY, _LAYOUT_KEY = "gpt2_wgpu_dtype", "gpt2_wgpu_layout"


def quantization_of(source: WeightSource) -> str | None:
    """ "q8" or "q4" as the checkpoint says, None if it is not quantised.

    Raises:
        WeightsError: it was written by another version, in a type or layout unknown here.
    """
    dtype = source.metadata.get(_DTYPE_KEY)
    if dtype is None:
        return None
    layout = source.metadata.get(_LAYOUT_KEY)
    if dtype not in DTYPES or layout != LAYOUT:
        raise WeightsError(
            f"{source.where}: quantised as {shown(dtype)} in layout {shown(layout)}; this version "
            f"reads {' and '.join(DTYPES)} in layout {LAYOUT}, so convert the original again"
        )
    return dtype


def metadata_for(dtype: str) -> dict[str, str]:
    """The metadata of a file whose matrices are stored as ``dtype``."""
    if dtype not in DTYPES:
        return {"format": "pt"}  # transformers refuses a file without it
    return {"format": "gpt2-wgpu", _DTYPE_KEY: dtype, _LAYOUT_KEY: LAYOUT}
