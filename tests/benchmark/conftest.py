"""Fixture: a measurement of about a second, with little data and a two-layer model."""

from __future__ import annotations

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.bench import RandomModel
from gpt2_wgpu.webgpu import sync

SHAPE = RandomModel.parse("2x64")


@pytest.fixture(autouse=True)
def little_to_read(monkeypatch):
    """The limit measured over a few bytes: not what an adapter can, but as good for a test."""
    for name in ("MAX_BYTES", "MAX_BYTES_ON_CPU"):
        monkeypatch.setattr(f"gpt2_wgpu.diagnostics.bandwidth.{name}", 1 << 20)
    monkeypatch.setattr("gpt2_wgpu.diagnostics.bandwidth.SHAPES", ((64, 64), (256, 16)))


@pytest.fixture(scope="package")
def lm(device):
    """Random weights, two layers of width 64, f32."""
    with sync(SHAPE.load("float32", device), "load") as model:
        yield model


@pytest.fixture(scope="package", params=["lm", "tales"])
def either(request):
    """The one, then the other."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="package")
def tales(device):
    """The embedded model in f16, without its tokenizer."""
    with gw.GPT2CausalLM.from_preset("fairytales", None, "float16") as model:
        yield model
