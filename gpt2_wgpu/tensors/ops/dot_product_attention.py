"""Attention of any size, composed from other operations.

The model uses fused kernels with a KV cache (nn/attention.py); this one is a reference.
"""

from __future__ import annotations

import math

from gpt2_wgpu.errors import ShapeError
from gpt2_wgpu.tensors.creation import tensor
from gpt2_wgpu.tensors.dispatch import dispatch
from gpt2_wgpu.tensors.ops.arrays import transpose
from gpt2_wgpu.tensors.ops.elementwise import mul
from gpt2_wgpu.tensors.ops.launch import groups_for
from gpt2_wgpu.tensors.ops.linalg import matmul
from gpt2_wgpu.tensors.ops.operands import ANY_DTYPE, TensorLike, operands
from gpt2_wgpu.tensors.ops.reductions import softmax
from gpt2_wgpu.tensors.ops.strides import broadcast_strides
from gpt2_wgpu.tensors.tensor import Tensor, empty
from gpt2_wgpu.tensors.tidying import tidy


def attention(
    query: TensorLike,
    key: TensorLike,
    value: TensorLike,
    mask: TensorLike | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """Scaled dot-product attention (Vaswani et al. 2017): softmax(scale * query keyᵀ) value.

    Args:
        query: [B, T, H, D].
        key: [B, S, H, D].
        value: [B, S, H, E].
        mask: 0 masks a position; [B, S], [B, T, S] or [B, H, T, S], sizes of 1 broadcast. A fully
            masked query gets the mean of all values, as in Keras.
        causal: the queries are the last T of S positions and attend to no later position.
        scale: default: 1 / sqrt(D).

    Returns:
        [B, T, H, E].

    Raises:
        ShapeError: the shapes are incompatible.
    """
    with tidy("attention") as scope:
        query, key, value = operands("attention", query, key, value)
        shapes = f"attention: query {query.shape}, key {key.shape}, value {value.shape}"
        if not query.ndim == key.ndim == value.ndim == 4:
            raise ShapeError(f"{shapes}: each must be [batch, positions, heads, size]")
        batch, queries, heads, size = query.shape
        keys = key.shape[1]
        if key.shape != (batch, keys, heads, size) or value.shape[:3] != (batch, keys, heads):
            raise ShapeError(f"{shapes}: batch, heads, key positions or sizes differ")
        if causal and queries > keys:
            raise ShapeError(f"{shapes}: causal queries are the last of the key positions")
        if scale is None:
            scale = 1 / math.sqrt(max(size, 1))
        scaled = mul(transpose(query, (0, 2, 1, 3)), scale)
        scores = matmul(scaled, transpose(key, (0, 2, 3, 1)))  # [B, H, T, S]
        if mask is not None or causal:
            scores = _hide(scores, mask, causal)
        mixed = matmul(softmax(scores), transpose(value, (0, 2, 1, 3)))  # [B, H, T, E]
        return scope.escape(transpose(mixed, (0, 2, 1, 3)))


def _hide(scores: Tensor, mask: TensorLike | None, causal: bool) -> Tensor:
    strides = [0, 0, 0, 0]
    seen = scores  # bound, but not read without HAS_MASK
    if mask is not None:
        plain = mask if isinstance(mask, Tensor) else tensor(mask, "int32", device=scores.device)
        (seen,) = operands("attention", plain, dtypes=ANY_DTYPE)
        strides = _mask_strides(seen.shape, scores.shape)
    result = empty(scores.device, scores.shape)
    dispatch(
        scores.device,
        "mask_scores",
        groups_for(scores.size, 64),
        {"x": scores, "mask": seen, "result": result},
        {
            "count": scores.size,
            "heads": scores.shape[1],
            "queries": scores.shape[2],
            "keys": scores.shape[3],
            **dict(zip(("mask_b", "mask_h", "mask_t", "mask_s"), strides, strict=True)),
            "causal": int(causal),
        },
        constants={"HAS_MASK": int(mask is not None)},
    )
    return result


def _mask_strides(mask: tuple[int, ...], scores: tuple[int, ...]) -> list[int]:
    if 2 <= len(mask) <= 4:
        full = (mask[0], *[1] * (4 - len(mask)), *mask[1:])
        if all(size in (1, whole) for size, whole in zip(full, scores, strict=True)):
            return broadcast_strides(full, scores)
    batch, _, queries, keys = scores
    raise ShapeError(
        f"attention: mask {mask} is none of {(batch, keys)}, {(batch, queries, keys)}, {scores}"
    )
