"""Pages of the comparison: their HTTP server, and a runner of an engine in a page."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, unquote, urlsplit

from benchmarks.peers.compare import Marks
from benchmarks.peers.engines import Engine
from benchmarks.peers.models import Work

_HERE = Path(__file__).parent


class Tab(Protocol):
    """Protocol of a page in a browser; all raise ``EngineFailed``."""

    def open(self, address: str) -> None:
        """Go to ``address`` and wait until it is loaded."""

    def evaluate(self, script: str, argument: Any = None) -> Any:
        """Return the value of a JavaScript function, whose promise is awaited."""


class PageRunner:
    """`compare.Runner` of an engine in a page."""

    def __init__(self, engine: Engine, work: Work, tab: Tab, address: str) -> None:
        self.engine, self._tab, self._address = engine, tab, address
        self._work = {"ids": work.ids, "prompts": work.prompts}

    def load(self) -> dict[str, str]:
        self._tab.open(self._address)
        arguments = [self.engine.file, self.engine.options, os.cpu_count() or 1]
        code = "([file, options, threads]) => loadEngine(file, options, threads)"
        return dict(self._tab.evaluate(code, arguments))

    def run(self, count: int) -> Marks:
        code = "([work, count]) => runEngine(work, count)"
        marks = self._tab.evaluate(code, [self._work, count])
        return [(seconds, ids) for seconds, ids in marks]


@contextmanager
def served(work: Work, modules: Path, site: Path) -> Iterator[str]:
    """Serve the engines' files; yield the address of the page."""
    roots = {"npm": modules, "model": work.directory, "site": site}
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Files, roots=roots))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/page.html"
    finally:
        server.shutdown()


class _Files(SimpleHTTPRequestHandler):
    """Files of this folder, and of other folders under one name each.

    Cross-origin isolated, so that WASM engines have threads.
    """

    extensions_map = {  # noqa: RUF012 - as in the base class
        **SimpleHTTPRequestHandler.extensions_map,
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def __init__(self, *args: Any, roots: dict[str, Path], **kwargs: Any) -> None:
        self._roots = roots
        super().__init__(*args, **kwargs)

    def translate_path(self, path: str) -> str:
        head, _, rest = unquote(urlsplit(path).path).lstrip("/").partition("/")
        if head not in self._roots:
            return str(_HERE / Path(head).name)
        self.directory = str(self._roots[head])
        return super().translate_path(quote(f"/{rest}"))

    def end_headers(self) -> None:
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass
