"""Failures of Python's start: one sentence with the file or policy, and a remedy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gpt2_wgpu.cli.static_site import POLICY
from tests.browser.library.browsing import Tab
from tests.browser.library.host import PREFIX, Host, Hosted

START = """() => new Promise((resolve) => {
  const worker = new Worker("start-worker.js", { type: "module" });
  worker.onmessage = ({ data }) => (worker.terminate(), resolve(data));
  worker.onerror = () => resolve({ failure: "the worker itself did not start" });
  worker.postMessage({ python: "1 + 1" });
  setTimeout(() => resolve({ failure: "no answer" }), 60_000);
})"""
OpenTab = Callable[[str], Tab]
PAGES = Path(__file__).parents[1] / "pages"
SAME_ORIGIN = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self'"
PUBLISH = "the site has to be published with all its files"
AGAIN = "load the page again without the browser's cache"


def failure(open_tab: OpenTab) -> str:
    """What is said where Python starts in a new profile."""
    tab = open_tab("tests/library.html")
    found = tab.evaluate(START)
    tab.complaints.clear()  # the console, too, reports blocked requests
    message: str = found.get("failure", "it did start")
    assert message.startswith("Python did not start: ")
    assert "\n" not in message
    return message.removeprefix("Python did not start: ")


def with_policy(host: Host, policy: str) -> None:
    """Send the worker's script with another policy."""
    script = (PAGES / "start-worker.js").read_bytes()
    host.files[f"{PREFIX}tests/start-worker.js"] = Hosted(
        script, kind="text/javascript", policy=policy
    )


def test_a_policy_without_webassembly_is_named(open_tab: OpenTab, host: Host) -> None:
    with_policy(host, POLICY.replace(" 'wasm-unsafe-eval'", ""))
    assert failure(open_tab).endswith(
        "forbids WebAssembly; add 'wasm-unsafe-eval' to its script-src"
    )


def test_it_starts_from_its_own_origin_alone(open_tab: OpenTab, host: Host) -> None:
    with_policy(host, SAME_ORIGIN)
    assert open_tab("tests/library.html").evaluate(START).get("value") == 2


def test_a_policy_without_connections_is_a_file_that_cannot_be_fetched(
    open_tab: OpenTab, host: Host
) -> None:
    with_policy(host, SAME_ORIGIN.replace("connect-src 'self'", "connect-src 'none'"))
    assert failure(open_tab).startswith("pyodide/pyodide-lock.json cannot be fetched; check the")


@pytest.mark.parametrize("name", ["pyodide.mjs", "pyodide.asm.wasm", "python_stdlib.zip"])
def test_a_missing_file_of_pyodide_is_named(name: str, open_tab: OpenTab, host: Host) -> None:
    host.files[f"{PREFIX}pyodide/{name}"] = Hosted(b"not found", kind="text/plain", status=404)
    assert failure(open_tab) == f"the server answers 404 for pyodide/{name}; {PUBLISH}"


@pytest.mark.parametrize("pattern", ["wheels/gpt2_wgpu-*.whl", "pyodide/pyodide.asm.wasm"])
def test_a_file_with_other_bytes_is_named(
    pattern: str, open_tab: OpenTab, host: Host, site: Path
) -> None:
    (path,) = site.glob(pattern)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    name = path.relative_to(site).as_posix()
    kind = "application/wasm" if name.endswith(".wasm") else "application/octet-stream"
    host.files[PREFIX + name] = Hosted(bytes(data), kind=kind)
    assert failure(open_tab).startswith(
        f"{name} is not the file that the site was built with; {AGAIN}"
    )
