"""Host of model files that can be slow, drop connections, or send wrong data."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Host:
    """Serves the files of `folder` to any page, with Range and ETag."""

    folder: Path
    address: str = ""
    seconds_per_megabyte: float = 0.0
    page_instead: bool = False  # model.safetensors is an HTML page
    ranges: list[str] = field(default_factory=list)  # the Range headers that came

    def content(self, name: str) -> bytes | None:
        path = self.folder / Path(name).name
        if self.page_instead and path.name == "model.safetensors":
            return b"<!doctype html><title>Sign in</title>"
        return path.read_bytes() if path.is_file() else None


class Handler(BaseHTTPRequestHandler):
    host: Host
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_OPTIONS(self) -> None:
        self._head(204, 0)

    def do_GET(self) -> None:
        data = self.host.content(self.path)
        if data is None:
            return self._head(404, 0)
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted is None:
            self._head(200, len(data))
            return self._send(data)
        self.host.ranges.append(wanted.group())
        first, last = int(wanted[1]), int(wanted[2] or len(data) - 1)
        part = data[first : last + 1]
        self._head(206, len(part), f"bytes {first}-{first + len(part) - 1}/{len(data)}")
        return self._send(part)

    def _head(self, status: int, length: int, content_range: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", '"one"')
        self.send_header("Access-Control-Allow-Origin", "*")
        self.send_header("Access-Control-Allow-Headers", "*")
        self.send_header("Access-Control-Expose-Headers", "*")
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()

    def _send(self, data: bytes) -> None:
        if self.command == "HEAD":
            return
        step = 1 << 18
        try:
            for start in range(0, len(data), step):
                self.wfile.write(data[start : start + step])
                time.sleep(self.host.seconds_per_megabyte * step / 1e6)
        except OSError:
            self.close_connection = True  # the page hung up

    def log_message(self, *_: object) -> None:
        """Says nothing: what fails is seen by the page."""


@contextmanager
def hosting(folder: Path) -> Iterator[Host]:
    """A host for `folder` on a free port of localhost."""
    host = Host(folder)
    handler = type("HostHandler", (Handler,), {"host": host})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host.address = f"http://127.0.0.1:{server.server_address[1]}/fairytales"
        try:
            yield host
        finally:
            server.shutdown()
