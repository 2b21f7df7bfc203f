"""Fixtures: a small model shared by all tests, and the embedded one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.models import turns
from tests.memory import tiny

SMALL = {"n_embd": 48, "n_layer": 3, "n_head": 3, "n_positions": 64, "vocab_size": 211}


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """(transformers' model, its directory): three layers of width 48."""
    from tests.models import checkpoints  # PyTorch, which a browser lacks

    model = checkpoints.make_model(**SMALL)
    return model, checkpoints.save(model, tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def small_lm(device, small):
    """The small model on the GPU in f32, its cache included, without text."""
    lm = gw.GPT2CausalLM.from_preset(small[1], None, "float32", cache_dtype="float32")
    yield lm
    lm.dispose()


@pytest.fixture(scope="session")
def tales(device):
    """The embedded model in f32."""
    lm = gw.GPT2CausalLM.from_preset("fairytales", dtype="float32")
    yield lm
    lm.dispose()


@pytest.fixture
def text_lm(tales):
    """The embedded model, greedy."""
    tales.compile("greedy")
    return tales


@pytest.fixture(scope="module")
def lm(device):
    """The tiny model, where a file has no other."""
    lm = tiny.model(device)
    yield lm
    lm.dispose()


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """Streams keep their turns for as long as a test takes."""
    monkeypatch.setattr(turns, "IDLE_SECONDS", 600.0)


@pytest.fixture
def other():
    """Runs a function in another thread: ``other(function).result(TIMEOUT_S)``."""
    with ThreadPoolExecutor(4) as pool:
        yield pool.submit
