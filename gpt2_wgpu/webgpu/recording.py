"""Recording: a list of dispatches, captured once and replayed without creating GPU objects."""

from __future__ import annotations

import sys
from contextvars import Token

from gpt2_wgpu.copying import NotCopyable
from gpt2_wgpu.errors import ScopeError
from gpt2_wgpu.webgpu import backends
from gpt2_wgpu.webgpu.backends import Bundle
from gpt2_wgpu.webgpu.device import Device
from gpt2_wgpu.webgpu.queue import (
    PARAMS_STRIDE,
    Batch,
    Command,
    Dispatch,
    Recorder,
    bind,
    open_recorder,
)
from gpt2_wgpu.webgpu.storage import Storage


class Recording(NotCopyable):
    """Captured dispatches; a ``with`` block records them, :meth:`replay` runs them.

    Their buffers stay allocated until :meth:`close`, even if the tensors are disposed.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self._recorded: list[Dispatch] = []
        self._pinned: dict[int, Storage] = {}
        self._commands: list[Command] = []
        self._bundle: Bundle | None = None
        self._uniform: Storage | None = None
        self._token: Token[Recorder | None] | None = None

    def __enter__(self) -> Recording:
        if open_recorder.get() is not None:
            raise ScopeError("a recording is already open: recordings cannot be nested")
        self._token = open_recorder.set(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._token is None:
            raise ScopeError("this recording is not open")
        open_recorder.reset(self._token)
        if kind is not None:
            self.close()
            return
        try:
            self._finish()
        except BaseException:
            self.close()
            raise

    def __str__(self) -> str:
        return f"Recording of {len(self)} dispatches on {self.device.info.name}"

    def __len__(self) -> int:
        """Number of dispatches of one replay."""
        return len(self._commands)

    def add(self, work: Dispatch) -> None:
        self._recorded.append(work)
        for storage, _, _ in work.ranges.values():
            if id(storage) not in self._pinned:
                self._pinned[id(storage)] = storage.retain()

    def replay(self, times: int = 1) -> None:
        """Queue the recorded dispatches ``times`` times."""
        if self._commands:
            self.device.queue.replay(Batch(self._commands, times, self._bundle))

    def close(self) -> None:
        """Release all buffers. Idempotent."""
        self._recorded, self._commands, self._bundle = [], [], None
        pinned, self._pinned = self._pinned, {}
        for storage in pinned.values():
            storage.release()
        uniform, self._uniform = self._uniform, None
        if uniform is not None:
            uniform.release()

    def __del__(self) -> None:
        open_still = getattr(self, "_pinned", None) or getattr(self, "_uniform", None)
        if open_still and not sys.is_finalizing():
            self.device.memory.defer(self.close)

    def _finish(self) -> None:
        device = self.device
        params = bytearray(len(self._recorded) * PARAMS_STRIDE)
        with device.translated_errors():
            self._uniform = device.memory.allocate(len(params), "parameters")
            for slot, work in enumerate(self._recorded):
                start = slot * PARAMS_STRIDE
                params[start : start + len(work.params)] = work.params
                group = bind(device.gpu, work, self._uniform.buffer, slot)
                self._commands.append((work.kernel.pipeline, group, work.grid, work.label))
            if params:
                device.gpu.queue.write_buffer(self._uniform.buffer, 0, params)
            self._bundle = backends.bundle(device.gpu, self._commands)
        self._recorded = []
