"""Replaced methods of the generation pipeline: resolution and calls.

The definition closest to the instance is used: on the instance itself, then on its classes in
method resolution order. A method and its ``_async`` counterpart are two definitions of one step; of
a class that has both, the async one is used. Awaitable results are awaited, so that a replacement
may be a function or a coroutine function under either name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeVar

from gpt2_wgpu.webgpu import sync

F = TypeVar("F", bound=Callable[..., Any])
_KERAS_HUB_NAMES = {"build_cache": ("_build_cache",)}
_defaults: dict[int, Callable[..., Any]] = {}  # by id: a replacement need not be hashable


def default(method: F) -> F:
    """Mark the package's own implementation of a pipeline step. A decorator."""
    _defaults[id(method)] = method
    return method


def add_blocking_forms(cls: type, names: Sequence[str]) -> None:
    """Give ``cls`` a blocking form of each step of which it defines only the ``_async`` form.

    The inherited form runs the inherited step, also where it is called as ``super().step()``.
    """
    for name in names:
        function = vars(cls).get(f"{name}_async")
        if inspect.isfunction(function) and name not in vars(cls):
            setattr(cls, name, _blocking(function))


def _blocking(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def blocking(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        return sync(result, f"{function.__name__}(...)") if inspect.iscoroutine(result) else result

    return blocking


def chosen(owner: object, name: str) -> Callable[..., Any]:
    """Return the method used as step ``name`` of ``owner``: ``name`` or ``name_async``."""
    places = [getattr(owner, "__dict__", {}), *map(vars, type(owner).__mro__)]
    names = (f"{name}_async", name, *_KERAS_HUB_NAMES.get(name, ()))
    nearest = next((n for place in places for n in names if n in place), name)
    method: Callable[..., Any] = getattr(owner, nearest)
    return method


def is_default(method: Callable[..., Any]) -> bool:
    """Return whether ``method`` is the package's own, not a replacement or wrapper."""
    return id(getattr(method, "__func__", method)) in _defaults


async def settled(value: Any) -> Any:
    """Return ``value``, awaited if it is awaitable."""
    return await value if inspect.isawaitable(value) else value
