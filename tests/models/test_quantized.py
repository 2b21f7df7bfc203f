"""Models in q8 and q4, against transformers with the same rounded weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.models.weight_sizes import stored_bytes
from gpt2_wgpu.weight_formats import QUANTIZED, WEIGHT_FORMATS
from tests.gpu.quantization import rounded
from tests.models import checkpoints
from tests.models.test_reference import ids_for, logits_with_cache

pytestmark = pytest.mark.native("PyTorch")

BOTH = pytest.mark.parametrize("dtype", QUANTIZED)
SIZES = [
    {"n_embd": 48, "n_layer": 3, "n_head": 3},
    {"n_embd": 30, "n_head": 3, "n_inner": 50},  # heads of 10, in 16 places
    {"n_embd": 33, "n_head": 11, "n_inner": 7, "vocab_size": 65},
    {"n_embd": 24, "n_head": 3, "tie_word_embeddings": False},
    {"n_embd": 64, "n_head": 2},
]


@checkpoints.without_gradients
def round_weights(model, dtype):
    """What the GPU makes of the weights, done to a transformers model."""
    import torch

    for name, parameter in model.named_parameters():
        if parameter.ndim != 2 or "wpe" in name:
            continue
        if not name.startswith("transformer.h."):
            parameter.copy_(torch.tensor(rounded(parameter.numpy(), dtype)))
            continue
        size = model.config.n_embd // model.config.n_head
        values = parameter.numpy().T  # Conv1D has [inputs, outputs]
        rows, height = places(values.shape[0], size if "c_attn" in name else 1)
        columns, width = places(values.shape[1], size if "attn.c_proj" in name else 1)
        stored = np.zeros((height, width), np.float32)
        stored[np.ix_(rows, columns)] = values
        parameter.copy_(torch.tensor(rounded(stored, dtype)[np.ix_(rows, columns)].T))


def places(count, size):
    """Indices of the elements of an axis whose heads of ``size`` are padded; and its length."""
    padded = size if size == 1 else -(-size // 8) * 8
    numbers = np.arange(count)
    return numbers // size * padded + numbers % size, count // size * padded


@pytest.fixture
def loaded(tmp_path, device):
    """Loads a transformers model; frees what was loaded."""
    opened = []

    def load(model, dtype):
        checkpoints.save(model, tmp_path)
        lm = gw.GPT2CausalLM.from_preset(tmp_path, None, dtype, cache_dtype="float32")
        opened.append(lm)
        return opened[-1]

    yield load
    for lm in opened:
        lm.dispose()


@pytest.fixture(params=[True, False], ids=["cpu", "gpu"])
def in_floats(request, capabilities):
    """Without rounded activations, with the kernels for CPU adapters and those for GPUs."""
    capabilities(prefers_no_barriers=request.param, prefers_w8a8=False)


@BOTH
@pytest.mark.parametrize("config", SIZES, ids=str)
@pytest.mark.usefixtures("in_floats")
def test_logits_equal_transformers_with_rounded_weights(loaded, config, dtype):
    model = checkpoints.make_model(
        **{"n_layer": 2, "n_positions": 17, "vocab_size": 101, "initializer_range": 0.3} | config
    )
    lm = loaded(model, dtype)
    ids = ids_for(model, 3, 17)
    round_weights(model, dtype)
    expected = checkpoints.logits_of(model, ids)
    found = logits_with_cache(lm, ids, (4, 5))  # many rows, few and one
    np.testing.assert_allclose(found, expected, atol=3e-5 * max(1, np.abs(expected).max()))


@BOTH
def test_w8a8_products_are_close(loaded, capabilities, dtype):
    capabilities(prefers_no_barriers=True, prefers_w8a8=True)
    model = checkpoints.make_model(n_embd=64, n_layer=2, n_head=2, n_positions=17, vocab_size=101)
    lm = loaded(model, dtype)
    ids = ids_for(model, 1, 17)
    round_weights(model, dtype)
    expected = checkpoints.logits_of(model, ids)
    found = logits_with_cache(lm, ids, range(1, 17))
    assert not np.allclose(found, expected, atol=1e-5)  # a variant of its own ran
    assert np.abs(found - expected).max() <= 0.02 * np.abs(expected).max()


@pytest.mark.parametrize("dtype", WEIGHT_FORMATS)
@pytest.mark.parametrize("limits", ["adapter", "default"])
def test_stored_bytes_are_exact(tmp_path, dtype, limits):
    model = checkpoints.make_model(
        n_embd=30, n_layer=2, n_head=3, n_inner=50, n_positions=17, vocab_size=101
    )
    checkpoints.save(model, tmp_path)
    with gw.Device(limits=limits) as device:
        if limits == "default":  # parts, as of a table that exceeds a binding
            small = replace(device.capabilities, max_binding=5000)
            device.capabilities = small
        with gw.GPT2CausalLM.from_preset(tmp_path, None, dtype, device) as lm:
            if limits == "default":
                assert len(lm.backbone.weights.wte.parts) > 1 or dtype in ("q8", "q4")
            needed = stored_bytes(lm.backbone.config, dtype, device.capabilities.max_binding)
            assert gw.memory(device).by_kind["weights"] == needed


def test_a_dtype_that_is_none_names_all_four(small):
    with pytest.raises(InvalidArgumentError, match="'float32', 'float16', 'q8', 'q4'"):
        gw.GPT2CausalLM.from_preset(small[1], None, "int8")


# --- GPT-2 124M, random weights -------------------------------------------------------------------


def test_124m_in_q8_and_q4(capabilities, tmp_path):
    model = checkpoints.make_model(initializer_range=0.05)
    checkpoints.save(model, tmp_path)
    ids = ids_for(model, 1, 24)
    expected = checkpoints.logits_of(model, ids)
    assert np.abs(expected).max() > 3
    for dtype, most in (("q8", 0.25), ("q4", 4.0)):
        with gw.GPT2CausalLM.from_preset(tmp_path, preprocessor=None, dtype=dtype) as lm:
            found = logits_with_cache(lm, ids, (23,))
            assert np.abs(found - expected).max() <= most, dtype
            if dtype == "q4":
                round_weights(model, dtype)
                exact = checkpoints.logits_of(model, ids)
                assert np.abs(found - exact).max() <= 0.3  # activations may be rounded, too
                capabilities(prefers_w8a8=False)
                found = logits_with_cache(lm, ids, (23,))
                assert np.abs(found - exact).max() <= 2e-3
