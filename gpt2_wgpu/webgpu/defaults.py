"""Default device: the one that computes where none is named."""

from __future__ import annotations

import threading

from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.shown import shown
from gpt2_wgpu.webgpu.device import Device, entered_device
from gpt2_wgpu.webgpu.fork import after_fork

_fallback: Device | None = None  # outside every ``with Device()``
_opening = threading.Lock()


@after_fork
def _renew_lock() -> None:
    global _opening
    _opening = threading.Lock()


def default_device() -> Device:
    """Return the innermost ``with Device()``, else that of ``set_default_device``, else a new one.

    Raises:
        NoAdapterError: no adapter was found.
    """
    global _fallback
    with _opening:
        device = current_device()
        if device is None or not device.is_open:
            device = _fallback = Device()
        return device


async def default_device_async() -> Device:
    """Async counterpart of :func:`default_device`."""
    global _fallback
    device = current_device()
    if device is None or not device.is_open:
        device = await Device.create()
        _fallback = device
    return device


def set_default_device(device: Device | None) -> None:
    """Set the default device; None: open one on next use.

    Raises:
        InvalidArgumentError: ``device`` is not a ``Device``.
    """
    global _fallback
    _fallback = checked_device(device)


def checked_device(device: Device | None) -> Device | None:
    """Return ``device``, which a caller named; InvalidArgumentError unless a ``Device`` or None."""
    if device is not None and not isinstance(device, Device):
        raise InvalidArgumentError(f"device must be a gpt2_wgpu.Device, not {shown(device)}")
    return device


def current_device() -> Device | None:
    """Return the default device if it is open, else None."""
    device = entered_device.get() or _fallback
    return None if device is None else device.successor
