"""Tensor operations: they check shapes, run WGSL kernels and return new tensors.

Operands are tensors or other values that ``gpt2_wgpu.tensor`` accepts. Intermediate tensors are
freed. Layers with stored weights are in the package ``nn``.
"""

from gpt2_wgpu.tensors.operators import set_operators
from gpt2_wgpu.tensors.ops.arrays import concat, gather, reshape, slice, slice_update, transpose
from gpt2_wgpu.tensors.ops.dot_product_attention import attention
from gpt2_wgpu.tensors.ops.elementwise import add, div, gelu, mul, relu, sigmoid, silu, sub, tanh
from gpt2_wgpu.tensors.ops.indexing import expand_dims, get_item, ones_like
from gpt2_wgpu.tensors.ops.linalg import matmul
from gpt2_wgpu.tensors.ops.normalization import layer_norm
from gpt2_wgpu.tensors.ops.reductions import argmax, log_softmax, softmax, top_k

set_operators(add=add, sub=sub, mul=mul, div=div, matmul=matmul, get_item=get_item)

__all__ = [
    "add",
    "argmax",
    "attention",
    "concat",
    "div",
    "expand_dims",
    "gather",
    "gelu",
    "layer_norm",
    "log_softmax",
    "matmul",
    "mul",
    "ones_like",
    "relu",
    "reshape",
    "sigmoid",
    "silu",
    "slice",
    "slice_update",
    "softmax",
    "sub",
    "tanh",
    "top_k",
    "transpose",
]


def __dir__() -> list[str]:
    return sorted(__all__)
