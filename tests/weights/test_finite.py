"""NaN and infinity are found by their exponent; every 16-bit pattern is tried."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.weights.finite import first_non_finite

ALL_16_BITS = np.arange(1 << 16, dtype="<u2")


def as_floats(patterns: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "F16":
        return patterns.view("<f2")
    return (patterns.astype("<u4") << 16).view("<f4")


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_every_16_bit_pattern(dtype: str) -> None:
    finite = np.isfinite(as_floats(ALL_16_BITS, dtype))
    assert first_non_finite(memoryview(ALL_16_BITS[finite].tobytes()), dtype) is None
    for pattern in ALL_16_BITS[~finite]:
        assert first_non_finite(memoryview(b"\0\0" + pattern.tobytes()), dtype) == 1


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=40), st.integers(0, 3))
def test_f32_equals_numpy_at_any_alignment(patterns: list[int], shift: int) -> None:
    values = np.array(patterns, "<u4")
    bad = np.flatnonzero(~np.isfinite(values.view("<f4")))
    data = memoryview(bytes(shift) + values.tobytes())[shift:]
    assert first_non_finite(data, "F32") == (int(bad[0]) if bad.size else None)


@pytest.mark.parametrize("place", [0, (1 << 18) - 1, 1 << 18, 300_000, 599_999])
def test_f32_across_chunks(place: int) -> None:
    values = np.full(600_000, np.finfo("<f4").max, "<f4")  # every last byte is a candidate
    assert first_non_finite(memoryview(values.tobytes()), "F32") is None
    values[place] = -np.inf
    assert first_non_finite(memoryview(values.tobytes()), "F32") == place


def test_wrong_use_is_refused() -> None:
    assert first_non_finite(memoryview(b""), "F32") is None
    with pytest.raises(InvalidArgumentError, match="'I8' is not one of F32, BF16, F16"):
        first_non_finite(memoryview(b"1234"), "I8")
    with pytest.raises(InvalidArgumentError, match="3 bytes are no whole number of F16"):
        first_non_finite(memoryview(b"123"), "F16")
