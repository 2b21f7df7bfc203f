"""PyScript and plain micropip install the site's wheels; PyScript generates the same text.

PyScript is the one of npm; the pages ask nothing of another host but Pyodide. Others:
live_jupyterlite.py, live_pyscript.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.browser.clients.client import Visit

MICROPIP = """async () => {
  const { loadPyodide } = await import("https://a.cdn/pyodide/v0/full/pyodide.mjs");
  const pyodide = await loadPyodide();
  await pyodide.loadPackage("micropip");
  return pyodide.runPythonAsync(`
    import js, json, micropip

    async def error_of(source):
        import gpt2_wgpu as gw
        try:
            await gw.GPT2CausalLM.from_preset_async(source)
        except Exception as error:
            return f"{type(error).__name__}: {error}"

    first, second = (str(js.URL.new(f"/wheels/{name}", js.location)) for name in ("%s", "%s"))
    without_wgpu = ""
    if "gpt2_wgpu" in first:
        await micropip.install(first, deps=False)
        without_wgpu = await error_of("/models/fairytales")
        micropip.uninstall("gpt2-wgpu")
    await micropip.install([first, second])
    installed = sorted(set(micropip.list()) - {"micropip"})
    json.dumps([installed, without_wgpu, await error_of("fairytales")])
  `);
}"""


def test_pyscript(visit: Callable[[str], Visit], pyscript: str, story: str) -> None:
    page = visit(pyscript)
    page.wait_for("() => document.title === 'The end' || document.querySelector('.py-error')", 120)
    assert page.evaluate("() => document.getElementById('story').textContent") == story
    assert not [text for text in page.complaints if "status of 404" not in text]


def test_pyscript_in_a_worker(visit: Callable[[str], Visit], pyscript: str, story: str) -> None:
    """The worker sends the text to the page, on a host without COOP and COEP."""
    page = visit(pyscript.replace("page", "pyscript-worker"))
    page.wait_for("() => document.title === 'The end'", 120)
    assert not page.evaluate("() => crossOriginIsolated")
    assert page.evaluate("() => document.getElementById('story').textContent") == story
    assert not [text for text in page.complaints if "status of 404" not in text]


def test_micropip(visit: Callable[[str], Visit], site_wheels: list[str]) -> None:
    """In either order and with no package from elsewhere; what lacks is named."""
    page = visit("/empty.html")
    own, wgpu = site_wheels
    for first, second in ((own, wgpu), (wgpu, own)):
        found = json.loads(page.evaluate(MICROPIP.replace("%s", first, 1).replace("%s", second, 1)))
        installed, without_wgpu, without_model = found
        assert installed == ["gpt2-wgpu", "wgpu"]
        assert without_model.startswith(
            "PresetError: the wheel for browsers does not contain 'fair"
        )
        if first == own:
            assert without_wgpu.startswith("DependencyError: the package wgpu is not installed: ")
    assert not [name for name in page.asked if name.endswith(".safetensors")]
