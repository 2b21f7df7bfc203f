"""Models of the measurement: random weights, made on the GPU, one at a time."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gpt2_wgpu as gw
from benchmarks.gpu.parts import Context
from gpt2_wgpu.bench import RandomModel
from gpt2_wgpu.bench.measured_models import INITIALIZER_RANGE, SEED
from gpt2_wgpu.webgpu import sync


@contextmanager
def opened(
    context: Context, model: RandomModel, dtype: str, cache_dtype: str | None = None
) -> Iterator[gw.GPT2CausalLM]:
    """Create the model, and free it afterwards; ``cache_dtype``: default: the library's."""
    context.say(f"{model.name}, {dtype}")
    config = sync(model.config(), "config")
    chosen: dict[str, Any] = {} if cache_dtype is None else {"cache_dtype": cache_dtype}
    backbone = gw.GPT2Backbone(
        config.vocab_size,
        config.n_layer,
        config.n_head,
        config.n_embd,
        4 * config.n_embd,
        dtype=dtype,
        device=context.device,
        seed=SEED,
        initializer_range=INITIALIZER_RANGE,
        **chosen,
    )
    try:
        with gw.GPT2CausalLM(backbone) as lm:
            yield lm
    finally:
        gc.collect()
        context.device.memory.trim()
