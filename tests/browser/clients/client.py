"""Pages of Pyodide's other clients in Chromium, with the site's host as the only host."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Request, Route

from tests.browser.chromium import Tab

# Default source of Pyodide's clients, on any host.
PYODIDE_ON_A_CDN = re.compile(r"^https://[^/]+/pyodide/v[\w.]+/full/([^/?]+)$")
KINDS = SimpleHTTPRequestHandler.extensions_map | {
    ".mjs": "text/javascript",
    ".wasm": "application/wasm",
}


class Handler(SimpleHTTPRequestHandler):
    """A static host with no policy: these clients need `eval` and inline scripts."""

    extensions_map = KINDS

    def log_message(self, *_: object) -> None:
        """Says nothing: the page sees what fails."""


class OpenHandler(Handler):
    """A static host whose files any page may read, as a CDN's."""

    def end_headers(self) -> None:
        self.send_header("Access-Control-Allow-Origin", "*")
        super().end_headers()


@contextmanager
def serving(folder: Path, handler: type[Handler] = Handler) -> Iterator[str]:
    """The address of a server for `folder` on a free port."""
    made = partial(handler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), made) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


class Visit(Tab):
    """A page at `address`, with the folder `pyodide` in place of the CDN's.

    `asked` lists all requests, `elsewhere` those to other hosts.
    """

    def __init__(self, executable: str, address: str, pyodide: Path) -> None:
        self.asked: list[str] = []
        self.elsewhere: list[str] = []
        self._pyodide = pyodide
        self._host = urlsplit(address).netloc
        super().__init__(executable, address)

    def _prepare(self) -> None:
        self._page.route(PYODIDE_ON_A_CDN, self._answer)
        self._page.on("request", self._note_request)

    def _answer(self, route: Route) -> None:
        found = PYODIDE_ON_A_CDN.match(route.request.url)
        path = self._pyodide / (found[1] if found else "")
        if not path.is_file():
            route.abort()
            return
        headers = {"Access-Control-Allow-Origin": "*", "Content-Type": KINDS.get(path.suffix, "")}
        route.fulfill(path=path, headers=headers)

    def _note_request(self, request: Request) -> None:
        self.asked.append(request.url)
        parts = urlsplit(request.url)
        of_pyodide = PYODIDE_ON_A_CDN.match(request.url)
        if parts.scheme in ("http", "https") and parts.netloc != self._host and not of_pyodide:
            self.elsewhere.append(request.url)
