"""The `device` fixture on a machine without a GPU adapter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HIDDEN = {"VK_DRIVER_FILES": "/nonexistent", "VK_ICD_FILENAMES": "/nonexistent"}


@pytest.mark.skipif(sys.platform != "linux", reason="only Vulkan drivers can be hidden")
def test_a_test_that_asks_for_a_device_fails(tmp_path: Path) -> None:
    """It is neither passed nor skipped; a test beside it that needs no GPU passes."""
    (tmp_path / "conftest.py").write_text("from tests.conftest import device, no_leak\n")
    test = tmp_path / "test_it.py"
    test.write_text("def test(device): ...\ndef test_memory(no_leak): ...\ndef test_text(): ...\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test],
        cwd=tmp_path,
        env={**os.environ, **HIDDEN, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'scripts'}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "1 passed, 2 errors" in done.stdout
    assert "Install the driver of your GPU" in done.stdout
