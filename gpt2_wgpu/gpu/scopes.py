"""``tidy``, ``keep``, ``dispose``: scopes that free GPU memory at a known moment.

Semantics are TF.js's (``tfjs-core/src/engine.ts``) where they are right: a scope disposes every
tensor made in it, except what is returned (which moves up exactly one scope) and what is kept.
Deliberately better: scopes live in a context variable, so asyncio tasks and threads never see
each other's, and every container is searched for tensors, sets and dataclasses included.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar, Token
from functools import wraps
from types import TracebackType
from typing import Any, TypeVar

from gpt2_wgpu.errors import InvalidArgumentError, ScopeError
from gpt2_wgpu.gpu.tensor import Tensor, set_scope_lookup

T = TypeVar("T")


class Scope:
    """The tensors made since it was opened; a node of a per-context stack."""

    __slots__ = ("name", "parent", "tensors")

    def __init__(self, name: str, parent: Scope | None) -> None:
        self.name = name
        self.parent = parent
        self.tensors: dict[int, Tensor] = {}

    def adopt(self, tensor: Tensor) -> None:
        tensor.scope = self
        self.tensors[id(tensor)] = tensor

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
        for tensor in list(self.tensors.values()):
            tensor.dispose()


_current: ContextVar[Scope | None] = ContextVar("gpt2_wgpu_scope", default=None)
set_scope_lookup(_current.get)


class tidy:
    """Free every tensor made inside, except those that are returned, escaped or kept.

    ============================== ===========================================================
    ``tidy(fn)``, ``tidy(name, fn)``  calls ``fn()`` at once and returns its value unchanged;
                                   a coroutine function gives a coroutine to await
    ``with tidy() as scope:``      ``scope.escape(value)`` moves tensors out; ``async with`` too
    ``@tidy()``, ``@tidy("name")``    wraps a function or a coroutine function
    ============================== ===========================================================

    When the body raises, everything made in it is disposed and the error goes on.
    """

    def __new__(cls, *arguments: Any) -> Any:
        name, function = _parse(arguments)
        if function is None:
            self = super().__new__(cls)
            self._name = name
            return self
        return tidy(name)(function)()

    _name: str

    def __init__(self, *arguments: Any) -> None:
        self._open: list[tuple[Scope, Token[Scope | None]]] = []

    def __enter__(self) -> Scope:
        scope = Scope(self._name, _current.get())
        self._open.append((scope, _current.set(scope)))
        return scope

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._open:
            raise ScopeError("this tidy scope was never opened, or is closed already")
        scope, token = self._open[-1]
        if _current.get() is not scope:
            raise ScopeError(f"tidy scope {scope.name!r} is closed out of order")
        self._open.pop()
        _current.reset(token)
        scope.close()

    async def __aenter__(self) -> Scope:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, traceback)

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        name = self._name

        @wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            with tidy(name) as scope:
                return scope.escape(function(*args, **kwargs))

        @wraps(function)
        async def run_async(*args: Any, **kwargs: Any) -> Any:
            with tidy(name) as scope:
                return scope.escape(await function(*args, **kwargs))

        return run_async if inspect.iscoroutinefunction(function) else run


def _parse(arguments: tuple[Any, ...]) -> tuple[str, Callable[..., Any] | None]:
    """``()``, ``(name)``, ``(fn)`` or ``(name, fn)`` → name and function."""
    match arguments:
        case ():
            return "tidy", None
        case (str(name),):
            return name, None
        case (function,) if callable(function):
            return getattr(function, "__name__", "tidy"), function
        case (str(name), function) if callable(function):
            return name, function
    raise InvalidArgumentError(
        f"tidy takes a name, a function, or both in this order; not {arguments!r}"
    )


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
    seen: set[int] = set()
    pending = [value]
    while pending:
        item = pending.pop()
        if id(item) in seen or item is None or isinstance(item, str | bytes | int | float):
            continue
        seen.add(id(item))
        if isinstance(item, Tensor):
            yield item
        elif isinstance(item, Mapping):
            pending.extend(item.values())
        elif isinstance(item, list | tuple | set | frozenset):
            pending.extend(item)
        elif not inspect.isroutine(item) and not isinstance(item, type):
            pending.extend(getattr(item, "__dict__", {}).values())
