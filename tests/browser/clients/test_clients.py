"""JupyterLite, PyScript and plain micropip install the site's wheels and generate the same text.

JupyterLite and PyScript are the ones of PyPI and npm; nothing is asked of another host but Pyodide.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

from tests.browser.clients.client import Visit
from tests.browser.clients.conftest import of_the_docs

# Time for the event loop to report a task that ended in an exception.
LATER = """
import asyncio
await asyncio.sleep(0.2)
print("\\nall", "done")
"""
OUTPUTS = """() => [...document.querySelectorAll(".jp-OutputArea-output")].map((output) =>
  [output.dataset.mimeType ?? "", output.innerText])"""
ERROR = "application/vnd.jupyter.error"
STDERR = "application/vnd.jupyter.stderr"

MICROPIP = """async () => {
  const { loadPyodide } = await import("https://a.cdn/pyodide/v0/full/pyodide.mjs");
  const pyodide = await loadPyodide();
  await pyodide.loadPackage("micropip");
  return pyodide.runPythonAsync(`
    import js, micropip
    wheels = str(js.URL.new("/wheels/", js.location))
    await micropip.install([wheels + name for name in ("%s", "%s")])
    import gpt2_wgpu as gw
    from gpt2_wgpu.gpu.bindings import load_wgpu
    load_wgpu()
    " ".join(sorted(set(micropip.list()) - {"micropip"}))
  `);
}"""


def test_jupyterlite(visit: Callable[[str], Visit], jupyterlite: str, story: str) -> None:
    page = visit(jupyterlite + quote(of_the_docs("jupyterlite.py") + LATER))
    ended = f"(({OUTPUTS})()).some(([type, text]) => type === '{ERROR}' || /all done/.test(text))"
    page.wait_for(f"() => {ended}", 120)
    outputs = page.evaluate(OUTPUTS)
    assert not [text for kind, text in outputs if kind in (ERROR, STDERR)]
    assert story.strip() in "".join(text for _, text in outputs)


def test_pyscript(visit: Callable[[str], Visit], pyscript: str, story: str) -> None:
    page = visit(pyscript)
    page.wait_for("() => document.title === 'The end' || document.querySelector('.py-error')", 120)
    assert page.evaluate("() => document.getElementById('story').textContent") == story
    assert not [text for text in page.complaints if "status of 404" not in text]


def test_micropip(visit: Callable[[str], Visit], site_wheels: list[str]) -> None:
    """In either order, and with no package from elsewhere."""
    page = visit("/empty.html")
    for names in (site_wheels, site_wheels[::-1]):
        assert page.evaluate(MICROPIP % tuple(names)) == "gpt2-wgpu wgpu"
