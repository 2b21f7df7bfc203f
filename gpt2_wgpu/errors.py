"""Every error this package raises on purpose.

One small hierarchy: catch ``GPT2WGPUError`` for all of them, or the builtin that each class also
is (``ValueError`` for bad input, ``RuntimeError`` for the device, ...). A message says what
happened, with which value, and what to do about it.
"""

from __future__ import annotations


class GPT2WGPUError(Exception):
    """Base class of every error raised by gpt2_wgpu."""


# --- the caller's input -------------------------------------------------------------------------


class InvalidArgumentError(GPT2WGPUError, ValueError):
    """An argument is outside its documented range or of the wrong kind."""


class ShapeError(InvalidArgumentError):
    """Tensor shapes do not fit together; the message names every shape involved."""


class TokenizerError(InvalidArgumentError):
    """A vocabulary or merge list is inconsistent, or a token does not exist in it."""


class ContextLengthError(InvalidArgumentError):
    """A prompt does not fit into the model's context (or into ``max_length``)."""


# --- checkpoints --------------------------------------------------------------------------------


class ConfigError(GPT2WGPUError, ValueError):
    """A model configuration is malformed or asks for something that is not supported."""


class WeightsError(GPT2WGPUError, ValueError):
    """A weight file is malformed, incomplete or does not belong to the configuration."""


class PresetError(GPT2WGPUError, ValueError):
    """A model name is neither a preset, a directory nor a hub id that can be fetched."""


# --- the device ---------------------------------------------------------------------------------


class DeviceError(GPT2WGPUError, RuntimeError):
    """The GPU device refused or failed an operation."""


class NoAdapterError(DeviceError):
    """No GPU adapter was found; the message says how to get one on this system."""


class DependencyError(DeviceError, ImportError):
    """wgpu is missing, of another release or broken; the message says what to install."""


class ShaderError(DeviceError):
    """A WGSL kernel does not compile, or was called with the wrong bindings or parameters."""


class LimitError(DeviceError):
    """The work needs more than the device's limits allow (binding size, workgroup size, ...)."""


class OutOfGPUMemoryError(DeviceError, MemoryError):
    """A buffer could not be allocated."""


class DeviceLostError(DeviceError):
    """The device is gone (driver reset, sleep, ``destroy``); its tensors are unusable."""


class SyncUnavailableError(DeviceError):
    """A blocking call was made where nothing can block; the message names the async twin."""


class BusyError(GPT2WGPUError, RuntimeError):
    """An object that serves one caller at a time is asked by a second one."""


class NumericalError(GPT2WGPUError, ArithmeticError):
    """The model produced NaN or infinity; the message names the position."""


class BenchmarkError(GPT2WGPUError, RuntimeError):
    """What was to be timed computes something else than the reference: it has no speed."""


# --- tensors and scopes -------------------------------------------------------------------------


class DisposedTensorError(GPT2WGPUError, RuntimeError):
    """A tensor was used after it had been disposed."""


class CopyError(GPT2WGPUError, TypeError):
    """Something that belongs to a GPU device was to be pickled, or copied where it cannot be."""


class ScopeError(GPT2WGPUError, RuntimeError):
    """Memory scopes were opened and closed out of order."""
