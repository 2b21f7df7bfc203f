"""Transformer block: its weights, and attention and MLP on the residual stream."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass

from gpt2_wgpu.nn.attention import cached_attention
from gpt2_wgpu.nn.kv_cache import KVCache
from gpt2_wgpu.nn.linear_layers import Norm, linear, project_qkv
from gpt2_wgpu.nn.matrix import Matrix, rounds_activations
from gpt2_wgpu.tensors.tensor import Tensor
from gpt2_wgpu.tensors.tidying import tidy


@dataclass(frozen=True)
class Linear:
    """Weights of a linear layer."""

    weight: Matrix  # [outputs, inputs]: transposed from the checkpoint's Conv1D
    bias: Tensor
    folded: Tensor | None = None  # with the LayerNorm in front of it, if any: fold_norm

    def tensors(self) -> Iterator[Tensor]:
        """Yield the tensors."""
        for _, part in self.weight.parts:
            yield part
        yield self.bias
        if self.folded is not None:
            yield self.folded


@dataclass(frozen=True)
class LayerNorm:
    """Weights of a LayerNorm, [D padded]."""

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class Block:
    """Weights of a transformer block."""

    ln_1: LayerNorm
    c_attn: Linear
    attn_c_proj: Linear
    ln_2: LayerNorm
    c_fc: Linear
    mlp_c_proj: Linear

    @property
    def _linears(self) -> tuple[Linear, ...]:
        return self.c_attn, self.attn_c_proj, self.c_fc, self.mlp_c_proj

    def tensors(self) -> Iterator[Tensor]:
        """Yield the tensors, in one order."""
        for each in self._linears:
            yield from each.tensors()
        for norm in (self.ln_1, self.ln_2):
            yield norm.weight
            yield norm.bias

    def layout(self) -> tuple[Hashable, ...]:
        """Return what the dispatches of the linear layers depend on besides their tensors."""
        return tuple(
            (
                each.weight.shape,
                each.weight.dtype,
                each.weight.rounds_activations,
                *[first for first, _ in each.weight.parts],
                each.folded is None,
            )
            for each in self._linears
        )


def attend(
    x: Tensor,
    c_attn: Linear,
    c_proj: Linear,
    cache: KVCache,
    layer: int,
    start: Tensor,
    *,
    scale: float,
    norm: Norm | None = None,
    mask: Tensor | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """Causal self-attention with its projections: of norm(x), plus ``residual``.

    ``x`` [B, T, D] from position ``start[b]`` on; its keys and values are written to ``layer`` of
    ``cache``, and positions before ``start`` are read from it. ``scale``, ``mask``: as in
    :func:`cached_attention` → [B, T, D].
    """
    with tidy("attend") as scope:
        q = project_qkv(x, c_attn.weight, c_attn.bias, cache, layer, start, norm=norm)
        one_order = rounds_activations(x.device, c_proj.weight)
        a = cached_attention(q, cache, layer, start, scale=scale, mask=mask, one_order=one_order)
        q.dispose()  # the result may have its buffer
        return scope.escape(linear(a, c_proj.weight, c_proj.bias, residual=residual))


def feed_forward(
    x: Tensor,
    c_fc: Linear,
    c_proj: Linear,
    *,
    activation: str,
    norm: Norm | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """MLP of a block: two linear layers with an activation between, of norm(x), plus ``residual``.

    ``x`` [..., D] → [..., D].
    """
    with tidy("feed forward") as scope:
        h = linear(x, c_fc.weight, c_fc.bias, norm=norm, activation=activation)  # (..., 4 D)
        return scope.escape(linear(h, c_proj.weight, c_proj.bias, residual=residual))
