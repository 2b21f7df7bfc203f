"""Kept runs are not used with other weights, another device or other kernels."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import DisposedTensorError
from gpt2_wgpu.nn import choose_kernels
from tests.memory import tiny
from tests.models.test_device_loss import lose_device

pytestmark = [pytest.mark.usefixtures("no_leak"), pytest.mark.native("NumPy")]


def test_weights_disposed_in_mid_text_are_not_used_again(device):
    lm = tiny.model(device)
    stream = lm.stream("abc", stop_token_ids=None)
    next(stream)
    lm.backbone.dispose()
    stream.close()
    with pytest.raises(DisposedTensorError):
        lm.generate("abc", max_length=48)
    gw.trim()


def test_replaced_weights_are_used(device):
    with gw.tidy():
        lm, other = tiny.model(device), tiny.model(device, seed=9)
        lm.compile("greedy")
        lm.generate("abc", max_length=12)
        weights = lm.backbone.weights
        lm.backbone.weights = None
        lm.backbone.weights = replace(
            weights, ln_f=other.backbone.weights.ln_f, lm_head=other.backbone.weights.lm_head,
            head_folded=other.backbone.weights.head_folded,
        )  # fmt: skip
        found = lm.generate("abc", max_length=12)
        lm.compile("greedy")
        assert lm.generate("abc", max_length=12) == found
        lm.backbone.weights = weights
        lm.dispose()
        other.dispose()
    gw.trim()


def test_runs_of_a_lost_device_are_freed_with_the_next_generation():
    device = gw.Device()
    lm = tiny.model(device)
    for length in (20, 36):
        lm.generate("abc", max_length=length)
    assert len(lm.kept_runs) == 2
    lost = weakref.ref(device.gpu)
    lose_device(device)
    del device
    lm.generate("abc", max_length=20)
    assert len(lm.kept_runs) == 1
    gc.collect()
    assert lost() is None
    lm.dispose()
    lm.device.close()


def test_kernels_that_a_caller_chooses_are_recorded_anew(device):
    called = []

    def choose(cache):
        called.append(cache)
        raise ZeroDivisionError

    lm = tiny.model(device)
    lm.generate("abc", max_length=12)
    with choose_kernels("cached_attention", choose), pytest.raises(ZeroDivisionError):
        lm.generate("abc", max_length=12)
    assert called
    lm.dispose()
    gw.trim()
