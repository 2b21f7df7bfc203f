"""tidy: a memory scope as context manager, decorator or call, sync or async."""

from __future__ import annotations

import inspect
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Coroutine,
    Generator,
    Iterator,
)
from functools import update_wrapper, wraps
from types import TracebackType
from typing import Any, Generic, ParamSpec, TypeVar, cast, overload

from gpt2_wgpu.errors import InvalidArgumentError, ScopeError
from gpt2_wgpu.shown import shown
from gpt2_wgpu.tensors.scopes import Scope, StartedScope, _current

P = ParamSpec("P")
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
# Functions that are wrapped even without arguments: each call of a generator is a scope.
G = TypeVar("G", bound=Callable[..., Iterator[Any] | AsyncIterator[Any]])


class Tidy:
    """Memory scope as a context manager (sync or async) or decorator; see :func:`tidy`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._open: list[Scope] = []

    def __repr__(self) -> str:
        return f"<tidy {self._name!r}>"

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
            raise ScopeError("this tidy scope is not open")
        above: list[Scope] = []  # inner scopes left open; allowed if the body raised
        scope = _current.get()
        while scope is not None and scope not in self._open:  # (tasks may share this object)
            above.append(scope)
            scope = scope.parent
        forgotten = all(isinstance(each, StartedScope) for each in above)
        if scope is None or not (forgotten or kind):
            raise ScopeError(f"tidy scope {self._name!r} is closed out of order")
        self._open.remove(scope)
        _current.set(scope.parent)
        for each in (*above, scope):
            each.close()
        if above and kind is None:
            names = ", ".join(repr(each.name) for each in above)
            raise ScopeError(
                f"tidy scope {self._name!r} is closed out of order: {names} was still open in it"
            )

    async def __aenter__(self) -> Scope:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, traceback)

    def __call__(self, function: F) -> F:
        """Wrap ``function``: each call is a scope."""
        run: Any = _wrap_function
        for is_kind, wrap in (
            (inspect.iscoroutinefunction, _wrap_coroutine),
            (inspect.isasyncgenfunction, _wrap_async_generator),
            (inspect.isgeneratorfunction, _wrap_generator),
        ):
            if is_kind(function):
                run = wrap
        return cast("F", wraps(function)(run(self._name, function)))


@overload
def tidy() -> Tidy: ...
@overload
def tidy(name: str, /) -> Tidy: ...
@overload
def tidy(function: Callable[P, Coroutine[Any, Any, T]], /) -> TidyCoroutine[P, T]: ...
@overload
def tidy(function: G, /) -> G: ...
@overload
def tidy(function: Callable[[], T], /) -> T: ...
@overload
def tidy(function: F, /) -> F: ...
@overload
def tidy(name: str, function: Callable[P, Coroutine[Any, Any, T]], /) -> TidyCoroutine[P, T]: ...
@overload
def tidy(name: str, function: G, /) -> G: ...
@overload
def tidy(name: str, function: Callable[[], T], /) -> T: ...
@overload
def tidy(name: str, function: F, /) -> F: ...
def tidy(*arguments: Any) -> Any:
    """Free all tensors created in a scope, except those returned, escaped or kept.

    - ``with tidy() as scope:`` or ``async with tidy():``; ``scope.escape(value)`` moves tensors to
      the parent scope. ``tidy("name")`` sets the name in messages.
    - ``tidy(fn)`` and ``tidy("name", fn)`` call ``fn()`` and return its value unchanged;
      ``await tidy(fn)`` for a coroutine function.
    - ``@tidy``, ``@tidy()`` and ``@tidy("name")`` wrap a function, a coroutine function, a
      generator or an asynchronous generator: each call is a scope. (A plain ``@tidy`` calls a
      function without required arguments, like ``tidy(fn)``; use ``@tidy()`` there.)

    A generator's scope lasts as long as the generator; yielded tensors move to the parent scope. If
    the body raises, all its tensors are disposed and the exception propagates.

    Args:
        *arguments: nothing, a name, a function, or both in this order.

    Returns:
        A `Tidy` without a function, the function's result for ``tidy(fn)``, else the wrapped
        function.

    Raises:
        InvalidArgumentError: other arguments.
        ScopeError: scopes are closed out of order.
    """
    name, function = _parse(arguments)
    scope = Tidy(name)
    return scope if function is None else _call_or_wrap(scope(function), function)


def _wrap_function(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        with tidy(name) as scope:
            result = function(*args, **kwargs)
            if inspect.iscoroutine(result) or inspect.isgenerator(result):
                result.close()  # its body would run after the scope and leak (as in TF.js)
                raise ScopeError(
                    f"{name!r} returned a {type(result).__name__}, which runs after the scope: "
                    "give tidy the coroutine function itself, or write `async with tidy():`"
                )
            return scope.escape(result)

    return run


def _wrap_coroutine(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    async def run(*args: Any, **kwargs: Any) -> Any:
        with tidy(name) as scope:
            return scope.escape(await function(*args, **kwargs))

    return run


def _wrap_generator(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        inside = _Inside(name)
        body = function(*args, **kwargs)
        resume, argument = body.send, None
        try:
            while True:
                with inside as scope:
                    try:
                        value = scope.escape(resume(argument))
                    except StopIteration as finished:
                        return scope.escape(finished.value)
                try:
                    resume, argument = body.send, (yield value)
                except GeneratorExit:
                    raise
                except BaseException as error:  # pass Ctrl-C and cancellation to the body
                    resume, argument = body.throw, error
        finally:
            try:
                with inside:
                    body.close()
            finally:
                inside.scope.close()

    return run


def _wrap_async_generator(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    async def run(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        inside = _Inside(name)
        body = function(*args, **kwargs)
        resume, argument = body.asend, None
        try:
            while True:
                with inside as scope:
                    try:
                        value = scope.escape(await resume(argument))
                    except StopAsyncIteration:
                        return
                try:
                    resume, argument = body.asend, (yield value)
                except GeneratorExit:
                    raise
                except BaseException as error:  # pass Ctrl-C and cancellation to the body
                    resume, argument = body.athrow, error
        finally:
            try:
                with inside:
                    await body.aclose()
            finally:
                inside.scope.close()

    return run


class _Inside:
    """Activates a generator's scope while its body runs, and the caller's scope at a yield."""

    def __init__(self, name: str) -> None:
        self.scope = Scope(name, None)
        self._innermost: Scope | None = self.scope  # a yield may be within a nested scope

    def __enter__(self) -> Scope:
        self.scope.parent = _current.get()
        _current.set(self._innermost)
        return self.scope

    def __exit__(self, *_: object) -> None:
        self._innermost = _current.get()
        _current.set(self.scope.parent)


class TidyCoroutine(Generic[P, T]):
    """Result of ``tidy(coroutine_function)``: a decorated function that can also be awaited."""

    def __init__(self, run: Callable[P, Coroutine[Any, Any, T]]) -> None:
        update_wrapper(self, run)
        self._run = run

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
        """Call the coroutine function in a scope."""
        return self._run(*args, **kwargs)

    def __await__(self) -> Generator[Any, Any, T]:
        run: Any = self._run  # awaited directly: called without arguments
        value: T = yield from run().__await__()
        return value


def _call_or_wrap(run: Callable[..., Any], function: Callable[..., Any]) -> Any:
    if inspect.iscoroutinefunction(function):
        return TidyCoroutine(run)
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
    """Parse ``()``, ``(name)``, ``(fn)`` or ``(name, fn)``; return name and function."""
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
        f"tidy takes a name, a function, or both in this order; not {shown(arguments)}"
    )
