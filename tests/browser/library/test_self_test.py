"""Self-test in a browser whose GPU computes wrong numbers: loading a model fails."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from pathlib import Path

from tests.browser.library.browsing import Browser, Tab
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


# Kernels that only one of the two uses: the microbenchmark of weight dtypes, and the self-test.
MEASURING, TESTING = "random_normal", "exclude_tokens"
LOAD = """async () => {
  const lm = await GPT2.load('fairytales');
  const { result } = await lm.python("' '.join({key[0] for key in lm.device.pipelines._kernels})");
  lm.dispose();
  return { dtype: lm.info.dtype, kernels: result.replaceAll("'", "").split(" ") };
}"""
SPEEDS = """async (seconds) => {
  const cache = await caches.open("machine-facts");
  for (const request of await cache.keys()) {
    if (request.url.includes("default_dtype.json")) {
      await cache.put(request, new Response(seconds));
      return true;
    }
  }
}"""


def load(tab: Tab) -> tuple[str, set[str]]:
    """Load a model → its weight dtype, and the kernels that have been compiled by then."""
    tab.wait_for("() => Boolean(globalThis.GPT2)")
    found = tab.evaluate(LOAD)
    return found["dtype"], set(found["kernels"])


def test_the_first_start_is_remembered(browser: Browser, site: Path) -> None:
    """By the origin's Cache Storage: the next visit measures and tests nothing again.

    The stored speeds decide the weight dtype; they are measured again where they are malformed.
    """
    with hosting(site) as host:
        tab = browser.open(f"{host.page}tests/library.html", self_tested=False, snapshot=host.page)
        dtype, kernels = load(tab)
        assert {MEASURING, TESTING} <= kernels
        tab.reload()
        again, kernels = load(tab)
        assert again == dtype
        assert not {MEASURING, TESTING} & kernels
        other = {"float16": "q8", "q8": "float16"}[dtype]
        assert tab.evaluate(SPEEDS, json.dumps({dtype: 1.0, other: 0.001}))
        tab.reload()
        found, kernels = load(tab)
        assert found == other
        assert MEASURING not in kernels
        assert TESTING in kernels  # another dtype
        assert tab.evaluate(SPEEDS, "nonsense")
        tab.reload()
        assert MEASURING in load(tab)[1]
        tab.close()


def test_the_facts_do_not_grow_for_ever(browser: Browser, site: Path) -> None:
    """Each version of the browser adds some: the oldest are removed."""
    script = """async () => {
      const lm = await GPT2.load('fairytales', { dtype: 'float16' });
      await lm.python(`
from gpt2_wgpu.models import remembered
for number in range(66):
    await remembered.remember("numbers.json", str(number), number)
`);
      const recalled = '[await remembered.recall("numbers.json", x) for x in ("1", "2", "65")]';
      const { result } = await lm.python(recalled);
      const count = (await (await caches.open("machine-facts")).keys()).length;
      lm.dispose();
      return { result, count };
    }"""
    with hosting(site) as host:
        tab = browser.open(f"{host.page}tests/library.html", snapshot=host.page)
        tab.wait_for("() => Boolean(globalThis.GPT2)")
        found = tab.evaluate(script)
        tab.close()
    assert found == {"result": "[None, 2, 65]", "count": 64}
