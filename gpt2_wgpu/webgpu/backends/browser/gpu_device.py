"""Adapters, devices and pipelines of the browser backend."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from weakref import WeakMethod

from pyodide.ffi import to_js
from wgpu import classes

from gpt2_wgpu.webgpu.backends.browser.commands import (
    GPUBuffer,
    GPUCommandEncoder,
    GPUQuerySet,
    GPUQueue,
)
from gpt2_wgpu.webgpu.backends.browser.script import Promise, script


class GPU(classes.GPU):
    """``navigator.gpu``."""

    def request_adapter_async(
        self,
        *,
        feature_level: str = "core",
        power_preference: str | None = None,
        force_fallback_adapter: bool = False,
        canvas: Any = None,
    ) -> Promise:
        asked = script.requestAdapter(power_preference or "", force_fallback_adapter)
        return Promise(asked, GPUAdapter)

    def enumerate_adapters_async(self) -> Promise:
        """Return the one adapter that a browser exposes."""
        return Promise(script.requestAdapter("", False), lambda found: [GPUAdapter(found)])


class GPUAdapter(classes.GPUAdapter):
    def __init__(self, internal: Any) -> None:
        found = json.loads(script.describeAdapter(internal))
        info = {key: value for key, value in found["info"].items() if value}
        # Browsers rarely expose the device's name, for privacy: use vendor and architecture.
        whose = " ".join(info[key] for key in ("vendor", "architecture") if key in info)
        info.setdefault("device", info.get("description") or whose)
        info["adapter_type"] = "CPU" if info.pop("isFallbackAdapter", False) else "Unknown"
        info["backend_type"] = "WebGPU"
        super().__init__(
            internal,
            set(found["features"]),
            _kebab(found["limits"]),
            classes.GPUAdapterInfo(info),
        )

    def request_device_async(
        self,
        *,
        label: str = "",
        required_features: Sequence[str] = (),
        required_limits: Mapping[str, int | None] | None = None,
        default_queue: Any = None,
    ) -> Promise:
        limits = {_camel(name): value for name, value in (required_limits or {}).items()}
        asked = script.requestDevice(
            self._internal, label, to_js(list(required_features)), json.dumps(limits)
        )
        return Promise(asked, lambda session: GPUDevice(label, session, self))


class GPUDevice(classes.GPUDevice):
    """Device; ``_internal`` is its session in script.js."""

    def __init__(self, label: str, session: Any, adapter: GPUAdapter) -> None:
        found = json.loads(script.describeDevice(session))
        queue = GPUQueue("", session, None)
        features, limits = set(found["features"]), _kebab(found["limits"])
        super().__init__(label, session, adapter, features, limits, queue)

    def _get_lost_async(self) -> Promise:
        """Return a promise of reason and message of the device loss."""
        lost = script.lost(self._internal)
        return Promise(lost, lambda found: classes.GPUDeviceLostInfo(*json.loads(found)))

    def on_loss(self, callback: Callable[[], object]) -> None:
        """Call the method ``callback`` on device loss; its object is referenced weakly."""
        method = WeakMethod(callback)

        def resolved(_: object) -> None:
            found = method()
            if found is not None:
                found()

        script.lost(self._internal).add_done_callback(resolved)

    def destroy(self) -> None:
        script.destroy(self._internal)

    def create_buffer(
        self, *, label: str = "", size: int, usage: int, mapped_at_creation: bool = False
    ) -> GPUBuffer:
        if mapped_at_creation:
            raise NotImplementedError("mapped_at_creation: use queue.write_buffer")
        internal = script.createBuffer(self._internal, label, size, usage)
        return GPUBuffer(label, internal, self, size, usage, "unmapped")

    def create_bind_group_layout(
        self, *, label: str = "", entries: Iterable[Mapping[str, Any]]
    ) -> classes.GPUBindGroupLayout:
        flat: list[Any] = []
        for entry in entries:
            flat += entry["binding"], entry["visibility"], entry["buffer"]["type"]
        internal = script.createBindGroupLayout(self._internal, label, to_js(flat))
        return classes.GPUBindGroupLayout(label, internal, self)

    def create_bind_group(
        self,
        *,
        label: str = "",
        layout: classes.GPUBindGroupLayout,
        entries: Iterable[Mapping[str, Any]],
    ) -> classes.GPUBindGroup:
        flat: list[Any] = []
        for entry in entries:
            bound = entry["resource"]
            flat += entry["binding"], bound["buffer"]._internal, bound["offset"], bound["size"]
        internal = script.createBindGroup(self._internal, label, layout._internal, to_js(flat))
        return classes.GPUBindGroup(label, internal, self)

    def create_pipeline_layout(
        self,
        *,
        label: str = "",
        bind_group_layouts: Iterable[classes.GPUBindGroupLayout],
        immediate_size: int = 0,
    ) -> classes.GPUPipelineLayout:
        layouts = to_js([layout._internal for layout in bind_group_layouts])
        internal = script.createPipelineLayout(self._internal, label, layouts)
        return classes.GPUPipelineLayout(label, internal, self)

    def create_shader_module(
        self, *, label: str = "", code: str, compilation_hints: Any = ()
    ) -> classes.GPUShaderModule:
        internal = script.createShaderModule(self._internal, label, code)
        return classes.GPUShaderModule(label, internal, self)

    def create_compute_pipeline(
        self, *, label: str = "", layout: Any, compute: Mapping[str, Any]
    ) -> classes.GPUComputePipeline:
        internal = script.createPipeline(self._internal, label, *_stage(layout, compute))
        return classes.GPUComputePipeline(label, internal, self)

    def create_compute_pipeline_async(
        self, *, label: str = "", layout: Any, compute: Mapping[str, Any]
    ) -> Promise:
        asked = script.createPipelineAsync(self._internal, label, *_stage(layout, compute))
        return Promise(asked, lambda made: classes.GPUComputePipeline(label, made, self))

    def create_command_encoder(self, *, label: str = "") -> GPUCommandEncoder:
        return GPUCommandEncoder(label, [], self)

    def create_compute_bundle(self, dispatches: Iterable[tuple[Any, ...]]) -> Any:
        """Store (pipeline, bind group, workgroups, ...) in script.js, for encoding in one call.

        WebGPU itself has bundles for rendering only.
        """
        flat: list[Any] = []
        for pipeline, group, grid, *_ in dispatches:
            flat += pipeline._internal, group._internal, *grid
        return to_js(flat)

    def create_query_set(self, *, label: str = "", type: str, count: int) -> GPUQuerySet:
        internal = script.createQuerySet(self._internal, label, type, count)
        return GPUQuerySet(label, internal, self, type, count)


def _stage(layout: Any, compute: Mapping[str, Any]) -> tuple[Any, Any, str, str]:
    where = layout if isinstance(layout, str) else layout._internal
    constants = json.dumps(compute.get("constants", {}))
    return where, compute["module"]._internal, compute["entry_point"], constants


def _kebab(limits: Mapping[str, int]) -> dict[str, int]:
    """Convert ``maxBufferSize`` to wgpu's ``max-buffer-size``."""
    return {re.sub("[A-Z]", lambda m: f"-{m[0].lower()}", key): v for key, v in limits.items()}


def _camel(name: str) -> str:
    return re.sub("[-_]([a-z])", lambda match: match[1].upper(), name)
