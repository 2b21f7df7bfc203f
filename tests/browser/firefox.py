"""Headless Firefox with software WebGPU, driven through WebDriver BiDi.

Playwright drives only a Firefox of its own build, and its BiDi client uses commands that Firefox
lacks; this is the small part of the protocol that the tests and the comparison of engines need.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import Any

from websockets.sync.client import ClientConnection, connect

START_S = 60  # seconds until Firefox listens
ANSWER_S = 120  # seconds for a command: Python starts on a busy CPU
PREFERENCES = {
    "dom.webgpu.enabled": True,
    "gfx.webgpu.ignore-blocklist": True,  # Linux and software adapters are on it
    # No traffic to other hosts.
    "app.update.enabled": False,
    "browser.safebrowsing.malware.enabled": False,
    "browser.safebrowsing.phishing.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "extensions.getAddons.cache.enabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "services.settings.server": "data:,",
    "toolkit.telemetry.server": "data:,",
}


class FirefoxError(Exception):
    """An error of Firefox, of the protocol, or thrown by JavaScript on the page."""


class Firefox:
    """One tab in a browser with a new profile in `folder`.

    `complaints`: uncaught errors, and errors on the console. `answer_seconds`: limit of a command.
    `preferences`: of about:config, besides PREFERENCES.
    """

    def __init__(
        self,
        executable: str,
        folder: Path,
        answer_seconds: float = ANSWER_S,
        preferences: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self._answer_seconds = answer_seconds
        self.complaints: list[str] = []
        self._ids = count(1)
        self._opened = ExitStack()
        self._log = folder / "firefox.log"
        self._process = _started(executable, folder, self._log, {**PREFERENCES, **preferences})
        try:
            self._socket = self._connected(folder / "WebDriverBiDiServer.json")
            session = self._send("session.new", capabilities={})
            self.version = str(session["capabilities"]["browserVersion"])
            self._send("session.subscribe", events=["log.entryAdded"])
            self._context = self._send("browsingContext.getTree")["contexts"][0]["context"]
        except BaseException:
            self._end()
            raise

    def open(self, address: str) -> None:
        """Go to `address`."""
        self._send("browsingContext.navigate", context=self._context, url=address, wait="complete")

    def evaluate(self, script: str, argument: Any = None) -> Any:
        """The value of a JavaScript function on the page; a promise is waited for."""
        called = f"async (given) => JSON.stringify(await ({script})(JSON.parse(given))) ?? 'null'"
        found = self._send(
            "script.callFunction",
            functionDeclaration=called,
            arguments=[{"type": "string", "value": json.dumps(argument)}],
            target={"context": self._context},
            awaitPromise=True,
        )
        if found["type"] == "exception":
            raise FirefoxError(found["exceptionDetails"]["text"])
        return json.loads(found["result"]["value"])

    def wait_for(self, script: str, patience: float = ANSWER_S) -> None:
        """Wait until a JavaScript function on the page returns, or promises, something true."""
        deadline = time.monotonic() + patience
        while not self.evaluate(script):
            if time.monotonic() > deadline:
                raise TimeoutError(f"not true within {patience:.0f} s: {script}")
            time.sleep(0.1)

    def close(self) -> None:
        with suppress(FirefoxError, OSError, TimeoutError):
            self._send("browser.close")
        self._end()

    def _connected(self, server: Path) -> ClientConnection:
        deadline = time.monotonic() + START_S
        while self._process.poll() is None and time.monotonic() < deadline:
            with suppress(OSError, ValueError):  # not written yet, or not all of it
                found = json.loads(server.read_text())
                address = f"ws://{found['ws_host']}:{found['ws_port']}/session"
                return self._opened.enter_context(connect(address, max_size=None, proxy=None))
            time.sleep(0.05)
        said = self._log.read_text(errors="replace").strip()
        raise FirefoxError(f"Firefox did not start within {START_S} s. It printed:\n{said}")

    def _send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a command. Events that come before it are noted."""
        number = next(self._ids)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=self._answer_seconds))
            if message.get("method") == "log.entryAdded":
                self._note(message["params"])
            elif message.get("id") == number:
                break
        if message["type"] == "error":
            raise FirefoxError(f"{method}: {message['error']}: {message['message']}")
        result: dict[str, Any] = message["result"]
        return result

    def _note(self, entry: dict[str, Any]) -> None:
        if entry["level"] == "error":
            self.complaints.append(entry["text"])

    def _end(self) -> None:
        self._opened.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        self._process.kill()
        self._process.wait()


def _started(
    executable: str, folder: Path, log: Path, preferences: dict[str, Any]
) -> subprocess.Popen[bytes]:
    lines = (f"user_pref({json.dumps(k)}, {json.dumps(v)});\n" for k, v in preferences.items())
    (folder / "user.js").write_text("".join(lines))
    command = [executable, "--headless", "--no-remote", "--profile", str(folder)]
    with log.open("wb") as output:
        return subprocess.Popen(
            [*command, "--remote-debugging-port", "0"], stdout=output, stderr=output
        )
