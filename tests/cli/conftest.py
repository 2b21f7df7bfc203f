"""Fixtures: the command as a process, with a terminal or with pipes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
COMMAND = (sys.executable, "-m", "gpt2_wgpu.cli")

CHANGES_OUTPUT = {
    "DRI_PRIME",
    "GPT2_WGPU_DEBUG",
    "GPT2_WGPU_MODEL",
    "MESA_VK_DEVICE_SELECT",
    "NO_COLOR",
    "NODEVICE_SELECT",
    "PYTHONUNBUFFERED",
    "XDG_RUNTIME_DIR",
}

Run = Callable[..., subprocess.CompletedProcess[str]]
Started = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a started process: this checkout, and nothing that changes output.

    Its cache folder is empty, but for the shaders that Mesa compiled for other processes.
    """
    env = {name: value for name, value in os.environ.items() if name not in CHANGES_OUTPUT}
    mesa = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    env = {"MESA_SHADER_CACHE_DIR": mesa} | env
    caches = str(tmp_path_factory.mktemp("caches"))
    return env | {"PYTHONPATH": str(ROOT), "TERM": "xterm", "XDG_CACHE_HOME": caches}


@pytest.fixture
def run(tmp_path: Path, environment: dict[str, str]) -> Run:
    """Runs `gpt2-wgpu` with these arguments, in an empty folder, without standard input."""

    def start(*args: str, **options: Any) -> subprocess.CompletedProcess[str]:
        if "input" not in options:
            options.setdefault("stdin", subprocess.DEVNULL)
        options.setdefault("stdout", subprocess.PIPE)
        return subprocess.run(
            [*COMMAND, *args],
            stderr=subprocess.PIPE,
            encoding="utf-8",
            cwd=tmp_path,
            env=environment | options.pop("env", {}),
            timeout=120,
            **options,
        )

    return start


@pytest.fixture
def started() -> Iterator[Started]:
    """`subprocess.Popen`, whose processes do not outlive a test that failed."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(*args: Any, **options: Any) -> subprocess.Popen[bytes]:
        processes.append(subprocess.Popen(*args, **options))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture(autouse=True, scope="package")
def interruptible() -> None:
    """Lets the processes that tests start be interrupted, also where this run itself is not.

    A shell's background jobs ignore Ctrl-C, and so do their children.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
