"""Exceptions of this package.

Every class derives from ``GPT2WGPUError`` and from a builtin (``ValueError`` for bad input,
``RuntimeError`` for the device, ...). Messages state the problem, the value and the remedy.
"""

from __future__ import annotations


class GPT2WGPUError(Exception):
    """Base class of every error raised by gpt2_wgpu."""


# --- the caller's input -------------------------------------------------------------------------


class InvalidArgumentError(GPT2WGPUError, ValueError):
    """An argument is out of its documented range or of the wrong type."""


class ShapeError(InvalidArgumentError):
    """Tensor shapes are incompatible; the message has every shape involved."""


class TokenizerError(InvalidArgumentError):
    """A vocabulary or list of merges is inconsistent, or a token is not in the vocabulary."""


class ContextLengthError(InvalidArgumentError):
    """A prompt does not fit into the model's context (or into ``max_length``)."""

    def __init__(self, message: str, how_to_fit_more: str = "") -> None:
        super().__init__(message + how_to_fit_more)
        self.message = message  # the part that is true of any caller


# --- checkpoints --------------------------------------------------------------------------------


class ConfigError(GPT2WGPUError, ValueError):
    """A model configuration is malformed or unsupported."""


class WeightsError(GPT2WGPUError, ValueError):
    """A weight file is malformed, incomplete or inconsistent with the configuration."""


class SessionError(GPT2WGPUError, ValueError):
    """A saved session is damaged, cannot be read or written, or belongs to another model."""


class PresetError(GPT2WGPUError, ValueError):
    """A model name is not a preset, a directory or an available hub id."""


# --- the device ---------------------------------------------------------------------------------


class DeviceError(GPT2WGPUError, RuntimeError):
    """The GPU device rejected or failed an operation."""


class NoAdapterError(DeviceError):
    """No GPU adapter was found; the message says what to install."""


class DependencyError(DeviceError, ImportError):
    """A package is missing, of another release or broken; the message says what to install."""


class NotRecordableError(DeviceError):
    """Values were read while commands were recorded, which have not run yet."""


class ShaderError(DeviceError):
    """A WGSL kernel does not compile, or was called with the wrong bindings or parameters."""


class LimitError(DeviceError):
    """An operation exceeds a limit of the device (binding size, workgroup size, ...)."""


class OutOfGPUMemoryError(DeviceError, MemoryError):
    """A buffer could not be allocated."""


class DeviceLostError(DeviceError):
    """The device was lost (driver reset, sleep, ``destroy``); its tensors are unusable."""


class SyncUnavailableError(DeviceError):
    """A blocking call in a context that cannot block; the message names the async counterpart."""


class BusyError(GPT2WGPUError, RuntimeError):
    """An object that serves one caller at a time is already in use."""


class NumericalError(GPT2WGPUError, ArithmeticError):
    """The model produced NaN or infinity; the message has the position."""


class BenchmarkError(GPT2WGPUError, RuntimeError):
    """The outputs of a benchmarked configuration differ from the reference."""


# --- tensors and scopes -------------------------------------------------------------------------


class DisposedTensorError(GPT2WGPUError, RuntimeError):
    """A tensor was used after it had been disposed."""


class CopyError(GPT2WGPUError, TypeError):
    """An object of a GPU device cannot be pickled or copied."""


class ScopeError(GPT2WGPUError, RuntimeError):
    """Memory scopes were closed out of order."""
