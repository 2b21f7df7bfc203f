"""The guard bands themselves: they detect writes."""

from __future__ import annotations

import numpy as np
import pytest

from gpt2_wgpu.nn import KVCache
from gpt2_wgpu.tensors.dispatch import BufferSlice, dispatch
from gpt2_wgpu.tensors.tensor import empty
from tests.gpu.guard_bands import BAND, GuardBands

pytestmark = pytest.mark.native("NumPy")


@pytest.mark.parametrize("count", [6, 1000], ids=["next element", "far outside"])
def test_a_write_past_the_end_is_noticed(device, monkeypatch, count):
    bands = GuardBands(device, monkeypatch)
    result = empty(device, (5,))
    dispatch(device, "fill", (count // 64 + 1, 1, 1), {"result": result}, {"count": 5, "bits": 0})
    bands.check()
    result = empty(device, (5,))
    grid = (count // 64 + 1, 1, 1)
    dispatch(device, "fill", grid, {"result": result}, {"count": count, "bits": 0})
    with pytest.raises(AssertionError, match="after the 20 bytes"):
        bands.check()


def test_what_is_not_written_reads_as_nan(device, guarded):
    result = empty(device, (5,))
    dispatch(device, "fill", (1, 1, 1), {"result": result}, {"count": 4, "bits": 0})
    values = result.numpy()
    assert not np.isnan(values[:4]).any() and np.isnan(values[4])


def last_lines_of_a_weight(device):
    tensor = empty(device, (20, 8), kind="weights")
    return BufferSlice(tensor, 16 * 32, 4 * 32)


def values_of_a_cache(device):
    return KVCache(device, 1, 1, 8, 1, 8).values(0)


@pytest.mark.parametrize("make", [last_lines_of_a_weight, values_of_a_cache])
def test_a_part_at_the_end_of_its_tensor_is_guarded(device, monkeypatch, make):
    """Weights are converted, and keys and values written, into parts of a tensor."""
    bands = GuardBands(device, monkeypatch)
    part = make(device)
    count = part.nbytes // 4
    dispatch(device, "fill", (8, 1, 1), {"result": part}, {"count": count, "bits": 0})
    bands.check()
    part = make(device)
    dispatch(device, "fill", (8, 1, 1), {"result": part}, {"count": count + 1, "bits": 0})
    with pytest.raises(
        AssertionError, match=f"after the {part.tensor.storage.nbytes - BAND} bytes"
    ):
        bands.check()
