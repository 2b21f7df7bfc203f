"""Recorded commands, written into a native compute pass by wgpu-native's own functions.

wgpu-py looks for errors around each call and copies its arguments: 3.4 µs a dispatch, a quarter of
a millisecond a token. What is recorded never changes, so here the handles go to the C functions as
they are: 1 µs a dispatch, and one look for errors around all of them.

Relies on private parts of wgpu-py's native backend, as of 0.32: ``lib`` and ``ffi`` (cffi's view of
wgpu.h), ``libf._make_proxy_func`` (lets a function raise the errors that arise in it), and
``_internal`` (an object's handle). Where one of them is missing, or is not of the type written
below, there is no bundle, and the public calls do the same in more time.

Can go when wgpu-py's own calls cost as little, or when WebGPU has bundles for compute passes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

_PIPELINE = "struct WGPUComputePipelineImpl *"
_GROUP = "struct WGPUBindGroupImpl *"
_FUNCTIONS = {  # of a compute pass: what else they take
    "SetPipeline": _PIPELINE,
    "SetBindGroup": f"uint32_t, {_GROUP}, size_t, uint32_t *",
    "DispatchWorkgroups": "uint32_t, uint32_t, uint32_t",
}
_TYPES = [f"void(*)(struct WGPUComputePassEncoderImpl *, {rest})" for rest in _FUNCTIONS.values()]


def native_bundle(commands: Sequence[tuple[Any, ...]]) -> Callable[[Any, int], None] | None:
    """What writes ``commands`` (pipeline, bind group, workgroups, ...) into a pass, n times over.

    It is good for as long as they are alive. None where wgpu is not as this file knows it.
    """
    try:
        from wgpu.backends.wgpu_native._api import ffi, lib, libf

        functions = [getattr(lib, f"wgpuComputePassEncoder{name}") for name in _FUNCTIONS]
        calls = [(pipe._internal, group._internal, *grid) for pipe, group, grid, *_ in commands]
        types = [ffi.typeof(function).cname for function in functions]
        kinds = {tuple(ffi.typeof(handle).cname for handle in call[:2]) for call in calls}
        raising = libf._make_proxy_func
    except (ImportError, AttributeError, TypeError):
        return None
    if types != _TYPES or kinds != {(_PIPELINE, _GROUP)}:
        return None
    set_pipeline, set_bind_group, dispatch_workgroups = functions
    no_offsets = ffi.NULL

    def write(compute: Any, times: int) -> None:
        bound = None
        for _ in range(times):
            for pipeline, group, x, y, z in calls:
                if pipeline is not bound:
                    set_pipeline(compute, pipeline)
                    bound = pipeline
                set_bind_group(compute, 0, group, 0, no_offsets)
                dispatch_workgroups(compute, x, y, z)

    checked = raising("native_bundle", write)
    return lambda compute, times: checked(compute._internal, times)
