"""JupyterLite with the npm package's wheels, in a browser; part of `make parity`, which has it.

The page asks nothing of another host but Pyodide.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

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


@pytest.fixture(scope="session")
def jupyterlite(
    host: tuple[Path, str],
    npm_package: Path,
    pyodide: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> str:
    """The path of JupyterLite's console, built with the package's wheels."""
    folder, _ = host
    sources = tmp_path_factory.mktemp("lite")
    (sources / "static").mkdir()
    (sources / "static" / "pyodide").symlink_to(pyodide)
    wheels = [
        f"--piplite-wheels={wheel}" for wheel in sorted((npm_package / "dist" / "wheels").iterdir())
    ]
    options = ["--apps=repl", f"--output-dir={folder / 'lite'}", "--no-sourcemaps"]
    command = [sys.executable, "-m", "jupyterlite_core", "build", "--no-libarchive"]
    done = subprocess.run(
        [*command, *options, *wheels], cwd=sources, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return "/lite/repl/index.html?kernel=python&execute=1&showBanner=0&code="


def test_jupyterlite(visit: Callable[[str], Visit], jupyterlite: str, story: str) -> None:
    page = visit(jupyterlite + quote(of_the_docs("jupyterlite.py") + LATER))
    ended = f"(({OUTPUTS})()).some(([type, text]) => type === '{ERROR}' || /all done/.test(text))"
    page.wait_for(f"() => {ended}", 120)
    outputs = page.evaluate(OUTPUTS)
    assert not [text for kind, text in outputs if kind in (ERROR, STDERR)]
    assert story.strip() in "".join(text for _, text in outputs)
