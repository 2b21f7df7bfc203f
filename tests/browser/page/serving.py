"""A static server for the page: from the checkout with a fake library, or from a built site."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from gpt2_wgpu.cli.static_site import POLICY

TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm"}


class Handler(SimpleHTTPRequestHandler):
    """Serves `directory` at `prefix`, with some files in place of others."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | TYPES

    def __init__(
        self, *args: Any, prefix: str, instead: Mapping[str, Path], directory: str
    ) -> None:
        self._prefix = prefix
        self._instead = instead
        super().__init__(*args, directory=directory)

    def translate_path(self, path: str) -> str:
        """The file of an address; none lies outside the prefix."""
        inside = path.partition("?")[0]
        if not inside.startswith(self._prefix):
            return str(Path(self.directory) / "no-such-file")
        inside = "/" + inside.removeprefix(self._prefix)
        if inside in self._instead:
            return str(self._instead[inside])
        return super().translate_path(inside)

    def end_headers(self) -> None:
        """A page under test is never a stale one, and its worker is under the policy."""
        self.send_header("Cache-Control", "no-cache")
        self.send_header("Content-Security-Policy", POLICY)
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing: what fails is seen by the page."""


@contextmanager
def serving(
    directory: Path, prefix: str = "/", instead: Mapping[str, Path] | None = None
) -> Iterator[str]:
    """The address of `directory` on a free port of localhost, under `prefix`, in slashes."""
    handler = partial(Handler, prefix=prefix, instead=instead or {}, directory=str(directory))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}{prefix}"
        finally:
            server.shutdown()
