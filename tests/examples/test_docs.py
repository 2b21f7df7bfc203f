"""The Python blocks of docs/extending.md, run in their order in one namespace."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import gpt2_wgpu as gw

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"


@pytest.mark.filterwarnings("ignore:running on the CPU")
def test_the_blocks_run(device: gw.Device, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    for block in blocks:
        exec(block, names)
    second_best, without_king, shape = capsys.readouterr().out.splitlines()[-3:]
    assert second_best.startswith("The king")
    assert without_king.startswith("Once upon a time there was a")
    assert " king" not in without_king
    assert shape == "shape: (2, 8)"
