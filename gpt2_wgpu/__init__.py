"""GPT-2 text generation in WGSL compute shaders, on any GPU that wgpu supports.

>>> import gpt2_wgpu as gw
>>> lm = gw.GPT2CausalLM.from_preset("fairytales")
>>> print(lm.generate("Once upon a time", max_length=100))
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # instead of typing's: importing it would delay the handling of Ctrl-C
if TYPE_CHECKING:
    from gpt2_wgpu import diagnostics, errors, layers, models, nn, samplers, tensors, webgpu
    from gpt2_wgpu._version import __version__ as __version__
    from gpt2_wgpu.diagnostics import (
        Profile,
        leaks,
        memory,
        profile,
        profile_async,
        set_memory_budget,
        set_memory_debug,
        trim,
    )
    from gpt2_wgpu.models import (
        ActivationCache,
        BatchRow,
        BatchStats,
        BatchStream,
        Cancellation,
        CausalLM,
        ContinuousBatch,
        Divergence,
        GenerationDetails,
        GenerativeTask,
        GPT2Backbone,
        GPT2CausalLM,
        GPT2Config,
        RunPart,
        SavedRun,
        Session,
        StreamStats,
        TextStream,
        TokenDetails,
        convert,
        convert_async,
        generate_batches,
        generate_batches_async,
        inspect,
        self_check,
        self_check_async,
    )
    from gpt2_wgpu.tensors import Tensor, dispose, end_scope, keep, ops, start_scope, tensor, tidy
    from gpt2_wgpu.text import (
        BytePairTokenizer,
        GPT2CausalLMPreprocessor,
        GPT2Preprocessor,
        GPT2Tokenizer,
        StartEndPacker,
    )
    from gpt2_wgpu.webgpu import Device, MemoryInfo, adapters, default_device, set_default_device
    from gpt2_wgpu.weights.presets import presets

__all__ = [
    "ActivationCache",
    "BatchRow",
    "BatchStats",
    "BatchStream",
    "BytePairTokenizer",
    "Cancellation",
    "CausalLM",
    "ContinuousBatch",
    "Device",
    "Divergence",
    "GPT2Backbone",
    "GPT2CausalLM",
    "GPT2CausalLMPreprocessor",
    "GPT2Config",
    "GPT2Preprocessor",
    "GPT2Tokenizer",
    "GenerationDetails",
    "GenerativeTask",
    "MemoryInfo",
    "Profile",
    "RunPart",
    "SavedRun",
    "Session",
    "StartEndPacker",
    "StreamStats",
    "Tensor",
    "TextStream",
    "TokenDetails",
    "adapters",
    "convert",
    "convert_async",
    "default_device",
    "diagnostics",
    "dispose",
    "end_scope",
    "errors",
    "generate_batches",
    "generate_batches_async",
    "inspect",
    "keep",
    "layers",
    "leaks",
    "memory",
    "models",
    "nn",
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
    "tensors",
    "tidy",
    "trim",
    "webgpu",
]

# Submodules are imported when a name is first used, so that `gpt2-wgpu --help` loads none of them.
# Type checkers read the imports above; at run time names are searched in _HOMES, in this order.
_MODULES = ("diagnostics", "errors", "layers", "models", "nn", "samplers", "tensors", "webgpu")
_HOMES = ("webgpu", "tensors", "diagnostics", "text", "models", "weights.presets")


def _load(name: str) -> object:
    """Import and cache the public object `name`: a submodule or an attribute of one."""
    if name == "__version__":
        globals()[name] = version = import_module(f"{__name__}._version").__version__
        return version
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    homes = (import_module(f"{__name__}.{home}") for home in _HOMES)
    found: object = next(getattr(home, name) for home in homes if name in home.__all__)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if not TYPE_CHECKING:  # else a type checker would accept any name
    __getattr__ = _load
