"""A tensor library on WebGPU: tensors, memory scopes, and functions on tensors (``ops``)."""

from __future__ import annotations

from gpt2_wgpu.tensors import ops
from gpt2_wgpu.tensors.creation import tensor
from gpt2_wgpu.tensors.scopes import dispose, end_scope, keep, start_scope
from gpt2_wgpu.tensors.tensor import Tensor, empty
from gpt2_wgpu.tensors.tidying import tidy

__all__ = [
    "Tensor",
    "dispose",
    "empty",
    "end_scope",
    "keep",
    "ops",
    "start_scope",
    "tensor",
    "tidy",
]
