"""``make_generate_function(check=True)``: recorded steps are compared with eager ones."""

from __future__ import annotations

import copy

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu import samplers
from gpt2_wgpu.errors import DeviceError, ShaderError
from gpt2_wgpu.models import decode_run

pytestmark = pytest.mark.usefixtures("no_leak")

PROMPTS = ["Once upon a time", "a"]


@pytest.fixture
def checked(lm, monkeypatch):
    """A model that checks, and the list of its checks."""
    model, checks = copy.copy(lm), []
    honest = decode_run.check_step

    async def counted(*args):
        checks.append(args)
        await honest(*args)

    monkeypatch.setattr(decode_run, "check_step", counted)
    model.compile("greedy")
    model.make_generate_function(check=True)
    yield model, checks
    model.kept_runs.close()


@pytest.mark.parametrize("sampler", [
    samplers.Greedy(),
    samplers.TopK(5, seed=1, repetition_penalty=1.4),
    samplers.TopP(0.9, seed=2, frequency_penalty=0.5),
], ids=repr)  # fmt: skip
def test_checked_texts_are_the_same(lm, checked, sampler):
    model, checks = checked
    lm.sampler, model.sampler = copy.deepcopy(sampler), copy.deepcopy(sampler)
    for _ in range(2):  # the second time with the recording of the first
        assert model.generate(PROMPTS, 40, None) == lm.generate(PROMPTS, 40, None)
    assert len(checks) == 2 * 3  # of 38 steps
    assert "".join(model.stream("a", max_new_tokens=4, stop_token_ids=None)) == "".join(
        lm.stream("a", max_new_tokens=4, stop_token_ids=None)
    )
    assert len(checks) == 7


def test_a_replaced_call_with_cache_is_checked_too(checked):
    model, checks = checked
    expected = model.generate("abc", 24, None)
    original = model.call_with_cache

    def scaled(*args):
        logits, hidden, cache = original(*args)
        return logits * gw.tensor([2.0]), hidden, cache  # a constant that is uploaded once

    model.call_with_cache = scaled
    checks.clear()
    assert model.generate("abc", 24, None) == expected
    assert len(checks) == 2


def test_checking_ends_with_compile(checked):
    model, checks = checked
    model.compile("greedy")
    model.generate("abc", 20, None)
    assert not checks
    model.make_generate_function(check=True)
    model.generate("abc", 20, None)
    assert checks
    checks.clear()
    model.make_generate_function(check=False)
    model.generate("abc", 20, None)
    assert not checks


# The last is `sample`, whose parameters are widths of rows: they change nothing for one row.
@pytest.mark.parametrize(("place", "prompts"), [(0, "abc"), (4, "abc"), (11, "abc"), (-1, PROMPTS)])
def test_a_recording_with_other_parameters_is_found(checked, place, prompts):
    """Its uniform buffer is overwritten where the parameters of one dispatch are."""
    model, _ = checked
    model.generate(prompts, 20, None)
    ((_, parts),) = model.kept_runs._runs
    assert parts.resume()
    place %= len(parts.step.recorded)
    kernel = parts.step.recorded[place].label.kernel
    uniform = list(parts.step._pinned.values())[-1]
    model.device.queue.upload(uniform, 256 * place, bytes(64))
    parts.suspend()
    with pytest.raises(DeviceError, match=rf"dispatch {place} of the step \({kernel}\) gives"):
        model.generate(prompts, 20, None)
    assert not model.kept_runs


def test_a_step_that_changes_is_found(checked):
    """A replacement that does something else the second time is not what was recorded."""
    model, _ = checked
    original, calls = model.call_with_cache, []

    def changing(*args):
        logits, hidden, cache = original(*args)
        calls.append(args)
        return (logits * 2.0 if len(calls) > 2 else logits), hidden, cache

    model.call_with_cache = changing
    with pytest.raises(DeviceError, match=r"dispatch \d+ of the step \(penalize\) was recorded"):
        model.generate("abc", 20, None)


def test_a_kernel_that_the_device_rejects_raises(device, lm, monkeypatch, tmp_path):
    """While a step is recorded, too: no text is made without it."""
    for source in device.pipelines.directory.rglob("*.wgsl"):
        copied = tmp_path / source.relative_to(device.pipelines.directory)
        copied.parent.mkdir(exist_ok=True)
        text = source.read_text()
        if source.name == "sample.wgsl":
            text = text.replace("@workgroup_size(WORKGROUP)", "@workgroup_size(WORKGROUP * 4096u)")
        copied.write_text(text)
    monkeypatch.setattr(device, "pipelines", type(device.pipelines)(device, tmp_path))
    model = copy.copy(lm)
    model.compile("greedy")
    with pytest.raises(ShaderError, match="sample"):
        model.generate("abc", 20, None)
    assert not model.kept_runs
