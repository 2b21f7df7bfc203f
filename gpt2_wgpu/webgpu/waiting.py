"""Waiting for the GPU, written once.

Everything that may wait is an ``async def`` that waits through :func:`wait`. The synchronous API
is a façade: :func:`sync` runs such a coroutine to its end by letting every ``wait`` inside it
block, so no event loop is needed and none is disturbed.
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
# Seconds that this thread has been running; where no such clock is, seconds.
processor_time = getattr(time, "thread_time", time.perf_counter)
_blocking: ContextVar[bool] = ContextVar("gpt2_wgpu_blocking", default=False)
_watch: ContextVar[Waited | None] = ContextVar("gpt2_wgpu_watch", default=None)


class Promise(Protocol):
    """What wgpu-py's asynchronous methods return (``wgpu.GPUPromise``)."""

    def sync_wait(self) -> Any: ...
    def __await__(self) -> Any: ...


async def wait(promise: Promise) -> Any:
    """The result of a wgpu promise: blocks under :func:`sync`, suspends under an event loop."""
    watch = _watch.get()
    if watch is None:
        return promise.sync_wait() if _blocking.get() else await promise
    begun, busy = time.perf_counter(), processor_time()
    try:
        return promise.sync_wait() if _blocking.get() else await promise
    finally:
        watch.seconds += time.perf_counter() - begun
        watch.processor_seconds += processor_time() - busy


@dataclass
class Waited:
    """How long :func:`wait` took, summed, and what it used of the processor meanwhile."""

    seconds: float = 0.0
    processor_seconds: float = 0.0


@contextmanager
def time_waiting() -> Iterator[Waited]:
    """Sums what this task or thread, and the tasks it starts, wait inside: the rest is its own."""
    watch = Waited()
    token = _watch.set(watch)
    try:
        yield watch
    finally:
        _watch.reset(token)


def can_submit_ahead() -> bool:
    """Whether work may be submitted while other work is waited for, without harm.

    Natively such a submit blocks until the other work is done: wgpu-core takes one lock for both
    (seen with wgpu-native 29). Under :func:`sync` the caller waits anyway; an event loop must not.
    """
    return sys.platform == "emscripten" or _blocking.get()


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
    from pyodide.ffi import can_run_sync

    if not can_run_sync():
        coroutine.close()
        raise SyncUnavailableError(f"nothing can block here (no stack switching): `await {twin}`")
    return switch_until_done(coroutine)


def switch_until_done(coroutine: Coroutine[Any, Any, T]) -> T:
    """Result of ``coroutine`` in a browser, by stack switching; its exception is raised here.

    Pyodide runs it as a task, and its event loop reports every task that ends in an exception,
    even one that the caller handles (JupyterLite shows it in red). So the task never ends in one.
    """
    from pyodide.ffi import run_sync

    result, error = run_sync(_outcome(coroutine))
    if error is None:
        return cast(T, result)
    try:
        raise error
    finally:
        del error  # it refers to this frame


async def _outcome(coroutine: Coroutine[Any, Any, T]) -> tuple[T | None, BaseException | None]:
    try:
        return await coroutine, None
    except BaseException as error:  # StopAsyncIteration ends every loop over a stream
        return None, error
