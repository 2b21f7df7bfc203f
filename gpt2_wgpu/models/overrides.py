"""Which methods of the generation pipeline a user has replaced, and how they are called.

One rule for all of them: the definition nearest to the instance counts, first the instance itself,
then its classes in their order. A method and its ``_async`` form are two definitions of one step;
where a class has both, the asynchronous one counts. A result that is awaitable is awaited, so a
replacement may be a function or a coroutine function under either name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])
_defaults: dict[int, Callable[..., Any]] = {}  # by id: a replacement need not be hashable


def default(method: F) -> F:
    """Mark the package's own implementation of a pipeline step. A decorator."""
    _defaults[id(method)] = method
    return method


def chosen(owner: object, name: str) -> Callable[..., Any]:
    """The method that counts as step ``name`` of ``owner``: ``name`` or ``name_async``."""
    places = [getattr(owner, "__dict__", {}), *map(vars, type(owner).__mro__)]
    names = (f"{name}_async", name)
    nearest = next((n for place in places for n in names if n in place), name)
    method: Callable[..., Any] = getattr(owner, nearest)
    return method


def is_default(method: Callable[..., Any]) -> bool:
    """Whether ``method`` is the package's own, and no replacement or wrapper."""
    return id(getattr(method, "__func__", method)) in _defaults


async def settled(value: Any) -> Any:
    """``value``, awaited if it can be."""
    return await value if inspect.isawaitable(value) else value
