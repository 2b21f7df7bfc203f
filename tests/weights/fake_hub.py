"""A Hugging Face Hub on this machine: enough of its HTTP API for huggingface_hub to download."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
Files = Mapping[str, bytes]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    repositories: Mapping[str, Files | int]
    requests: list[str]

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        self.requests.append(f"{self.command} {path}")
        is_api = path.startswith("/api/models/")
        parts = path.removeprefix("/api/models/").strip("/").split("/")
        files = self.repositories.get("/".join(parts[:2]), 404)
        if isinstance(files, int):
            code = {404: "RepoNotFound", 403: "GatedRepo"}.get(files, "")
            headers = {"X-Error-Code": code} | ({"Retry-After": "77"} if files == 429 else {})
            self.answer(files, b"{}", headers)
        elif parts[-1] == "none":
            self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        elif is_api and parts[2:3] in ([], ["revision"]):
            self.answer_json(
                {
                    "id": "/".join(parts[:2]),
                    "sha": COMMIT,
                    "siblings": [{"rfilename": name} for name in files],
                }
            )
        elif is_api and parts[2] == "tree":
            self.answer_json(
                [
                    {"type": "file", "path": name, "size": len(data), "oid": _etag(data)}
                    for name, data in files.items()
                ]
            )
        else:
            data = files[unquote("/".join(parts[4:]))]
            self.answer(200, data, {"ETag": f'"{_etag(data)}"', "X-Repo-Commit": COMMIT})

    do_HEAD = do_GET

    def answer_json(self, value: object) -> None:
        self.answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


def _etag(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


@contextmanager
def serve(repositories: Mapping[str, Files | int]) -> Iterator[tuple[str, list[str]]]:
    """Serve repositories (id → files, or the status that is answered); yield address and log."""
    requests: list[str] = []
    handler = type("Handler", (_Handler,), {"repositories": repositories, "requests": requests})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", requests
        finally:
            server.shutdown()
            thread.join()
