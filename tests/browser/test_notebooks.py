"""The notebooks of `examples/` in the browser's Python, with the site's wheels."""

from __future__ import annotations

import json
import re

import pytest

from tests.browser.chromium import Worker
from tests.examples.notebooks import PRINTED, PROGRAM, code_cells

# JupyterLite's installer; the worker has the wheels already.
INSTALLER = """
import sys, types

installed = []

async def install(name):
    installed.append(name)

sys.modules["piplite"] = types.SimpleNamespace(install=install)
"""


@pytest.mark.parametrize("name", PRINTED)
def test_a_notebook_runs_in_the_browser(name: str, worker: Worker, address: str) -> None:
    root = '"/models/fairytales"'  # the tests' site is not at the root of its host
    cells = [cell.replace(root, f'"{address}models/fairytales"') for cell in code_cells(name)]
    assert cells != code_cells(name)
    code = f"{INSTALLER}{PROGRAM}import json\njson.dumps([*installed, printed.getvalue()])"
    package, printed = json.loads(worker.run(code, cells=cells))
    assert package == "gpt2-wgpu"
    assert not [line for line in PRINTED[name] if not re.search(line, printed)], printed
