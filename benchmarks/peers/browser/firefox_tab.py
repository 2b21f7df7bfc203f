"""`pages.Tab` in headless Firefox."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.peers.compare import EngineFailed
from tests.browser.firefox import Firefox, FirefoxError

_BROWSERS = ("firefox", "firefox-esr")
_ANSWER_S = 1800.0  # of a command: one run


class FirefoxTab:
    """A Firefox with a profile of its own."""

    def __init__(self, path: str | None, preferences: dict[str, Any], stack: ExitStack) -> None:
        found = path or next(filter(None, map(shutil.which, _BROWSERS)), None)
        if found is None:
            raise SystemExit(
                "no Firefox: 'apt-get install firefox-esr', or say --browser-path PATH"
            )
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self._firefox = Firefox(found, folder, _ANSWER_S, preferences)
        stack.callback(self._firefox.close)
        self.version = self._firefox.version

    def open(self, address: str) -> None:
        self._firefox.open(address)

    def evaluate(self, script: str, argument: Any = None) -> Any:
        try:
            return self._firefox.evaluate(script, argument)
        except FirefoxError as error:
            raise EngineFailed(str(error).strip().splitlines()[0]) from error
