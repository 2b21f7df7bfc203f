"""Python console of a web page's worker."""

from __future__ import annotations

import asyncio
import io
import traceback
from collections.abc import Awaitable, Callable
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import gpt2_wgpu as gw

_CONSOLE = "<console>"


class Console:
    """Runs code in a namespace with ``gw`` and ``lm``, kept between calls.

    Args:
        lm: the model.
    """

    def __init__(self, lm: gw.GPT2CausalLM) -> None:
        self._names: dict[str, Any] = {
            "__name__": "__main__",
            "gw": gw,
            "lm": lm,
            "input": _no_input,
        }

    async def run(
        self, code: str, stoppable: Callable[[Awaitable[Any]], Awaitable[Any]]
    ) -> dict[str, Any]:
        """Run code, in which ``await`` works at the top level.

        Args:
            code: the code.
            stoppable: returns the result of an awaitable, which the page's stop cancels.

        Returns:
            ``output`` (printed text) and ``result`` (repr of the last expression), or ``error``
            with ``name`` and ``message`` (a traceback).
        """
        from pyodide.code import eval_code_async

        output = io.StringIO()
        with redirect_stdout(output), redirect_stderr(output):
            running = eval_code_async(code, self._names, filename=_CONSOLE)
            try:
                result = await stoppable(_without_exit(running))
            except _NotHereError as error:
                return {"error": {"name": "RuntimeError", "message": f"{output.getvalue()}{error}"}}
            except (Exception, asyncio.CancelledError) as error:
                message = output.getvalue() + _traceback(error)
                return {"error": {"name": type(error).__name__, "message": message}}
        self._names["_"] = result
        return {"output": output.getvalue(), "result": None if result is None else repr(result)}

    def clear(self) -> None:
        """Remove all names, and with them the last references to their tensors."""
        self._names.clear()


class _NotHereError(Exception):
    """A feature of consoles that is not available here."""


async def _without_exit(running: Awaitable[Any]) -> Any:
    try:
        return await running
    except SystemExit:  # which would propagate through the event loop
        raise _NotHereError("exit is not available here: unload the model instead") from None


def _no_input(prompt: object = "") -> str:
    raise _NotHereError("input() is not available here: write the value into the code")


def _traceback(error: BaseException) -> str:
    """Return the traceback from the user's code on."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename != _CONSOLE:
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames))
