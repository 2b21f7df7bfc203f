"""Kernels without the counters by which naga ends every loop (docs/decisions/loop-bounds.md).

Depends on private parts of wgpu-py's native backend, as of 0.32, as
gpt2_wgpu/webgpu/backends/native_bundle.py does. Indices are checked as always.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import gpt2_wgpu as gw
from gpt2_wgpu.webgpu.pipelines import PipelineCache

_FUNCTION = (
    "struct WGPUShaderModuleImpl *(*)"
    "(struct WGPUDeviceImpl *, WGPUShaderModuleDescriptor *, uint64_t)"
)
_PARAMETERS = [["name", "ob"], ["label", "internal", "device"]]
_CONSTANTS = (
    "WGPUSType_ShaderSourceWGSL",
    "WGPUShaderRuntimeChecks_BoundsChecks",
    "WGPU_STRLEN",
)


def without_loop_bounds(device: gw.Device) -> AbstractContextManager[None] | None:
    """Return a context in which ``device`` takes kernels without the counters.

    None if wgpu is not the native one, or has other private parts than stated here.
    """
    try:
        from wgpu.backends.wgpu_native._api import GPUShaderModule, ffi, lib, libf

        names = [
            [*inspect.signature(each).parameters]
            for each in (libf._make_proxy_func, GPUShaderModule)
        ]
        known = (
            ffi.typeof(lib.wgpuDeviceCreateShaderModuleTrusted).cname == _FUNCTION
            and names == _PARAMETERS
            and ffi.typeof(device.gpu._internal).cname == "struct WGPUDeviceImpl *"
            and all(hasattr(lib, name) for name in _CONSTANTS)
        )
    except (ImportError, AttributeError, TypeError, ValueError):
        return None
    return _taken(device) if known else None


@contextmanager
def _taken(device: gw.Device) -> Iterator[None]:
    own = device.pipelines
    device.pipelines = _Unbounded(device, own.directory)
    try:
        yield
    finally:
        device.pipelines = own


class _Unbounded(PipelineCache):
    def create_module(self, label: str, source: str) -> Any:
        from wgpu.backends.wgpu_native._api import GPUShaderModule, ffi, lib, libf

        gpu = self._device.gpu
        code = source.encode()
        text = ffi.new("char[]", code)
        wgsl = ffi.new("WGPUShaderSourceWGSL *")
        wgsl.chain.sType = lib.WGPUSType_ShaderSourceWGSL
        wgsl.code.data, wgsl.code.length = text, len(code)
        descriptor = ffi.new("WGPUShaderModuleDescriptor *")
        descriptor.nextInChain = ffi.cast("WGPUChainedStruct *", wgsl)
        descriptor.label.length = lib.WGPU_STRLEN  # no label
        checks = lib.WGPUShaderRuntimeChecks_BoundsChecks

        def make() -> Any:
            create = lib.wgpuDeviceCreateShaderModuleTrusted
            return GPUShaderModule(label, create(gpu._internal, descriptor, checks), gpu)

        return libf._make_proxy_func("create_module", make)()
