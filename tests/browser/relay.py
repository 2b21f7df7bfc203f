"""Relay to Chromium's WebGPU for tests in this process: `pytest --gpu=chromium`.

webgpu/backends/browser calls JavaScript through the modules `js` and `pyodide`. Here these are
proxies that pass each call on to a page, so that the backend as it is, and with it every test
that needs NumPy or PyTorch for its expected values, runs against Chromium's compiler and
validation.

Calls are collected and sent when an answer is needed; an error of one is raised by then. Few bytes
go as text with them; many, which take minutes that way, the page fetches and posts.
"""

from __future__ import annotations

import json
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable, Coroutine, Generator
from contextlib import ExitStack
from itertools import count
from queue import Queue
from types import ModuleType
from typing import Any

from tests.browser.chromium import Tab, required_chromium
from tests.browser.serving import PAGES, ROOT, Handler, serving

SCRIPT = ROOT / "gpt2_wgpu" / "webgpu" / "backends" / "browser" / "script.js"
VALUES = ("describeAdapter", "describeDevice")  # functions whose results Python looks at
MANY = 1 << 16  # bytes
TIMEOUT_S = 60  # seconds


class JsException(Exception):
    """An error of JavaScript's, as in `pyodide.ffi`."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name, self.message = name, message


class Depot:
    """Where the page gets many bytes, and leaves them: GET and POST of `data`."""

    def __init__(self) -> None:
        self.held = b""  # of the current message
        self.left: Queue[bytes] = Queue()

    def handler(self) -> type[Handler]:
        depot = self

        class DepotHandler(Handler):
            def do_GET(self) -> None:
                if not self.path.endswith("/data"):
                    return super().do_GET()
                self.answer(depot.held)

            def do_POST(self) -> None:
                depot.left.put(self.rfile.read(int(self.headers["Content-Length"])))
                self.answer(b"")

            def answer(self, data: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        return DepotHandler


class Relay:
    """Calls on their way to a page, and what comes back."""

    def __init__(self, tab: Tab, depot: Depot) -> None:
        self._tab, self._depot = tab, depot
        for script in (SCRIPT, PAGES / "relay.js"):
            self._tab.evaluate(f"{script.read_text()}; null")
        self._calls: list[Any] = []
        self._many: list[bytes] = []
        self._dropped: list[int] = []
        self._ids = count(1)

    def call(self, subject: int, method: str, arguments: tuple[Any, ...]) -> Remote:
        result = Remote(self, next(self._ids))
        self._calls.append([result.id, subject, method, [self._encoded(a) for a in arguments]])
        return result

    def drop(self, subject: int) -> None:
        self._dropped.append(subject)

    def ask(self, answer: str, subject: int) -> Any:
        calls, self._calls = self._calls, []
        dropped, self._dropped = self._dropped, []
        self._depot.held, self._many = b"".join(self._many), []
        result = next(self._ids)
        message = {
            "calls": calls, "dropped": dropped, "answer": answer, "subject": subject,
            "result": result, "held": len(self._depot.held), "many": MANY,
        }  # fmt: skip
        found = self._tab.evaluate("text => relay(text)", json.dumps(message))
        if "failed" in found:
            raise JsException(**found["failed"])
        if answer == "bytes":
            text = found["value"]
            return self._depot.left.get(timeout=TIMEOUT_S) if text is None else b64decode(text)
        return Remote(self, result) if answer == "settled" else found["value"]

    def _encoded(self, argument: Any) -> Any:
        if isinstance(argument, Remote):
            return {"id": argument.id}
        if isinstance(argument, list):
            return [self._encoded(item) for item in argument]
        if not isinstance(argument, memoryview):
            return argument
        if argument.nbytes < MANY:
            return {"bytes": b64encode(argument).decode()}
        start = sum(map(len, self._many))
        self._many.append(bytes(argument))
        return {"held": [start, start + argument.nbytes]}


class Remote:
    """A proxy of a JavaScript object."""

    def __init__(self, relay: Relay, subject: int) -> None:
        self._relay, self.id = relay, subject

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> Any:
            result = self._relay.call(self.id, name, arguments)
            return self._relay.ask("value", result.id) if name in VALUES else result

        return call

    def __await__(self) -> Generator[Any, None, Any]:
        return self._relay.ask("settled", self.id)
        yield  # makes this a generator: it never waits, it blocks

    def add_done_callback(self, callback: Callable[..., object]) -> None:
        """Ignore the callback: as natively, where wgpu has no event of device loss."""

    def to_bytes(self) -> bytes:
        held: bytes = self._relay.ask("bytes", self.id)
        return held

    def __del__(self) -> None:
        self._relay.drop(self.id)


def run_sync(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Nothing behind the relay ever waits, so one step runs a coroutine to its end."""
    try:
        coroutine.send(None)
    except StopIteration as finished:
        return finished.value
    raise RuntimeError("a coroutine waits for something that is not the relay")


def relayed() -> Callable[[], None]:
    """Make Chromium's WebGPU the backend of wgpu in this process; returns what ends that."""
    with ExitStack() as opened:
        depot = Depot()
        address = opened.enter_context(serving(PAGES, depot.handler()))
        tab = Tab(required_chromium(), f"{address}tests/empty.html")
        opened.callback(tab.close)
        js, pyodide = ModuleType("js"), ModuleType("pyodide")
        code, ffi = ModuleType("pyodide.code"), ModuleType("pyodide.ffi")
        vars(js)["gpt2WgpuBackend"] = Remote(Relay(tab, depot), 0)
        vars(code)["run_js"] = vars(ffi)["to_js"] = lambda value: value
        vars(ffi).update(JsException=JsException, run_sync=run_sync)
        for module in (js, pyodide, code, ffi):
            sys.modules[module.__name__] = module

        import wgpu.backends.wgpu_native

        from gpt2_wgpu.webgpu.backends import browser

        wgpu.gpu = browser.gpu
        return opened.pop_all().close
