"""Forked processes: a child cannot use a GPU that its parent has used.

wgpu and the drivers have threads and locks, which a child does not inherit in working order: a call
there waits for ever, even one that only frees a buffer (wgpu-native 29). So a child raises at once,
as with PyTorch and CUDA. One hook, run by ``os.fork``, sees to it; nothing is checked per call.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from gpt2_wgpu.errors import DeviceError
from gpt2_wgpu.webgpu.backends import UnusableGPU

_callbacks: list[Callable[[], None]] = []  # of a child that may not use the GPU
_is_barred = False
_MESSAGE = (
    "the GPU cannot be used in a process forked from one that has used it: start processes "
    'with multiprocessing.get_context("spawn"), or fork before the GPU is first used'
)


def after_fork(callback: Callable[[], None]) -> Callable[[], None]:
    """Call ``callback`` in each forked child whose parent has used a GPU. A decorator."""
    _callbacks.append(callback)
    return callback


def check_not_forked() -> None:
    """Raises ``DeviceError`` in a forked process whose parent has used a GPU."""
    if _is_barred:
        raise DeviceError(_MESSAGE)


def inherited(gpu: Any, *, is_ours: bool) -> UnusableGPU:
    """What stands in a forked child for ``gpu``, which the parent opened."""
    if is_ours:  # as if released already: nothing in this process may touch it
        gpu._poller = None
        for native in (gpu, gpu._queue, gpu.adapter):
            native._internal = None
    return UnusableGPU(gpu, DeviceError, _MESSAGE)


def _in_child() -> None:
    global _is_barred
    helpers = sys.modules.get("wgpu.backends.wgpu_native._helpers")
    if getattr(helpers, "_the_instance", None) is None:
        return  # the parent has looked for no adapter yet: all of wgpu is still to come
    _is_barred = True
    _release_nothing_older()
    _skip_exit_handlers()
    for callback in _callbacks:
        callback()


def _release_nothing_older() -> None:
    """Keep wgpu-py's finalisers in this process from calling into wgpu-native.

    For objects that were made before the fork, be it by us or by others: the process's end would
    hang in one. Relies on private parts of wgpu-py 0.32: ``_release``, ``_internal``, ``_uid`` and
    the counter it comes from.
    """
    from wgpu import _classes
    from wgpu.backends.wgpu_native import _api

    first = next(_classes.object_id_counter)
    release = _api.GPUObjectBase._release

    def release_if_newer(self: Any) -> None:
        if self._uid < first:
            self._internal = None
        release(self)

    def forget(self: Any) -> None:
        self._internal = None

    _api.GPUObjectBase._release = release_if_newer
    _api.GPUAdapter._release = forget


def _skip_exit_handlers() -> None:
    """End this process without the exit handlers that drivers have registered in C.

    Mesa's wait for its threads, which are not here, and crash (``util_queue``, seen with 22.3's
    OpenGL driver, which wgpu loads). Python has ended in order by then, and ``_exit`` gets the
    status. Only glibc has ``on_exit``.
    """
    import ctypes

    libc = ctypes.CDLL(None)
    if hasattr(libc, "on_exit"):
        libc.on_exit(libc._exit, None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
