"""GPT-2 text generation in WGSL compute shaders, on any GPU that wgpu reaches.

>>> import gpt2_wgpu as gw
>>> lm = gw.GPT2CausalLM.from_preset("fairytales")
>>> print(lm.generate("Once upon a time", max_length=100))
"""

from __future__ import annotations

from gpt2_wgpu import errors, gpu, models, samplers
from gpt2_wgpu.gpu import (
    Device,
    MemoryInfo,
    Profile,
    Tensor,
    default_device,
    dispose,
    end_scope,
    keep,
    leaks,
    memory,
    ops,
    profile,
    profile_async,
    set_default_device,
    set_memory_budget,
    set_memory_debug,
    start_scope,
    tensor,
    tidy,
    trim,
)
from gpt2_wgpu.models import (
    CausalLM,
    GenerativeTask,
    GPT2Backbone,
    GPT2CausalLM,
    GPT2Config,
    StreamStats,
    TextStream,
)
from gpt2_wgpu.models.presets import presets
from gpt2_wgpu.text import (
    BytePairTokenizer,
    GPT2CausalLMPreprocessor,
    GPT2Tokenizer,
    StartEndPacker,
)

__all__ = [
    "BytePairTokenizer",
    "CausalLM",
    "Device",
    "GPT2Backbone",
    "GPT2CausalLM",
    "GPT2CausalLMPreprocessor",
    "GPT2Config",
    "GPT2Tokenizer",
    "GenerativeTask",
    "MemoryInfo",
    "Profile",
    "StartEndPacker",
    "StreamStats",
    "Tensor",
    "TextStream",
    "default_device",
    "dispose",
    "end_scope",
    "errors",
    "gpu",
    "keep",
    "leaks",
    "memory",
    "models",
    "ops",
    "presets",
    "profile",
    "profile_async",
    "samplers",
    "set_default_device",
    "set_memory_budget",
    "set_memory_debug",
    "start_scope",
    "tensor",
    "tidy",
    "trim",
]
