"""Fast creation of bind groups, by wgpu-native's C function.

wgpu-py checks and copies each entry of a group in Python: 30 µs per group, 4 ms before the first
token of 12 layers. Here the entries are written to one array in C: 4 µs per group, with one error
check for all.

Depends on private parts of wgpu-py's native backend, as of 0.32: those of native_bundle.py, and the
constructor of ``GPUBindGroup``. If one is missing or has another type than stated below, the slower
public call is used.

Remove when wgpu-py's call is equally fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_FUNCTION = "struct WGPUBindGroupImpl *(*)(struct WGPUDeviceImpl *, WGPUBindGroupDescriptor *)"
_FIELDS = {  # of the structs that are written
    "WGPUBindGroupDescriptor": ("nextInChain", "label", "layout", "entryCount", "entries"),
    "WGPUBindGroupEntry": (
        "nextInChain", "binding", "buffer", "offset", "size", "sampler", "textureView",
    ),
}  # fmt: skip


def native_bind_groups(
    gpu: Any, wanted: Sequence[tuple[Any, Sequence[tuple[int, Any, int, int]]]]
) -> list[Any] | None:
    """Create a bind group for each layout and its entries (binding, buffer, offset, size).

    None if wgpu-py's private API has changed.
    """
    try:
        from wgpu.backends.wgpu_native._api import GPUBindGroup, ffi, lib, libf

        create = lib.wgpuDeviceCreateBindGroup
        fields = {name: tuple(dict(ffi.typeof(name).fields)) for name in _FIELDS}
        known = ffi.typeof(create).cname == _FUNCTION and fields == _FIELDS
        raising = libf._make_proxy_func
        handle = gpu._internal
    except (ImportError, AttributeError, TypeError, ValueError):
        return None
    if not known:
        return None
    entry = ffi.new("WGPUBindGroupEntry[]", max((len(entries) for _, entries in wanted), default=0))
    group = ffi.new("WGPUBindGroupDescriptor *")
    group.label.length = lib.WGPU_STRLEN  # no label
    group.entries = entry

    def make() -> list[Any]:
        made = []
        for layout, entries in wanted:
            for place, (binding, buffer, offset, nbytes) in zip(entry, entries, strict=False):
                place.binding, place.buffer = binding, buffer._internal
                place.offset, place.size = offset, nbytes
            group.layout, group.entryCount = layout._internal, len(entries)
            made.append(GPUBindGroup("", create(handle, group), gpu))
        return made

    found: list[Any] = raising("native_bind_groups", make)()
    return found
