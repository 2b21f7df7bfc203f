"""JupyterLite with the notebooks of `examples/`, built by the commands of docs/browser.md.

Part of `make parity`, which has JupyterLite. The pages ask nothing of another host but Pyodide.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.browser.clients.client import Visit, serving
from tests.browser.clients.conftest import of_the_docs
from tests.examples.notebooks import FOLDER, PRINTED

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

# Of the open notebook: the kernel's status, and of each code cell its count and its outputs.
STATUS = "globalThis.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status"
CELLS = """() => jupyterapp.shell.currentWidget.content.widgets.map(({ model }) => model)
  .filter(({ type }) => type === "code")
  .map(({ executionCount, outputs }) => [executionCount, outputs.toJSON()])"""
FAILED = "([, outputs]) => outputs.some((each) => each.output_type === 'error')"
DIALOG = "document.querySelector('.jp-Dialog')?.innerText"


@pytest.fixture(scope="session")
def host(
    npm_package: Path, pyodide: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, str]]:
    """The site as the docs build it, with its own copy of Pyodide, and its address."""
    folder = tmp_path_factory.mktemp("lite")
    (folder / "dist").symlink_to(npm_package / "dist")
    (folder / "examples").symlink_to(FOLDER)
    (folder / "static").mkdir()
    (folder / "static" / "pyodide").symlink_to(pyodide)
    exposed = {"exposeAppInBrowser": True}
    config = {"jupyter-lite-schema-version": 0, "jupyter-config-data": exposed}
    (folder / "jupyter-lite.json").write_text(json.dumps(config))
    commands = [
        line
        for line in of_the_docs("jupyterlite.sh").splitlines()
        if line.startswith(("jupyter lite build ", "cp "))
    ]
    assert len(commands) == 2
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["sh", "-e", "-c", "\n".join(commands)],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    with serving(folder / "lite") as address:
        yield folder / "lite", address


def test_the_cell_of_the_docs(visit: Callable[[str], Visit], story: str) -> None:
    code = of_the_docs("jupyterlite.py") + LATER
    page = visit(f"/repl/index.html?kernel=python&execute=1&showBanner=0&code={quote(code)}")
    ended = f"(({OUTPUTS})()).some(([type, text]) => type === '{ERROR}' || /all done/.test(text))"
    page.wait_for(f"() => {ended}", 120)
    outputs = page.evaluate(OUTPUTS)
    assert not [text for kind, text in outputs if kind in (ERROR, STDERR)]
    assert story.strip() in "".join(text for _, text in outputs)


@pytest.mark.parametrize("name", PRINTED)
def test_a_notebook(visit: Callable[[str], Visit], name: str) -> None:
    """Run all cells, the first of which installs the package: they print what they do natively."""
    page = visit(f"/lab/index.html?path={name}.ipynb")
    page.wait_for(f"() => {STATUS} === 'idle' || {DIALOG}", 120)
    assert page.evaluate(f"() => {DIALOG} ?? ''") == ""
    page.evaluate("() => void jupyterapp.commands.execute('notebook:run-all-cells')")
    ended = f"(cells) => cells.at(-1)[0] || cells.some({FAILED})"
    page.wait_for(f"() => {STATUS} === 'idle' && ({ended})(({CELLS})())", 300)
    outputs = [output for _, found in page.evaluate(CELLS) for output in found]
    assert not [each for each in outputs if each["output_type"] == "error"]
    assert not [each for each in outputs if each.get("name") == "stderr"]
    texts = [each["text"] for each in outputs if each.get("name") == "stdout"]
    printed = "".join("".join(text) for text in texts)
    assert not [line for line in PRINTED[name] if not re.search(line, printed)], printed
