"""One contract, `pages/contract.js`, for the library, its declarations and the fakes of the tests.

The page's tests run on fakes. What they give and when is held to the real library here, so that a
fake cannot hide a fault of the page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.browser.library.browsing import Browser
from tests.browser.library.host import Host
from tests.browser.page.serving import serving

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "tests" / "browser" / "page"
DECLARED = (ROOT / "web" / "gpt2.d.ts").read_text()
EMPTY = "/tests/browser/pages/empty.html"
# The declaration of what was seen under a name.
INTERFACES = {
    "check": "Check",
    "size": "Size",
    "progress": "Progress",
    "onMemory": "Memory",
    "info": "Info",
    "stats": "Stats",
    "details": "Details",
    "token": "StreamedToken",
    "onmemory": "Memory",
    "memory": "Memory",
}
OBSERVE = """async ([contract, library]) => {
  const { observe } = await import(contract);
  return observe(await import(library));
}"""


@pytest.fixture(scope="module")
def real(browser: Browser, host: Host) -> dict[str, Any]:
    """What the real library does, with the embedded model."""
    tab = browser.open(f"{host.page}tests/empty.html", snapshot=host.page)
    try:
        found: dict[str, Any] = tab.evaluate(OBSERVE, ["./contract.js", "../web/gpt2.js"])
        return found
    finally:
        tab.close()


def observed(browser: Browser, instead: Mapping[str, Path]) -> dict[str, Any]:
    """Behaviour of the library with these files instead of others."""
    with serving(ROOT, "/", instead) as address:
        tab = browser.open(address.rstrip("/") + EMPTY)
        try:
            modules = ["/tests/browser/pages/contract.js", "/web/gpt2.js"]
            found: dict[str, Any] = tab.evaluate(OBSERVE, modules)
            return found
        finally:
            tab.close()


EXPORTS = """async (module) => {
  const { offline, ...rest } = await import(module);
  const enabled = typeof (await offline.enable());
  return [Object.keys(rest), Object.keys(offline), offline.enable.length, enabled];
}"""


@pytest.mark.parametrize(
    "instead", [{}, {"/web/offline.js": PAGE / "fake_offline.js"}], ids=["real", "fake"]
)
def test_either_offline_module_has_the_same_exports(
    browser: Browser, instead: dict[str, Path]
) -> None:
    """The real one answers that it keeps nothing: the checkout has no manifest."""
    with serving(ROOT, "/", instead) as address:
        tab = browser.open(address.rstrip("/") + EMPTY)
        try:
            found = tab.evaluate(EXPORTS, "/web/offline.js")
        finally:
            tab.close()
    assert found == [[], ["enable"], 0, "boolean"]


def differences(fake: Any, real: Any, path: str = "") -> list[str]:
    """Where two observations differ; an empty list agrees with a list of anything."""
    if isinstance(fake, dict) and isinstance(real, dict):
        return [
            line
            for key in sorted(fake.keys() | real.keys())
            for line in differences(fake.get(key), real.get(key), f"{path}.{key}")
        ]
    if isinstance(fake, list) and isinstance(real, list):
        if len(fake) == len(real):
            pairs = zip(fake, real, strict=True)
            return [line for pair in pairs for line in differences(*pair, f"{path}[]")]
        return [] if not fake or not real else [f"{path}: {fake}, really {real}"]
    return [] if fake == real else [f"{path}: {fake}, really {real}"]


def test_the_fake_library_keeps_the_contract(browser: Browser, real: dict[str, Any]) -> None:
    fake = observed(browser, {"/web/gpt2.js": PAGE / "fake_gpt2.js"})
    assert fake.pop("progress").items() <= real["progress"].items()
    del fake["details"]  # the page asks for tokens instead
    others = {key: real[key] for key in real.keys() - {"progress", "details"}}
    assert differences(fake, others) == []


def test_the_fake_worker_keeps_the_contract(browser: Browser, real: dict[str, Any]) -> None:
    """It reports no progress of a load; all else is as the real worker's."""
    fake = observed(browser, {"/web/worker.js": PAGE / "fake_worker.js"})
    unreported = {"progress", "stages", "onMemory"}
    assert (
        differences(
            {key: fake[key] for key in fake.keys() - unreported},
            {key: real[key] for key in real.keys() - unreported},
        )
        == []
    )


def test_what_the_page_relies_on(real: dict[str, Any]) -> None:
    assert real["heldAfterDispose"] == [0]  # one event, and nothing is held
    assert real["finishReason"] == "length"
    assert (real["stopped"], real["stoppedReason"]) == ("AbortError", "aborted")
    assert real["cancelled"] == "AbortError"
    for name in ("disposedMemory", "disposedStream", "disposedPython"):
        assert real[name] == "DisposedTensorError"


def members(interface: str) -> Iterator[tuple[str, bool, str]]:
    """Name, whether it may be left out, and type of each member in gpt2.d.ts."""
    found = re.search(rf"^export interface {interface} {{\n(.*?)^}}", DECLARED, re.M | re.S)
    assert found, interface
    body = re.sub(r"/\*\*.*?\*/", "", found[1], flags=re.S)
    for name, optional, kind in re.findall(r"^  (\w+)(\??): (.+);$", body, re.M):
        yield name, bool(optional), kind


@pytest.mark.parametrize("name", INTERFACES)
def test_the_declarations_say_what_the_code_gives(real: dict[str, Any], name: str) -> None:
    declared = {key: (optional, kind) for key, optional, kind in members(INTERFACES[name])}
    seen = real[name]
    assert seen.keys() <= declared.keys()
    assert {key for key, (optional, _) in declared.items() if not optional} <= seen.keys()
    for key, kind in seen.items():
        wanted = declared[key][1]
        if kind in ("number", "string", "boolean", "null") and not re.search(r"[A-Z\"]", wanted):
            assert kind in wanted.split(" | "), (key, kind, wanted)
