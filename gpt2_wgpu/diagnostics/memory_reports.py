"""Memory reports of a device, the memory budget and the debug mode."""

from __future__ import annotations

from dataclasses import dataclass

from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.shown import shown
from gpt2_wgpu.tensors.scopes import current_scope
from gpt2_wgpu.webgpu.capabilities import default_budget
from gpt2_wgpu.webgpu.defaults import checked_device, current_device, default_device
from gpt2_wgpu.webgpu.device import Device
from gpt2_wgpu.webgpu.storage import MemoryInfo


@dataclass(frozen=True)
class LiveTensor:
    """A live tensor; ``created``: its creation site, in debug mode."""

    shape: tuple[int, ...]
    dtype: str
    label: str
    kept: bool
    scope: str | None
    created: str


def memory(device: Device | None = None) -> MemoryInfo:
    """Report the memory of a device.

    Args:
        device: default: the default device, which is not opened for this.

    Returns:
        A snapshot; all zero without a device.
    """
    device = checked_device(device) or current_device()
    scope = current_scope()
    depth = 0 if scope is None else scope.depth()
    return MemoryInfo(num_scopes=depth) if device is None else device.memory.info(depth)


def leaks(device: Device | None = None) -> list[LiveTensor]:
    """List the live tensors; after everything was disposed, these are leaks.

    Args:
        device: default: the default device.

    Returns:
        The tensors, oldest first.
    """
    device = checked_device(device) or current_device()
    if device is None:
        return []
    with device.memory.lock:
        alive = [tensor for ref in device.memory.owners.values() if (tensor := ref()) is not None]
    return [
        LiveTensor(t.shape, t.dtype, t.label, t.kept, t.scope.name if t.scope else None, t.created)
        for t in alive
    ]


def set_memory_debug(enabled: bool = True, device: Device | None = None) -> None:
    """Record the creation site of tensors, and warn of tensors that were not disposed.

    Errors and :func:`leaks` then show the site; a tensor freed by the garbage collector causes a
    ``ResourceWarning``. Costs about 10 µs per tensor.

    Args:
        enabled: whether to record.
        device: default: the default device.
    """
    (checked_device(device) or default_device()).memory.debug = enabled


def set_memory_budget(nbytes: int | None, device: Device | None = None) -> None:
    """Limit the live bytes; allocations beyond raise ``OutOfGPUMemoryError``.

    Existing tensors are not affected.

    Args:
        nbytes: the limit; None: the adapter's default again.
        device: default: the default device.

    Raises:
        InvalidArgumentError: ``nbytes`` is not a positive integer.
    """
    if nbytes is not None and (
        isinstance(nbytes, bool) or not isinstance(nbytes, int) or nbytes < 1
    ):
        raise InvalidArgumentError(
            f"the budget must be a positive number of bytes, or None, not {shown(nbytes)}"
        )
    device = checked_device(device) or default_device()
    manager = device.memory
    if nbytes is None:
        nbytes = default_budget(device.info)
    manager.budget = nbytes
    manager.trim(max(0, nbytes - manager.info().num_bytes_in_gpu))


def trim(device: Device | None = None) -> None:
    """Destroy pooled buffers, so that the driver can reuse their memory.

    Args:
        device: default: the default device.
    """
    device = checked_device(device) or current_device()
    if device is not None:
        device.memory.trim()
