"""Weights of attention between Keras' shapes and the layout of ``nn``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gpt2_wgpu.layers.layer import Shapes
from gpt2_wgpu.layers.packed_weights import (
    pack_linear,
    padded_axis,
    unpack_matrix,
    unpack_vector,
)
from gpt2_wgpu.nn import LayerNorm, Linear, round_up
from gpt2_wgpu.tensors import Tensor, ops, tensor

_PROJECTIONS = ("query", "key", "value")


@dataclass(frozen=True)
class AttentionWeights:
    """Weights of attention: one linear layer for queries, keys and values, one for the result.

    Of cross-attention the queries have a linear layer of their own, ``q_attn``.
    """

    c_attn: Linear
    c_proj: Linear
    heads: int
    dim: int  # of a head
    scale: float
    q_attn: Linear | None = None

    @property
    def padded_dim(self) -> int:
        """Width of a head in memory."""
        return round_up(self.dim, 8)


def attention_shapes(
    width: int, heads: int, dim: int, bias: bool = True, source: int | None = None
) -> Shapes:
    """Return the shapes of the weights, by Keras' names.

    ``width`` of the queries and the result; ``source``: width of what keys and values are
    projected from, by default the same.
    """
    shapes: Shapes = {}
    for name in _PROJECTIONS:
        rows = width if name == "query" or source is None else source
        shapes |= {f"{name}/kernel": (rows, heads, dim), f"{name}/bias": (heads, dim)}
    output = "attention_output"
    shapes |= {f"{output}/kernel": (heads, dim, width), f"{output}/bias": (width,)}
    return {name: shape for name, shape in shapes.items() if bias or name.endswith("kernel")}


def pack_attention(
    values: Mapping[str, Tensor],
    dtype: str,
    scale: float,
    norm: LayerNorm | None = None,
    *,
    cross: bool = False,
) -> AttentionWeights:
    """Store weights of :func:`attention_shapes`; missing biases are zero.

    ``norm``: the LayerNorm in front, to be folded; with ``cross``, the queries have their own
    linear layer, and the norm is in front of this one alone.
    """
    width, heads, dim = values["query/kernel"].shape
    inner = heads * dim
    device = values["query/kernel"].device

    def bias(name: str, size: int) -> Tensor:
        given = values.get(f"{name}/bias")
        return tensor([0.0] * size, device=device) if given is None else given.view((size,))

    def projection(names: tuple[str, ...], norm: LayerNorm | None) -> Linear:
        rows, count = values[f"{names[0]}/kernel"].shape[0], len(names)
        return pack_linear(
            ops.concat([values[f"{name}/kernel"].view((rows, inner)) for name in names], axis=1),
            ops.concat([bias(name, inner) for name in names]),
            dtype, padded_axis(count * inner, count * heads), padded_axis(rows), norm,
        )  # fmt: skip

    q_attn = projection(_PROJECTIONS[:1], norm) if cross else None
    c_attn = projection(_PROJECTIONS[1:], None) if cross else projection(_PROJECTIONS, norm)
    c_proj = pack_linear(
        values["attention_output/kernel"].view((inner, width)), bias("attention_output", width),
        dtype, padded_axis(width), padded_axis(inner, heads),
    )  # fmt: skip
    return AttentionWeights(c_attn, c_proj, heads, dim, scale, q_attn)


def unpack_attention(
    weights: AttentionWeights, width: int, bias: bool = True, source: int | None = None
) -> list[Tensor]:
    """Return weights in the order of :func:`attention_shapes`."""
    heads, dim = weights.heads, weights.dim
    inner = heads * dim
    found: list[Tensor] = []

    def unpack(packed: Linear, rows: int, count: int) -> None:
        outputs, inputs = padded_axis(count * inner, count * heads), padded_axis(rows)
        kernels = unpack_matrix(packed.weight, outputs, inputs)
        biases = unpack_vector(packed.bias, outputs)
        for first in range(0, count * inner, inner):
            kernel = kernels[:, first : first + inner]
            found.append(ops.reshape(kernel, (rows, heads, dim)))
            found.append(ops.reshape(biases[first : first + inner], (heads, dim)))

    if weights.q_attn is None:
        unpack(weights.c_attn, width, 3)
    else:
        unpack(weights.q_attn, width, 1)
        unpack(weights.c_attn, width if source is None else source, 2)
    stream = padded_axis(width)
    kernel = unpack_matrix(weights.c_proj.weight, stream, padded_axis(inner, heads))
    found += [ops.reshape(kernel, (heads, dim, width)), unpack_vector(weights.c_proj.bias, stream)]
    return found if bias else found[::2]
