"""A model whose device is lost: the device is replaced, the weights are loaded again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from gpt2_wgpu.errors import DeviceLostError, DisposedTensorError
from gpt2_wgpu.tensors import dispose
from gpt2_wgpu.webgpu import Device, sync

if TYPE_CHECKING:
    from gpt2_wgpu.models.gpt2_backbone import GPT2Backbone

SECONDS_BETWEEN_LOSSES = 30  # a device lost again sooner is not replaced
T = TypeVar("T")


async def recover(backbone: GPT2Backbone, lost: Device) -> None:
    """Load the weights of ``backbone`` again, on a new device in place of ``lost``.

    Does nothing if another task or thread has done so already. When loading fails, everything is
    as before, and the next call tries again. Raises ``DeviceLostError`` when the last time is less
    than 30 seconds ago or the device was not lost but closed, ``DisposedTensorError`` for a
    disposed model, and what loading raises.
    """
    if backbone.device is not lost:
        return
    if backbone.disposed:
        raise DisposedTensorError("this model was disposed: load it again")
    if lost.is_closed:
        raise DeviceLostError(
            f"device {lost.info.name} was closed: open a new Device and load the model again"
        )
    if time.monotonic() - backbone.recovered_at < SECONDS_BETWEEN_LOSSES:
        raise DeviceLostError(
            f"the GPU ({lost.info.name}) was lost twice within {SECONDS_BETWEEN_LOSSES} seconds: "
            "its driver may be failing or out of memory. Wait a moment, then generate again"
        )
    latest = lost.successor  # another model may have replaced it
    device = latest if latest.is_open else await latest.reopened()
    try:
        weights = await backbone.load(device)
    except BaseException:
        if device is not latest:
            device.close()
        raise
    if backbone.device is not lost or backbone.disposed:  # another caller was faster
        dispose(weights)
        if device is not latest:
            device.close()
        return
    if device is not latest:
        latest.replacement = device
    old, backbone.weights, backbone.device = backbone.weights, weights, device
    backbone.recovered_at = time.monotonic()
    dispose(old)


def with_recovery(backbone: GPT2Backbone, compute: Callable[[], T]) -> T:
    """``compute()``, once more after recovering when the device turns out to be lost. Blocks."""
    device = backbone.device
    try:
        return compute()
    except DeviceLostError:
        sync(recover(backbone, device), "models.recovery.recover(...)")
        return compute()
