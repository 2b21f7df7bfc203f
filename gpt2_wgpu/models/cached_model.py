"""Protocol of a model for decoding."""

from __future__ import annotations

from typing import Any, Protocol

from gpt2_wgpu.models.gpt2_backbone import GPT2Backbone
from gpt2_wgpu.models.kept_runs import KeptRuns
from gpt2_wgpu.models.prefill import Prefill
from gpt2_wgpu.nn import KVCache, SamplingState
from gpt2_wgpu.tensors import Tensor


class CachedModel(Protocol):
    """A model that computes with a KV cache; see ``GPT2CausalLM``."""

    backbone: GPT2Backbone
    kept_runs: KeptRuns

    def call_with_cache(
        self,
        token_ids: Any,
        cache: KVCache,
        cache_update_index: Any,
        *,
        sampling: SamplingState | None = None,
    ) -> tuple[Tensor, Tensor | None, KVCache]:
        """See ``GPT2CausalLM.call_with_cache``."""

    async def build_cache_async(
        self,
        token_ids: Any,
        *,
        prefill: Prefill | None = None,
        hidden: list[Tensor] | None = None,
    ) -> tuple[Tensor | None, KVCache]:
        """See ``GPT2CausalLM.build_cache_async``."""
