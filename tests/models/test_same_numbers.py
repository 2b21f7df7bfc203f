"""Equal logits alone and in a batch, in prefill and decoding, for any chunks of a prompt."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.nn import rounds_activations
from gpt2_wgpu.weight_formats import QUANTIZED, WEIGHT_FORMATS

DTYPES = list(WEIGHT_FORMATS)
TOKENS = 21
IDS = [[(7 * row + 13 * t + t * t) % 101 for t in range(TOKENS)] for row in range(3)]
# The whole at once; a prompt and steps; steps alone; rows on both sides of each kernel's limit.
CUTS = {
    "prefilled": [21],
    "decoded": [1] * 21,
    "in odd pieces, then decoded": [9, 5, 3, 2, 1, 1],
}


@pytest.fixture(scope="module", params=DTYPES)
def lm(request, device):
    backbone = gw.GPT2Backbone(
        101, 2, 4, 96, 160, max_sequence_length=64, dtype=request.param, initializer_range=0.2
    )
    yield gw.GPT2CausalLM(backbone)
    backbone.dispose()


def logits_of(lm, rows, cut):
    """The logits of every position of each row, [B, T, V] as lists."""
    found = [[] for _ in rows]
    with gw.tidy():
        cache = lm.backbone.new_cache(len(rows), TOKENS)
        first = 0
        for count in cut:
            with gw.tidy():
                ids = [row[first : first + count] for row in rows]
                logits, _, _ = lm.call_with_cache(ids, cache, first)
                for row, some in zip(found, logits.tolist(), strict=True):
                    row += some
            first += count
    return found


def check(lm, found, expected, *, one_kernel=False):
    """Equal to 1e-4 of the logits' spread; to the bit where activations are rounded.

    ``one_kernel``: both have more than eight rows, and so to the bit on CPU adapters, too.
    """
    weights = lm.backbone.weights
    one_kernel = one_kernel and lm.device.capabilities.prefers_no_barriers
    if one_kernel or rounds_activations(lm.device, weights.lm_head):
        assert found == expected
        return
    spread = max(map(max, expected)) - min(map(min, expected))
    assert spread > 1
    worst = max(
        abs(a - b)
        for line, other in zip(found, expected, strict=True)
        for a, b in zip(line, other, strict=True)
    )
    assert worst <= 1e-4 * spread


@pytest.fixture(scope="module")
def whole(lm):
    """The logits of each row alone, all of its positions at once."""
    return [logits_of(lm, [row], [TOKENS])[0] for row in IDS]


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
@pytest.mark.chromium_cases("lm")
def test_alone(lm, whole, cut):
    check(lm, logits_of(lm, IDS[:1], cut)[0], whole[0])


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
@pytest.mark.chromium_cases("lm")
def test_in_a_batch(lm, whole, cut):
    for found, expected in zip(logits_of(lm, IDS, cut), whole, strict=True):
        check(lm, found, expected, one_kernel=cut == [TOKENS])


def test_without_a_cache(lm, whole):
    with gw.tidy():
        found = lm({"token_ids": IDS}).tolist()
    for row, expected in zip(found, whole, strict=True):
        check(lm, row, expected, one_kernel=True)


def test_perplexity_is_that_of_what_is_decoded(lm):
    losses = []
    for ids in IDS:
        (lines,) = logits_of(lm, [ids], [1] * TOKENS)
        for line, following in zip(lines[:-1], ids[1:], strict=True):
            highest = max(line)
            total = math.log(math.fsum(math.exp(logit - highest) for logit in line))
            losses.append(total + highest - line[following])
    expected = math.exp(math.fsum(losses) / len(losses))
    assert lm.perplexity(IDS) == pytest.approx(expected, rel=1e-5)


@pytest.mark.chromium_cases()
@pytest.mark.parametrize("dtype", QUANTIZED)
def test_a_model_with_one_width_of_no_whole_blocks(device, dtype):
    """Then no product rounds activations: sums of floats, in another order, come before it."""
    backbone = gw.GPT2Backbone(
        101, 2, 2, 40, 160, max_sequence_length=64, dtype=dtype, initializer_range=0.2
    )
    with gw.GPT2CausalLM(backbone) as lm:
        whole = logits_of(lm, IDS[:1], [TOKENS])[0]
        for cut in CUTS.values():
            check(lm, logits_of(lm, IDS[:1], cut)[0], whole)


def test_tables_over_one_binding_change_nothing(small_binding):
    """Token and position embeddings in parts: the logits are those of tables in one piece."""
    parted, whole = (logits_of(lm, IDS[:2], [12, 9]) for lm in small_binding)
    assert parted == whole


@pytest.fixture
def small_binding():
    """A model on a device of little bindings, and the same one with large ones."""
    models = []
    for most in (96 * 4 * 20, None):
        device = gw.Device()
        if most:
            device.capabilities = replace(device.capabilities, max_binding=most)
        backbone = gw.GPT2Backbone(
            101, 2, 4, 96, 160, max_sequence_length=64, initializer_range=0.2, device=device
        )
        models.append(gw.GPT2CausalLM(backbone))
        assert len(backbone.weights.wpe.parts) == (4 if most else 1)
    yield models
    for lm in models:
        lm.dispose()
        lm.device.close()
