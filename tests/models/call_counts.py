"""Counts of calls and submits that are the same on a slow machine and on a busy one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import gpt2_wgpu as gw

# For monkeypatch.setattr: submits take as many steps as there can be, however long one takes.
FULL_SUBMITS = ("gpt2_wgpu.models.pace.STEP_SECONDS", 1e9)

_PACKAGE = str(Path(gw.__file__).parent)


def python_calls(function: Callable[[], object]) -> int:
    """Calls of this package's functions."""
    count = 0

    def profile(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event == "call" and frame.f_code.co_filename.startswith(_PACKAGE)

    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count
