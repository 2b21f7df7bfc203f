"""q8 and q4 by masks: the same bits as by packed dot products."""

from __future__ import annotations

import numpy as np
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.nn import Norm, fold_norm, linear
from gpt2_wgpu.weight_formats import QUANTIZED
from tests.gpu import references
from tests.gpu.matrices import free, kernels_run, matrix_of

pytestmark = [pytest.mark.usefixtures("guarded", "no_leak"), pytest.mark.native("NumPy")]


@pytest.mark.parametrize("dtype", QUANTIZED)
@pytest.mark.parametrize("values", ["random", "extreme", "huge", "not a number"])
@pytest.mark.parametrize(
    ("out_features", "in_features"), [(1, 32), (31, 224), (66, 288), (70, 1600), (5, 12288)]
)
@pytest.mark.chromium_cases("dtype", "values")
def test_masks_give_the_bits_of_packed_dots(
    device, monkeypatch, capabilities, dtype, values, out_features, in_features
):
    """With a norm in front, and without; extreme: the largest levels of both signs."""
    x = references.random(1, in_features)
    w = references.random(out_features, in_features, seed=1)
    if values == "extreme":
        x, w = np.where(x > 0, 127, -127).astype(np.float32), np.sign(w)
    elif values == "huge":
        x[0, :40] *= 1e6
    elif values == "not a number":
        x[0, 7], w[0, -1] = np.nan, np.inf
    gain, shift = references.random(in_features, seed=2), references.random(in_features, seed=3)
    matrix = matrix_of(device, w, dtype)
    capabilities(prefers_no_barriers=True, prefers_w8a8=True)
    kernels = kernels_run(monkeypatch)
    with gw.tidy():
        there = gw.tensor(gain), gw.tensor(shift)
        folded = fold_norm(*there, matrix)
        for norm in (None, Norm(*there, folded, in_features - 5, 1e-5)):
            found = []
            kernels.clear()
            for emulates in (False, True):
                capabilities(emulates_packed_dot=emulates)
                found.append(linear(gw.tensor(x), matrix, norm=norm).numpy())
            assert kernels == ["linear_w8a8_gemv_cpu", "linear_w8a8_gemv_masked_cpu"]
            np.testing.assert_array_equal(*found)
        gw.dispose(folded)
    free(matrix)
