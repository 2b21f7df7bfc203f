"""Headless Chromium with one page per engine, and the HTTP server of their files."""

from __future__ import annotations

import os
import shutil
import threading
from contextlib import ExitStack
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from playwright.sync_api import Error, Page, sync_playwright

from benchmarks.peers.compare import EngineFailed, Marks
from benchmarks.peers.engines import Engine
from benchmarks.peers.models import Work

_HERE = Path(__file__).parent
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_QUIET = (
    "--no-sandbox",
    "--enable-unsafe-webgpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Keep background pages running.
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
)
SOFTWARE = ("--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan")
_MINUTE = 60_000


class Chromium:
    """Context manager of the browser and its server."""

    version: str

    def __init__(
        self, work: Work, modules: Path, site: Path, path: str | None, flags: list[str] | None
    ) -> None:
        self._work, self._site = work, site
        self._flags = [*_QUIET, *(SOFTWARE if flags is None else flags)]
        self._path = path or next(filter(None, map(shutil.which, _BROWSERS)), None)
        self._roots = {"npm": modules, "model": work.directory, "site": site}
        self._stack = ExitStack()

    def __enter__(self) -> Chromium:
        if self._path is None:
            raise SystemExit("no Chromium: 'apt-get install chromium', or say --chromium PATH")
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Files, roots=self._roots))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self._stack.callback(server.shutdown)
        self._address = f"http://127.0.0.1:{server.server_port}/page.html"
        playwright = self._stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=self._path, args=self._flags)
        self._stack.callback(browser.close)
        self._browser, self.version = browser, browser.version
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def runner(self, engine: Engine) -> PageRunner:
        """Return a runner of ``engine`` in its own page."""
        if engine.file == "ours" and not (self._site / "web" / "gpt2.js").is_file():
            raise SystemExit(f"{self._site} has no web/gpt2.js: 'make site', or say --site FOLDER")
        context = self._browser.new_context()
        return PageRunner(engine, self._work, context.new_page(), self._address)


class PageRunner:
    """`compare.Runner` of an engine in a page."""

    def __init__(self, engine: Engine, work: Work, page: Page, address: str) -> None:
        self.engine, self._page, self._address = engine, page, address
        self._work = {"ids": work.ids, "prompt": work.prompt}
        self._complaints: list[str] = []
        page.set_default_timeout(30 * _MINUTE)
        page.on("crash", lambda _: self._complaints.append("the page crashed"))

    def load(self) -> dict[str, str]:
        self._page.goto(self._address)
        self._page.wait_for_function("() => window.loadEngine")
        arguments = [self.engine.file, self.engine.options, os.cpu_count() or 1]
        return dict(
            self._call(
                "([file, options, threads]) => loadEngine(file, options, threads)", arguments
            )
        )

    def run(self, count: int) -> Marks:
        self._page.bring_to_front()
        marks = self._call("([work, count]) => runEngine(work, count)", [self._work, count])
        return [(seconds, ids) for seconds, ids in marks]

    def _call(self, code: str, arguments: list[Any]) -> Any:
        try:
            return self._page.evaluate(code, arguments)
        except Error as error:
            reason = error.message.removeprefix("Page.evaluate: ").strip().splitlines()[0]
            raise EngineFailed("; ".join([reason, *self._complaints])) from error


class _Files(SimpleHTTPRequestHandler):
    """Files of this folder, and of other folders under one name each.

    Cross-origin isolated, so that WASM engines have threads.
    """

    extensions_map = {  # noqa: RUF012 - as in the base class
        **SimpleHTTPRequestHandler.extensions_map,
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def __init__(self, *args: Any, roots: dict[str, Path], **kwargs: Any) -> None:
        self._roots = roots
        super().__init__(*args, **kwargs)

    def translate_path(self, path: str) -> str:
        head, _, rest = unquote(urlsplit(path).path).lstrip("/").partition("/")
        if head not in self._roots:
            return str(_HERE / Path(head).name)
        self.directory = str(self._roots[head])
        return super().translate_path(quote(f"/{rest}"))

    def end_headers(self) -> None:
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass
