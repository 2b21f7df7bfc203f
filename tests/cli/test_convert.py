"""`gpt2-wgpu convert` as a process: files, output and errors."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Run

ROOT = Path(__file__).parents[2]


def test_a_model_is_converted_and_generates(run: Run, tmp_path: Path) -> None:
    done = run("convert", "fairytales", str(tmp_path), "--dtype", "q8")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    path = tmp_path / "model.safetensors"
    assert f"wrote {path} (7.7 MiB)" in done.stderr
    text = run("generate", "-q", "-m", str(tmp_path), "--greedy", "-n", "5", "Once upon a time")
    assert text.returncode == 0, text.stderr
    assert text.stdout.startswith("Once upon a time")
    wrong = run("generate", "-q", "-m", str(tmp_path), "--dtype", "q4", "Once")
    assert wrong.returncode == 1
    assert "holds weights in q8, which cannot become q4" in wrong.stderr
    again = run("convert", "-q", "fairytales", str(tmp_path), "--dtype", "q4")
    assert again.returncode == 1
    assert "--force" in again.stderr
    forced = run("convert", "-q", "fairytales", str(tmp_path), "--dtype", "q4", "--force")
    assert (forced.returncode, forced.stderr) == (0, "")
    assert path.stat().st_size < 5e6


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fairytales", "there"], "--dtype"),
        (["fairytales", "there", "--dtype", "q5"], "invalid choice: 'q5'"),
        (["fairytales", "--dtype", "q8"], "DST"),
    ],
)
def test_wrong_usage(run: Run, arguments: list[str], said: str) -> None:
    done = run("convert", *arguments)
    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_leaves_no_file(name: str, tmp_path: Path) -> None:
    script = (
        "import os, signal, sys\n"
        f"signal.signal(signal.{name}, signal.SIG_DFL)\n"  # nohup ignores SIGHUP
        "from gpt2_wgpu.weights import writer\n"
        "from gpt2_wgpu.cli.main import main\n"
        f"writer.os.fsync = lambda _: os.kill(os.getpid(), signal.{name})\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", script, "convert", "fairytales", str(tmp_path / "x")]
    done = subprocess.run(
        [*command, "--dtype", "q8"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 128 + getattr(signal, name)
    assert list(tmp_path.iterdir()) == []
