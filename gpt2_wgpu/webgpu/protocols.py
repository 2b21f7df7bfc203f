"""Protocols of a device for its parts, which can so be tested without a GPU."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from gpt2_wgpu.webgpu.buffer_pool import BufferPool
from gpt2_wgpu.webgpu.capabilities import AdapterInfo

Copy = tuple[Any, int, Any, int, int]  # from buffer, offset, to buffer, offset, bytes


class OpenGPU(Protocol):
    """An open GPU device, as pipelines and the queue use it."""

    gpu: Any  # wgpu.GPUDevice; another object once the device is closed
    info: AdapterInfo

    def translated_errors(
        self, doing: str = ..., nbytes: int = ...
    ) -> AbstractContextManager[None]:
        """Translate wgpu's errors to those of this package."""
        ...


class Submitter(Protocol):
    """A command queue, as a readback uses it."""

    def flush(self, copies: Iterable[Copy] = ...) -> None:
        """Submit pending work, then ``copies``."""
        ...


class ReadableGPU(OpenGPU, Protocol):
    """A device, as a readback uses it."""

    is_open: bool
    is_closed: bool
    memory: BufferPool

    @property
    def queue(self) -> Submitter:
        """The queue that submits the copies."""
        ...
