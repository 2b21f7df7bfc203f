"""Recovery from device loss: a new device, and reloaded weights."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from gpt2_wgpu.errors import DeviceLostError, DisposedTensorError
from gpt2_wgpu.tensors import dispose
from gpt2_wgpu.webgpu import Device, sync

SECONDS_BETWEEN_LOSSES = 30  # a device lost again sooner is not replaced
T = TypeVar("T")
W = TypeVar("W")


class Recoverable(Protocol[W]):
    """Protocol of a model whose weights can be reloaded."""

    device: Device
    weights: W
    disposed: bool
    recovered_at: float  # time.monotonic() of the last recovery

    async def load(self, device: Device) -> W:
        """Load the weights onto ``device``."""
        ...


async def recover(model: Recoverable[W], lost: Device) -> None:
    """Reload the weights of ``model`` on a new device that replaces ``lost``.

    Does nothing if another task or thread has done so. If loading fails, nothing changes, and the
    next call tries again.

    Raises:
        DeviceLostError: the last recovery was less than 30 seconds ago, or the device was closed.
        DisposedTensorError: the model is disposed.
        GPT2WGPUError: loading failed.
    """
    if model.device is not lost:
        return
    if model.disposed:
        raise DisposedTensorError("this model was disposed: load it again")
    if lost.is_closed:
        raise DeviceLostError(
            f"device {lost.info.name} was closed: open a new Device and load the model again"
        )
    if time.monotonic() - model.recovered_at < SECONDS_BETWEEN_LOSSES:
        raise DeviceLostError(
            f"the GPU ({lost.info.name}) was lost twice within {SECONDS_BETWEEN_LOSSES} seconds: "
            "its driver may be failing or out of memory. Wait a moment, then generate again"
        )
    latest = lost.successor  # another model may have replaced the device
    device = latest if latest.is_open else await latest.reopened()
    try:
        weights = await model.load(device)
    except BaseException:
        if device is not latest:
            device.close()
        raise
    if model.device is not lost or model.disposed:  # another caller was faster
        dispose(weights)
        if device is not latest:
            device.close()
        return
    if device is not latest:
        latest.replacement = device
    old, model.weights, model.device = model.weights, weights, device
    model.recovered_at = time.monotonic()
    dispose(old)


def with_recovery(model: Recoverable[W], compute: Callable[[], T]) -> T:
    """Return ``compute()``, repeated once after recovery from device loss; blocks."""
    device = model.device
    try:
        return compute()
    except DeviceLostError:
        sync(recover(model, device), "models.recovery.recover(...)")
        return compute()
