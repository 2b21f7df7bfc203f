"""Function returned by ``make_generate_function``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpt2_wgpu.models.overrides import chosen, settled
from gpt2_wgpu.webgpu import sync


class GenerateFunction:
    """``generate_step`` of ``model``, a ``CausalLM``, as a function on packed ids."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __call__(self, inputs: dict[str, Any], stop_token_ids: Sequence[int] | None = None) -> Any:
        """The result of ``generate_step(inputs, stop_token_ids)``. Blocks."""
        return sync(self.call_async(inputs, stop_token_ids), "call_async(...)")

    async def call_async(
        self, inputs: dict[str, Any], stop_token_ids: Sequence[int] | None = None
    ) -> Any:
        """Async counterpart of a call."""
        return await settled(chosen(self.model, "generate_step")(inputs, stop_token_ids))
