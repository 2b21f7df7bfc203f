"""Recovery from device loss: a new device, and the weights loaded onto it again."""

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
    """A model that can load its weights again; the rest is what recovery reads and writes."""

    device: Device
    weights: W
    disposed: bool
    recovered_at: float  # time.monotonic() of the last recovery

    async def load(self, device: Device) -> W:
        """The weights, on ``device``."""
        ...


async def recover(model: Recoverable[W], lost: Device) -> None:
    """Load the weights of ``model`` again, on a new device in place of ``lost``.

    Does nothing if another task or thread has done so already. When loading fails, everything is
    as before, and the next call tries again. Raises ``DeviceLostError`` when the last time is less
    than 30 seconds ago or the device was not lost but closed, ``DisposedTensorError`` for a
    disposed model, and what loading raises.
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
    latest = lost.successor  # another model may have replaced it
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
    """``compute()``, once more after recovering when the device turns out to be lost. Blocks."""
    device = model.device
    try:
        return compute()
    except DeviceLostError:
        sync(recover(model, device), "models.recovery.recover(...)")
        return compute()
