"""Device loss while idle or during generation: the text equals that of an undisturbed run."""

from __future__ import annotations

import asyncio
import math
import threading
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu import samplers
from gpt2_wgpu.errors import DeviceLostError, DisposedTensorError, WeightsError
from gpt2_wgpu.models import decoding, recovery
from gpt2_wgpu.models.decode_run import DecodeRun
from gpt2_wgpu.models.decoding import Generation
from gpt2_wgpu.webgpu.backends import flush_promises
from gpt2_wgpu.webgpu.capabilities import Capabilities
from gpt2_wgpu.webgpu.waiting import sync
from gpt2_wgpu.weight_formats import WEIGHT_FORMATS
from tests.memory.tiny import packed

pytestmark = pytest.mark.native("PyTorch")

TOKENS = 40


@pytest.fixture
def lm(small):
    """The small model on a device of its own, which a test may lose."""
    lost = gw.Device()
    lm = gw.GPT2CausalLM.from_preset(small[1], None, "float16", lost)
    yield lm
    lm.dispose()
    lm.device.close()
    lost.close()


def lose_device(device):
    """What a driver reset looks like to wgpu: promises are still resolved, with an error."""
    device.gpu.destroy()
    flush_promises(device.gpu)


def text_of(lm, prompts, *, lose_after=()):
    """Ids of a sampled run that loses its device before the given submits."""
    lm.compile(sampler=samplers.Random(seed=5))
    submits = 0
    submit = DecodeRun.submit

    def losing(self, *args):
        nonlocal submits
        submits += 1
        if submits in lose_after:
            lose_device(lm.device)
        return submit(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DecodeRun, "submit", losing)
        out = lm.generate(packed(prompts, TOKENS), stop_token_ids=[7])
    return out["token_ids"].tolist(), out["padding_mask"].tolist()


@pytest.mark.parametrize("submit", [1, 2, 3, 5])
def test_lost_in_mid_text(lm, submit):
    prompts = [[1, 2, 3], [9]]
    expected = text_of(lm, prompts)
    before = lm.device
    held = gw.memory(before).by_kind["weights"]
    assert text_of(lm, prompts, lose_after=[submit]) == expected
    assert lm.device is not before
    assert gw.memory(lm.device).by_kind["weights"] == held
    assert gw.memory(before).num_tensors == 0
    assert text_of(lm, prompts) == expected


@pytest.mark.parametrize("reads", [False, True], ids=["recorded", "eager"])
def test_a_steered_text_goes_on_after_a_loss(lm, reads):
    def hook(tensor, name):
        if reads:
            tensor.tolist()
        return gw.ops.mul(tensor, 1.5)

    prompts = [[1, 2, 3], [9]]
    plain = text_of(lm, prompts)
    with lm.hooks([("blocks.1.hook_mlp_out", hook)]):
        expected = text_of(lm, prompts)
        assert text_of(lm, prompts, lose_after=[3]) == expected != plain


def test_rules_go_on_after_a_loss(lm, monkeypatch):
    """Flags, biases and texts of the rules are those of the tokens so far."""
    rules = {
        "no_repeat_ngram_size": 2, "min_new_tokens": 30, "forced_eos_token_id": 9,
        "bad_words_ids": [[3, 4], [8]], "sequence_bias": {(5,): 3.0, (5, 6): 9.0, (6, 7): 9.0},
    }  # fmt: skip
    prompts = [[1, 2, 5], [9, 5, 6]]
    plain = text_of(lm, prompts)
    monkeypatch.setattr(samplers, "Random", partial(samplers.Random, **rules))
    expected = text_of(lm, prompts)
    assert expected != plain
    assert text_of(lm, prompts, lose_after=[3]) == expected


DTYPES = list(WEIGHT_FORMATS)
RAGGED = [[(5 * t + t * t) % 101 for t in range(21)], [7] * 12, [3, 1]]


@pytest.fixture(params=[True, False], ids=["for CPUs", "for GPUs"])
def kernels(request, monkeypatch):
    """Devices that choose the kernels for the one or the other."""
    of = Capabilities.of

    def chosen(*adapter):
        found = of(*adapter)
        return replace(found, prefers_no_barriers=request.param, prefers_w8a8=request.param)

    monkeypatch.setattr(Capabilities, "of", chosen)


@pytest.fixture
def wide(request, kernels):
    """A model of whole blocks, whose activations are rounded in q8 and q4 on CPU adapters."""
    with gw.Device() as lost:
        backbone = gw.GPT2Backbone(
            101, 2, 2, 64, 128, max_sequence_length=64, dtype=request.param,
            initializer_range=0.2, device=lost,
        )  # fmt: skip
        yield gw.GPT2CausalLM(backbone)
        backbone.dispose()


def kept_after(lm, *, lose_after):
    """What the cache holds at the end of each live row, and the ids, with a loss on the way."""
    options = samplers.Random(seed=5).next_options()
    run = Generation(lm, RAGGED, [TOKENS, 18, 21], options, [])
    while not run.done:
        if lose_after and len(run._rows[0]) >= lose_after:
            lm.backbone.recovered_at = -math.inf
            lose_device(lm.device)
            lose_after = 0
        sync(run.advance(), "")
    cache = run._run._owned[0]
    shape = cache.shape
    rows, live = [list(row) for row in run._rows], run._run._live.rows
    kept = {row: cache.numpy()[place, :, :, : len(rows[row]) - 1] for place, row in enumerate(live)}
    run.close()
    assert shape[3] == -(-TOKENS // 16) * 16
    return kept, rows


@pytest.mark.parametrize("wide", DTYPES, indirect=True)
def test_a_recovery_repeats_the_very_computation(wide):
    """Ragged prompts, a row that leaves the step: keys and values are those of an undisturbed run,
    to the bit, though kernels for one row and for many take their sums in another order."""
    expected, rows = kept_after(wide, lose_after=0)
    assert [*expected] == [0, 2]
    for lost_at in (22, 23, 36):
        kept, found = kept_after(wide, lose_after=lost_at)
        assert found == rows
        for row, values in kept.items():
            np.testing.assert_array_equal(values, expected[row])


@pytest.mark.parametrize("ahead", [True, False], ids=["ahead", "one by one"])
@pytest.mark.parametrize("collected", range(4))
def test_lost_with_submits_in_flight(lm, monkeypatch, ahead, collected):
    """Each of them may be the one that is not done: no token is lost, none comes twice."""
    monkeypatch.setattr(decoding, "can_submit_ahead", lambda: ahead)
    expected = text_of_generation(lm, [4, 5])
    run, ids = generation_of(lm, [4, 5]), [4, 5]
    for _ in range(collected):
        ids += sync(run.advance(), "")[0]
    if collected:
        assert run._run.in_flight > 0
    lose_device(lm.device)
    while not run.done:
        ids += sync(run.advance(), "")[0]
    run.close()
    assert ids == expected
    assert gw.memory(lm.device).by_kind["cache"] == 0


def test_closed_with_a_submit_in_flight(lm, monkeypatch):
    """Freed memory is reusable, and work of the old GPU device affects no tensor."""
    monkeypatch.setattr(decoding, "can_submit_ahead", lambda: True)
    expected = text_of_generation(lm, [4, 5])
    before = gw.memory(lm.device)
    run = generation_of(lm, [4, 5])
    sync(run.advance(), "")
    assert run._run.in_flight > 0
    run.close()
    run.close()
    after = gw.memory(lm.device)
    assert (after.num_buffers, after.num_bytes) == (before.num_buffers, before.num_bytes)
    assert text_of_generation(lm, [4, 5]) == expected


def test_lost_while_idle(lm):
    expected = text_of(lm, [[4, 5]])
    lose_device(lm.device)
    assert text_of(lm, [[4, 5]]) == expected


def test_lost_again_at_once_is_an_error_and_later_is_not(lm, monkeypatch):
    expected = text_of(lm, [[4, 5]])
    with pytest.raises(DeviceLostError, match="lost twice within 30 seconds") as raised:
        text_of(lm, [[4, 5]], lose_after=[2, 4])
    assert "<" not in str(raised.value)  # the adapter's name, not a repr
    assert gw.memory(lm.device).by_kind["cache"] == 0
    monkeypatch.setattr(recovery, "SECONDS_BETWEEN_LOSSES", 0)
    assert text_of(lm, [[4, 5]], lose_after=[1, 3, 4]) == expected


def test_a_closed_device_is_not_replaced(lm):
    lm.device.close()
    with pytest.raises(DeviceLostError, match="was closed"):
        lm.generate(packed([[1]], TOKENS), stop_token_ids=None)


def test_tensors_of_a_lost_device_say_so(lm):
    x = gw.tensor([1.0], device=lm.device)
    lose_device(lm.device)
    text_of(lm, [[4, 5]])
    with pytest.raises(DeviceLostError, match="is gone"):
        x.numpy()
    x.dispose()


def test_a_constructed_backbone_comes_back_with_the_same_weights():
    lost = gw.Device()
    backbone = gw.GPT2Backbone(30, 1, 2, 16, 32, max_sequence_length=8, device=lost, seed=3)
    lm = gw.GPT2CausalLM(backbone)
    lm.compile(sampler="greedy")
    inputs = {"token_ids": [[1] * 8], "padding_mask": [[1] + [0] * 7]}
    expected = lm.generate(inputs, stop_token_ids=None)["token_ids"].tolist()
    lose_device(lost)
    assert lm.generate(inputs, stop_token_ids=None)["token_ids"].tolist() == expected
    lm.dispose()
    lm.device.close()
    lost.close()


def test_suspended_generations_all_go_on(lm):
    """Several on one device when it is lost: one replaces it, the others follow."""
    lm.compile(sampler="greedy")
    prompts = [[4, 5], [1], [9, 9, 9]]
    expected = [text_of_generation(lm, prompt) for prompt in prompts]
    running = [generation_of(lm, prompt) for prompt in prompts]
    pairs = list(zip(prompts, running, strict=True))
    found = [prompt + sync(run.advance(), "")[0] for prompt, run in pairs]
    lose_device(lm.device)
    for ids, run in zip(found, running, strict=True):
        while not run.done:
            ids += sync(run.advance(), "")[0]
        run.close()
    assert found == expected


def generation_of(lm, prompt):
    options = samplers.Greedy().next_options()
    return Generation(lm, [prompt], [TOKENS], options, [])


def text_of_generation(lm, prompt):
    run, ids = generation_of(lm, prompt), list(prompt)
    while not run.done:
        ids += sync(run.advance(), "")[0]
    run.close()
    return ids


def test_threads_recover_together(lm):
    expected = text_of_generation(lm, [4, 5])
    lose_device(lm.device)
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(text_of_generation(lm, [4, 5])))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 3


def test_tasks_recover_together(lm):
    """Two are in the middle of a submit when the device goes; a third begins afterwards."""
    expected = text_of_generation(lm, [4, 5])

    async def text():
        generation, ids = generation_of(lm, [4, 5]), [4, 5]
        while not generation.done:
            ids += (await generation.advance())[0]
        generation.close()
        return ids

    async def all_of_them():
        tasks = [asyncio.create_task(text()) for _ in range(2)]
        await asyncio.sleep(0)  # both have submitted, and wait
        lose_device(lm.device)
        tasks.append(asyncio.create_task(text()))
        return await asyncio.wait_for(asyncio.gather(*tasks), timeout=60)

    assert asyncio.run(all_of_them()) == [expected] * 3


def test_a_reload_that_fails_is_tried_again(lm, small, tmp_path):
    expected = text_of_generation(lm, [4, 5])
    path = small[1] / "model.safetensors"
    lose_device(lm.device)
    path.rename(path.with_suffix(".away"))
    try:
        with pytest.raises(WeightsError):
            text_of_generation(lm, [4, 5])
    finally:
        path.with_suffix(".away").rename(path)
    assert text_of_generation(lm, [4, 5]) == expected


def test_every_call_that_can_recovers(lm):
    ids = [[1, 2, 3]]
    calls = [
        lambda: lm({"token_ids": ids}).tolist(),
        lambda: lm.backbone({"token_ids": ids}).tolist(),
        lambda: lm.build_cache(ids)[0].tolist(),
    ]
    for call in calls:
        expected = call()
        lose_device(lm.device)
        lm.backbone.recovered_at = -1e9
        assert call() == expected


def test_settings_and_the_default_follow_the_replacement(small):
    with gw.Device() as lost:
        lm = gw.GPT2CausalLM.from_preset(small[1], None, "float16")
        gw.set_memory_budget(1 << 30)
        gw.set_memory_debug()
        lose_device(lost)
        text_of_generation(lm, [1])
        assert lm.device is not lost
        assert gw.default_device() is lm.device
        assert (gw.memory().budget, lm.device.memory.debug) == (1 << 30, True)
        lm.dispose()
        lm.device.close()


def test_a_disposed_model_does_not_come_back(lm):
    run = generation_of(lm, [1])
    sync(run.advance(), "")
    lm.dispose()
    lose_device(lm.device)
    with pytest.raises(DisposedTensorError, match="this model was disposed"):
        while not run.done:
            sync(run.advance(), "")
    run.close()
    assert gw.memory(lm.device).by_kind["weights"] == 0
