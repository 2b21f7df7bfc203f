"""Hooks: functions of the user that see and replace activations of a model while it computes.

They are in a context variable, so that they apply to the calls of one thread or asyncio task.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Generic, Protocol, Self, TypeVar

from gpt2_wgpu.errors import (
    DisposedTensorError,
    InvalidArgumentError,
    NumericalError,
    ShapeError,
)
from gpt2_wgpu.models.hook_points import point_names, selected
from gpt2_wgpu.shown import listed, shown
from gpt2_wgpu.tensors import Tensor

M = TypeVar("M")
Hook = Callable[[Tensor, str], Tensor | None]
"""``(activation, name of the point) -> None``, or the tensor in its place."""


class Owner(Protocol):
    """Protocol of what is computed with hooks, a backbone."""

    def check_usable(self) -> None:
        """Raise DisposedTensorError if its weights were freed."""


class Hooks:
    """Functions by the names of the points of ``owner``, a backbone."""

    def __init__(self, owner: Owner, functions: dict[str, tuple[Hook, ...]]) -> None:
        self.owner = owner
        self._functions = functions

    def __contains__(self, name: str) -> bool:
        return name in self._functions

    @property
    def names(self) -> list[str]:
        """Names of the points that have a function."""
        return list(self._functions)

    def any(self, before: str, names: Iterable[str]) -> bool:
        """Return whether one of ``names``, each after ``before``, has a function."""
        return any(before + name in self._functions for name in names)

    def offer(self, name: str, value: Tensor) -> Tensor | None:
        """Call the functions of a point, each with the result of the one before.

        Returns:
            The tensor in the place of ``value``; None if none has replaced it.

        Raises:
            ShapeError: a function returned a tensor of another shape.
            InvalidArgumentError: it returned something else, another dtype or device.
            DisposedTensorError: it returned a disposed tensor, disposed what it was given without
                replacing it, or disposed the model.
        """
        found = value
        found.remedy = _remedy(name)
        for function in self._functions.get(name, ()):
            result = function(found, name)
            self.owner.check_usable()
            if result is not None:
                found = _checked(name, result, value)
                found.remedy = _remedy(name)
            elif found.disposed:
                raise DisposedTensorError(
                    f"the hook of {name} disposed its activation and returned None: the model "
                    "still needs it, and frees it afterwards"
                )
        return None if found is value else found

    def over(self, before: Hooks) -> Hooks:
        """Return the functions of ``before``, then these."""
        names = {**before._functions, **self._functions}
        both = {n: before._functions.get(n, ()) + self._functions.get(n, ()) for n in names}
        return Hooks(self.owner, both)


def _remedy(name: str) -> str:
    """Return what to do instead of using the activation of a point after its hook."""
    return (
        f"it was the activation of {name}; in the hook read its values or gw.keep(x) it, or take "
        "it from run_with_cache"
    )


def _checked(name: str, result: Any, value: Tensor) -> Tensor:
    """Return the result of a function, if it can take the place of ``value``."""
    expected = f"the hook of {name} must return None or a float32 tensor of shape {value.shape}"
    if inspect.iscoroutine(result):
        result.close()
        raise InvalidArgumentError(f"{expected}, not a coroutine: hooks are plain functions")
    if not isinstance(result, Tensor):
        raise InvalidArgumentError(f"{expected}, not {_described(result)}")
    try:
        result.check()
    except DisposedTensorError as error:
        raise DisposedTensorError(f"{expected}: {error}") from None
    if result.shape != value.shape:
        raise ShapeError(f"{expected}, not one of shape {result.shape}")
    if result.dtype != value.dtype:
        raise InvalidArgumentError(f"{expected}, not of dtype {result.dtype}")
    if result.device is not value.device:
        raise InvalidArgumentError(f"{expected} on {value.device}, not on {result.device}")
    return result


def _described(result: Any) -> str:
    """Return type and size of an array or list, with the function that makes a tensor; or all."""
    kind, shape = type(result), getattr(result, "shape", None)
    if isinstance(shape, tuple):
        size = f"{kind.__module__}.{kind.__name__} of shape {tuple(shape)}"
    elif isinstance(result, list | tuple):
        size = f"{kind.__name__} of length {len(result)}"
    else:
        return shown(result)
    return f"{size}: gw.tensor(array) makes a tensor"


def made_hooks(owner: Owner, layers: int, hooks: Any) -> Hooks:
    """Return hooks of pairs ``(names, function)``.

    InvalidArgumentError for anything but pairs, a function that cannot be called with
    ``(tensor, name)``, and names that select no point of a model of so many ``layers``.
    """
    known, functions = point_names(layers), dict[str, tuple[Hook, ...]]()
    is_list = isinstance(hooks, Iterable) and not isinstance(hooks, str | bytes)
    for pair in list(hooks) if is_list else [hooks]:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise InvalidArgumentError(
                f"hooks must be a list of pairs (name or pattern, function), not {shown(hooks)}"
            )
        names, function = pair
        _check_function(function)
        for name in selected(names, known):
            functions[name] = (*functions.get(name, ()), function)
    return Hooks(owner, functions)


def _check_function(function: Any) -> None:
    try:
        inspect.signature(function).bind(None, None)
    except (TypeError, ValueError):
        raise InvalidArgumentError(
            f"a hook is called as hook(tensor, name): {shown(function)} cannot be"
        ) from None
    if inspect.iscoroutinefunction(function):
        raise InvalidArgumentError(
            f"a hook is a plain function, not a coroutine function: {shown(function)}; to wait "
            "for values take run_with_cache_async"
        )


_open: ContextVar[tuple[Hooks, ...]] = ContextVar("gpt2_wgpu_hooks", default=())


def open_hooks() -> tuple[Hooks, ...]:
    """Return all hooks of this thread or asyncio task, to be applied elsewhere."""
    return _open.get()


def hooks_of(owner: object) -> Hooks | None:
    """Return the hooks that apply to the computations of ``owner``."""
    if not (hooks := _open.get()):
        return None
    found = None
    for each in hooks:
        if each.owner is owner:
            found = each if found is None else each.over(found)
    return found


def not_finite(what: str, others: str = "") -> NumericalError:
    """Return the error for ``what``, which is NaN or infinite; it names the hooks that apply.

    ``others``: causes besides the weights, hooks and the device, each with a comma after it.
    """
    names = list(dict.fromkeys(name for hooks in _open.get() for name in hooks.names))
    hooked = f"a hook returned them ({listed(names, 3)}), " if names else ""
    return NumericalError(
        f"{what}: the weights hold NaN or overflow (float16?), {others}{hooked}or the device "
        "computes wrongly"
    )


def check_no_hooks(owner: object, what: str) -> None:
    """Raise InvalidArgumentError if hooks apply to ``owner``, whose calls by ``what`` take none."""
    if hooks_of(owner) is not None:
        raise InvalidArgumentError(f"{what} takes no hooks: close lm.hooks first, or use generate")


@contextmanager
def applied(hooks: Sequence[Hooks]) -> Iterator[None]:
    """Apply ``hooks``, and no others, to the computations of this thread or asyncio task."""
    before = _open.get()
    _open.set(tuple(hooks))
    try:
        yield
    finally:
        _open.set(before)


class HookScope(Generic[M]):
    """Context manager of ``lm.hooks``, for ``with`` and ``async with``; may be entered again.

    ``as`` gives the ``model``, as in TransformerLens.
    """

    def __init__(self, hooks: Hooks, model: M) -> None:
        self._hooks, self._model = hooks, model

    def __enter__(self) -> M:
        _open.set((*_open.get(), self._hooks))
        return self._model

    def __exit__(self, *_: object) -> None:
        opened = list(_open.get())
        places = [place for place, each in enumerate(opened) if each is self._hooks]
        if places:
            del opened[places[-1]]
        _open.set(tuple(opened))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return itself: the functions and the model are shared, as functions always are."""
        return self

    async def __aenter__(self) -> M:
        return self.__enter__()

    async def __aexit__(self, *_: object) -> None:
        self.__exit__()
