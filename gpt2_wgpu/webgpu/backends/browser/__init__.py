"""wgpu backend on a browser's WebGPU: the compute subset that this package uses.

wgpu-py runs in Pyodide, but has a stub instead of its native library; this backend replaces the
stub. It needs no page and no stack switching, so it works in workers, and in Node with WebGPU.

Errors are asynchronous in WebGPU: the error of a call (out of memory, a shader that does not
compile) is raised by the next ``map_async`` or ``on_submitted_work_done_async``, as wgpu's classes.
Only the loss of a device is raised by every later call.

Pipelines are compiled by the browser while Python goes on. A submit waits for
those of its commands, and with it all later work of the queue, in order.
"""

from __future__ import annotations

import sys

import wgpu
import wgpu.backends
from wgpu import classes

from gpt2_wgpu.webgpu.backends.browser.gpu_device import GPU

gpu = GPU()


def register() -> None:
    """Register this backend, unless wgpu has one for browsers."""
    from wgpu.backends import js_webgpu

    if isinstance(js_webgpu.gpu, classes.GPU):
        return  # a real backend, or this one; the stub is not a subclass
    # Importing the stub has registered it. wgpu looks for a backend in two places:
    wgpu.gpu = gpu
    wgpu.backends.js_webgpu = sys.modules["wgpu.backends.js_webgpu"] = sys.modules[__name__]
