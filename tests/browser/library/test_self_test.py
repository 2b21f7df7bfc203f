"""Self-test in a browser whose GPU computes wrong numbers: loading a model fails."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from pathlib import Path

from tests.browser.library.browsing import Browser
from tests.browser.library.host import hosting

SHADER = "gpt2_wgpu/shaders/include/input_plain.wgsl"
RIGHT, WRONG = "variance + params.epsilon", "variance + 100.0 * params.epsilon"


def doctored_site(site: Path, folder: Path) -> Path:
    """A copy of ``site`` whose package has a doctored shader."""
    copy = shutil.copytree(site, folder / "site")
    (wheel,) = (copy / "wheels").glob("gpt2_wgpu-*.whl")
    before = wheel.read_bytes()
    with zipfile.ZipFile(wheel) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    assert RIGHT.encode() in files[SHADER]
    files[SHADER] = files[SHADER].replace(RIGHT.encode(), WRONG.encode())
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    lock = copy / "pyodide" / "pyodide-lock.json"
    old, new = (hashlib.sha256(data).hexdigest() for data in (before, wheel.read_bytes()))
    text = lock.read_text()
    assert old in text
    lock.write_text(json.dumps(json.loads(text.replace(old, new))))
    return copy


def test_loading_fails_and_says_why(browser: Browser, site: Path, tmp_path: Path) -> None:
    with hosting(doctored_site(site, tmp_path)) as host:
        tab = browser.open(f"{host.page}tests/library.html", self_tested=False)
        tab.wait_for("() => Boolean(globalThis.GPT2)")
        error = tab.evaluate("() => thrown(() => GPT2.load('fairytales', { dtype: 'float16' }))")
        tab.close()
    assert not tab.complaints
    assert error["name"] == "DeviceError"
    assert "computes wrong numbers: float16 product behind a norm" in error["message"]
    assert "is allowed" in error["message"]
    assert "Update the browser or the graphics driver" in error["message"]


def test_a_self_test_that_passed_is_remembered(browser: Browser, site: Path) -> None:
    """By the origin's Cache Storage: the next visit does not run it again."""
    with hosting(site) as host:
        tab = browser.open(f"{host.page}tests/library.html", self_tested=False)
        tab.wait_for("() => Boolean(globalThis.GPT2)")
        tab.evaluate(
            "async () => { (await GPT2.load('fairytales', { dtype: 'float16' })).dispose(); }"
        )
        entries = tab.evaluate(
            """async () => {
              const cache = await caches.open("self-test");
              return (await cache.keys()).map((request) => decodeURIComponent(request.url));
            }"""
        )
        tab.close()
    assert len(entries) == 1
    assert "self_test.json?" in entries[0]
    assert "float16 | float32" in entries[0]
