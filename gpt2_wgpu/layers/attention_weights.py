"""Weights of attention between Keras' shapes and the layout of ``nn``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
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

PROJECTIONS = ("query", "key", "value")


@dataclass(frozen=True)
class AttentionWeights:
    """Weights of attention: one linear layer for queries, keys and values, one for the result.

    Of cross-attention the queries have a linear layer of their own, ``q_attn``; where keys and
    values have different widths, the values have one, too, ``v_attn``.
    """

    c_attn: Linear
    c_proj: Linear
    heads: int
    dim: int  # of a head
    scale: float
    q_attn: Linear | None = None
    v_attn: Linear | None = None

    @property
    def padded_dim(self) -> int:
        """Width of a head in memory."""
        return round_up(self.dim, 8)

    def projections(self) -> Iterator[tuple[Linear, tuple[str, ...]]]:
        """Yield the linear layers of queries, keys and values with what each computes."""
        first, last = int(self.q_attn is not None), 3 - int(self.v_attn is not None)
        for projection, names in (
            (self.q_attn, PROJECTIONS[:first]),
            (self.c_attn, PROJECTIONS[first:last]),
            (self.v_attn, PROJECTIONS[last:]),
        ):
            if projection is not None:
                yield projection, names


def attention_shapes(
    width: int,
    heads: int,
    dim: int,
    bias: bool = True,
    *,
    key_width: int | None = None,
    value_width: int | None = None,
    value_dim: int | None = None,
    output_shape: tuple[int, ...] | None = None,
) -> Shapes:
    """Return the shapes of the weights, by Keras' names.

    Args:
        width: width of the queries.
        heads: number of heads.
        dim: size of a head.
        bias: whether the projections have biases.
        key_width: width of what keys are projected from; default: ``width``.
        value_width: width of what values are projected from; default: ``width``.
        value_dim: size of a head of the values; default: ``dim``.
        output_shape: last axes of the result; default: (``width``,).
    """
    rows = {"query": width, "key": key_width or width, "value": value_width or width}
    shapes: Shapes = {}
    for name in PROJECTIONS:
        size = value_dim or dim if name == "value" else dim
        shapes |= {f"{name}/kernel": (rows[name], heads, size), f"{name}/bias": (heads, size)}
    result = output_shape or (width,)
    shapes["attention_output/kernel"] = (heads, value_dim or dim, *result)
    shapes["attention_output/bias"] = result
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

    ``norm``: the LayerNorm in front, to be folded. With ``cross``, or where it has to, the queries
    have their own linear layer, and the norm is in front of this one alone.
    """
    query, key, value = (values[f"{name}/kernel"].shape for name in PROJECTIONS)
    _, heads, dim = query

    def linear(name: str, *names: str, norm: LayerNorm | None = None) -> Linear:
        rows, _, size = values[f"{name}/kernel"].shape
        inner, count = heads * size, 1 + len(names)
        kernels = [values[f"{each}/kernel"].view((rows, inner)) for each in (name, *names)]
        return pack_linear(
            ops.concat(kernels, axis=1),
            ops.concat([_bias(values, each, inner) for each in (name, *names)]),
            dtype, padded_axis(count * inner, count * heads), padded_axis(rows), norm,
        )  # fmt: skip

    q_attn = v_attn = None
    if key != value:
        q_attn, v_attn = linear("query", norm=norm), linear("value")
        c_attn = linear("key")
    elif cross or query != key:
        q_attn, c_attn = linear("query", norm=norm), linear("key", "value")
    else:
        c_attn = linear(*PROJECTIONS, norm=norm)
    kernel = values["attention_output/kernel"]
    inner, width = heads * value[-1], math.prod(kernel.shape[2:])
    c_proj = pack_linear(
        kernel.view((inner, width)), _bias(values, "attention_output", width),
        dtype, padded_axis(width), padded_axis(inner, heads),
    )  # fmt: skip
    return AttentionWeights(c_attn, c_proj, heads, dim, scale, q_attn, v_attn)


def _bias(values: Mapping[str, Tensor], name: str, size: int) -> Tensor:
    given = values.get(f"{name}/bias")
    if given is not None:
        return given.view((size,))
    return tensor([0.0] * size, device=values[f"{name}/kernel"].device)


def unpack_attention(weights: AttentionWeights, shapes: Shapes) -> list[Tensor]:
    """Return weights in the shapes and the order of :func:`attention_shapes`."""
    heads = weights.heads
    found: dict[str, Tensor] = {}
    for packed, names in weights.projections():
        rows, _, size = shapes[f"{names[0]}/kernel"]
        inner, count = heads * size, len(names)
        outputs = padded_axis(count * inner, count * heads)
        kernels = unpack_matrix(packed.weight, outputs, padded_axis(rows))
        biases = unpack_vector(packed.bias, outputs)
        for i, name in enumerate(names):
            part = slice(i * inner, (i + 1) * inner)
            found[f"{name}/kernel"] = kernels[:, part]
            found[f"{name}/bias"] = biases[part]
    _, size, *result = shapes["attention_output/kernel"]
    outputs, inner = padded_axis(math.prod(result)), heads * size
    kernel = unpack_matrix(weights.c_proj.weight, outputs, padded_axis(inner, heads))
    found["attention_output/kernel"] = kernel
    found["attention_output/bias"] = unpack_vector(weights.c_proj.bias, outputs)
    return [ops.reshape(found[name], shape) for name, shape in shapes.items()]
