"""Web server for tests: the site, and models with configurable download faults."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from gpt2_wgpu.cli.static_site import POLICY, Handler, LocalServer, Site

CHUNK = 64 << 10
TO_READ = 0.5  # seconds before a connection is cut: what a page has not read by then is lost
PREFIX = "/a/page/"  # the site works from any folder of a host
PAGES_SITE = Site(Path(__file__).parents[1] / "pages")


@dataclass
class Hosted:
    """A file of a model, and what is wrong with it."""

    data: bytes
    etag: str | None = None  # None: no validator at all
    kind: str = "application/octet-stream"
    status: int = 200
    cuts: list[int] = field(default_factory=list)  # bytes after which next answers break off
    ranges: bool = True  # whether Range is honoured
    seconds_a_chunk: float = 0.0
    policy: str | None = POLICY
    date: str | None = None
    busy: int = 0  # so many answers are 429


@dataclass(frozen=True)
class Asked:
    """A request as it came, and the status of its answer."""

    method: str
    path: str
    range: str | None
    if_range: str | None
    status: int


class Host:
    """What is served besides the site; `asked` are the requests for it."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.files: dict[str, Hosted] = {}
        self.held: dict[str, threading.Event] = {}  # by path: not answered before the event is set
        self.asked: list[Asked] = []
        self.address = self.page = ""  # of the host, and of the site on it
        self.elsewhere = ""  # another origin of the same files, which any page may read

    def add(self, folder: str, files: dict[str, bytes]) -> str:
        """Serve a model's files below /`folder`/; the address of that."""
        for name, data in files.items():
            self.files[f"/{folder}/{name}"] = Hosted(
                data, f'"{hashlib.sha256(data).hexdigest()[:9]}"'
            )
        return f"{self.address}/{folder}/"

    def add_hub(self, repository: str, files: dict[str, bytes], commit: str = "c0ffee") -> None:
        """Serve a repository as the Hugging Face Hub does."""
        self.add(f"{repository}/resolve/{commit}", files)
        listing = {
            "sha": commit,
            "siblings": [
                {
                    "rfilename": name,
                    "size": len(data),
                    "lfs": {"sha256": hashlib.sha256(data).hexdigest()}
                    if ".safe" in name
                    else None,
                }
                for name, data in files.items()
            ],
        }
        path = f"/api/models/{repository}/revision/main"
        self.files[path] = Hosted(json.dumps(listing).encode(), kind="application/json")

    def downloads(self, path: str) -> list[Asked]:
        """The requests for the contents of a file."""
        return [asked for asked in self.asked if asked.path == path and asked.method == "GET"]


class HostHandler(Handler):
    """Answers for a `Host`, and with the site and the tests' pages where that has nothing."""

    def __init__(self, *arguments: object, site: Site, host: Host) -> None:
        self.host = host
        super().__init__(*arguments, site=site)

    def end_headers(self) -> None:
        if self.headers and f"http://{self.headers.get('Host')}" == self.host.elsewhere:
            self.send_header("Access-Control-Allow-Origin", "*")  # and no more: OPTIONS is a 501
        super().end_headers()

    def answer(self, send: bool) -> None:
        path = self.path.partition("?")[0]
        hosted = self.host.files.get(path)
        if gate := self.host.held.get(path):
            gate.wait(60)
        self.policy = POLICY if hosted is None else hosted.policy
        if hosted is not None:
            return self._answer_badly(hosted)
        if not path.startswith(PREFIX):
            self.host.asked.append(self._asked(404))
        self.path = "/" + self.path.removeprefix(PREFIX) if path.startswith(PREFIX) else "/absent"
        of_tests = self.path.startswith("/tests/")
        self.path = self.path.removeprefix("/tests") if of_tests else self.path
        self.site = PAGES_SITE if of_tests else self.host.site  # one connection asks for both
        return super().answer(send)

    def _answer_badly(self, hosted: Hosted) -> None:
        start, status = 0, hosted.status
        if hosted.busy and self.command == "GET":
            hosted.busy, status = hosted.busy - 1, 429
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        unchanged = self.headers.get("If-Range") in (None, hosted.etag, hosted.date)
        if hosted.ranges and wanted and unchanged and status == 200:
            start, status = int(wanted[1]), 206
        end = len(hosted.data)
        if status == 206 and wanted and wanted[2]:
            end = min(end, int(wanted[2]) + 1)
        self.host.asked.append(self._asked(status))
        self.send_response(status)
        self.send_header("Content-Type", hosted.kind)
        self.send_header("Content-Length", str(end - start))
        if hosted.etag:
            self.send_header("ETag", hosted.etag)
        if hosted.date:
            self.send_header("Last-Modified", hosted.date)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(hosted.data)}")
        self.end_headers()
        if self.command == "GET":
            self._send(hosted, hosted.data[start:end])

    def _send(self, hosted: Hosted, data: bytes) -> None:
        cut = hosted.cuts.pop(0) if hosted.cuts else len(data)
        with suppress(ConnectionError):  # the page may have had enough
            for at in range(0, min(cut, len(data)), CHUNK):
                self.wfile.write(data[at : min(at + CHUNK, cut)])
                time.sleep(hosted.seconds_a_chunk)
        if cut < len(data):
            self.wfile.flush()
            time.sleep(TO_READ if cut else 0)
            self.close_connection = True

    def _asked(self, status: int) -> Asked:
        headers = self.headers
        path = self.path.partition("?")[0]
        return Asked(self.command, path, headers.get("Range"), headers.get("If-Range"), status)


@contextmanager
def hosting(site: Path) -> Iterator[Host]:
    """A `Host` beside the built site."""
    host = Host(Site(site))
    handler = partial(HostHandler, host=host)
    first, second = (LocalServer(host.site, 0, handler) for _ in range(2))
    with first, second:
        host.address, host.elsewhere = (
            f"http://127.0.0.1:{server.server_address[1]}" for server in (first, second)
        )
        host.page = f"{host.address}{PREFIX}"
        for server in (first, second):
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield host
        finally:
            first.shutdown()
            second.shutdown()
