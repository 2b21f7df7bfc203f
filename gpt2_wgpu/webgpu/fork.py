"""Fork safety: a child process cannot use a GPU that its parent has used.

wgpu and drivers have threads and locks, which do not work in a child: any call, even one that frees
a buffer, never returns (wgpu-native 29). Every use in a child therefore raises at once, as in
PyTorch with CUDA. One hook of ``os.fork`` disables the devices; there is no check per call.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from gpt2_wgpu.errors import DeviceError
from gpt2_wgpu.webgpu.backends import UnusableGPU

_callbacks: list[Callable[[], None]] = []  # run in a child that must not use the GPU
_is_barred = False
_MESSAGE = (
    "the GPU cannot be used in a process forked from one that has used it: start processes "
    'with multiprocessing.get_context("spawn"), or fork before the GPU is first used'
)


def after_fork(callback: Callable[[], None]) -> Callable[[], None]:
    """Register ``callback`` for forked children of a process that has used a GPU (decorator)."""
    _callbacks.append(callback)
    return callback


def check_not_forked() -> None:
    """Raise ``DeviceError`` in a forked process whose parent has used a GPU."""
    if _is_barred:
        raise DeviceError(_MESSAGE)


def inherited(gpu: Any, *, is_ours: bool) -> UnusableGPU:
    """Return the placeholder in a forked child for ``gpu``, opened by the parent."""
    if is_ours:  # mark as released, so that no finaliser in this process uses it
        gpu._poller = None
        for native in (gpu, gpu._queue, gpu.adapter):
            native._internal = None
    return UnusableGPU(gpu, DeviceError, _MESSAGE)


def _in_child() -> None:
    global _is_barred
    helpers = sys.modules.get("wgpu.backends.wgpu_native._helpers")
    if getattr(helpers, "_the_instance", None) is None:
        return  # the parent has not used wgpu: the child may
    _is_barred = True
    _release_nothing_older()
    _skip_exit_handlers()
    for callback in _callbacks:
        callback()


def _release_nothing_older() -> None:
    """Disable wgpu-py's finalisers for objects created before the fork, by any library.

    A call into wgpu-native would hang at the end of the process. Depends on private parts of
    wgpu-py 0.32: ``_release``, ``_internal``, ``_uid`` and its counter.
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
    """End this process without the C exit handlers of drivers.

    Mesa's handlers wait for threads that a child does not have, and crash (``util_queue``, seen
    with 22.3's OpenGL driver, which wgpu loads). Python has already finalised; ``_exit`` gets its
    status. Only glibc has ``on_exit``.
    """
    import ctypes

    libc = ctypes.CDLL(None)
    if hasattr(libc, "on_exit"):
        libc.on_exit(libc._exit, None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
