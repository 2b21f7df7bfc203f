"""Waiting for the GPU, written once.

Everything that may wait is an ``async def`` that waits through :func:`wait`. The synchronous API
is a façade: :func:`sync` runs such a coroutine to its end by letting every ``wait`` inside it
block, so no event loop is needed and none is disturbed.
"""

from __future__ import annotations

import sys
from collections.abc import Coroutine
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar

from gpt2_wgpu.errors import SyncUnavailableError

T = TypeVar("T")
_blocking: ContextVar[bool] = ContextVar("gpt2_wgpu_blocking", default=False)


class Promise(Protocol):
    """What wgpu-py's asynchronous methods return (``wgpu.GPUPromise``)."""

    def sync_wait(self) -> Any: ...
    def __await__(self) -> Any: ...


async def wait(promise: Promise) -> Any:
    """The result of a wgpu promise: blocks under :func:`sync`, suspends under an event loop."""
    return promise.sync_wait() if _blocking.get() else await promise


def settle(gpu: Any) -> None:
    """Resolve every promise of a ``wgpu.GPUDevice`` that is about to be destroyed.

    wgpu-py's ``destroy`` stops the thread that resolves them: a task that awaits one would wait
    for ever (0.32; ``GPUDevice.destroy`` in its native backend). Browsers reject them themselves.
    """
    poll = getattr(gpu, "_poll_wait", None)
    if poll is not None:
        poll()


def sync(coroutine: Coroutine[Any, Any, T], twin: str) -> T:
    """Run ``coroutine`` to its end, blocking; ``twin`` names the asynchronous form for errors.

    Raises ``SyncUnavailableError`` in a browser without stack switching, and when the coroutine
    waits for something that is not the GPU.
    """
    if sys.platform == "emscripten":
        return _sync_in_browser(coroutine, twin)
    token = _blocking.set(True)
    try:
        coroutine.send(None)
    except StopIteration as finished:
        result: T = finished.value
        return result
    finally:
        _blocking.reset(token)
        coroutine.close()
    raise SyncUnavailableError(f"this call waits for more than the GPU: use `await {twin}`")


def _sync_in_browser(coroutine: Coroutine[Any, Any, T], twin: str) -> T:
    from pyodide.ffi import can_run_sync, run_sync

    if not can_run_sync():
        coroutine.close()
        raise SyncUnavailableError(f"nothing can block here (no stack switching): `await {twin}`")
    result: T = run_sync(coroutine)
    return result
