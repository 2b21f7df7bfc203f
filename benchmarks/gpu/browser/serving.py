"""Server of the built site and of the measuring page, which posts its figures back."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Reports = queue.Queue[dict[str, Any]]  # of the page: "kind" and "value"

_HERE = Path(__file__).parent
_PREFIX = "/measure/"
_MOST_BYTES = 8 << 20  # of a report


@contextmanager
def serving(site: Path, plan: list[dict[str, Any]]) -> Iterator[tuple[str, Reports]]:
    """Serve the site; yield the page's address and the queue of what it posts."""
    reports: Reports = queue.Queue()
    handler = partial(_Handler, directory=str(site), plan=plan, reports=reports)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}{_PREFIX}page.html", reports
        finally:
            server.shutdown()


class _Handler(SimpleHTTPRequestHandler):
    extensions_map = {  # noqa: RUF012 - as in the base class
        **SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript",  # Windows' registry may say otherwise
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def __init__(self, *args: Any, plan: Any, reports: Reports, **kwargs: Any) -> None:
        self._plan, self._reports = plan, reports
        super().__init__(*args, **kwargs)

    def translate_path(self, path: str) -> str:
        if path.startswith(_PREFIX):
            return str(_HERE / Path(path).name)
        return super().translate_path(path)

    def do_GET(self) -> None:
        if self.path != f"{_PREFIX}plan":
            return super().do_GET()
        body = json.dumps(self._plan).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        length = min(int(self.headers.get("Content-Length", 0)), _MOST_BYTES)
        self._reports.put(json.loads(self.rfile.read(length)))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Print nothing."""
