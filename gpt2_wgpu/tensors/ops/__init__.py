"""Tensor operations: they check shapes, run WGSL kernels and return new tensors.

Operands are tensors or other values that ``gpt2_wgpu.tensor`` accepts. Intermediate tensors are
freed. Layers with stored weights are in the package ``nn``.
"""

from gpt2_wgpu.tensors.operators import set_operators
from gpt2_wgpu.tensors.ops.aggregation import max, mean, min, sum
from gpt2_wgpu.tensors.ops.arrays import concat, gather, reshape, slice, slice_update, transpose
from gpt2_wgpu.tensors.ops.conditions import (
    cast,
    equal,
    greater,
    greater_equal,
    less,
    less_equal,
    logical_and,
    logical_not,
    logical_or,
    not_equal,
    where,
)
from gpt2_wgpu.tensors.ops.dot_product_attention import attention
from gpt2_wgpu.tensors.ops.elementwise import (
    add,
    div,
    gelu,
    mul,
    relu,
    sigmoid,
    silu,
    sqrt,
    sub,
    tanh,
)
from gpt2_wgpu.tensors.ops.indexing import broadcast_to, expand_dims, get_item, ones_like
from gpt2_wgpu.tensors.ops.linalg import matmul
from gpt2_wgpu.tensors.ops.normalization import layer_norm
from gpt2_wgpu.tensors.ops.reductions import argmax, log_softmax, softmax, top_k

set_operators(
    add=add, sub=sub, mul=mul, div=div, matmul=matmul, get_item=get_item, transpose=transpose,
    less=less, less_equal=less_equal, greater=greater, greater_equal=greater_equal,
    logical_and=logical_and, logical_or=logical_or, logical_not=logical_not,
)  # fmt: skip

__all__ = [
    "add",
    "argmax",
    "attention",
    "broadcast_to",
    "cast",
    "concat",
    "div",
    "equal",
    "expand_dims",
    "gather",
    "gelu",
    "greater",
    "greater_equal",
    "layer_norm",
    "less",
    "less_equal",
    "log_softmax",
    "logical_and",
    "logical_not",
    "logical_or",
    "matmul",
    "max",
    "mean",
    "min",
    "mul",
    "not_equal",
    "ones_like",
    "relu",
    "reshape",
    "sigmoid",
    "silu",
    "slice",
    "slice_update",
    "softmax",
    "sqrt",
    "sub",
    "sum",
    "tanh",
    "top_k",
    "transpose",
    "where",
]


def __dir__() -> list[str]:
    return sorted(__all__)
