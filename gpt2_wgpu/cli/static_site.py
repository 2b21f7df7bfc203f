"""A web server for the built site and local models, for this machine only.

A path is served if it is, with links resolved, in the site's folder, or a file of a named model.
Range requests are supported, so that interrupted downloads resume.
"""

from __future__ import annotations

import json
import mimetypes
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.utils import formatdate
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit

from gpt2_wgpu.checkpoint_files import BESIDE_WEIGHTS
from gpt2_wgpu.errors import PresetError
from gpt2_wgpu.shown import shown

MANIFEST = "manifest.json"
MODEL_FILE = re.compile(
    "|".join(map(re.escape, BESIDE_WEIGHTS)) + r"|[^./\\:\0][^/\\:\0]*\.safetensors(\.index\.json)?"
)
# Browsers reject modules and streamed WebAssembly of another type; systems differ in their tables.
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".whl": "application/octet-stream",
}
# That of index.html. A worker has the policy that its script came with, not that of its page:
# so every answer has it. Models may come from any host that the visitor names.
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; "
    "connect-src 'self' https: http:; worker-src 'self'; img-src 'self' data:; "
    "manifest-src 'self'; base-uri 'none'; form-action 'none'"
)
_LOCAL = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d+)?")
_RANGE = re.compile(r"bytes=(\d*)-(\d*)", re.ASCII)


@dataclass(frozen=True)
class Content:
    """A file or bytes, with their HTTP headers."""

    source: Path | bytes
    name: str
    size: int
    etag: str
    modified: float

    @classmethod
    def of(cls, path: Path) -> Content | None:
        """A file as it is now; None if it is gone."""
        try:
            found = path.stat()
        except OSError:
            return None
        etag = f'"{found.st_size:x}-{found.st_mtime_ns:x}"'
        return cls(path, path.name, found.st_size, etag, found.st_mtime)

    @property
    def kind(self) -> str:
        """Its media type."""
        guessed = mimetypes.guess_type(self.name)[0] or "application/octet-stream"
        return _TYPES.get(os.path.splitext(self.name)[1].lower(), guessed)

    def open(self) -> IO[bytes]:
        """Open the content for reading."""
        return BytesIO(self.source) if isinstance(self.source, bytes) else self.source.open("rb")


class Site:
    """A built site in `folder`, and `models` (name → directory) below its models/.

    Raises:
        PresetError: a name cannot be part of an address, or a directory holds no model to serve.
    """

    def __init__(self, folder: Path, models: Mapping[str, Path] | None = None) -> None:
        for name, path in (models or {}).items():
            if not _is_plain(name):
                raise PresetError(
                    f"{path} cannot be served as a model called {shown(name)}: "
                    "rename it without ':' and '\\'"
                )
        self._folder = Path(os.path.realpath(folder))  # resolve() raises on a loop of links
        self._models = {name: _model_files(path) for name, path in (models or {}).items()}

    def find(self, target: str) -> Content | None:
        """The content at a request's path; None if there is none to serve."""
        try:
            path = unquote(urlsplit(target).path, errors="strict")
        except ValueError:
            return None
        parts = path.split("/")[1:]
        if not path.startswith("/") or any(not _is_plain(part) for part in parts[:-1]):
            return None
        if parts == [MANIFEST] and self._models:
            return self._manifest()
        if len(parts) == 3 and parts[0] == "models" and parts[1] in self._models:
            file = self._models[parts[1]].get(parts[2])
            return Content.of(file) if file is not None and file.is_file() else None
        if not parts[-1]:
            parts[-1] = "index.html"
        return self._inside(parts) if _is_plain(parts[-1]) else None

    def _inside(self, parts: list[str]) -> Content | None:
        try:
            found = Path(os.path.realpath(self._folder.joinpath(*parts)))
            inside = found.is_relative_to(self._folder) and found.is_file()
        except (OSError, ValueError):  # a name too long, a loop of links, a zero byte
            return None
        return Content.of(found) if inside else None

    def _manifest(self) -> Content | None:
        """The site's, with the models' files: how the page learns of them."""
        own = self._inside([MANIFEST])
        if own is None:
            return None
        with own.open() as file:
            entries = json.load(file)
        for name, files in self._models.items():
            folder = f"models/{name}/"  # the one that is served; the site's of this name is not
            entries = {path: kept for path, kept in entries.items() if not path.startswith(folder)}
            for file_name, path in files.items():
                if content := Content.of(path):
                    entries[folder + file_name] = {"bytes": content.size, "etag": content.etag}
        data = json.dumps(entries, indent=1, sort_keys=True).encode()
        return Content(data, MANIFEST, len(data), f'"{hash(data) & (2**64 - 1):x}"', own.modified)


def _is_plain(part: str) -> bool:
    """Whether a part of a path is a name on every system, and nothing more."""
    return part not in ("", ".", "..") and not any(c in part for c in "\\:\0")


def _model_files(directory: Path) -> dict[str, Path]:
    """The files of a model, without any others in its directory.

    Raises:
        PresetError: this is not the directory of a model, or a link leads out of it.
    """
    if not (directory / "config.json").is_file():
        raise PresetError(f"{directory} is not the directory of a model: it has no config.json")
    root = os.path.realpath(directory)
    files = {path.name: path for path in directory.iterdir() if MODEL_FILE.fullmatch(path.name)}
    for path in files.values():
        if not Path(os.path.realpath(path)).is_relative_to(root):
            raise PresetError(
                f"{path} is a link that leads out of its directory, which is not served: "
                "copy the file in its place"
            )
    return files


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD for a `Site`."""

    protocol_version = "HTTP/1.1"
    server_version = "gpt2-wgpu"
    sys_version = ""
    policy: str | None = POLICY

    def __init__(self, *arguments: object, site: Site) -> None:
        self.site = site
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        """Answer a GET request."""
        self.answer(send=True)

    def do_HEAD(self) -> None:
        """Answer a HEAD request."""
        self.answer(send=False)

    def end_headers(self) -> None:
        """End the head of any answer, with the policy in it."""
        if self.policy:
            self.send_header("Content-Security-Policy", self.policy)
        super().end_headers()

    def answer(self, send: bool) -> None:
        """Send the head of an answer, and its body if that is wanted."""
        if not _LOCAL.fullmatch(self.headers.get("Host", "")):
            # DNS rebinding: a foreign host name that resolves here could read private models.
            return self._refuse(HTTPStatus.FORBIDDEN, send)
        content = self.site.find(self.path)
        if content is None:
            return self._refuse(HTTPStatus.NOT_FOUND, send)
        if self.headers.get("If-None-Match") == content.etag:
            self.send_response(HTTPStatus.NOT_MODIFIED)
            self._send_validators(content)
            return self.end_headers()
        try:
            first, end = self._range(content)
        except ValueError:
            headers = {"Content-Range": f"bytes */{content.size}"}
            return self._refuse(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, send, headers)
        partial_content = (first, end) != (0, content.size) or self._wants_range(content)
        self.send_response(HTTPStatus.PARTIAL_CONTENT if partial_content else HTTPStatus.OK)
        if partial_content:
            self.send_header("Content-Range", f"bytes {first}-{end - 1}/{content.size}")
        self.send_header("Content-Type", content.kind)
        self.send_header("Content-Length", str(end - first))
        self._send_validators(content)
        self.end_headers()
        if send:
            self.send_body(content, first, end)
        return None

    def send_body(self, content: Content, first: int, end: int) -> None:
        """Send bytes `first` .. `end`, or close the connection if they cannot all be sent."""
        with (
            suppress(OSError),
            content.open() as file,
        ):  # the browser cancelled, or the file is gone
            file.seek(first)
            while first < end and (piece := file.read(min(end - first, 1 << 20))):
                self.wfile.write(piece)
                first += len(piece)
        self.close_connection |= first < end

    def _wants_range(self, content: Content) -> bool:
        unchanged = self.headers.get("If-Range") in (None, content.etag)
        wanted = _RANGE.fullmatch(self.headers.get("Range", ""))
        return unchanged and wanted is not None and self.command == "GET"

    def _range(self, content: Content) -> tuple[int, int]:
        """The bytes that are wanted: all of them, unless one range is; ValueError: none there."""
        if not self._wants_range(content):
            return 0, content.size
        wanted = _RANGE.fullmatch(self.headers["Range"])
        first, last = wanted.groups() if wanted else ("", "")
        if first:
            begin, end = int(first), min(int(last) + 1 if last else content.size, content.size)
        else:  # the last so many
            begin, end = max(0, content.size - int(last or 0)), content.size
        if begin >= end:
            raise ValueError("range not satisfiable")
        return begin, end

    def _send_validators(self, content: Content) -> None:
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Cache-Control", "no-cache")
        self.send_header("ETag", content.etag)
        self.send_header("Last-Modified", formatdate(content.modified, usegmt=True))
        self.send_header("X-Content-Type-Options", "nosniff")

    def _refuse(
        self, status: HTTPStatus, send: bool, headers: Mapping[str, str] | None = None
    ) -> None:
        text = f"{status.value} {status.phrase}\n".encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if send:
            self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """No log: the terminal stays readable."""


class LocalServer(ThreadingHTTPServer):
    """Serves a `Site` on this machine's own address only; `port` 0 takes a free one."""

    daemon_threads = True
    allow_reuse_address = os.name != "nt"  # there it would let two programs have one port

    def __init__(self, site: Site, port: int, handler: Callable[..., Handler] = Handler) -> None:
        super().__init__(("127.0.0.1", port), partial(handler, site=site))

    @property
    def address(self) -> str:
        """Where a browser finds it."""
        return f"http://localhost:{self.server_address[1]}/"
