"""TransformerLens' bridge of the embedded model: logits, residual stream, each hook point."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import torch
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoTokenizer, GPT2LMHeadModel

from gpt2_wgpu.models.hook_points import point_names
from tests.parity import cases


@torch.inference_mode()
def values() -> dict[str, Any]:
    """What TransformerLens sees for each case."""
    model = GPT2LMHeadModel.from_pretrained(cases.MODEL, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(cases.MODEL)
    bridge = TransformerBridge.boot_transformers(
        str(cases.MODEL), hf_model=model, tokenizer=tokenizer
    )
    bridge.set_use_attn_result(True)
    logits, cache = bridge.run_with_cache(torch.tensor(cases.IDS))
    layers = model.config.n_layer
    halves = [
        cache[f"blocks.{layer}.hook_resid_{place}"][:, -1, ::4]
        for layer in range(layers)
        for place in ("mid", "post")
    ]
    return {
        "version": version("transformer-lens"),
        "logits": logits[:, -1, :: cases.EVERY].numpy(),
        "points": {name: cases.sampled(cache[name].numpy()) for name in point_names(layers)},
        "residual": torch.stack(halves).numpy(),  # [2 L, B, D / 4] of the last position
    }
