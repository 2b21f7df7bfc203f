"""The notebooks of `examples/`, run as they are."""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import re
from typing import Any

import pytest

import gpt2_wgpu as gw
from tests.examples.notebooks import FOLDER, PRINTED, PROGRAM, code_cells


def test_every_notebook_is_listed_and_has_no_outputs() -> None:
    paths = sorted(FOLDER.glob("*.ipynb"))
    assert [path.stem for path in paths] == sorted(PRINTED)
    for path in paths:
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            assert not cell.get("outputs") and cell.get("execution_count") is None


@pytest.mark.parametrize("name", PRINTED)
@pytest.mark.filterwarnings("ignore:running on the CPU")
def test_a_notebook_runs(name: str, device: gw.Device, no_leak: None) -> None:
    names: dict[str, Any] = {"cells": code_cells(name)}
    running = eval(compile(PROGRAM, name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
    assert inspect.iscoroutine(running)
    asyncio.run(running)
    printed = names["printed"].getvalue()
    assert not [line for line in PRINTED[name] if not re.search(line, printed)], printed
