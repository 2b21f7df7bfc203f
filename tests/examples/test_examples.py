"""The scripts of `examples/`, run as they are, and the first lines of their output."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

import gpt2_wgpu as gw
from tests import llm_plugin

EXAMPLES = Path(__file__).parents[2] / "examples"
OUTPUT = {
    "generate": "Once upon a time ",
    "stream": "24 tokens, ",
    "batch": "Once upon a time there was a king",
    "custom_sampler": "temperature 0.25: The wolf ",
    "constrained": ", brave: ",
    "custom_kernel": "[[0.0, 16.0], [1.0, 0.0]]",
    "llm_conversation": "tokens of the last turn: 24",
    "session": "one way:",
    "memory_scopes": "after the scope: 1 tensor: [[25.0, 75.0], [50.0, 50.0]]",
}
LIVE = {"lm_eval_task"}  # tests/integrations/live_lm_eval.py


def test_every_example_is_listed() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*OUTPUT} | LIVE


@pytest.mark.parametrize("name", OUTPUT)
@pytest.mark.filterwarnings("ignore:running on the CPU")
def test_an_example_runs(name: str, device: gw.Device, capsys: pytest.CaptureFixture[str]) -> None:
    if name.startswith("llm"):
        llm_plugin.load()
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert OUTPUT[name] in capsys.readouterr().out
