"""GPT-2 text generation in WGSL compute shaders, on any GPU that wgpu reaches.

>>> import gpt2_wgpu as gw
>>> lm = gw.GPT2CausalLM.from_preset("fairytales")
>>> print(lm.generate("Once upon a time", max_length=100))
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # typing's own would have to be imported, before Ctrl-C can be answered
if TYPE_CHECKING:
    from gpt2_wgpu import errors, gpu, models, samplers
    from gpt2_wgpu.gpu import (
        Device,
        MemoryInfo,
        Profile,
        Tensor,
        adapters,
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
        Divergence,
        GenerativeTask,
        GPT2Backbone,
        GPT2CausalLM,
        GPT2Config,
        StreamStats,
        TextStream,
        convert,
        convert_async,
        self_check,
        self_check_async,
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
    "Divergence",
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
    "adapters",
    "convert",
    "convert_async",
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
    "self_check",
    "self_check_async",
    "set_default_device",
    "set_memory_budget",
    "set_memory_debug",
    "start_scope",
    "tensor",
    "tidy",
    "trim",
]

# Rooms are loaded when a name is asked for: `gpt2-wgpu --help` needs none of them. Type checkers
# see the imports above; at run time a name is looked for in these, in this order.
_HOMES = ("gpu", "text", "models", "models.presets")


def _load(name: str) -> object:
    """The public object `name`: a room, or what a room gives under that name; kept from then on."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in ("errors", "gpu", "models", "samplers"):
        return import_module(f"{__name__}.{name}")
    homes = (import_module(f"{__name__}.{home}") for home in _HOMES)
    found: object = next(getattr(home, name) for home in homes if name in home.__all__)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if not TYPE_CHECKING:  # or a type checker would take any name for a public one
    __getattr__ = _load
