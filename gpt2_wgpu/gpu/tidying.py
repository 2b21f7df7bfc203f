"""``tidy``: the one word for opening a scope, in each form that Python has for a block of code."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import contextmanager
from functools import update_wrapper, wraps
from types import TracebackType
from typing import Any

from gpt2_wgpu.errors import InvalidArgumentError, ScopeError
from gpt2_wgpu.gpu.scopes import Scope, _current


class tidy:
    """Free every tensor made inside, except those that are returned, escaped or kept.

    - ``with tidy() as scope:`` or ``async with tidy():``; ``scope.escape(value)`` moves tensors
      out of it. ``tidy("name")`` names the scope, for messages.
    - ``tidy(fn)`` and ``tidy("name", fn)`` call ``fn()`` at once and return its value unchanged;
      ``await tidy(fn)`` for a coroutine function.
    - ``@tidy``, ``@tidy()`` and ``@tidy("name")`` wrap a function, a coroutine function, a
      generator or an asynchronous generator: each call is a scope. (A plain ``@tidy`` calls a
      function that needs no argument, as ``tidy(fn)`` does: there, write ``@tidy()``.)

    A generator's scope lasts as long as the generator; what it yields moves up. When the body
    raises, everything made in it is disposed and the error goes on.

    Raises ``InvalidArgumentError`` for other arguments, ``ScopeError`` when closed out of order.
    """

    def __new__(cls, *arguments: Any) -> Any:
        name, function = _parse(arguments)
        if function is None:
            self = super().__new__(cls)
            self._name = name
            return self
        return _call_or_wrap(tidy(name)(function), function)

    _name: str

    def __init__(self, *arguments: Any) -> None:
        self._open: list[Scope] = []

    def __enter__(self) -> Scope:
        scope = Scope(self._name, _current.get())
        _current.set(scope)
        self._open.append(scope)
        return scope

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._open:
            raise ScopeError("this tidy scope was never opened, or is closed already")
        scope = self._open[-1]
        if _current.get() is not scope:
            raise ScopeError(f"tidy scope {scope.name!r} is closed out of order")
        self._open.pop()
        _current.set(scope.parent)
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
        for is_kind, wrap in (
            (inspect.iscoroutinefunction, _wrap_coroutine),
            (inspect.isasyncgenfunction, _wrap_async_generator),
            (inspect.isgeneratorfunction, _wrap_generator),
        ):
            if is_kind(function):
                return wraps(function)(wrap(self._name, function))
        return wraps(function)(_wrap_function(self._name, function))


def _wrap_function(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        with tidy(name) as scope:
            return scope.escape(function(*args, **kwargs))

    return run


def _wrap_coroutine(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    async def run(*args: Any, **kwargs: Any) -> Any:
        with tidy(name) as scope:
            return scope.escape(await function(*args, **kwargs))

    return run


def _wrap_generator(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        scope = Scope(name, None)
        body = function(*args, **kwargs)
        resume, argument = body.send, None
        try:
            while True:
                with _inside(scope):
                    try:
                        value = scope.escape(resume(argument))
                    except StopIteration as finished:
                        return scope.escape(finished.value)
                try:
                    resume, argument = body.send, (yield value)
                except Exception as error:
                    resume, argument = body.throw, error
        finally:
            with _inside(scope):
                body.close()
            scope.close()

    return run


def _wrap_async_generator(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    async def run(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        scope = Scope(name, None)
        body = function(*args, **kwargs)
        try:
            while True:
                with _inside(scope):
                    try:
                        value = scope.escape(await anext(body))
                    except StopAsyncIteration:
                        return
                yield value
        finally:
            with _inside(scope):
                await body.aclose()
            scope.close()

    return run


@contextmanager
def _inside(scope: Scope) -> Iterator[None]:
    """Be in ``scope`` while a generator's body runs, and back in its user's scope at a yield."""
    scope.parent = _current.get()
    _current.set(scope)
    try:
        yield
    finally:
        _current.set(scope.parent)


class _WrappedCoroutine:
    """What ``tidy(coroutine_function)`` gives: call it as a decorated function, or await it."""

    def __init__(self, run: Callable[..., Any]) -> None:
        update_wrapper(self, run)
        self._run = run

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._run(*args, **kwargs)

    def __await__(self) -> Any:
        return self._run().__await__()


def _call_or_wrap(run: Callable[..., Any], function: Callable[..., Any]) -> Any:
    if inspect.iscoroutinefunction(function):
        return _WrappedCoroutine(run)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        return run
    return run if _needs_arguments(function) else run()


def _needs_arguments(function: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # a builtin without a signature
        return False
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return any(p.default is p.empty and p.kind not in variable for p in parameters)


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
