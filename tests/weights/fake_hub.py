"""Local fake of the Hugging Face Hub: the part of its HTTP API that huggingface_hub uses."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
Files = Mapping[str, bytes]


class _Handler(BaseHTTPRequestHandler):
    """Answers as the Hub does where huggingface_hub looks; test_fake_hub.py asks with its client.

    Where each header is from:
    X-Repo-Commit, X-Linked-Etag, X-Linked-Size: `get_hf_file_metadata` of huggingface_hub reads
        them in the answer to HEAD; without a commit or an ETag it downloads nothing.
    Location: absolute for files in Git LFS, which another host serves (`get_hf_file_metadata`
        does not follow it, GET does), relative for the others (it follows those).
    X-Error-Code: `hf_raise_for_status` makes RepositoryNotFoundError, GatedRepoError and
        RevisionNotFoundError of it; RevisionNotFound has no other sign.
    Retry-After: RFC 9110, 10.2.3. Range and Content-Range: RFC 9110, 14; `http_get` takes up a
        download with the former and wants 206.
    """

    protocol_version = "HTTP/1.1"
    repositories: Mapping[str, Files | int]
    sent: Mapping[str, bytes]
    requests: list[str]

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        self.requests.append(f"{self.command} {path}")
        for stored in ("/cdn/", "/api/resolve-cache/models/"):
            if path.startswith(stored):
                self.answer_file(path.removeprefix(stored), in_lfs=stored == "/cdn/")
                return
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
            self.answer_json(_model_info("/".join(parts[:2]), files, "blobs" in self.path))
        elif is_api and parts[2] == "tree":
            self.answer_json([_tree_entry(name, data) for name, data in files.items()])
        else:
            self.answer_address("/".join(parts[:2]), unquote("/".join(parts[4:])))

    do_HEAD = do_GET

    def answer_address(self, repository: str, name: str) -> None:
        """What is known of a file, and where it is stored."""
        files = self.repositories[repository]
        assert not isinstance(files, int)
        if name not in files:
            self.answer(404, b"{}", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
            return
        in_lfs = _in_lfs(name)
        known = {
            "X-Repo-Commit": COMMIT,
            "X-Linked-Etag": f'"{_etag(name, files[name])}"',
            "X-Linked-Size": str(len(files[name])),
        }
        host = f"http://localhost:{self.connection.getsockname()[1]}/cdn" if in_lfs else ""
        stored = host or "/api/resolve-cache/models"
        known["Location"] = f"{stored}/{repository}/{quote(name)}"
        self.answer(302 if in_lfs else 307, b"", known)

    def answer_file(self, path: str, *, in_lfs: bool) -> None:
        """The content of a file, or the part that was asked for."""
        parts = unquote(path).split("/")
        repository, name = "/".join(parts[:2]), "/".join(parts[2:])
        files = self.repositories[repository]
        assert not isinstance(files, int)
        data = self.sent.get(f"{repository}/{name}", files[name])
        headers = {"ETag": f'"{_etag(name, files[name])}"', "Accept-Ranges": "bytes"}
        if not in_lfs:
            headers["X-Repo-Commit"] = COMMIT
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted is None:
            self.answer(200, data, headers)
            return
        start, end = int(wanted[1]), int(wanted[2] or len(data) - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
        self.answer(206, data[start : end + 1], headers)

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


def _in_lfs(name: str) -> bool:
    """Whether the Hub's default .gitattributes puts such a file into Git LFS."""
    return name.endswith((".safetensors", ".bin", ".msgpack"))


def _blob_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _etag(name: str, data: bytes) -> str:
    return _sha256(data) if _in_lfs(name) else _blob_id(data)


def _model_info(repository: str, files: Files, with_blobs: bool) -> dict[str, object]:
    """What /api/models/… gives; hashes with ?blobs=true only."""
    siblings = []
    for name, data in files.items():
        sibling: dict[str, object] = {"rfilename": name}
        if with_blobs:
            pointer = _pointer(data)
            sibling |= {"size": len(data), "blobId": _blob_id(pointer if _in_lfs(name) else data)}
            if _in_lfs(name):
                sizes = {"size": len(data), "pointerSize": len(pointer)}
                sibling["lfs"] = {"sha256": _sha256(data), **sizes}
        siblings.append(sibling)
    return {"id": repository, "sha": COMMIT, "siblings": siblings}


def _tree_entry(name: str, data: bytes) -> dict[str, object]:
    """What /api/models/…/tree/… gives of a file: "oid" is the name of its Git blob."""
    if not _in_lfs(name):
        return {"type": "file", "path": name, "size": len(data), "oid": _blob_id(data)}
    pointer = _pointer(data)
    lfs = {"oid": _sha256(data), "size": len(data), "pointerSize": len(pointer)}
    kept = {"size": len(data), "oid": _blob_id(pointer)}
    return {"type": "file", "path": name, **kept, "lfs": lfs}


def _pointer(data: bytes) -> bytes:
    """What Git itself holds of a file in LFS (git-lfs' docs/spec.md)."""
    version = "version https://git-lfs.github.com/spec/v1"
    return f"{version}\noid sha256:{_sha256(data)}\nsize {len(data)}\n".encode()


@contextmanager
def serve(
    repositories: Mapping[str, Files | int], sent: Mapping[str, bytes] | None = None
) -> Iterator[tuple[str, list[str]]]:
    """Serve repositories (id → files, or the status that is answered); yield address and log.

    `sent` has what is sent in place of a file, by "owner/name/file": hashes and sizes stay those
    of the file.
    """
    requests: list[str] = []
    members = {"repositories": repositories, "requests": requests, "sent": sent or {}}
    handler = type("Handler", (_Handler,), members)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", requests
        finally:
            server.shutdown()
            thread.join()
