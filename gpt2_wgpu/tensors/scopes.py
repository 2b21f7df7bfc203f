"""Memory scopes: ownership of tensors.

Semantics follow TF.js (``tfjs-core/src/engine.ts``): a scope disposes all tensors created in it,
except returned ones (which move to the parent scope) and kept ones. Differences: the scope stack is
a context variable, so that asyncio tasks and threads have separate stacks, and all containers are
searched for tensors, including sets and dataclasses.
:mod:`gpt2_wgpu.tensors.tidying` has ``tidy``, the way to open them.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Set, ValuesView
from contextvars import ContextVar
from typing import Any, TypeVar, cast

from gpt2_wgpu.copying import NotCopyable
from gpt2_wgpu.errors import ScopeError
from gpt2_wgpu.tensors.tensor import Tensor, set_scope_lookup
from gpt2_wgpu.webgpu.device import Device
from gpt2_wgpu.webgpu.recording import Recording

T = TypeVar("T")


class Scope(NotCopyable):
    """Tensors created since the scope was opened; a node of a per-context stack."""

    __slots__ = ("closed", "name", "parent", "tensors")

    def __init__(self, name: str, parent: Scope | None) -> None:
        self.name = name
        self.parent = parent
        self.closed = False
        self.tensors: dict[int, Tensor] = {}

    def __str__(self) -> str:
        state = ", closed" if self.closed else ""
        return f"tidy scope {self.name!r} of {len(self.tensors)} tensors{state}"

    def adopt(self, tensor: Tensor) -> None:
        """Take ownership of ``tensor``; if this scope is closed, the next open parent does."""
        scope: Scope | None = self
        while scope is not None and scope.closed:
            scope = scope.parent  # in a task that outlives the scope it was started in
        tensor.scope = scope
        if scope is not None:
            scope.tensors[id(tensor)] = tensor

    def release(self, tensor: Tensor) -> None:
        """Give up ownership of ``tensor``."""
        self.tensors.pop(id(tensor), None)
        tensor.scope = None

    def escape(self, value: T) -> T:
        """Move all tensors of this scope in ``value`` to the parent scope; return ``value``.

        DisposedTensorError for a tensor that is disposed.
        """
        _check_live(value)
        for tensor in tensors_in(value):
            if tensor.scope is self:
                self.release(tensor)
                if self.parent is not None:
                    self.parent.adopt(tensor)
        return value

    def close(self) -> None:
        """Dispose all remaining tensors. Idempotent."""
        self.closed = True
        for tensor in list(self.tensors.values()):
            remedy = tensor.remedy or "keep() it, or return it from its scope"
            tensor.dispose(f"the end of tidy scope {self.name!r}: {remedy}")

    def depth(self) -> int:
        """Return the number of open scopes, including this one."""
        depth, scope = 0, cast("Scope | None", self)
        while scope is not None:
            depth, scope = depth + (not scope.closed), scope.parent
        return depth


_current: ContextVar[Scope | None] = ContextVar("gpt2_wgpu_scope", default=None)
set_scope_lookup(_current.get)


def current_scope() -> Scope | None:
    """Return the innermost open scope of this task or thread, or None."""
    return _current.get()


class StartedScope(Scope):
    """Scope of :func:`start_scope`; only the task or thread that opened it may end it."""

    __slots__ = ("owner",)

    def __init__(self, name: str, parent: Scope | None) -> None:
        super().__init__(name, parent)
        self.owner = _task_or_thread()


def _task_or_thread() -> object:
    try:
        return asyncio.current_task() or threading.get_ident()
    except RuntimeError:  # no running event loop
        return threading.get_ident()


def start_scope(name: str = "scope") -> Scope:
    """Open a scope that :func:`end_scope` closes, for callback-based code; else use ``tidy``.

    Args:
        name: name in messages.

    Returns:
        The scope.
    """
    scope = StartedScope(name, _current.get())
    _current.set(scope)
    return scope


def end_scope(result: T = None) -> T:  # type: ignore[assignment]
    """Close the innermost scope.

    Args:
        result: its tensors move to the parent scope.

    Returns:
        ``result``.

    Raises:
        ScopeError: the innermost scope was not opened by ``start_scope`` in this task or thread.
        DisposedTensorError: a tensor of ``result`` is disposed; the scope is closed all the same.
    """
    scope = _current.get()
    if not isinstance(scope, StartedScope) or scope.closed or scope.owner != _task_or_thread():
        raise ScopeError("end_scope without start_scope: none is open in this task or thread")
    _current.set(scope.parent)
    try:
        return scope.escape(result)
    finally:
        scope.close()


def keep(value: T) -> T:
    """Exempt all tensors in ``value`` from all scopes; only ``dispose`` frees them.

    Args:
        value: a tensor or any container.

    Returns:
        ``value``.

    Raises:
        DisposedTensorError: a tensor is disposed.
    """
    _check_live(value)
    for tensor in tensors_in(value):
        tensor.kept = True
        if tensor.scope is not None:
            tensor.scope.release(tensor)
    return value


def _check_live(value: Any) -> None:
    """Raise DisposedTensorError for a disposed tensor, or a list, tuple or mapping of one."""
    items = value.values() if isinstance(value, Mapping) else value
    for item in items if isinstance(items, list | tuple | ValuesView) else [items]:
        if isinstance(item, Tensor):
            item.check()


def dispose(value: Any) -> None:
    """Dispose all tensors in ``value`` (a tensor or any container). Idempotent."""
    for tensor in tensors_in(value):
        tensor.dispose()


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the distinct tensors in lists, tuples, sets, mappings, dataclasses and objects."""
    seen: dict[int, Any] = {}  # for cyclic containers (references, so that ids stay unique)
    pending = [value]
    while pending:
        item = pending.pop()
        if id(item) in seen or item is None or isinstance(item, _OPAQUE):
            continue
        seen[id(item)] = item
        if isinstance(item, Tensor):
            yield item
            pending.extend(item.children)
            continue
        if isinstance(item, Mapping):
            pending.extend((*item.keys(), *item.values()))
        elif isinstance(item, list | tuple | Set | deque):
            pending.extend(item)
        elif inspect.isroutine(item) or isinstance(item, type):
            continue
        pending.extend(_attributes_of(item))


def _attributes_of(item: Any) -> Iterator[Any]:
    """Yield the values of an object's attributes, in its dictionary and slots."""
    yield from getattr(item, "__dict__", {}).values()
    for kind in type(item).__mro__:
        for name, member in vars(kind).items():
            if inspect.ismemberdescriptor(member):
                yield getattr(item, name, None)


_OPAQUE = (str, bytes, int, float, Device, Recording)  # without tensors, or not owned by the caller
