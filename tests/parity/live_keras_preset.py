"""Preset directories of KerasHub itself, in `make parity`: they need h5py and keras-hub."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

import gpt2_wgpu as gw


def test_a_preset_that_keras_hub_wrote_computes_the_same(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.parity.references.keras_preset", str(tmp_path)]
    subprocess.run(command, check=True, timeout=600)
    expected = json.loads((tmp_path / "expected.json").read_text())
    with gw.GPT2CausalLM.from_preset(tmp_path, dtype="float32") as lm:
        with gw.tidy():
            logits = lm({"token_ids": expected["ids"]}).numpy()
        np.testing.assert_allclose(logits, expected["logits"], atol=2e-4)
        lm.compile(sampler="greedy")
        assert lm.generate("The king", max_length=12) == expected["text"]
