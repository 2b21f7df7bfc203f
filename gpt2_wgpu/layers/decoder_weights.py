"""Weights of a transformer decoder between Keras' shapes and the layout of ``nn``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gpt2_wgpu.layers.attention_weights import (
    AttentionWeights,
    attention_shapes,
    pack_attention,
    unpack_attention,
)
from gpt2_wgpu.layers.layer import Shapes
from gpt2_wgpu.layers.normalization_layer import pack_norm, unpack_norm
from gpt2_wgpu.layers.packed_weights import (
    pack_linear,
    padded_axis,
    unpack_matrix,
    unpack_vector,
)
from gpt2_wgpu.nn import Axis, Block, LayerNorm, Linear
from gpt2_wgpu.tensors import Tensor


@dataclass(frozen=True)
class CrossBlock(Block):
    """Weights of a transformer block with cross-attention, under Hugging Face's names."""

    ln_cross_attn: LayerNorm
    crossattention: AttentionWeights  # its scale is the caller's


def block_shapes(width: int, inner: int, heads: int, encoder_width: int | None) -> Shapes:
    """Return the shapes of the weights by Keras' names; ``encoder_width``: of cross-attention."""
    sizes = width, heads, width // heads
    shapes = _with_norm("self_attention", attention_shapes(*sizes))
    if encoder_width is not None:
        shapes |= _with_norm("cross_attention", _cross_shapes(sizes, encoder_width))
    return shapes | {
        "feedforward_intermediate_dense/kernel": (width, inner),
        "feedforward_intermediate_dense/bias": (inner,),
        "feedforward_output_dense/kernel": (inner, width),
        "feedforward_output_dense/bias": (width,),
        "feedforward_layer_norm/gamma": (width,),
        "feedforward_layer_norm/beta": (width,),
    }


def _cross_shapes(sizes: tuple[int, int, int], encoder_width: int | None) -> Shapes:
    return attention_shapes(*sizes, key_width=encoder_width, value_width=encoder_width)


def _with_norm(name: str, attention: Shapes) -> Shapes:
    """Return the shapes of attention and its norm, below ``name``."""
    width = attention["attention_output/bias"]
    return {f"{name}/{key}": shape for key, shape in attention.items()} | {
        f"{name}_layer_norm/gamma": width,
        f"{name}_layer_norm/beta": width,
    }


def pack_block(values: Mapping[str, Tensor], dtype: str, normalize_first: bool) -> Block:
    """Store weights of :func:`block_shapes`, with their norms folded with ``normalize_first``."""
    inner, width = values["feedforward_output_dense/kernel"].shape
    hidden, stream = padded_axis(inner), padded_axis(width)

    def norm(name: str) -> LayerNorm:
        return pack_norm(values[f"{name}_layer_norm/gamma"], values[f"{name}_layer_norm/beta"])

    def attention(name: str, norm: LayerNorm, cross: bool = False) -> AttentionWeights:
        own = {
            key.removeprefix(f"{name}/"): value
            for key, value in values.items()
            if key.startswith(f"{name}/")
        }
        return pack_attention(own, dtype, 1.0, norm if normalize_first else None, cross=cross)

    def dense(name: str, out: Axis, in_: Axis, norm: LayerNorm | None) -> Linear:
        kernel, bias = values[f"{name}/kernel"], values[f"{name}/bias"]
        return pack_linear(kernel, bias, dtype, out, in_, norm if normalize_first else None)

    ln_1, ln_2 = norm("self_attention"), norm("feedforward")
    packed = attention("self_attention", ln_1)
    c_fc = dense("feedforward_intermediate_dense", hidden, stream, ln_2)
    c_proj = dense("feedforward_output_dense", stream, hidden, None)
    block = ln_1, packed.c_attn, packed.c_proj, ln_2, c_fc, c_proj
    if "cross_attention_layer_norm/gamma" not in values:
        return Block(*block)
    ln_cross_attn = norm("cross_attention")
    return CrossBlock(
        *block, ln_cross_attn, attention("cross_attention", ln_cross_attn, cross=True)
    )


def unpack_block(
    block: Block, attention: AttentionWeights, inner: int, encoder_width: int | None
) -> list[Tensor]:
    """Return weights in the order of :func:`block_shapes`; ``attention``: the block's own."""
    width = attention.heads * attention.dim
    stream, hidden = padded_axis(width), padded_axis(inner)
    sizes = width, attention.heads, attention.dim
    found = unpack_attention(attention, attention_shapes(*sizes)) + unpack_norm(block.ln_1, width)
    if isinstance(block, CrossBlock):
        found += unpack_attention(block.crossattention, _cross_shapes(sizes, encoder_width))
        found += unpack_norm(block.ln_cross_attn, width)
    return [
        *found,
        unpack_matrix(block.c_fc.weight, hidden, stream),
        unpack_vector(block.c_fc.bias, hidden),
        unpack_matrix(block.mlp_c_proj.weight, stream, hidden),
        unpack_vector(block.mlp_c_proj.bias, stream),
        *unpack_norm(block.ln_2, width),
    ]
