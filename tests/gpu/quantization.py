"""q8 and q4 in NumPy, as docs/quantization.md describes them."""

from __future__ import annotations

import numpy as np

UNIT_BYTES = {"q8": 272, "q4": 144}


def blocks_of(values):
    """[N, K], lines padded to 8 → its units [units, 8 blocks, 32], zeros at the end."""
    lines = np.pad(np.asarray(values, np.float32), ((0, 0), (0, -values.shape[1] % 8)))
    flat = lines.ravel()
    return np.pad(flat, (0, -flat.size % 256)).reshape(-1, 8, 32)


def levels_of(values, dtype):
    """→ (f16 scales [units, 8], levels [units, 8, 32]) of a matrix [N, K]."""
    blocks = blocks_of(values)
    places = np.abs(blocks).argmax(-1)[..., None]
    largest = np.take_along_axis(blocks, places, -1)
    scales = (np.abs(largest) if dtype == "q8" else largest).astype(np.float16)
    known = np.where(scales == 0, 1, scales).astype(np.float32)
    if dtype == "q8":
        levels = np.clip(np.rint(blocks * (127 / known)), -127, 127)
    else:
        levels = np.clip(np.rint(blocks * (-8 / known)) + 8, 0, 15)
    return scales[..., 0], np.where(scales == 0, 0 if dtype == "q8" else 8, levels).astype(int)


def unpacked(raw, dtype):
    """Stored bytes → (scales [units, 8], levels [units, 8, 32])."""
    units = np.frombuffer(raw, np.uint8).reshape(-1, UNIT_BYTES[dtype])
    scales = units[:, :16].copy().view(np.float16)
    if dtype == "q8":
        return scales, units[:, 16:].copy().view(np.int8).reshape(-1, 8, 32).astype(int)
    halves = units[:, 16:].reshape(-1, 8, 4, 4)  # four words of a block
    levels = np.concatenate([halves & 15, halves >> 4], -1)
    return scales, levels.reshape(-1, 8, 32).astype(int)


def values_of(scales, levels, dtype, shape):
    """The f32 matrix of ``shape`` (its depth a multiple of 8) of these scales and levels."""
    scales = scales[..., None].astype(np.float32)
    if dtype == "q8":
        blocks = levels.astype(np.float32) * (scales * np.float32(1 / 127))
    else:
        blocks = (levels - 8).astype(np.float32) * (scales * np.float32(-1 / 8))
    return blocks.ravel()[: shape[0] * shape[1]].reshape(shape)


def decoded(raw, dtype, shape):
    """Stored bytes → the f32 matrix that kernels compute with."""
    levels, scales = unpacked(raw, dtype)
    return values_of(levels, scales, dtype, shape)


def rounded(values, dtype):
    """``values`` [N, K] as they are after storing in any of the four types."""
    if dtype == "float32":
        return values
    if dtype == "float16":
        return values.astype(np.float16).astype(np.float32)
    depth = -(-values.shape[1] // 8) * 8
    levels, scales = levels_of(values, dtype)
    stored = values_of(levels, scales, dtype, (values.shape[0], depth))
    return stored[:, : values.shape[1]]
