"""Recording: a list of dispatches, captured once and replayed without creating GPU objects."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import pairwise
from typing import Any

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
    open_recorder,
    wanted_group,
)
from gpt2_wgpu.webgpu.storage import Pool, Storage, reuse_workspace


class Recording(NotCopyable):
    """Captured dispatches; ``with`` blocks record them, :meth:`replay` runs them.

    What a block has recorded can be replayed before the next block, which adds to it. Their buffers
    stay allocated until :meth:`close`, even if the tensors are disposed.
    """

    def __init__(
        self,
        device: Device,
        *,
        reuses_workspace: bool = False,
        borrowed: Sequence[Storage] = (),
    ) -> None:
        """Create a recording on ``device``.

        ``reuses_workspace``: new tensors get buffers of the recording's own disposed tensors.
        Nothing may be uploaded to a tensor created in it. ``borrowed``: the ``workspace`` of
        another recording, used likewise; neither depends on contents that the other may overwrite.
        """
        self.device = device
        self.workspace: list[Storage] = []  # buffers that only its dispatches use
        self.was_read = False  # a read was rejected, also if the caller caught the error
        self._reuses_workspace = reuses_workspace or bool(borrowed)
        self._borrowed = borrowed
        self._references: dict[int, int] = {}  # of borrowed buffers while idle, by id
        self.recorded: list[Dispatch] = []
        self._pinned: dict[int, Storage] = {}
        self._workspace: dict[int, list[Storage]] = {}  # of those pinned, by size
        self._ends: list[int] = []  # dispatches before the end of each part
        self._parts: list[tuple[list[Command], Bundle | None]] = []
        self._uniforms: list[Storage] = []  # one for each block
        self._tokens: list[Any] = []

    def __enter__(self) -> Recording:
        if open_recorder.get() is not None:
            raise ScopeError("a recording is already open: recordings cannot be nested")
        for storage in self._borrowed:
            if id(storage) not in self._references:
                self._pinned[id(storage)] = storage.retain()
                self._workspace.setdefault(storage.size, []).append(storage)
                self._references[id(storage)] = storage.references
        self._tokens = [open_recorder.set(self)]
        if self._reuses_workspace:
            self._tokens.append(reuse_workspace.set(self._idle_workspace))
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not self._tokens:
            raise ScopeError("this recording is not open")
        for token in self._tokens:
            token.var.reset(token)
        self._tokens = []
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
        return sum(len(commands) for commands, _ in self._parts)

    @property
    def commands(self) -> list[Command]:
        """The commands of one replay."""
        return [command for commands, _ in self._parts for command in commands]

    def add(self, work: Dispatch) -> None:
        """Record a dispatch and retain its buffers."""
        self.recorded.append(work)
        for storage, _, _ in work.ranges.values():
            if id(storage) not in self._pinned:
                self._pinned[id(storage)] = storage.retain()
                if storage.kind == "workspace":
                    self._workspace.setdefault(storage.size, []).append(storage)

    def repeat(self, first: int, end: int, others: Mapping[Storage, Storage]) -> None:
        """Record the dispatches from ``first`` to before ``end`` again, with other buffers.

        ``others``: for some of the buffers, those in their place.
        """
        for work in self.recorded[first:end]:
            ranges = {
                name: (others.get(storage, storage), offset, nbytes)
                for name, (storage, offset, nbytes) in work.ranges.items()
            }
            self.add(Dispatch(work.kernel, ranges, work.params, work.grid, work.label))

    def end_part(self) -> None:
        """End a part of the recording, for :meth:`replay_part`, after what is recorded by now."""
        self._ends.append(len(self.recorded))

    def replay(self, times: int = 1) -> None:
        """Queue the recorded dispatches ``times`` times."""
        if len(self._parts) == 1:
            self.replay_part(0, times)
            return
        for _ in range(times):
            for part in range(len(self._parts)):
                self.replay_part(part)

    def replay_part(self, part: int, times: int = 1) -> None:
        """Queue the dispatches of one part ``times`` times."""
        commands, bundle = self._parts[part]
        if commands:
            self.device.queue.replay(Batch(commands, times, bundle))

    def unpin(self) -> list[Storage]:
        """Give away the references to all buffers → the buffers; until :meth:`pin`, idle."""
        storages = [*self._pinned.values(), *self._uniforms]
        self._pinned, self._uniforms = {}, []
        return storages

    def pin(self, storages: Sequence[Storage]) -> None:
        """Take back the references that :meth:`unpin` gave."""
        self._pinned = {id(storage): storage for storage in storages}

    def close(self) -> None:
        """Release all buffers, the others also if one release fails. Idempotent."""
        self.recorded, self._parts, self._workspace = [], [], {}
        self.workspace, self._borrowed = [], ()
        with ExitStack() as releases:
            for storage in reversed(self.unpin()):
                releases.callback(storage.release)

    def _idle_workspace(self, pool: Pool, size: int) -> Storage | None:
        """Return the smallest buffer of at least ``size`` that no tensor uses any more."""
        for fitting in sorted(known for known in self._workspace if known >= size):
            for storage in self._workspace[fitting]:
                idle = self._references.get(id(storage), 1)
                if storage.references == idle and storage.pool is pool:
                    return storage
        return None

    def __del__(self) -> None:
        open_still = getattr(self, "_pinned", None) or getattr(self, "_uniforms", None)
        if open_still and not sys.is_finalizing():
            self.device.memory.defer(self.close)

    def _finish(self) -> None:
        device = self.device
        self.workspace = [
            storage
            for key, storage in self._pinned.items()
            if storage.kind == "workspace" and storage.references == self._references.get(key, 1)
        ]
        begin = len(self)
        added = self.recorded[begin:]
        params = bytearray(len(added) * PARAMS_STRIDE)
        with device.translated_errors():
            uniform = device.memory.allocate(len(params), "parameters")
            self._uniforms.append(uniform)
            wanted = []
            for slot, work in enumerate(added):
                start = slot * PARAMS_STRIDE
                params[start : start + len(work.params)] = work.params
                wanted.append(wanted_group(work, uniform.buffer, slot))
            groups = backends.bind_groups(device.gpu, wanted)
            commands: list[Command] = [
                (work.kernel.pipeline, group, work.grid, work.label)
                for work, group in zip(added, groups, strict=True)
            ]
            if params:
                device.gpu.queue.write_buffer(uniform.buffer, 0, params)
            ends = sorted({begin, *self._ends, len(self.recorded)})
            self._ends = []
            for first, end in pairwise(ends):
                part = commands[first - begin : end - begin]
                self._parts.append((part, backends.bundle(device.gpu, part)))
