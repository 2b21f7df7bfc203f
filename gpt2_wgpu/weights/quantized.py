"""Metadata of quantised checkpoints (docs/quantization.md).

Their metadata contain ``gpt2_wgpu_dtype`` (e.g. "q8") and ``gpt2_wgpu_layout``, the version of the
layout. A matrix is a U32 tensor [units, words per unit], the GPU's layout; all other tensors are as
in any checkpoint.
"""

from __future__ import annotations

from gpt2_wgpu.errors import WeightsError
from gpt2_wgpu.shown import shown
from gpt2_wgpu.weight_formats import QUANTIZED
from gpt2_wgpu.weights.checkpoint import WeightSource

LAYOUT = "1"
_DTYPE_KEY, _LAYOUT_KEY = "gpt2_wgpu_dtype", "gpt2_wgpu_layout"


def quantization_of(source: WeightSource) -> str | None:
    """Return the checkpoint's quantisation, such as "q8"; None if it is not quantised.

    Raises:
        WeightsError: the type or layout is unknown (written by another version).
    """
    dtype = source.metadata.get(_DTYPE_KEY)
    if dtype is None:
        return None
    layout = source.metadata.get(_LAYOUT_KEY)
    if dtype not in QUANTIZED or layout != LAYOUT:
        raise WeightsError(
            f"{source.where}: quantised as {shown(dtype)} in layout {shown(layout)}; this version "
            f"reads {' and '.join(QUANTIZED)} in layout {LAYOUT}, so convert the original again"
        )
    return dtype


def metadata_for(dtype: str) -> dict[str, str]:
    """Return the metadata of a file with matrices of ``dtype``."""
    if dtype not in QUANTIZED:
        return {"format": "pt"}  # required by transformers
    return {"format": "gpt2-wgpu", _DTYPE_KEY: dtype, _LAYOUT_KEY: LAYOUT}
