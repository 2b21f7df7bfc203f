"""The soak script: one round, and detection of faults."""

from __future__ import annotations

import random

import pytest

from benchmarks import soak

pytestmark = pytest.mark.native("a device of its own for each model")


@pytest.mark.parametrize("dtype", ["float16", "q8"])
def test_a_round(capsys, monkeypatch, dtype):
    monkeypatch.setattr(soak, "ROUND", 4)
    monkeypatch.setattr(soak, "ENDS", ["batch", "cancelled", "lost before", "lost within"])
    monkeypatch.setattr(soak, "NEW_TOKENS", [12])
    assert soak.main(["--dtype", dtype, "--minutes", "0.001", "--seed", "4"]) == 0
    assert "4 requests" in (said := capsys.readouterr().out)
    assert "0 wrong, 0 leaks" in said


def test_a_wrong_text_is_noticed():
    request = soak.any_request(random.Random(1))
    request.end, request.text = "left", ["surely not this"]
    [line] = soak.wrong_texts("fairytales", "float16", [request])
    assert "surely not this" in line
