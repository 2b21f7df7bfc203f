"""Blocks with hooks: the parts of a block that have a hook are computed one by one.

What only looks at a point changes no result: values that no hook replaces come from the kernels
that compute them without hooks, and what these kernels hide is computed beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from typing import Protocol

from gpt2_wgpu import nn
from gpt2_wgpu.layers.embedding_layers import no_rows
from gpt2_wgpu.layers.packed_weights import pad_last_axis
from gpt2_wgpu.models.config import GPT2Config
from gpt2_wgpu.models.gpt2_weights import GPT2Weights
from gpt2_wgpu.models.hook_points import ATTENTION, EMBEDDING, MLP
from gpt2_wgpu.models.hooks import Hooks
from gpt2_wgpu.nn import KVCache, LayerNorm
from gpt2_wgpu.tensors import Tensor, ops, tidy
from gpt2_wgpu.tensors.ops.elementwise import activate
from gpt2_wgpu.tensors.ops.operands import full
from gpt2_wgpu.tensors.scopes import current_scope


class PlainModel(Protocol):
    """Protocol of a model without hooks; see ``GPT2Backbone``."""

    config: GPT2Config
    weights: GPT2Weights

    def attention_scale(self, layer: int) -> float:
        """Factor of the attention scores of a block."""

    def _norm(self, norm: LayerNorm, folded: Tensor | None) -> nn.Norm: ...

    def _attention(
        self, layer: int, x: Tensor, cache: KVCache, start: Tensor, mask: Tensor | None
    ) -> Tensor: ...

    def _mlp(self, layer: int, x: Tensor) -> Tensor: ...


class HookedBlocks:
    """The computation of ``model`` with ``hooks``; the residual stream x is padded to 8."""

    def __init__(self, model: PlainModel, hooks: Hooks) -> None:
        self._model, self._hooks = model, hooks
        self._width = model.config.n_embd

    def half_blocks(
        self,
        ids: Tensor,
        cache: KVCache,
        start: Tensor,
        mask: Tensor | None,
        intercepted: Callable[[Tensor, int], Tensor] | None,
    ) -> Iterator[Tensor]:
        """See ``GPT2Backbone.half_blocks``. What a hook keeps, or has given, is not disposed."""
        x = self.embed(ids, start)
        if intercepted is not None:
            x = intercepted(x, -1)
        for layer in range(self._model.config.n_layer):
            previous, x = x, self.attention(layer, x, cache, start, mask)
            if intercepted is None:
                _dispose_own(previous, x)
            yield x
            previous, x = x, self.mlp(layer, x)
            _dispose_own(previous, x)
            if intercepted is not None:
                x = intercepted(x, layer)
            yield x

    def embed(self, ids: Tensor, start: Tensor) -> Tensor:
        """Return the sum of both embeddings; see ``nn.embed``."""
        weights = self._model.weights
        if not self._hooks.any("", EMBEDDING):
            return nn.embed(ids, start, weights.wte, weights.wpe)
        with tidy("embed") as scope:
            nothing = no_rows(weights.wte.in_features, ids.device)
            zeros = full(ids.device, ids.shape, 0, "uint32")
            x = nn.embed(ids, start, weights.wte, nothing)
            x = self._stream("hook_embed", x)
            positions = nn.embed(zeros, start, nothing, weights.wpe)
            positions = self._stream("hook_pos_embed", positions)
            return scope.escape(ops.add(x, positions))

    def attention(
        self, layer: int, x: Tensor, cache: KVCache, start: Tensor, mask: Tensor | None
    ) -> Tensor:
        """Return the residual stream after the attention of a block."""
        at = f"blocks.{layer}."
        with tidy("attention with hooks") as scope:
            x = self._stream(f"{at}hook_resid_pre", x)
            if not self._hooks.any(at, ATTENTION):
                x = self._model._attention(layer, x, cache, start, mask)
            else:
                x = self._attention_in_parts(layer, x, cache, start, mask)
            return scope.escape(self._stream(f"{at}hook_resid_mid", x))

    def mlp(self, layer: int, x: Tensor) -> Tensor:
        """Return the residual stream after the MLP of a block."""
        at = f"blocks.{layer}."
        with tidy("MLP with hooks") as scope:
            if not self._hooks.any(at, MLP):
                x = self._model._mlp(layer, x)
            else:
                x = self._mlp_in_parts(layer, x)
            return scope.escape(self._stream(f"{at}hook_resid_post", x))

    def final_norm(self, x: Tensor) -> Tensor | None:
        """Return the final norm of x [..., D]; None if no hook replaces it."""
        return self._layer_norm("ln_final.", x, self._model.weights.ln_f)

    # --- parts of a block -----------------------------------------------------------------------

    def _attention_in_parts(
        self, layer: int, x: Tensor, cache: KVCache, start: Tensor, mask: Tensor | None
    ) -> Tensor:
        at, block = f"blocks.{layer}.attn.", self._model.weights.blocks[layer]
        normed, norm = self._normed(f"blocks.{layer}.ln1.", x, block.ln_1, block.c_attn.folded)
        if self._hooks.any(at, ("hook_q", "hook_k", "hook_v")):
            q = self._queries(layer, normed, norm, cache, start)
        else:
            c_attn = block.c_attn
            q = nn.project_qkv(
                normed, c_attn.weight, c_attn.bias, cache, layer, start, norm=norm
            )  # fmt: skip
        mixed = self._mixed_by_pattern(layer, q, cache, start, mask)
        needs_z = self._hooks.any(at, ("hook_z", "hook_result"))
        if mixed is None:
            # Partials of a long cache are merged only by the next linear layer.
            whole = needs_z and q.shape[1] == 1
            one_order = whole or nn.rounds_activations(x.device, block.attn_c_proj.weight)
            attended = nn.cached_attention(
                q, cache, layer, start,
                scale=self._model.attention_scale(layer), mask=mask, one_order=one_order,
            )  # fmt: skip
            if not needs_z:
                return self._projected(layer, attended, x)
            assert isinstance(attended, Tensor)
            mixed = attended
        return self._projected(layer, self._heads(f"{at}hook_z", mixed), x)

    def _queries(
        self, layer: int, x: Tensor, norm: nn.Norm | None, cache: KVCache, start: Tensor
    ) -> Tensor:
        """Return queries [B, T, H * D], and write keys and values to ``cache``."""
        c_attn = self._model.weights.blocks[layer].c_attn
        batch, tokens, _ = x.shape
        both = nn.linear(x, c_attn.weight, c_attn.bias, norm=norm)
        width = cache.num_heads * cache.padded_dim
        q, k, v = (
            self._heads(
                f"blocks.{layer}.attn.hook_{name}",
                ops.slice(both, (0, 0, part * width), (batch, tokens, width)),
            )
            for part, name in enumerate("qkv")
        )
        shape = (batch, tokens, cache.num_heads, cache.padded_dim)
        nn.store_keys_and_values(k.view(shape), v.view(shape), cache, layer, start)
        return q

    def _mixed_by_pattern(
        self, layer: int, q: Tensor, cache: KVCache, start: Tensor, mask: Tensor | None
    ) -> Tensor | None:
        """Return the values weighted by the pattern; None if no hook replaces that."""
        at, hooks = f"blocks.{layer}.attn.", self._hooks
        if not hooks.any(at, ("hook_attn_scores", "hook_pattern")):
            return None
        scale = self._model.attention_scale(layer)
        scores = nn.attention_scores(q, cache, layer, start, scale=scale, mask=mask)
        # (A view, since the scores are needed even if a hook disposes what it replaces.)
        changed = hooks.offer(f"{at}hook_attn_scores", copy(scores))
        if changed is None and f"{at}hook_pattern" not in hooks:
            return None
        if changed is not None:
            # Later positions, which a step's cache has not computed yet, and masked ones stay so.
            changed = ops.where(ops.greater(scores, nn.LOWEST_SCORE), changed, scores)
        pattern = ops.softmax(scores if changed is None else changed)
        replaced = hooks.offer(f"{at}hook_pattern", pattern)
        if changed is None and replaced is None:
            return None
        return nn.mix_values(pattern if replaced is None else replaced, cache, layer, start)

    def _projected(self, layer: int, mixed: Tensor | nn.AttentionPartials, x: Tensor) -> Tensor:
        """Return x plus the projection of attention's result [B, T, H * D]."""
        at, c_proj = f"blocks.{layer}.", self._model.weights.blocks[layer].attn_c_proj
        out = None
        if f"{at}attn.hook_result" in self._hooks:
            assert isinstance(mixed, Tensor)
            results = nn.project_heads(mixed, c_proj.weight, self._model.config.n_head)
            plain = results[..., : self._width]
            changed = self._hooks.offer(f"{at}attn.hook_result", plain)
            if changed is not None:
                bias = c_proj.bias.view((c_proj.bias.size,))[: self._width]
                out = pad_last_axis(ops.add(ops.sum(changed, axis=2), bias))
        return self._added(f"{at}hook_attn_out", out, mixed, c_proj, x)

    def _mlp_in_parts(self, layer: int, x: Tensor) -> Tensor:
        at, hooks = f"blocks.{layer}.", self._hooks
        block = self._model.weights.blocks[layer]
        config, c_fc = self._model.config, block.c_fc
        kind, width = config.activation_kind, config.intermediate_dim
        normed, norm = self._normed(f"{at}ln2.", x, block.ln_2, c_fc.folded)
        if f"{at}mlp.hook_pre" in hooks:
            pre = nn.linear(normed, c_fc.weight, c_fc.bias, norm=norm)
            h = activate(self._offered(f"{at}mlp.hook_pre", pre, width), kind)
        else:
            h = nn.linear(normed, c_fc.weight, c_fc.bias, norm=norm, activation=kind)
        h = self._offered(f"{at}mlp.hook_post", h, width)
        return self._added(f"{at}hook_mlp_out", None, h, block.mlp_c_proj, x)

    def _added(
        self,
        name: str,
        out: Tensor | None,
        given: Tensor | nn.AttentionPartials,
        c_proj: nn.Linear,
        x: Tensor,
    ) -> Tensor:
        """Return x plus ``out``, or the linear layer of ``given``, after the hooks of ``name``."""
        if out is None and name not in self._hooks:
            return nn.linear(given, c_proj.weight, c_proj.bias, residual=x)
        if out is None:
            out = nn.linear(given, c_proj.weight, c_proj.bias)
        return ops.add(self._stream(name, out), x)

    def _normed(
        self, at: str, x: Tensor, norm: LayerNorm, folded: Tensor | None
    ) -> tuple[Tensor, nn.Norm | None]:
        """Return the input of the next linear layer, and the norm that this has to compute."""
        replaced = self._layer_norm(at, x, norm)
        return (x, self._model._norm(norm, folded)) if replaced is None else (replaced, None)

    def _layer_norm(self, at: str, x: Tensor, norm: LayerNorm) -> Tensor | None:
        """Return the LayerNorm of x [..., D], if a hook replaces a part of it; else None.

        The points are the scale, and x - mean divided by it, before gain and shift.
        """
        hooks, width = self._hooks, self._width
        if not hooks.any(at, ("hook_scale", "hook_normalized")):
            return None
        epsilon = self._model.config.layer_norm_epsilon
        centred, scale = centred_and_scale(x[..., :width], epsilon)
        changed = hooks.offer(f"{at}hook_scale", scale)
        normalized = ops.div(centred, scale if changed is None else changed)
        replaced = hooks.offer(f"{at}hook_normalized", normalized)
        if changed is None and replaced is None:
            return None
        normalized = normalized if replaced is None else replaced
        gain, shift = (each.view((each.size,))[:width] for each in (norm.weight, norm.bias))
        return pad_last_axis(ops.add(ops.mul(normalized, gain), shift))

    # --- padding --------------------------------------------------------------------------------

    def _stream(self, name: str, x: Tensor) -> Tensor:
        """Return x [..., D padded] after the hooks of ``name``."""
        return self._offered(name, x, self._width)

    def _offered(self, name: str, x: Tensor, width: int) -> Tensor:
        """Return x after the hooks of ``name``, which see ``width`` elements of its last axis."""
        if name not in self._hooks:
            return x
        plain = x if x.shape[-1] == width else x[..., :width]
        replaced = self._hooks.offer(name, plain)
        return x if replaced is None else pad_last_axis(replaced)

    def _heads(self, name: str, x: Tensor) -> Tensor:
        """Return x [B, T, H * D padded] after the hooks of ``name``, which see [B, T, H, D]."""
        if name not in self._hooks:
            return x
        heads = self._model.config.n_head
        split = x.view((*x.shape[:2], heads, x.shape[-1] // heads))
        return self._offered(name, split, self._model.config.head_dim).view(x.shape)


def centred_and_scale(x: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Return x [..., D] minus its mean, and the standard deviation [..., 1] of a LayerNorm."""
    with tidy("layer norm in parts") as scope:
        centred = ops.sub(x, ops.mean(x, -1, keepdims=True))
        variance = ops.mean(ops.mul(centred, centred), -1, keepdims=True)
        return scope.escape((centred, ops.sqrt(ops.add(variance, epsilon))))


def _dispose_own(x: Tensor, result: Tensor) -> None:
    """Dispose ``x``, unless it is the ``result``, too, or kept, or of another scope: the user's."""
    if x is not result and x.scope is not None and x.scope is current_scope():
        x.dispose(f"the model: {x.remedy}" if x.remedy else "the model")
