"""What a user asks of a device's memory: how much, by what, how much at most."""

from __future__ import annotations

from dataclasses import dataclass

from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.shown import shown
from gpt2_wgpu.tensors.scopes import current_scope
from gpt2_wgpu.webgpu.defaults import current_device, default_device
from gpt2_wgpu.webgpu.device import Device
from gpt2_wgpu.webgpu.storage import MemoryInfo


@dataclass(frozen=True)
class LiveTensor:
    """A tensor that is alive; ``created`` is where it was made, in debug mode."""

    shape: tuple[int, ...]
    dtype: str
    label: str
    kept: bool
    scope: str | None
    created: str


def memory(device: Device | None = None) -> MemoryInfo:
    """What is allocated on ``device`` (default: the default one, which is not opened for it)."""
    device = device or current_device()
    scope = current_scope()
    depth = 0 if scope is None else scope.depth()
    return MemoryInfo(num_scopes=depth) if device is None else device.memory.info(depth)


def leaks(device: Device | None = None) -> list[LiveTensor]:
    """The tensors that are alive, oldest first: after disposing everything, what leaked."""
    device = device or current_device()
    if device is None:
        return []
    with device.memory.lock:
        alive = [tensor for ref in device.memory.owners.values() if (tensor := ref()) is not None]
    return [
        LiveTensor(t.shape, t.dtype, t.label, t.kept, t.scope.name if t.scope else None, t.created)
        for t in alive
    ]


def set_memory_debug(enabled: bool = True, device: Device | None = None) -> None:
    """Remember where each new tensor is made, and warn of tensors that nobody disposed.

    Errors and :func:`leaks` then name the place; a tensor freed by the garbage collector gives a
    ``ResourceWarning``. Costs some ten microseconds a tensor.
    """
    (device or default_device()).memory.debug = enabled


def set_memory_budget(nbytes: int, device: Device | None = None) -> None:
    """Let at most ``nbytes`` be live; beyond, allocations raise ``OutOfGPUMemoryError``.

    What is live already stays. Raises ``InvalidArgumentError`` unless ``nbytes`` is positive.
    """
    if isinstance(nbytes, bool) or not isinstance(nbytes, int) or nbytes < 1:
        raise InvalidArgumentError(
            f"the budget must be a positive number of bytes, not {shown(nbytes)}"
        )
    manager = (device or default_device()).memory
    manager.budget = nbytes
    manager.trim(max(0, nbytes - manager.info().num_bytes_in_gpu))


def trim(device: Device | None = None) -> None:
    """Give pooled buffers back to the driver."""
    device = device or current_device()
    if device is not None:
        device.memory.trim()
