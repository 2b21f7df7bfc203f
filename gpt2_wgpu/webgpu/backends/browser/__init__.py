"""wgpu on the WebGPU of a browser: compute, and of that what this package uses.

wgpu-py runs in Pyodide, but has only a stub where its native library is elsewhere; this is a
backend in its place. It needs no page and no stack switching, so it serves workers, and Node with
a WebGPU of its own.

WebGPU tells of errors later: what a call did wrong (a buffer too large for the memory, a shader
that does not compile) is raised by the next ``map_async`` or ``on_submitted_work_done_async``, in
wgpu's own classes. Only the loss of a device is raised by every call after it.
"""

from __future__ import annotations

import sys

import wgpu
import wgpu.backends
from wgpu import classes

from gpt2_wgpu.webgpu.backends.browser.gpu_device import GPU

gpu = GPU()


def register() -> None:
    """Make this the backend of wgpu, unless wgpu ships one for browsers."""
    from wgpu.backends import js_webgpu

    if isinstance(js_webgpu.gpu, classes.GPU):
        return  # a real one, or this one; the stub is no such subclass
    # Importing the stub has registered it. Both places where wgpu looks for a backend:
    wgpu.gpu = gpu
    wgpu.backends.js_webgpu = sys.modules["wgpu.backends.js_webgpu"] = sys.modules[__name__]
