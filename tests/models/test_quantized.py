"""Models in q8 and q4: transformers with the same rounded weights, and what rounding costs."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import gpt2_wgpu as gw
from gpt2_wgpu.errors import InvalidArgumentError, NumericalError
from gpt2_wgpu.models.layouts import stored_bytes
from gpt2_wgpu.models.perplexity import windows
from tests.gpu.quantization import rounded
from tests.models import checkpoints
from tests.models.test_reference import ids_for, logits_with_cache

pytestmark = pytest.mark.native("PyTorch")

BOTH = pytest.mark.parametrize("dtype", ["q8", "q4"])
HELD_OUT = Path(__file__).with_name("data") / "held_out.txt"
SIZES = [
    {"n_embd": 48, "n_layer": 3, "n_head": 3},
    {"n_embd": 30, "n_head": 3, "n_inner": 50},  # heads of 10, in 16 places
    {"n_embd": 33, "n_head": 11, "n_inner": 7, "vocab_size": 65},
    {"n_embd": 24, "n_head": 3, "tie_word_embeddings": False},
    {"n_embd": 64, "n_head": 2},
]


@torch.no_grad()
def round_weights(model, dtype):
    """What the GPU makes of the weights, done to a transformers model."""
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
    """Where the elements of an axis lie whose heads of ``size`` are padded; and its length then."""
    padded = size if size == 1 else -(-size // 8) * 8
    numbers = np.arange(count)
    return numbers // size * padded + numbers % size, count // size * padded


@pytest.fixture
def loaded(tmp_path, device):
    """Loads a transformers model; frees what was loaded."""
    opened = []

    def load(model, dtype):
        checkpoints.save(model, tmp_path)
        opened.append(gw.GPT2CausalLM.from_preset(tmp_path, preprocessor=None, dtype=dtype))
        return opened[-1]

    yield load
    for lm in opened:
        lm.dispose()


@pytest.fixture(params=[True, False], ids=["rows", "workgroups"])
def in_floats(request, device, monkeypatch):
    """Without rounded activations, with the kernels for CPU adapters and those for GPUs."""
    chosen = replace(device.capabilities, barrier_free=request.param, integer_products=False)
    monkeypatch.setattr(device, "capabilities", chosen)


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
def test_integer_products_are_close(loaded, device, monkeypatch, dtype):
    chosen = replace(device.capabilities, barrier_free=True, integer_products=True)
    monkeypatch.setattr(device, "capabilities", chosen)
    model = checkpoints.make_model(n_embd=64, n_layer=2, n_head=2, n_positions=17, vocab_size=101)
    lm = loaded(model, dtype)
    ids = ids_for(model, 1, 17)
    round_weights(model, dtype)
    expected = checkpoints.logits_of(model, ids)
    found = logits_with_cache(lm, ids, range(1, 17))
    assert not np.allclose(found, expected, atol=1e-5)  # a variant of its own ran
    assert np.abs(found - expected).max() <= 0.02 * np.abs(expected).max()


@pytest.mark.parametrize("dtype", ["float32", "float16", "q8", "q4"])
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


# --- perplexity -----------------------------------------------------------------------------------


def test_each_token_is_predicted_once():
    for length in (2, 7, 8, 9, 12, 13, 40):
        ids = list(range(length))
        for stride in (1, 3, 8):
            pieces = list(windows(ids, 8, stride))
            predicted = [t for piece in pieces for t in piece.targets if t < length]
            assert predicted == ids[1:]
            for piece in pieces:
                assert len(piece.ids) == len(piece.targets) <= 8
                pairs = zip(piece.ids, piece.targets, strict=True)
                assert all(t == i + 1 for i, t in pairs if t < length)
                scored = [place for place, t in enumerate(piece.targets) if t < length]
                assert piece is pieces[0] or scored[0] >= 8 - stride


@torch.no_grad()
def reference_perplexity(rows, context, stride):
    """By transformers, a window at a time, as its documentation does."""
    from transformers import GPT2LMHeadModel

    root = Path(__file__).parents[2] / "models" / "fairytales"
    model = GPT2LMHeadModel.from_pretrained(root, dtype=torch.float32).eval()
    nats, tokens = 0.0, 0
    for ids in rows:
        done = 1
        while done < len(ids):
            end = min(context + 1 if done == 1 else done + stride, len(ids))
            begin = max(0, end - 1 - context)
            logits = model(torch.tensor([ids[begin : end - 1]])).logits[0].double()
            chances = torch.log_softmax(logits, -1)
            for place in range(done, end):
                nats -= float(chances[place - 1 - begin, ids[place]])
            tokens += end - done
            done = end
    return math.exp(nats / tokens)


@pytest.mark.parametrize("stride", [None, 100])
def test_perplexity_equals_transformers(tales, stride, monkeypatch):
    monkeypatch.setattr("gpt2_wgpu.models.perplexity.LOGIT_BYTES", 4096 * 4 * 50)
    texts = [HELD_OUT.read_text()[:2600], "Once upon a time", ""]
    rows = tales.preprocessor.encode_prompts(texts)
    assert len(rows[0]) > 512
    expected = reference_perplexity(rows, 512, stride or 256)
    before = gw.memory().num_bytes_in_gpu
    assert tales.perplexity(texts, stride) == pytest.approx(expected, rel=1e-4)
    assert gw.memory().num_bytes_in_gpu == before


def test_perplexity_refuses_what_has_no_answer(tales, small_lm, monkeypatch):
    with pytest.raises(InvalidArgumentError, match="no token to predict"):
        tales.perplexity("")
    with pytest.raises(InvalidArgumentError, match="stride"):
        tales.perplexity("Once", stride=513)
    with pytest.raises(InvalidArgumentError, match="no preprocessor"):
        small_lm.perplexity("Once")
    monkeypatch.setattr("gpt2_wgpu.models.perplexity._sum", not_a_number)
    with pytest.raises(NumericalError, match="the loss is nan"):
        tales.perplexity("Once upon")


async def not_a_number(backbone, pieces):
    return math.nan


def test_what_rounding_costs_on_held_out_text(tales):
    """docs/quantization.md has the figures for all of the held-out text."""
    texts = HELD_OUT.read_text().split("\n\n---\n\n")
    exact = tales.perplexity(texts)
    for dtype, most in (("float16", 0.001), ("q8", 0.005), ("q4", 0.05)):
        with gw.GPT2CausalLM.from_preset("fairytales", dtype=dtype) as lm:
            assert abs(lm.perplexity(texts) / exact - 1) <= most, dtype


# --- GPT-2 124M, random weights -------------------------------------------------------------------


def test_124m_in_q8_and_q4(device, tmp_path):
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
                assert np.abs(found - exact)[:, :23].max() <= 2e-3  # the last row: integers
