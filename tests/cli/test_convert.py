"""`gpt2-wgpu convert` as a process: what it writes, says and refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Run


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
