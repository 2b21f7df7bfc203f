"""GPT-2 backbone: token ids → hidden states (Radford et al. 2019)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import islice
from typing import Any

from gpt2_wgpu import nn
from gpt2_wgpu.errors import (
    ContextLengthError,
    InvalidArgumentError,
    ShapeError,
)
from gpt2_wgpu.models.backbone_layers import LayeredBackbone
from gpt2_wgpu.models.backbone_loading import SWITCHES
from gpt2_wgpu.models.config import GPT2Config
from gpt2_wgpu.models.gpt2_weights import Fetch, random_fetch
from gpt2_wgpu.models.hooked_blocks import HookedBlocks
from gpt2_wgpu.models.hooks import applied, hooks_of
from gpt2_wgpu.models.recovery import with_recovery
from gpt2_wgpu.models.repeated_layers import RunHalf, recorder, run_half
from gpt2_wgpu.nn import KVCache, check_cache_dtype
from gpt2_wgpu.shown import shown
from gpt2_wgpu.tensors import Tensor, ops, tensor, tidy
from gpt2_wgpu.text.token_arrays import rows_of_ids, rows_of_mask
from gpt2_wgpu.validation import integer, number
from gpt2_wgpu.webgpu import (
    Device,
    checked_device,
    default_device,
    sync,
)

Intercept = Callable[[Tensor, int], Tensor]  # (residual stream [B, T, D], index) -> the same


class GPT2Backbone(LayeredBackbone):
    """Transformer: embeddings, ``num_layers`` blocks, final norm. Arithmetic is f32.

    The constructor creates random weights; :meth:`from_preset` loads them (backbone_loading.py).
    Its parts are also layers, with KerasHub's names (backbone_layers.py).

    Args:
        dropout: accepted for compatibility with KerasHub, without effect in inference.
        dtype: weight dtype, "float32", "float16" or quantised, e.g. "q8" (docs/quantization.md).
        cache_dtype: dtype of keys and values, "float32" or "float16" (half the memory; logits
            change by less than 1e-2). None: float16 on GPUs, float32 on CPU adapters.
        seed, initializer_range: seed and standard deviation of the random weights.
        name: name in configurations, as in Keras.
        switches: other fields of `GPT2Config`, e.g. ``activation_function``.
    """

    def __init__(
        self,
        vocabulary_size: int,
        num_layers: int,
        num_heads: int,
        hidden_dim: int,
        intermediate_dim: int,
        dropout: float = 0.1,
        max_sequence_length: int = 1024,
        *,
        dtype: str = "float32",
        cache_dtype: str | None = None,
        device: Device | None = None,
        seed: int = 0,
        initializer_range: float = 0.02,
        name: str | None = None,
        **switches: Any,
    ) -> None:
        if unknown := switches.keys() - SWITCHES:
            raise InvalidArgumentError(
                f"GPT2Backbone takes no argument {shown(min(unknown))}; besides the sizes it takes "
                f"{', '.join(SWITCHES)}"
            )
        config = GPT2Config.from_dict(
            {
                "model_type": "gpt2",
                "vocab_size": vocabulary_size,
                "n_layer": num_layers,
                "n_head": num_heads,
                "n_embd": hidden_dim,
                "n_inner": intermediate_dim,
                "eos_token_id": None,  # the tokenizer's is used
                "n_positions": max_sequence_length,
                **switches,
            }
        )
        self.name = name or self.name
        self.dropout = dropout
        if cache_dtype is not None:
            check_cache_dtype(cache_dtype)
        seed = integer("seed", seed, 0, 2**32 - 1)
        stddev = number("initializer_range", initializer_range, 0.0, 1e3)

        def random_weights(device: Device, dtype: str) -> AbstractContextManager[Fetch]:
            return nullcontext(random_fetch(device, config, stddev, seed))

        device = checked_device(device) or default_device()
        sync(
            self._load(config, random_weights, dtype, cache_dtype, device),
            "GPT2Backbone.from_preset_async(...)",
        )

    # --- the model ------------------------------------------------------------------------------

    def __call__(self, inputs: Mapping[str, Any]) -> Tensor:
        """Compute hidden states, without a cache.

        ``inputs``: ``{"token_ids", "padding_mask"}`` [B, T]; the mask (default: all ones) excludes
        positions as keys. → [B, T, D].

        Raises:
            InvalidArgumentError: ids are invalid.
            ContextLengthError: T exceeds the context.
        """

        def compute() -> Tensor:
            with tidy() as scope:
                return scope.escape(self.unpad(self.final_norm(self.forward_without_cache(inputs))))

        return with_recovery(self, compute)

    def forward_without_cache(
        self,
        inputs: Mapping[str, Any],
        intercept: Intercept | None = None,
        halves: int | None = None,
    ) -> Tensor:
        """The residual stream after the last block for such inputs → [B, T, D padded to 8].

        ``intercept``: see :meth:`half_blocks`. ``halves``: number of its steps, at least 1, if not
        all.
        """
        if not isinstance(inputs, Mapping) or "token_ids" not in inputs:
            raise InvalidArgumentError(
                f"a backbone takes {{'token_ids', 'padding_mask'}}, not {type(inputs).__name__}"
            )
        ids = rows_of_ids(inputs["token_ids"], self.config.vocab_size, ragged=False)
        batch, length = len(ids), len(ids[0]) if ids else 0
        if not length:
            raise InvalidArgumentError(f"token_ids of {batch} x {length}: nothing to compute")
        with tidy() as scope:
            cache = self.new_cache(batch, length)
            mask = None
            if inputs.get("padding_mask") is not None:
                rows = rows_of_mask(inputs["padding_mask"])
                lengths = [len(row) for row in rows]
                if lengths != [length] * batch:
                    raise ShapeError(
                        f"padding_mask has rows of {shown(lengths)} for token_ids "
                        f"[{batch}, {length}]"
                    )
                pad = [0] * (cache.capacity - length)
                mask = self.as_uint32([row + pad for row in rows])
            ids_there, start = self.as_uint32(ids), self.as_uint32([0] * batch)
            *_, x = islice(self.half_blocks(ids_there, cache, start, mask, intercept), halves)
            return scope.escape(x)

    def blocks(
        self, ids: Tensor, cache: KVCache, start: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Return the residual stream after the last block for ``ids`` [B, T] from ``start[b]`` on.

        Keys and values are written to ``cache``; positions before ``start`` are read from it.
        → [B, T, D padded to 8], before the final norm.
        """
        *_, x = self.half_blocks(ids, cache, start, mask)
        return x

    def half_blocks(
        self,
        ids: Tensor,
        cache: KVCache,
        start: Tensor,
        mask: Tensor | None = None,
        intercept: Intercept | None = None,
    ) -> Iterator[Tensor]:
        """Yield the residual stream after each attention and each MLP; see :meth:`blocks`.

        Each tensor is disposed when the next one is requested. ``intercept``: replaces the stream
        [B, T, D] after the embedding (index -1) and after each block (0, 1, ...); it may keep the
        tensors that it gets, which live as long as the caller's scope. Hooks: see hooks.py.
        """
        if (hooked := self._hooked()) is not None:
            changed = None if intercept is None else partial(self._intercepted, intercept)
            yield from hooked.half_blocks(ids, cache, start, mask, changed)
            return
        record = run_half if intercept is not None else self._recorder(cache)
        x = nn.embed(ids, start, self.weights.wte, self.weights.wpe)  # (B, T, D)
        if intercept is not None:
            x = self._intercepted(intercept, x, -1)
        for layer in range(self.config.n_layer):
            attention = partial(self._attention, layer, x, cache, start, mask)
            previous, x = x, record(layer, 0, x, attention)
            if intercept is None:
                previous.dispose()
            yield x
            previous, x = x, record(layer, 1, x, partial(self._mlp, layer, x))
            previous.dispose()
            if intercept is not None:
                x = self._intercepted(intercept, x, layer)
            yield x

    def _hooked(self) -> HookedBlocks | None:
        """Return the computation with the hooks of the running call, if it has any."""
        hooks = hooks_of(self)
        return None if hooks is None else HookedBlocks(self, hooks)

    def _recorder(self, cache: KVCache) -> RunHalf:
        """Return the function by which a half block is run, or recorded: see `RepeatedLayers`."""
        own = all(
            getattr(getattr(self, name), "__func__", None) is function
            for name, function in _HALF_BLOCK_METHODS.items()
        )
        scales = [self.attention_scale(layer) for layer in range(self.config.n_layer)]
        return recorder(self.device, self.weights.blocks, cache, scales) if own else run_half

    def _intercepted(self, intercept: Intercept, x: Tensor, index: int) -> Tensor:
        """Return ``intercept(x without padding, index)`` with padding."""
        width = self.config.n_embd
        given = ops.slice(x, (0, 0, 0), (*x.shape[:2], width)) if x.shape[-1] != width else x
        result = intercept(given, index)
        if not isinstance(result, Tensor) or result.shape != given.shape:
            raise ShapeError(
                f"layer_intercept_fn must return a Tensor of shape {given.shape}, "
                f"not {shown(result)}"
            )
        if result.shape == x.shape:
            return result
        padding = ops.slice(x, (0, 0, width), (*x.shape[:2], x.shape[-1] - width))
        return ops.concat([result, padding], -1)

    def _attention(
        self, layer: int, x: Tensor, cache: KVCache, start: Tensor, mask: Tensor | None
    ) -> Tensor:
        block = self.weights.blocks[layer]
        return nn.attend(
            x, block.c_attn, block.attn_c_proj, cache, layer, start, residual=x, mask=mask,
            norm=self._norm(block.ln_1, block.c_attn.folded), scale=self.attention_scale(layer),
        )  # fmt: skip

    def _mlp(self, layer: int, x: Tensor) -> Tensor:
        block = self.weights.blocks[layer]
        return nn.feed_forward(
            x, block.c_fc, block.mlp_c_proj, residual=x,
            norm=self._norm(block.ln_2, block.c_fc.folded), activation=self.config.activation_kind,
        )  # fmt: skip

    def head(self, x: Tensor, state: nn.SamplingState) -> Tensor:
        """Return logits [B, V] of the residual stream ``x`` [B, 1, D], for ``nn.sample``."""
        weights = self.weights
        norm = self._norm(weights.ln_f, weights.head_folded)
        if (replaced := self._replaced_final_norm(x)) is not None:
            with tidy() as scope:
                return scope.escape(nn.project_logits(replaced, weights.lm_head, state))
        return nn.project_logits(x, weights.lm_head, state, norm=norm)

    def logits(self, x: Tensor) -> Tensor:
        """Return logits [..., V] of the residual stream ``x`` [..., D] after the last block."""
        weights = self.weights
        with tidy() as scope:
            if (replaced := self._replaced_final_norm(x)) is not None:
                return scope.escape(nn.linear(replaced, weights.lm_head))
            if nn.rounds_activations(self.device, weights.lm_head):
                # Fold the norm as in the head, so that the same values are rounded.
                norm = self._norm(weights.ln_f, weights.head_folded)
                return scope.escape(nn.linear(x, weights.lm_head, norm=norm))
            with applied(()):  # they have been called
                return scope.escape(nn.linear(self.final_norm(x), weights.lm_head))

    def _replaced_final_norm(self, x: Tensor) -> Tensor | None:
        """Return the final norm of ``x`` if a hook replaces it, else None."""
        hooked = self._hooked()
        return None if hooked is None else hooked.final_norm(x)

    def _norm(self, norm: nn.LayerNorm, folded: Tensor | None) -> nn.Norm:
        """Return a LayerNorm as an argument of the next linear layer."""
        config = self.config
        assert folded is not None
        return nn.Norm(norm.weight, norm.bias, folded, config.n_embd, config.layer_norm_epsilon)

    def logits_and_hidden(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return :meth:`logits` and :meth:`final_norm` of ``x``; hooks are called once."""
        if (replaced := self._replaced_final_norm(x)) is not None:
            return nn.linear(replaced, self.weights.lm_head), replaced
        with applied(()):
            return self.logits(x), self.final_norm(x)

    def final_norm(self, x: Tensor) -> Tensor:
        """Hidden states: ``ln_f`` of the residual stream."""
        if (replaced := self._replaced_final_norm(x)) is not None:
            return replaced
        ln_f, config = self.weights.ln_f, self.config
        return ops.layer_norm(
            x, ln_f.weight, ln_f.bias, config.layer_norm_epsilon, columns=config.n_embd
        )

    # --- around it ------------------------------------------------------------------------------

    def new_cache(self, batch_size: int, length: int) -> KVCache:
        """Create a cache for ``batch_size`` rows of up to ``length`` positions."""
        config = self.config
        self.check_usable()
        if length > config.n_positions:
            raise ContextLengthError(
                f"{length} positions exceed the model's context of {config.n_positions}"
            )
        return KVCache(
            self.device, batch_size, config.n_layer, length, config.n_head, config.head_dim,
            self.cache_dtype,
        )  # fmt: skip

    def as_uint32(self, values: Any) -> Tensor:
        """Integers as a uint32 tensor on this device."""
        return tensor(values, "uint32", device=self.device)

    def unpad(self, hidden: Tensor) -> Tensor:
        """Return hidden states without the padding of their last axis; disposes the input."""
        if hidden.shape[-1] == self.config.n_embd:
            return hidden
        result = ops.slice(hidden, (0,) * hidden.ndim, (*hidden.shape[:-1], self.config.n_embd))
        hidden.dispose()
        return result


# The library's own, also if the class gets others: only these compute equal layers alike.
_HALF_BLOCK_METHODS = {name: vars(GPT2Backbone)[name] for name in ("_attention", "_mlp", "_norm")}
