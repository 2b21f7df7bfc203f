"""The Python examples of the README, run one after the other as they are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import gpt2_wgpu as gw

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


@pytest.mark.filterwarnings("ignore:running on the CPU")
def test_the_examples_run(device: gw.Device, capsys: pytest.CaptureFixture[str]) -> None:
    library, tensors = BLOCKS
    names: dict[str, object] = {}
    try:
        exec(library, names)
        text = capsys.readouterr().out
        assert text.startswith("Once upon a time")
        assert "The wolf" in text
        assert re.search(r"weights [\d,]+, cache 0, workspace 0, staging 0, parameters 0>$", text)
        exec(tensors, names)
        first, second, count = re.findall(r"[\d.]+", capsys.readouterr().out)
        assert float(first) == pytest.approx(0.268941, rel=1e-5)
        assert float(second) == pytest.approx(0.731059, rel=1e-5)
        assert int(count) > 0
    finally:
        model = names.get("lm")
        if isinstance(model, gw.GPT2CausalLM):
            model.backbone.dispose()
