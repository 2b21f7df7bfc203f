"""Snapshot of Python's memory after start, taken in Chromium for `build_site.py`.

A page starts from it several times faster than by starting Python. It needs a browser, as Python's
memory refers to objects of its worker.
"""

from __future__ import annotations

import gzip
import os
import secrets
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from bootstrap import find_chromium

PROGRAM = Path(__file__).with_suffix(".js")
PAGE = b'<!doctype html><script>new Worker("snapshot.js", { type: "module" });</script>'
FLAGS = (
    "--headless",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
)
Answer = tuple[str, bytes]  # path and body of a request
TIMEOUT_S = 90
KINDS = {
    "": "text/html",
    ".wasm": "application/wasm",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
}


class NoSnapshotError(Exception):
    """The snapshot could not be taken; the message has the reason."""


def take(files: Mapping[str, bytes | Path]) -> bytes:
    """Return Python's compressed memory after the import of the package, from a site's `files`."""
    chromium = find_chromium()
    if chromium is None:
        raise NoSnapshotError("Chromium is not installed")
    answers: Queue[Answer] = Queue()
    # Other programs and pages of this machine can reach the server, but do not know the folder.
    folder = f"/{secrets.token_urlsafe()}/"
    served = {folder + path: held for path, held in files.items()}
    served |= {folder: PAGE, f"{folder}snapshot.js": PROGRAM}
    with (
        ThreadingHTTPServer(("127.0.0.1", 0), _handler(folder, served, answers)) as server,
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
    ):
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}{folder}"
        # Chromium's sandbox does not run as root; only this repository's files are loaded.
        root = ["--no-sandbox"] if getattr(os, "geteuid", lambda: 1)() == 0 else []
        browser = subprocess.Popen(
            [chromium, *FLAGS, *root, f"--user-data-dir={profile}", address],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            what, body = _awaited(answers, browser)
        finally:
            browser.terminate()
            with suppress(subprocess.TimeoutExpired):
                browser.wait(10)
            browser.kill()
            server.shutdown()
    if what != "snapshot":
        raise NoSnapshotError(f"Python failed: {body.decode(errors='replace')}")
    return gzip.compress(body, mtime=0)


def _awaited(answers: Queue[Answer], browser: subprocess.Popen[bytes]) -> Answer:
    end = time.monotonic() + TIMEOUT_S
    while time.monotonic() < end:
        with suppress(Empty):
            return answers.get(timeout=0.2)
        if browser.poll() is not None:
            raise NoSnapshotError(f"Chromium ended with status {browser.returncode}")
    raise NoSnapshotError(f"Chromium timed out after {TIMEOUT_S} seconds")


def _handler(
    folder: str, served: Mapping[str, bytes | Path], answers: Queue[Answer]
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            held = served.get(self.path)
            data = held.read_bytes() if isinstance(held, Path) else held or b""
            kind = KINDS.get(Path(self.path).suffix, "application/octet-stream")
            self._answer(404 if held is None else 200, kind, data)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path.startswith(folder):
                answers.put((self.path.removeprefix(folder), body))
            self._answer(200, "text/plain", b"")

        def _answer(self, status: int, kind: str, data: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            """Log nothing."""

    return Handler
