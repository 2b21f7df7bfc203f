"""PyScript's attribute `worker`, on a host that sends COOP and COEP; part of `make parity`."""

from __future__ import annotations

from pathlib import Path

from tests.browser.clients.client import Handler, Visit, serving
from tests.browser.clients.conftest import of_the_docs


class IsolatingHandler(Handler):
    """A static host whose pages may share memory with their workers."""

    def end_headers(self) -> None:
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()


def test_the_page_of_the_docs_in_a_worker(
    chromium: str, pyodide: Path, host: tuple[Path, str], pyscript: str, story: str
) -> None:
    """With the two changes that the docs name."""
    code = of_the_docs("pyscript.html")
    in_worker = code.replace('<script type="py"', '<script type="py" worker')
    in_worker = in_worker.replace('"./models/', '"/models/')
    (host[0] / "isolated.html").write_text(in_worker, encoding="utf-8")
    with serving(host[0], IsolatingHandler) as address:
        page = Visit(chromium, f"{address}/isolated.html", pyodide)
        try:
            page.wait_for("() => document.title === 'The end'", 120)
            assert page.evaluate("() => document.getElementById('story').textContent") == story
            assert not page.elsewhere
        finally:
            page.close()
