"""Tensor: a shape and a dtype over a GPU buffer.

scopes.py, which imports this module, registers its lookup of the open scope here.
"""

from __future__ import annotations

import math
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from operator import index
from typing import TYPE_CHECKING, Any, Protocol

from gpt2_wgpu.copying import NotPicklable
from gpt2_wgpu.errors import (
    DisposedTensorError,
    GPT2WGPUError,
    InvalidArgumentError,
    ShapeError,
)
from gpt2_wgpu.shown import shown
from gpt2_wgpu.tensors.operators import Operators
from gpt2_wgpu.tensors.printed_values import printed, runs
from gpt2_wgpu.webgpu.device import Device
from gpt2_wgpu.webgpu.queue import open_recorder
from gpt2_wgpu.webgpu.storage import Storage
from gpt2_wgpu.webgpu.waiting import can_sync, sync
from gpt2_wgpu.weight_formats import WEIGHT_FORMATS

if TYPE_CHECKING:
    import wgpu

# dtype → format of an element on the host, as in ``struct``. On the GPU a bool is a uint32, 0 or 1.
FORMATS = {"float32": "f", "int32": "i", "uint32": "I", "bool": "?"}
# (elements, bytes) of a storage unit.
UNITS = {"int32": (1, 4), "uint32": (1, 4), "bool": (1, 4)} | {
    dtype: (each.unit, each.unit_bytes) for dtype, each in WEIGHT_FORMATS.items()
}


def bytes_of(elements: int, dtype: str) -> int:
    """Return the stored size of ``elements`` in bytes."""
    unit, nbytes = UNITS[dtype]
    return -(-elements // unit) * nbytes


class Owner(Protocol):
    """Protocol of the scope that owns a tensor (``scopes.Scope``)."""

    @property
    def name(self) -> str:
        """Name in messages."""

    def adopt(self, tensor: Tensor) -> None:
        """Take ownership of ``tensor``."""

    def release(self, tensor: Tensor) -> None:
        """Give up ownership of ``tensor``."""


_scope_lookup: Callable[[], Owner | None] = lambda: None  # noqa: E731


def set_scope_lookup(lookup: Callable[[], Owner | None]) -> None:
    """Set the function that returns the owner of a new tensor: the open scope."""
    global _scope_lookup
    _scope_lookup = lookup


class Tensor(Operators, NotPicklable):
    """Array on the GPU: ``shape``, ``dtype``, ``numpy()``, ``await data()``, ``dispose()``.

    Created by :func:`tensor` and by the functions of ``gpt2_wgpu.ops``. Elements are in row-major
    order. Views (``reshape``) share a reference-counted buffer.
    """

    __slots__ = (
        "__weakref__", "_keras_mask", "children", "created", "device", "disposed", "dtype",
        "freed_by", "kept", "label", "remedy", "scope", "serial", "shape", "storage",
    )  # fmt: skip

    def __init__(
        self, device: Device, storage: Storage, shape: Sequence[int], dtype: str, label: str = ""
    ) -> None:
        self.device = device
        self.storage = storage
        self.shape = tuple(shape)
        self.dtype = dtype
        self.label = label
        self.kept = False
        self.disposed = False
        self.freed_by = ""
        self.remedy = ""  # what the error says of it, if it is used after its scope
        self.children: tuple[Tensor, ...] = ()  # tensors that are part of this one
        self._keras_mask: Any = None  # that layers attach and read: layers/masks.py
        self.scope: Owner | None = None
        memory = device.memory
        self.serial = memory.register(self)
        self.created = _callers() if memory.debug else ""  # where it was made
        scope = _scope_lookup()
        if scope is not None:
            scope.adopt(self)

    @classmethod
    def from_wgpu(
        cls,
        buffer: wgpu.GPUBuffer,
        shape: int | Sequence[int],
        dtype: str = "float32",
        *,
        label: str = "",
    ) -> Tensor:
        """Wrap the caller's buffer, without a copy.

        The tensor never destroys the buffer, and its bytes are not counted. Operations see all
        work that the caller submitted before; call ``device.flush()`` before the caller's own
        commands write the buffer again.

        Args:
            buffer: a buffer with usage STORAGE (and COPY_SRC for reading and deep copies) of a
                device of ``Device.from_wgpu``. Elements start at offset 0.
            shape: sizes of the axes.
            dtype: "float32", "int32", "uint32" or "bool" (a uint32, 0 or 1).
            label: name in messages and profiles.

        Raises:
            InvalidArgumentError: the buffer has no STORAGE usage or belongs to no open device.
            ShapeError: the buffer is too small.
        """
        device = Device.of_buffer(buffer)
        check_dtype(dtype)
        sizes = _sizes(shape)
        nbytes = bytes_of(math.prod(sizes), dtype)
        if nbytes > buffer.size:
            raise ShapeError(
                f"shape {sizes} in {dtype} needs {nbytes:,} bytes, and the buffer has "
                f"{buffer.size:,}"
            )
        return cls(device, device.memory.adopt(buffer, nbytes), sizes, dtype, label)

    @property
    def buffer(self) -> wgpu.GPUBuffer:
        """Buffer of the elements, in row-major order from offset 0.

        Reading this property submits pending work, so that commands the caller submits next see
        the values; after further operations call ``device.flush()`` first. The buffer may be
        larger than the tensor, and is reused after its last tensor is disposed.
        """
        self.check()
        self.device.queue.flush()
        return self.storage.buffer

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Logical bytes of the elements."""
        return bytes_of(self.size, self.dtype)

    def check(self) -> Tensor:
        """Return the tensor; DisposedTensorError if it is disposed."""
        if self.disposed:
            made = f"; it was made at:\n{self.created}" if self.created else ""
            raise DisposedTensorError(f"{self} was freed by {self.freed_by}{made}")
        return self

    def view(self, shape: Sequence[int]) -> Tensor:
        """Return a view of the same buffer with another shape of equal size."""
        shape = _sizes(shape)
        if math.prod(shape) != self.size:
            raise ShapeError(f"cannot view {self.shape} ({self.size} elements) as {tuple(shape)}")
        self.check()
        return Tensor(self.device, self.storage.retain(), shape, self.dtype, self.label)

    def first(self, rows: int) -> Tensor:
        """Return a view of the first ``rows`` of the first axis."""
        if not 0 <= rows <= self.shape[0]:
            raise ShapeError(f"cannot view {rows} rows of {self}")
        self.check()
        shape = (rows, *self.shape[1:])
        return Tensor(self.device, self.storage.retain(), shape, self.dtype, self.label)

    def renewed(self) -> Tensor:
        """A new tensor over the buffer of this disposed one, which others have kept allocated."""
        return Tensor(self.device, self.storage.retain(), self.shape, self.dtype, self.label)

    def __copy__(self) -> Tensor:
        """Return a view; the buffer is freed with the last view."""
        return self.view(self.shape)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        """Return a copy with its own buffer."""
        self.check().storage.check_readable()
        result = empty(
            self.device, self.shape, self.dtype, kind=self.storage.kind, label=self.label
        )
        try:
            if self.nbytes:
                self.device.queue.copy(self.storage, result.storage, -(-self.nbytes // 4) * 4)
        except BaseException:
            result.dispose()
            raise
        return result

    _instead_of_pickling = "pickle its tolist() or numpy(), and pass that to tensor() there"

    async def data(self) -> memoryview:
        """Read the values back.

        Returns:
            A memoryview of this shape and dtype (NumPy is not needed).

        Raises:
            DisposedTensorError: the tensor is disposed.
            InvalidArgumentError: the dtype is a storage format of weights.
            DeviceLostError: the device is closed or lost.
        """
        if self.dtype not in FORMATS:
            raise InvalidArgumentError(f"{self.dtype} is a storage format of weights: not readable")
        self.check()
        self.storage.check_readable()
        if self.size == 0:
            return memoryview(b"").cast(FORMATS[self.dtype])  # type: ignore  # as below
        (raw,) = await self.device.queue.read([(self.storage, 0, self.size * 4)])
        if self.dtype == "bool":
            raw = memoryview(bytes(raw)[::4])
        # (cast's type stubs list every format letter on its own)
        view: memoryview = raw.cast(FORMATS[self.dtype], self.shape)  # type: ignore
        return view

    def numpy(self) -> Any:
        """Read the values as a NumPy array; blocks (async counterpart: ``data``)."""
        import numpy as np

        values = np.asarray(sync(self.data(), "tensor.data()"))
        return values.reshape(self.shape)

    def tolist(self) -> Any:
        """Read the values as nested lists; blocks."""
        values = sync(self.data(), "tensor.data()")
        return values.tolist() if self.size else _nested_empty(self.shape)

    def item(self) -> Any:
        """Read the only value as a Python number; blocks. ShapeError if there are several."""
        if self.size != 1:
            raise ShapeError(f"{self} has {self.size} elements: item() is for one, use tolist()")
        value = self.tolist()
        while isinstance(value, list):
            (value,) = value
        return value

    def dispose(self, by: str = "dispose(), so it cannot be used any more") -> None:
        """Free the tensor, and its buffer with the last view. Idempotent.

        Args:
            by: reason stated by the error of a later use.
        """
        with self.device.memory.lock:
            if self.disposed:
                return
            self.disposed = True
        self.freed_by = by
        self.device.memory.unregister(self.serial)
        if self.scope is not None:
            self.scope.release(self)
        for child in self.children:
            child.dispose(by)
        self.storage.release()

    def __del__(self) -> None:
        # An unreachable tensor that was never disposed. The garbage collector may run anywhere, so
        # its buffer is freed by the next ``drain``. (At interpreter exit the required modules and
        # the device no longer exist.)
        if not getattr(self, "disposed", True) and not sys.is_finalizing():
            memory = self.device.memory
            memory.defer(partial(memory.unregister, self.serial))
            memory.defer(self.storage.release)
            self._warn_of_leak()  # last: the warning may raise

    def _warn_of_leak(self) -> None:
        if self.device.memory.debug:
            warnings.warn(
                f"{self} was never disposed; it was made at:\n{self.created}",
                ResourceWarning,
                stacklevel=3,
            )

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        values = self.numpy()
        return values if dtype is None else values.astype(dtype)

    def __bool__(self) -> bool:
        raise InvalidArgumentError(
            f"{self} has no truth value: read it first (tolist(), numpy()), or test `is None`"
        )

    def __str__(self) -> str:
        label = f" {self.label!r}" if self.label else ""
        return f"{type(self).__name__}{label} {list(self.shape)} {self.dtype}"

    def __repr__(self) -> str:
        """Name, shape, dtype and values, of which large tensors show the edges.

        Without values while a recording is open, and where reading would have to wait and cannot:
        in a browser without stack switching.
        """
        if self.disposed:
            return f"<{self}, disposed>"
        return f"<{self}{self._printed_values()}>"

    def _cannot_be_read(self) -> bool:
        recorder = open_recorder.get()
        return (recorder is not None and recorder.device is self.device) or not can_sync()

    def _printed_values(self) -> str:
        wanted = runs(self.shape) if type(self) is Tensor and self.dtype in FORMATS else None
        if wanted is None or not self.size or self._cannot_be_read():
            return ""
        places = [(self.storage, 4 * first, 4 * count) for first, count in wanted]
        try:
            found = sync(self.device.queue.read(places), "tensor.data()")
        except GPT2WGPUError:  # e.g. the device is lost
            return ""
        kind = "I" if self.dtype == "bool" else FORMATS[self.dtype]
        values = [value for raw in found for value in raw.cast("B").cast(kind)]  # type: ignore
        if self.dtype == "bool":
            values = list(map(bool, values))
        return f": {printed(self.shape, values)}"


def empty(
    device: Device,
    shape: Sequence[int],
    dtype: str = "float32",
    *,
    kind: str = "workspace",
    label: str = "",
) -> Tensor:
    """Allocate a tensor with undefined contents (pooled memory is not cleared)."""
    storage = device.memory.allocate(bytes_of(math.prod(shape), dtype), kind)
    return Tensor(device, storage, shape, dtype, label)


def check_dtype(dtype: str) -> None:
    """Raise InvalidArgumentError unless ``dtype`` is a dtype of values."""
    if not isinstance(dtype, str) or dtype not in FORMATS:
        raise InvalidArgumentError(f"dtype must be one of {tuple(FORMATS)}, not {shown(dtype)}")


def _sizes(shape: int | Sequence[int]) -> tuple[int, ...]:
    given: Any = shape if isinstance(shape, Sequence) else [shape]
    try:
        sizes = tuple(-1 if isinstance(size, bool) else index(size) for size in given)
    except TypeError:
        sizes = (-1,)
    if min(sizes, default=0) < 0:
        raise InvalidArgumentError(f"shape must be integers of at least 0, not {shown(shape)}")
    return sizes


def _callers() -> str:
    """Return the call stack without this package's innermost frames."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
    stack = traceback.extract_stack()
    while len(stack) > 1 and stack[-1].filename.startswith(package):
        stack.pop()
    return "".join(traceback.format_list(stack[-6:]))


def _nested_empty(shape: Sequence[int]) -> Any:
    """Return the nested lists of a shape without elements, as in NumPy."""
    return [_nested_empty(shape[1:]) for _ in range(shape[0])] if shape else []
