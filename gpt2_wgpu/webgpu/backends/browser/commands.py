"""Buffers, command encoders and the queue of the browser backend."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pyodide.ffi import to_js
from wgpu import classes

from gpt2_wgpu.webgpu.backends.browser.script import Promise, script

_MAP_MODES = {"READ": 1, "READ_NOSYNC": 1}


class GPUBuffer(classes.GPUBuffer):
    def map_async(self, mode: str | int, offset: int = 0, size: int | None = None) -> Promise:
        size = self._size - offset if size is None else size
        number = _MAP_MODES[mode] if isinstance(mode, str) else mode
        self._map_state = "pending"
        asked = script.map(self._device._internal, self._internal, number, offset, size)
        self._mapped = (offset, size)
        return Promise(asked, lambda _: setattr(self, "_map_state", "mapped"))

    def read_mapped(
        self, buffer_offset: int | None = None, size: int | None = None, *, copy: bool = True
    ) -> memoryview:
        """Return a copy of the mapped bytes, which Python cannot access directly."""
        offset, mapped = self._mapped
        if buffer_offset is not None:
            offset, mapped = buffer_offset, mapped - (buffer_offset - offset)
        found = script.readMapped(self._internal, offset, mapped if size is None else size)
        return memoryview(found.to_bytes())

    def unmap(self) -> None:
        self._internal.unmap()
        self._map_state = "unmapped"

    def destroy(self) -> None:
        script.destroyObject(self._device._internal, self._internal)


class GPUQuerySet(classes.GPUQuerySet):
    def destroy(self) -> None:
        script.destroyObject(self._device._internal, self._internal)


class GPUCommandEncoder(classes.GPUCommandEncoder):
    """Command encoder; ``submit`` passes the commands to script.js in one call."""

    def begin_compute_pass(
        self, *, label: str = "", timestamp_writes: Mapping[str, Any] | None = None
    ) -> GPUComputePassEncoder:
        if timestamp_writes is None:
            self._internal.append("pass")
        else:
            self._internal += "timed", timestamp_writes["query_set"]._internal
            self._internal.append(timestamp_writes["beginning_of_pass_write_index"])
            self._internal.append(timestamp_writes["end_of_pass_write_index"])
        return GPUComputePassEncoder(label, self._internal, self._device)

    def clear_buffer(self, buffer: GPUBuffer, offset: int = 0, size: int | None = None) -> None:
        size = buffer.size - offset if size is None else size
        self._internal += "clear", buffer._internal, offset, size

    def copy_buffer_to_buffer(
        self,
        source: GPUBuffer,
        source_offset: int,
        destination: GPUBuffer,
        destination_offset: int,
        size: int | None = None,
    ) -> None:
        size = source.size - source_offset if size is None else size
        self._internal += "copy", source._internal, source_offset
        self._internal += destination._internal, destination_offset, size

    def resolve_query_set(
        self,
        query_set: GPUQuerySet,
        first_query: int,
        query_count: int,
        destination: GPUBuffer,
        destination_offset: int,
    ) -> None:
        self._internal += "resolve", query_set._internal, first_query, query_count
        self._internal += destination._internal, destination_offset

    def finish(self, *, label: str = "") -> classes.GPUCommandBuffer:
        return classes.GPUCommandBuffer(label, self._internal, self._device)


class GPUComputePassEncoder(classes.GPUComputePassEncoder):
    def set_pipeline(self, pipeline: classes.GPUComputePipeline) -> None:
        self._internal += "pipeline", pipeline._internal

    def set_bind_group(self, index: int, bind_group: classes.GPUBindGroup, *offsets: Any) -> None:
        self._internal += "group", index, bind_group._internal

    def dispatch_workgroups(
        self, workgroup_count_x: int, workgroup_count_y: int = 1, workgroup_count_z: int = 1
    ) -> None:
        self._internal += "dispatch", workgroup_count_x, workgroup_count_y, workgroup_count_z

    def execute_bundle(self, bundle: Any, times: int) -> None:
        """Run a bundle of ``create_compute_bundle`` ``times`` times."""
        self._internal += "bundle", bundle, times

    def end(self) -> None:
        self._internal.append("end")


class GPUQueue(classes.GPUQueue):
    def submit(self, command_buffers: Iterable[classes.GPUCommandBuffer]) -> None:
        for commands in command_buffers:
            script.submit(self._internal, to_js(commands._internal))

    def write_buffer(
        self,
        buffer: GPUBuffer,
        buffer_offset: int,
        data: Any,
        data_offset: int = 0,
        size: int | None = None,
    ) -> None:
        view = memoryview(data)
        first = data_offset * view.itemsize
        view = view.cast("B")
        view = view[first:] if size is None else view[first : first + size]
        script.writeBuffer(self._internal, buffer._internal, buffer_offset, view)

    def write_blob_async(self, buffer: GPUBuffer, blob: Any) -> Promise:
        """Write JavaScript's ``Blob``, zero-padded to 4 bytes, without a copy in Python."""
        return Promise(script.writeBlob(self._internal, buffer._internal, blob))

    def on_submitted_work_done_async(self) -> Promise:
        return Promise(script.done(self._internal))
