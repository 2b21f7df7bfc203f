"""Synchronous and asynchronous waiting for the GPU.

Functions that may wait are coroutines that wait through :func:`wait`. The synchronous API calls
:func:`sync`, which runs such a coroutine to its end; every ``wait`` in it blocks. No event loop is
needed or affected.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

from gpt2_wgpu.errors import SyncUnavailableError

T = TypeVar("T")
# CPU seconds of this thread; wall-clock seconds on platforms without that clock.
processor_time = getattr(time, "thread_time", time.perf_counter)
_KNOWN_LOOPS = {"asyncio", "pyodide", "rendercanvas", "trio"}  # to wgpu-py
_blocking: ContextVar[bool] = ContextVar("gpt2_wgpu_blocking", default=False)
_watch: ContextVar[Waited | None] = ContextVar("gpt2_wgpu_watch", default=None)


class Promise(Protocol):
    """Protocol of ``wgpu.GPUPromise``, returned by wgpu-py's asynchronous methods."""

    def sync_wait(self) -> Any:
        """Block until the result is available."""

    def __await__(self) -> Any: ...


async def wait(promise: Promise) -> Any:
    """Return the result of a wgpu promise; blocks in :func:`sync`, suspends in an event loop."""
    if not (blocking := _blocking.get()):
        _use_asyncio(promise)
    watch = _watch.get()
    if watch is None:
        return promise.sync_wait() if blocking else await promise
    begun, busy = time.perf_counter(), processor_time()
    try:
        return promise.sync_wait() if blocking else await promise
    finally:
        watch.seconds += time.perf_counter() - begun
        watch.processor_seconds += processor_time() - busy


def _use_asyncio(promise: Any) -> None:
    """Give a promise an event of asyncio, if the running loop is asyncio's by another package.

    wgpu-py 0.32 takes ``Event`` from the package that defines the loop; uvloop, which Ray Serve and
    ``uvicorn[standard]`` use, has none. Can go when ``wgpu._async.AsyncEvent`` works there.
    """
    hook = sys.get_asyncgen_hooks().firstiter
    package = getattr(hook, "__module__", None) or "asyncio"
    if package.partition(".")[0] in _KNOWN_LOOPS or not hasattr(promise, "_async_event"):
        return
    import asyncio

    with promise._lock:
        if promise._async_event is None:
            promise._async_event = asyncio.Event()
            if promise._state != "pending":
                promise._async_event.set()


@dataclass
class Waited:
    """Total wall-clock and CPU seconds in :func:`wait`."""

    seconds: float = 0.0
    processor_seconds: float = 0.0


@contextmanager
def time_waiting() -> Iterator[Waited]:
    """Measure the waiting of this task or thread, and of tasks it starts, within the block."""
    watch = Waited()
    token = _watch.set(watch)
    try:
        yield watch
    finally:
        _watch.reset(token)


def is_blocking() -> bool:
    """Return whether the running coroutine was called by :func:`sync`, and blocks its thread."""
    return _blocking.get()


def can_submit_ahead() -> bool:
    """Return whether a submit does not block the event loop while other work is running.

    Natively a submit blocks until the other work is done, as wgpu-core takes one lock for both
    (seen with wgpu-native 29). In :func:`sync` the caller waits anyway; an event loop must not, but
    it can encode meanwhile: ``CommandQueue.encode_pending``.
    """
    return sys.platform == "emscripten" or _blocking.get()


def sync(coroutine: Coroutine[Any, Any, T], counterpart: str) -> T:
    """Run ``coroutine`` to its end, blocking.

    ``counterpart`` is the name of the async function, for messages.

    Raises:
        SyncUnavailableError: in a browser without stack switching, or if the coroutine waits for
            anything but the GPU.
    """
    if sys.platform == "emscripten":
        return _sync_in_browser(coroutine, counterpart)
    token = _blocking.set(True)
    try:
        coroutine.send(None)
    except StopIteration as finished:
        result: T = finished.value
        return result
    finally:
        _blocking.reset(token)
        coroutine.close()
    raise SyncUnavailableError(f"this call waits for more than the GPU: use `await {counterpart}`")


def can_sync() -> bool:
    """Return whether :func:`sync` can block here; False in a browser without stack switching."""
    if sys.platform != "emscripten":
        return True
    from pyodide.ffi import can_run_sync

    return bool(can_run_sync())


def _sync_in_browser(coroutine: Coroutine[Any, Any, T], counterpart: str) -> T:
    if not can_sync():
        coroutine.close()
        raise SyncUnavailableError(
            f"this browser cannot block (no stack switching): use `await {counterpart}`"
        )
    return switch_until_done(coroutine)


def switch_until_done(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run ``coroutine`` in a browser by stack switching; return its result or raise its error.

    Pyodide runs it as a task and reports every task that ends in an exception, even if the caller
    handles it (JupyterLite shows it in red). Hence the task returns the exception.
    """
    from pyodide.ffi import run_sync

    result, error = run_sync(_outcome(coroutine))
    if error is None:
        return cast(T, result)
    try:
        raise error
    finally:
        del error  # breaks the reference cycle with this frame


async def _outcome(coroutine: Coroutine[Any, Any, T]) -> tuple[T | None, BaseException | None]:
    try:
        return await coroutine, None
    except BaseException as error:  # including StopAsyncIteration, the end of a stream
        return None, error
