"""Static server of the page: the checkout with a fake library, or a built site."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from gpt2_wgpu.cli.static_site import POLICY
from gpt2_wgpu.sampling_parameters import PARAMETERS

# Defaults of a model's info, for the fake library and the fake worker.
DEFAULTS = {each.javascript: each.default for each in PARAMETERS}
FOR_FAKES = {"/web/defaults.js": f"export const DEFAULTS = {json.dumps(DEFAULTS)};\n"}
TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm"}


class Handler(SimpleHTTPRequestHandler):
    """Serves `directory` at `prefix`, with other files or texts in place of some."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | TYPES

    def __init__(
        self, *args: Any, prefix: str, instead: Mapping[str, Path | str], directory: str
    ) -> None:
        self._prefix = prefix
        self._instead = instead
        super().__init__(*args, directory=directory)

    def send_head(self) -> Any:
        """The headers, and what to read the body from."""
        path = self.path.partition("?")[0]
        text = self._instead.get("/" + path.removeprefix(self._prefix))
        if not isinstance(text, str):
            return super().send_head()
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(path))
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        return io.BytesIO(text.encode())

    def translate_path(self, path: str) -> str:
        """The file of an address; all are below the prefix."""
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
    directory: Path, prefix: str = "/", instead: Mapping[str, Path | str] | None = None
) -> Iterator[str]:
    """The address of `directory` on a free port of localhost, under `prefix`, in slashes."""
    instead = {**FOR_FAKES, **(instead or {})}
    handler = partial(Handler, prefix=prefix, instead=instead, directory=str(directory))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}{prefix}"
        finally:
            server.shutdown()
