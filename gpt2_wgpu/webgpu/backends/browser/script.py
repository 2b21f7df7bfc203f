"""The functions of script.js, which do in JavaScript what has to be done there."""

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
    """The functions of script.js; their errors become wgpu's."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if not hasattr(js, "gpt2WgpuBackend"):  # a page that loads nothing itself, and allows eval
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
    """The exception that an error of JavaScript's stands for, by its name."""
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
    """Of submits ahead, a loss of the device fails all, and only one is asked: no complaint."""
    if not future.cancelled():
        future.exception()


class Promise:
    """What an asynchronous method returns: await it, or ``sync_wait`` where the stack switches."""

    def __init__(self, promise: Any, handler: Callable[[Any], Any] = lambda result: result) -> None:
        self._promise = promise  # Pyodide has made a future of it
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
