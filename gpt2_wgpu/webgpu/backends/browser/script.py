"""Interface to script.js, the JavaScript part of the browser backend."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import js
from pyodide.code import run_js
from pyodide.ffi import JsException
from wgpu import classes

from gpt2_wgpu.webgpu.waiting import switch_until_done

_SOURCE = Path(__file__).with_suffix(".js")


class _Script:
    """Functions of script.js; their errors are translated to wgpu's."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if not hasattr(js, "gpt2WgpuBackend"):  # not loaded by the page, which allows eval
            run_js(_SOURCE.read_text(encoding="utf-8"))
        function = getattr(js.gpt2WgpuBackend, name)

        def call(*arguments: Any) -> Any:
            try:
                return function(*arguments)
            except JsException as error:
                raise _translated(error) from None

        setattr(self, name, call)
        return call


script = _Script()


def _translated(error: Any) -> Exception:
    """Translate a JavaScript error to an exception, by its name."""
    name, message = str(error.name), str(error.message)
    translated: Exception
    if name == "RuntimeError":
        translated = RuntimeError(message)
    elif name == "OSError":
        translated = OSError(message)
    elif name == "GPUPipelineError":
        translated = classes.GPUPipelineError(message, {"reason": "validation"})
    else:
        translated = getattr(classes, name, classes.GPUValidationError)(message)
    return translated


def _noticed(future: Any) -> None:
    """Mark a future's exception as retrieved: a device loss fails all submits, one is awaited."""
    if not future.cancelled():
        future.exception()


class Promise:
    """Promise of an asynchronous method; ``sync_wait`` needs stack switching."""

    def __init__(self, promise: Any, handler: Callable[[Any], Any] = lambda result: result) -> None:
        self._promise = promise  # a future of Pyodide
        self._handler = handler
        promise.add_done_callback(_noticed)

    def __await__(self) -> Generator[Any, None, Any]:
        return self._settled().__await__()

    def sync_wait(self) -> Any:
        return switch_until_done(self._settled())

    async def _settled(self) -> Any:
        try:
            return self._handler(await self._promise)
        except JsException as error:
            raise _translated(error) from None
