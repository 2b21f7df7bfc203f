"""Perplexity and divergence, against transformers, and of the embedded model's formats."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import InvalidArgumentError, NumericalError
from gpt2_wgpu.models import evaluation
from gpt2_wgpu.models.evaluation import windows
from gpt2_wgpu.webgpu.backends import flush_promises
from tests.gpu import references
from tests.models import checkpoints
from tests.models.conftest import SMALL

pytestmark = pytest.mark.native("PyTorch")

HELD_OUT = Path(__file__).with_name("data") / "held_out.txt"
ROWS = [[row * token % 211 for token in range(1, length)] for row, length in ((5, 150), (7, 41))]


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


def reference_chances(model, ids, context, stride):
    """log p of every token after each but the last [T - 1, V], a window at a time."""
    done, chances = 1, []
    while done < len(ids):
        end = min(context + 1 if done == 1 else done + stride, len(ids))
        begin = max(0, end - 1 - context)
        logits = checkpoints.logits_of(model, [ids[begin : end - 1]])[0]
        chances.append(references.log_softmax(logits)[done - 1 - begin :])
        done = end
    return np.concatenate(chances)


# --- perplexity -----------------------------------------------------------------------------------


def reference_perplexity(model, rows, context, stride):
    losses = [
        -chances[at, token]
        for ids in rows
        if len(ids) > 1
        for chances in [reference_chances(model, ids, context, stride)]
        for at, (_, token) in enumerate(pairwise(ids))
    ]
    return math.exp(math.fsum(losses) / len(losses))


def test_perplexity_equals_transformers(tales, monkeypatch):
    import torch
    from transformers import GPT2LMHeadModel

    monkeypatch.setattr(evaluation, "LOGIT_BYTES", 4096 * 4 * 50)
    root = Path(__file__).parents[2] / "models" / "fairytales"
    model = GPT2LMHeadModel.from_pretrained(root, dtype=torch.float32).eval()
    texts = [HELD_OUT.read_text()[:2600], "Once upon a time", ""]
    rows = tales.preprocessor.encode_prompts(texts)
    assert len(rows[0]) > 512
    expected = reference_perplexity(model, rows, 512, 256)
    before = gw.memory().num_bytes_in_gpu
    assert tales.perplexity(texts) == pytest.approx(expected, rel=1e-4)
    assert gw.memory().num_bytes_in_gpu == before


def test_ids_stand_for_texts_where_no_preprocessor_is(small, small_lm):
    expected = reference_perplexity(small[0], ROWS, 64, 20)
    assert small_lm.perplexity(ROWS, 20) == pytest.approx(expected, rel=1e-4)
    assert small_lm.perplexity(np.array(ROWS[0])) == small_lm.perplexity(ROWS[0])
    for texts in ("Once", ["Once"]):
        with pytest.raises(InvalidArgumentError, match="no preprocessor: give rows of token ids"):
            small_lm.perplexity(texts)
    with pytest.raises(InvalidArgumentError, match="holds 211"):
        small_lm.perplexity([[1, 211]])


def test_perplexity_refuses_what_has_no_answer(tales, monkeypatch):
    with pytest.raises(InvalidArgumentError, match="no token to predict"):
        tales.perplexity("")
    with pytest.raises(InvalidArgumentError, match="stride"):
        tales.perplexity("Once", stride=513)
    monkeypatch.setattr(evaluation, "_window_values", not_a_number)
    with pytest.raises(NumericalError, match="the sum over all tokens is nan"):
        tales.perplexity("Once upon")


async def not_a_number(backbones, pieces, score):
    return [[[math.nan] * len(piece.ids)] for piece in pieces]


@pytest.mark.parametrize("sums", [[math.nan, 2.0], [1.0, math.nan]])
def test_the_sum_that_is_not_finite_is_told(tales, monkeypatch, sums):
    async def values(backbones, pieces, score):
        return [[[value] * len(piece.ids) for value in sums] for piece in pieces]

    monkeypatch.setattr(evaluation, "_window_values", values)
    with pytest.raises(NumericalError, match="the sum over all tokens is nan"):
        tales.divergence("Once upon", tales)


# --- divergence -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """(transformers' model, its directory): as small, with other weights and a shorter context."""
    model = checkpoints.make_model(seed=1, **SMALL | {"n_positions": 40})
    return model, checkpoints.save(model, tmp_path_factory.mktemp("other"))


@pytest.fixture
def other_lm(device, other):
    with gw.GPT2CausalLM.from_preset(other[1], None, "float32") as lm:
        yield lm


@pytest.mark.parametrize("stride", [None, 7])
def test_divergence_equals_transformers(small, small_lm, other, other_lm, stride, monkeypatch):
    monkeypatch.setattr(evaluation, "LOGIT_BYTES", 2 * 211 * 4 * 30)
    p, q = (
        np.concatenate([reference_chances(model, ids, 40, stride or 20) for ids in ROWS])
        for model in (other[0], small[0])
    )
    before = gw.memory().num_bytes_in_gpu
    found = small_lm.divergence(ROWS, other_lm, stride)
    assert gw.memory().num_bytes_in_gpu == before
    assert found.tokens == len(p) == 187
    assert found.nats == pytest.approx((np.exp(p) * (p - q)).sum(-1).mean(), rel=1e-4)
    assert found.agreement == pytest.approx((p.argmax(-1) == q.argmax(-1)).mean())
    assert other_lm.divergence(ROWS, small_lm, stride).nats != pytest.approx(found.nats, rel=0.01)


def test_a_model_does_not_diverge_from_itself(small_lm):
    assert small_lm.divergence(ROWS, small_lm) == gw.Divergence(0.0, 1.0, 187)


def test_divergence_refuses_what_has_no_answer(small, small_lm, tales):
    with pytest.raises(InvalidArgumentError, match="vocabularies of 211 and 4096"):
        small_lm.divergence(ROWS, tales)
    with pytest.raises(InvalidArgumentError, match="divergence: the texts contain no token"):
        small_lm.divergence([[1]], small_lm)
    with (
        gw.Device() as device,
        gw.GPT2CausalLM.from_preset(small[1], None, "float32", device) as elsewhere,
        pytest.raises(InvalidArgumentError, match="another device: load both on one"),
    ):
        small_lm.divergence(ROWS, elsewhere)


def test_both_models_come_back_after_a_loss(small, other):
    load = gw.GPT2CausalLM.from_preset
    with (
        gw.Device() as device,
        load(small[1], None, "float32", device) as lm,
        load(other[1], None, "q8", device) as q8,
    ):
        expected = lm.divergence(ROWS, q8)
        device.gpu.destroy()
        flush_promises(device.gpu)
        assert lm.divergence(ROWS, q8) == expected
        assert lm.device is q8.device is device.successor is not device


def test_what_rounding_costs_on_held_out_text(tales):
    """docs/quantization.md has the figures for all of the held-out text."""
    texts = [HELD_OUT.read_text()[:1200]]
    exact = tales.perplexity(texts)
    bounds = (("float16", 0.001, 0.0, 1.0), ("q8", 0.005, 2e-4, 0.97), ("q4", 0.05, 0.04, 0.87))
    for dtype, most, nats, agreement in bounds:
        with gw.GPT2CausalLM.from_preset("fairytales", dtype=dtype) as lm:
            assert abs(lm.perplexity(texts) / exact - 1) <= most, dtype
            found = lm.divergence(texts, tales)
            assert found.nats <= nats, dtype  # float16: the checkpoint itself is F16
            assert found.agreement >= agreement, dtype
            assert (found.nats == 0) == (dtype == "float16")


def test_what_rounding_costs_as_decoded(tales, capabilities):
    """Token by token, where a CPU adapter rounds activations, too: that is what is measured."""
    text = HELD_OUT.read_text()[:600]
    (ids,) = tales.preprocessor.encode_prompts([text])
    assert len(ids) > 150
    exact = tales.perplexity(text)
    capabilities(prefers_no_barriers=True, prefers_w8a8=True)
    for dtype, most in (("q8", 0.005), ("q4", 0.05)):
        with gw.GPT2CausalLM.from_preset("fairytales", dtype=dtype) as lm:
            found = lm.perplexity(text)
            assert abs(found / exact - 1) <= most, dtype
            assert math.exp(decoded_loss(lm, ids)) == pytest.approx(found, rel=1e-5)
            with lm.device.with_capabilities(prefers_w8a8=False):
                assert abs(found / lm.perplexity(text) - 1) > 1e-5  # or nothing was rounded


def decoded_loss(lm, ids):
    """Mean -log p of each of ``ids`` but the first, decoded one at a time."""
    losses = []
    with gw.tidy():
        cache = lm.backbone.new_cache(1, len(ids))
        for position, (token, following) in enumerate(pairwise(ids)):
            with gw.tidy():
                logits, _, _ = lm.call_with_cache([[token]], cache, position)
                losses.append(-references.log_softmax(logits.numpy()[0])[0, following])
    return math.fsum(losses) / len(losses)
