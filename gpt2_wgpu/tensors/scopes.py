"""Scopes of tensors: what is freed at a known moment, and what outlives it.

Semantics are TF.js's (``tfjs-core/src/engine.ts``) where they are right: a scope disposes every
tensor made in it, except what is returned (which moves up exactly one scope) and what is kept.
Deliberately better: scopes live in a context variable, so asyncio tasks and threads never see
each other's, and every container is searched for tensors, sets and dataclasses included.
:mod:`gpt2_wgpu.tensors.tidying` has ``tidy``, the way to open them.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Set
from contextvars import ContextVar
from typing import Any, TypeVar, cast

from gpt2_wgpu.copying import NotCopyable
from gpt2_wgpu.errors import ScopeError
from gpt2_wgpu.tensors.tensor import Tensor, set_scope_lookup
from gpt2_wgpu.webgpu.device import Device

T = TypeVar("T")


class Scope(NotCopyable):
    """The tensors made since it was opened; a node of a per-context stack."""

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
        """Become responsible for ``tensor``; once closed, the next open scope above does."""
        scope: Scope | None = self
        while scope is not None and scope.closed:
            scope = scope.parent  # a task that outlives the scope it was started in
        tensor.scope = scope
        if scope is not None:
            scope.tensors[id(tensor)] = tensor

    def release(self, tensor: Tensor) -> None:
        self.tensors.pop(id(tensor), None)
        tensor.scope = None

    def escape(self, value: T) -> T:
        """Move every tensor of this scope found in ``value`` up one scope; return ``value``."""
        for tensor in tensors_in(value):
            if tensor.scope is self:
                self.release(tensor)
                if self.parent is not None:
                    self.parent.adopt(tensor)
        return value

    def close(self) -> None:
        """Dispose what is left. Idempotent."""
        self.closed = True
        for tensor in list(self.tensors.values()):
            tensor.dispose(f"the end of tidy scope {self.name!r}")

    def depth(self) -> int:
        """How many scopes are open, this one included."""
        depth, scope = 0, cast("Scope | None", self)
        while scope is not None:
            depth, scope = depth + (not scope.closed), scope.parent
        return depth


_current: ContextVar[Scope | None] = ContextVar("gpt2_wgpu_scope", default=None)
set_scope_lookup(_current.get)


def current_scope() -> Scope | None:
    """The innermost open scope of this task or thread."""
    return _current.get()


class StartedScope(Scope):
    """A scope of :func:`start_scope`: only the task or thread that opened it may end it."""

    __slots__ = ("owner",)

    def __init__(self, name: str, parent: Scope | None) -> None:
        super().__init__(name, parent)
        self.owner = _task_or_thread()


def _task_or_thread() -> object:
    try:
        return asyncio.current_task() or threading.get_ident()
    except RuntimeError:  # no event loop runs here
        return threading.get_ident()


def start_scope(name: str = "scope") -> Scope:
    """Open a scope that :func:`end_scope` closes, for code made of callbacks; else use ``tidy``."""
    scope = StartedScope(name, _current.get())
    _current.set(scope)
    return scope


def end_scope(result: T = None) -> T:  # type: ignore[assignment]
    """Close the innermost scope; tensors in ``result`` move up one scope. Returns ``result``.

    Raises ``ScopeError`` when the innermost scope is not one that this task or thread started.
    """
    scope = _current.get()
    if not isinstance(scope, StartedScope) or scope.closed or scope.owner != _task_or_thread():
        raise ScopeError("end_scope without start_scope: none is open in this task or thread")
    _current.set(scope.parent)
    scope.escape(result)
    scope.close()
    return result


def keep(value: T) -> T:
    """Exempt every tensor in ``value`` from all scopes for good; only ``dispose`` frees it."""
    for tensor in tensors_in(value):
        tensor.kept = True
        if tensor.scope is not None:
            tensor.scope.release(tensor)
    return value


def dispose(value: Any) -> None:
    """Dispose every tensor found in ``value`` (any container); disposed ones are no-ops."""
    for tensor in tensors_in(value):
        tensor.dispose()


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Every distinct tensor in lists, tuples, sets, mappings, dataclasses and plain objects."""
    seen: dict[int, Any] = {}  # containers may contain themselves (held: no id is used twice)
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
    """What an object refers to by name, in its dictionary and in slots."""
    yield from getattr(item, "__dict__", {}).values()
    for kind in type(item).__mro__:
        for name, member in vars(kind).items():
            if inspect.ismemberdescriptor(member):
                yield getattr(item, name, None)


_OPAQUE = (str, bytes, int, float, Device)  # nothing to find in them, or not the caller's
