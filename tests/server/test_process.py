"""`gpt2-wgpu serve --api` as a process, with a real socket; its options and start-up errors."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from gpt2_wgpu.cli.main import main
from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.server import http_server
from gpt2_wgpu.server.api_app import create_app
from gpt2_wgpu.server.http_server import bind
from tests.cli.conftest import COMMAND, ROOT

pytestmark = pytest.mark.native("processes")

LONG = {"prompt": "The king", "max_tokens": 400, "stop_token_ids": [], "stream": True}


@contextmanager
def running(model="fairytales"):
    """(process, address of the API, port) of a server that accepts requests."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "GPT2_WGPU_API_KEY": ""}
    process = subprocess.Popen(
        [*COMMAND, "serve", "--api", model, "--port", "0", "--dtype", "f32"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        address = process.stdout.readline().strip()
        port = int(address.removeprefix("http://localhost:").removesuffix("/v1"))
        yield process, address, port
    finally:
        process.kill()
        process.communicate()


def hanging(port, body):
    """A connection on which the first piece of a stream has arrived."""
    connection = asking(port, body)
    received = b""
    while b"data: " not in received:
        received += connection.recv(1 << 16)
    return connection


def asking(port, body, missing=0):
    """A connection that has sent a request, except for the last bytes of its body."""
    data = json.dumps(body).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n"
    connection = socket.socket()
    connection.settimeout(30)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 12)
    connection.connect(("127.0.0.1", port))
    sent = head.encode() + b"Content-Type: application/json\r\n\r\n" + data
    connection.sendall(sent[: len(sent) - missing])
    return connection


def rest(connection):
    """What arrives until the server closes the connection."""
    received = b""
    while piece := connection.recv(1 << 16):
        received += piece
    return received


def test_a_server_from_start_to_end():
    """Requests at once, clients that hang up, and an end that lets answers be completed."""
    import openai

    with running() as (process, address, port):
        client = openai.OpenAI(api_key="none", base_url=address, max_retries=0)
        common = {"model": "fairytales", "prompt": "The king", "temperature": 0, "max_tokens": 9}
        whole = client.completions.create(**common).choices[0].text
        with client.completions.create(**common, stream=True) as stream:
            assert "".join(event.choices[0].text for event in stream) == whole
        with pytest.raises(openai.BadRequestError, match="temperature must be"):
            client.completions.create(**common | {"temperature": -1})

        hanging(port, LONG | {"n": 3}).close()
        deadline = time.monotonic() + 20
        gone = 'gpt2_wgpu_requests_total{status="499"} 1'
        while gone not in (text := client.get("../metrics", cast_to=str)):
            assert time.monotonic() < deadline, text
        assert "gpt2_wgpu_rows_running 0" in text

        while not is_idle(process):
            assert time.monotonic() < deadline, "the server goes on waking up"

        with hanging(port, LONG | {"max_tokens": 60}) as connection:
            process.send_signal(signal.SIGTERM)
            assert b"data: [DONE]" in rest(connection)
        _, said = process.communicate(timeout=20)
        assert process.returncode == 0
        (line,) = said.strip().splitlines()
        assert line.startswith("gpt2-wgpu: serving fairytales on ")


def is_idle(process):
    """Whether the main thread does not wake up for 0.3 s (proc_pid_status(5))."""

    def switches():
        status = Path(f"/proc/{process.pid}/status").read_text()
        (count,) = re.findall(r"^voluntary_ctxt_switches:\s*(\d+)", status, re.MULTILINE)
        return int(count)

    before = switches()
    time.sleep(0.3)
    return switches() == before


def test_a_second_signal_ends_answers_in_flight():
    with (
        running() as (process, _, port),
        asking(port, LONG, missing=1) as incomplete,
        hanging(port, LONG) as connection,
    ):
        process.send_signal(signal.SIGINT)
        while "shutting" not in closed(port):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
        assert process.returncode == 0
        assert len(said.splitlines()) == 1 and "Traceback" not in said
        received = rest(connection)
        assert b"shutting down" in received and b"[DONE]" not in received
        received = rest(incomplete)
        assert b" 503 " in received and b"shutting down" in received


def test_requests_that_outlast_the_grace_are_ended(lm, no_leak, monkeypatch, capfd):
    """A stream that is not read, and one whose rows go on."""
    monkeypatch.setattr(http_server, "GRACE", 0)
    bound = bind("127.0.0.1", 0)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # of its connections, too
    port, connections = bound.getsockname()[1], []

    def end():
        many = {
            "prompt": " beautiful" * 500,
            "max_tokens": 2,
            "n": 128,
            "echo": True,
            "stream": True,
        }
        connections.append(hanging(port, LONG))
        connections.append(asking(port, many))
        connections[1].recv(1, socket.MSG_PEEK)
        os.kill(os.getpid(), signal.SIGTERM)

    ending = threading.Thread(target=end)
    http_server.run(create_app(lm, max_rows=1), bound, ending.start)
    ending.join()
    read, unread = connections
    unread.close()
    assert b"shutting down" in rest(read)
    read.close()
    assert capfd.readouterr().err == ""


def test_a_third_signal_ends_a_process_that_hangs():
    code = """
import sys, time
from gpt2_wgpu.server.http_server import bind, run

async def app(scope, receive, send):  # its lifespan's end hangs, as a driver may
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    print("ending", flush=True)
    time.sleep(60)

run(app, bind("127.0.0.1", 0), lambda: print("started", flush=True))
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            for line in ("started", "ending"):
                assert process.stdout.readline().strip() == line
                process.send_signal(signal.SIGINT)
            deadline = time.monotonic() + 20
            while process.poll() is None and time.monotonic() < deadline:
                process.send_signal(signal.SIGINT)
                time.sleep(0.05)
            assert process.returncode == -signal.SIGINT
        finally:
            process.kill()


def closed(port):
    """ "shutting down" as soon as the server no longer listens."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return "shutting down"
    return ""


def test_two_servers_that_start_together_have_different_ports():
    match = "is in use: choose another with --port"
    with bind("127.0.0.1", 0) as first, pytest.raises(InvalidArgumentError, match=match):
        bind("127.0.0.1", first.getsockname()[1])


def test_a_port_in_use(capsys, monkeypatch):
    monkeypatch.setattr(
        "gpt2_wgpu.cli.serve_api.load_model", lambda *_: pytest.fail("the model was loaded")
    )
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["serve", "--api", "--port", str(port)]) == 1
    assert f"port {port} is in use: choose another with --port" in capsys.readouterr().err
    assert main(["serve", "--api", "--host", "no such host"]) == 1
    assert "--host 'no such host' is no address" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["starlette", "uvicorn"])
def test_without_the_extra(package):
    """In a process of its own, whose modules no other test uses."""
    code = f"""
import sys
sys.modules[{package!r}] = None
from gpt2_wgpu.cli.main import main
sys.exit(main(["serve", "--api", "--port", "0"]))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"needs the package {package}: pip install 'gpt2-wgpu[server]'" in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host", "0.0.0.0"], "--host needs --api"),
        (["--cors", "*"], "--cors needs --api"),
        (["--api", "--site", "dist"], "--model and --site are options of the page"),
        (["--api", "--api-key", ""], "--api-key is empty"),
        (["--api", "--max-rows", "0"], "'0' must be an integer >= 1"),
    ],
)
def test_options_that_do_not_fit(options, message, capsys):
    assert main(["serve", *options]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("host", "warned", "hosts"),
    [
        ("127.0.0.1", False, {"localhost", "127.0.0.1", "[::1]"}),
        ("0.0.0.0", True, None),
    ],
)
def test_a_server_for_other_machines_warns(host, warned, hosts, capsys, monkeypatch, lm):
    from gpt2_wgpu.server import api_app, http_server

    made = {}
    monkeypatch.setattr("gpt2_wgpu.cli.serve_api.load_model", lambda *_: lm.__copy__())
    monkeypatch.setattr(api_app, "create_app", lambda *_, **options: made.update(options))
    monkeypatch.setattr(http_server, "run", lambda app, bound, started: started())
    monkeypatch.setattr(type(lm), "__exit__", lambda *_: None)
    options = ["--port", "0", "--host", host, "--max-rows", "3", "--max-queue", "0"]
    assert main(["serve", "--api", *options]) == 0
    assert made["hosts"] == hosts
    assert (made["max_rows"], made["max_queue"], made["api_key"]) == (3, 0, None)
    assert ("give --api-key" in capsys.readouterr().err) is warned
    assert main(["serve", "--api", *options, "--api-key", "x"]) == 0
    assert made["api_key"] == "x" and "give --api-key" not in capsys.readouterr().err
