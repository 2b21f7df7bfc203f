"""`gpt2-wgpu serve`: files, headers, and rejected requests."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pytest

from gpt2_wgpu.cli.main import main
from gpt2_wgpu.cli.static_site import POLICY, Content, LocalServer, Site
from gpt2_wgpu.errors import PresetError
from tests.cli.conftest import COMMAND, Run

PAGE = b"<!doctype html><title>page</title>"
WEIGHTS = bytes(range(256)) * 40


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A built page, and secrets around it."""
    folder = tmp_path / "dist"
    (folder / "web").mkdir(parents=True)
    (folder / "index.html").write_bytes(PAGE)
    (folder / "manifest.json").write_text('{"index.html": {"bytes": 34, "sha256": "00"}}')
    for name in ("gpt2.js", "a.mjs", "a.wasm", "style.css", "a.webmanifest", "a.whl", "a b.json"):
        (folder / "web" / name).write_bytes(b"x" * 10)
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "leak.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "leak").symlink_to(tmp_path)
    (folder / "inner.html").symlink_to(folder / "index.html")
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model's directory, with something private in it."""
    folder = tmp_path / "my-model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    (folder / "notes.txt").write_text("private")
    return folder


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """Sends requests as they are, without making paths tidy first."""

    def __init__(self, port: int) -> None:
        self.port = port

    def __call__(self, path: str, method: str = "GET", **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, headers=named)
        response = connection.getresponse()
        answer = Answer(response.status, dict(response.getheaders()), response.read())
        connection.close()
        return answer


@pytest.fixture
def ask(site: Path, model: Path) -> Iterator[Client]:
    with LocalServer(Site(site, {"my-model": model}), 0) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield Client(server.server_address[1])
        server.shutdown()


def test_pages_and_types(ask: Client) -> None:
    for path in ("/", "/index.html", "/?x=1", "/inner.html"):
        answer = ask(path)
        assert (answer.status, answer.body) == (200, PAGE)
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    kinds = {
        "gpt2.js": "text/javascript; charset=utf-8",
        "a.mjs": "text/javascript; charset=utf-8",
        "a.wasm": "application/wasm",
        "style.css": "text/css; charset=utf-8",
        "a.webmanifest": "application/manifest+json",
        "a.whl": "application/octet-stream",
        "a%20b.json": "application/json",
    }
    for name, kind in kinds.items():
        answer = ask(f"/web/{name}")
        assert (answer.status, answer.headers["Content-Type"]) == (200, kind), name
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/web/../../secret.txt",
        "/%2e%2e/secret.txt",
        "/web/%2e%2e/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "/..%5csecret.txt",
        "/web/..\\..\\secret.txt",
        "/%252e%252e/secret.txt",
        "//secret.txt",
        "/./index.html",
        "/leak.txt",
        "/leak/secret.txt",
        "/web",
        "/web/",
        "/index.html/",
        "/index.html%00.txt",
        "/%ff",
        "/C:/secret.txt",
        "/" + "a" * 5000,
        "/models/my-model/notes.txt",
        "/models/my-model/../my-model/notes.txt",
        "/models/my-model/",
        "/models/my-model/%2e%2e%2fsecret.txt",
        "/models/other/config.json",
    ],
)
def test_what_is_not_served(ask: Client, path: str) -> None:
    answer = ask(path)
    assert answer.status == 404
    assert b"secret" not in answer.body
    assert b"private" not in answer.body


def test_other_methods_and_hosts(ask: Client) -> None:
    assert ask("/", "POST").status == 501
    for host in ("evil.example", "localhost.evil.example:8000", "192.168.0.1", ""):
        assert ask("/", Host=host).status == 403, host
    for host in ("localhost", f"localhost:{ask.port}", "127.0.0.1", "[::1]:80"):
        assert ask("/", Host=host).status == 200, host


def test_head(ask: Client) -> None:
    answer = ask("/models/my-model/model.safetensors", "HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["Content-Length"] == str(len(WEIGHTS))
    assert answer.headers["Accept-Ranges"] == "bytes"


@pytest.mark.parametrize(
    ("wanted", "first", "end"),
    [
        ("bytes=0-", 0, len(WEIGHTS)),
        ("bytes=100-", 100, len(WEIGHTS)),
        ("bytes=0-0", 0, 1),
        ("bytes=5-99999999", 5, len(WEIGHTS)),
        ("bytes=-7", len(WEIGHTS) - 7, len(WEIGHTS)),
    ],
)
def test_ranges(ask: Client, wanted: str, first: int, end: int) -> None:
    answer = ask("/models/my-model/model.safetensors", Range=wanted)
    assert (answer.status, answer.body) == (206, WEIGHTS[first:end])
    assert answer.headers["Content-Range"] == f"bytes {first}-{end - 1}/{len(WEIGHTS)}"


@pytest.mark.parametrize("wanted", [f"bytes={len(WEIGHTS)}-", "bytes=-0", "bytes=9-3", "bytes=-"])
def test_ranges_that_are_not_there(ask: Client, wanted: str) -> None:
    answer = ask("/models/my-model/model.safetensors", Range=wanted)
    assert answer.status == 416
    assert answer.headers["Content-Range"] == f"bytes */{len(WEIGHTS)}"


@pytest.mark.parametrize("wanted", ["bytes=0-1,5-6", "lines=0-1", "bytes=a-b"])
def test_ranges_that_are_ignored(ask: Client, wanted: str) -> None:
    answer = ask("/models/my-model/model.safetensors", Range=wanted)
    assert (answer.status, answer.body) == (200, WEIGHTS)


def test_validators(ask: Client, model: Path) -> None:
    path = "/models/my-model/model.safetensors"
    etag = ask(path).headers["ETag"]
    assert ask(path, If_None_Match=etag).status == 304
    assert ask(path, Range="bytes=5-", If_Range=etag).status == 206
    (model / "model.safetensors").write_bytes(b"other")
    changed = ask(path, Range="bytes=5-", If_Range=etag)
    assert (changed.status, changed.body) == (200, b"other")


def test_the_manifest_names_the_models(ask: Client, site: Path) -> None:
    manifest = json.loads(ask("/manifest.json").body)
    own = json.loads((site / "manifest.json").read_text())
    assert {path: entry for path, entry in manifest.items() if path in own} == own
    assert manifest.keys() - own.keys() == {
        "models/my-model/config.json",
        "models/my-model/model.safetensors",
    }
    weights = manifest["models/my-model/model.safetensors"]
    assert weights["bytes"] == len(WEIGHTS)
    assert weights["etag"] == ask("/models/my-model/model.safetensors").headers["ETag"]


def test_every_answer_has_the_policy(ask: Client) -> None:
    etag = ask("/web/gpt2.js").headers["ETag"]
    answers = [ask("/"), ask("/web/gpt2.js"), ask("/absent"), ask("/", "POST"), ask("/", Host="x")]
    answers.append(ask("/web/gpt2.js", If_None_Match=etag))
    for answer in answers:
        assert answer.headers["Content-Security-Policy"] == POLICY, answer.status


def test_a_file_that_shrinks_while_it_is_sent_ends_the_connection(
    ask: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Content.open
    monkeypatch.setattr(Content, "open", lambda self: BytesIO(opened(self).read()[:100]))
    with pytest.raises(http.client.IncompleteRead):  # at once: what lacks would come never
        ask("/models/my-model/model.safetensors")


def test_a_file_that_vanished_is_not_in_the_manifest(ask: Client, model: Path) -> None:
    (model / "model.safetensors").unlink()
    assert ask("/models/my-model/model.safetensors").status == 404
    assert "models/my-model/config.json" in (entries := json.loads(ask("/manifest.json").body))
    assert "models/my-model/model.safetensors" not in entries


def test_a_model_takes_the_place_of_the_sites_own(site: Path, model: Path) -> None:
    own = {"models/tales/merges.txt": {"bytes": 1}, "models/tales2/merges.txt": {"bytes": 1}}
    (site / "manifest.json").write_text(json.dumps(own))
    found = Site(site, {"tales": model}).find("/manifest.json")
    assert found is not None
    assert json.load(found.open()).keys() == {
        "models/tales/config.json",
        "models/tales/model.safetensors",
        "models/tales2/merges.txt",
    }


@pytest.mark.parametrize("name", ["a:b", "a\\b", ""])
def test_names_that_no_address_can_hold(site: Path, model: Path, name: str) -> None:
    with pytest.raises(PresetError, match=r"cannot be served as a model called .*: rename it"):
        Site(site, {name: model})


def test_models_that_are_none(tmp_path: Path, site: Path, model: Path) -> None:
    with pytest.raises(PresetError, match=r"has no config\.json"):
        Site(site, {"x": tmp_path})
    (model / "vocab.json").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(PresetError, match="leads out of its directory"):
        Site(site, {"my-model": model})


def test_the_command(site: Path, model: Path, environment: dict[str, str], tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "serve", "--port", "0", "--site", str(site), "--model", str(model)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment | {"PYTHONUNBUFFERED": "1"},
        cwd=tmp_path,
    )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        port = int(address.removeprefix("http://localhost:").removesuffix("/"))
        assert Client(port)("/").body == PAGE
        assert Client(port)("/models/my-model/config.json").body == b"{}"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
        assert process.returncode == 0
        assert said.strip() == f"gpt2-wgpu: serving {site} with my-model; Ctrl-C to stop"
    finally:
        process.kill()


def test_only_this_machine_is_served(site: Path) -> None:
    with LocalServer(Site(site), 0) as server:
        assert server.server_address[0] == "127.0.0.1"


def test_a_port_in_use(run: Run, site: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = run("serve", "--port", port, "--site", str(site))
    assert done.returncode == 1
    assert f"port {port} is in use: choose another with --port" in done.stderr


@pytest.mark.parametrize("wrong", ["port", "model"])
def test_port_and_models_are_looked_at_before_the_page_is_built(
    wrong: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("it was built"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        options = ["--port", port] if wrong == "port" else ["--port", "0", "--model", "nowhere"]
        assert main(["serve", *options]) == 1
    said = "is in use" if wrong == "port" else "nowhere is not the directory of a model"
    assert said in capsys.readouterr().err


def test_a_folder_without_a_page(run: Run, tmp_path: Path) -> None:
    done = run("serve", "--site", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "is not a built page" in done.stderr


def test_without_a_checkout(tmp_path: Path, environment: dict[str, str]) -> None:
    """As from an installed wheel: the package alone, without what builds the page."""
    package = Path(__file__).parents[2] / "gpt2_wgpu"
    (tmp_path / "gpt2_wgpu").symlink_to(package)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    code = (
        "import sys, gpt2_wgpu.cli.serve as serve; from pathlib import Path;"
        f"serve.__file__ = {str(tmp_path / 'site-packages' / 'a' / 'b' / 'c.py')!r};"
        "from gpt2_wgpu.cli.main import main; sys.exit(main(['serve']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=elsewhere
    )
    assert done.returncode == 1
    assert "is a checkout of the repository" in done.stderr
    assert "run this command in one (git clone https://github.com/gpt2-wgpu/" in done.stderr
    assert "--api needs none" in done.stderr
    assert "--site" in done.stderr
    assert os.listdir(elsewhere) == []
