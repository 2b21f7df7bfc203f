"""Fast encoding of recorded commands into a native compute pass, by wgpu-native's C functions.

wgpu-py checks for errors around each call and copies its arguments: 3.4 µs per dispatch, 0.25 ms
per token. Recorded commands never change, so their handles are passed to the C functions directly:
1 µs per dispatch, with one error check for all.

Depends on private parts of wgpu-py's native backend, as of 0.32: ``lib`` and ``ffi`` (cffi's view
of wgpu.h), ``libf._make_proxy_func`` (lets a function raise the errors that arise in it), and
``_internal`` (an object's handle). If one is missing or has another type than stated below, there
is no bundle, and the slower public calls are used.

Remove when wgpu-py's calls are equally fast, or when WebGPU has bundles for compute passes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

_PIPELINE = "struct WGPUComputePipelineImpl *"
_GROUP = "struct WGPUBindGroupImpl *"
_FUNCTIONS = {  # function of a compute pass → types of its further arguments
    "SetPipeline": _PIPELINE,
    "SetBindGroup": f"uint32_t, {_GROUP}, size_t, uint32_t *",
    "DispatchWorkgroups": "uint32_t, uint32_t, uint32_t",
}
_TYPES = [f"void(*)(struct WGPUComputePassEncoderImpl *, {rest})" for rest in _FUNCTIONS.values()]


def native_bundle(commands: Sequence[tuple[Any, ...]]) -> Callable[[Any, int], None] | None:
    """Return a function that encodes ``commands`` (pipeline, bind group, workgroups, ...) n times.

    Valid while the commands are alive. None if wgpu-py's private API has changed.
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
