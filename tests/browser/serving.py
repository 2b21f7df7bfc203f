"""Server of the built site and the tests' pages, stricter than a static host."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = Path(__file__).parent / "pages"
PREFIX = "/some/where/"  # as on project pages: nothing may rely on being at the root
POLICY = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; img-src 'self' data:"


class Handler(SimpleHTTPRequestHandler):
    """Serves `directory` below PREFIX; its tests/ are the tests' pages."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | {
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def translate_path(self, path: str) -> str:
        if not path.startswith(PREFIX):
            return str(PAGES / "nothing is here")
        rest = path.removeprefix(PREFIX)
        if rest.startswith("tests/"):
            return str(PAGES / rest.removeprefix("tests/"))
        return super().translate_path(rest)

    def end_headers(self) -> None:
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing: the page sees what fails."""


@contextmanager
def serving(directory: Path, handler: type[Handler] = Handler) -> Iterator[str]:
    """The address of a server for `directory` on a free port."""
    made = partial(handler, directory=str(directory))
    with ThreadingHTTPServer(("127.0.0.1", 0), made) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}{PREFIX}"
        finally:
            server.shutdown()
