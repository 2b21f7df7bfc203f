"""Self-test: when it runs, its cache, and errors of generation on a device that fails it."""

from __future__ import annotations

from dataclasses import replace

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import DeviceError
from gpt2_wgpu.models import remembered, self_test
from gpt2_wgpu.models.known_draws import OPTIONS, known_draws
from gpt2_wgpu.webgpu.readback import Readback
from gpt2_wgpu.webgpu.waiting import sync
from gpt2_wgpu.weight_formats import WEIGHT_FORMATS
from tests.gpu.doctored import doctored

pytestmark = pytest.mark.native("files of the user")


@pytest.fixture
def runs(monkeypatch, tmp_path):
    """The formats for which the self-test ran; nothing is remembered before."""
    ran = []

    async def add_model(checks, dtype, cache_dtype):
        ran.append((dtype, cache_dtype))

    async def nothing(*_):
        pass

    monkeypatch.setattr(self_test, "_add_model", add_model)
    monkeypatch.setattr(self_test, "_add_draws", nothing)
    monkeypatch.setattr(self_test, "add_products", nothing)
    monkeypatch.setattr(remembered, "directory", lambda: tmp_path / "cache")
    forget(monkeypatch)
    return ran


def forget(monkeypatch):
    """What a new process knows."""
    monkeypatch.setattr(self_test, "_passed", set())


def require(device, dtype="float16", cache_dtype="float32"):
    sync(self_test.require_right_results(device, dtype, cache_dtype), "")


def test_it_runs_once_for_each_format(device, runs, monkeypatch):
    for _ in range(2):
        require(device)
        require(device, "q8")
        require(device, "q8", "float16")
        forget(monkeypatch)  # the next process reads what this one wrote
    assert runs == [("float16", "float32"), ("q8", "float32"), ("q8", "float16")]


@pytest.mark.parametrize("changed", ["driver", "name", "capabilities", "version", "kernels"])
def test_what_passed_elsewhere_does_not_count(
    device, runs, monkeypatch, capabilities, tmp_path, changed
):
    require(device)
    forget(monkeypatch)
    if changed == "capabilities":
        capabilities(prefers_no_barriers=not device.capabilities.prefers_no_barriers)
    elif changed == "version":
        monkeypatch.setattr(self_test, "__version__", "another")
    elif changed == "kernels":
        with doctored(device, tmp_path, "embed.wgsl", "// Token", "// A token"):
            require(device)
    else:
        monkeypatch.setattr(device, "info", replace(device.info, **{changed: "another"}))
    require(device)
    assert len(runs) == 2


@pytest.mark.parametrize("content", ["", "[]", "{", '{"a": 1}'])
def test_a_file_that_says_nothing_is_no_obstacle(device, runs, monkeypatch, content):
    directory = remembered.directory()
    assert directory is not None
    directory.mkdir()
    (directory / "self_test.json").write_text(content)
    require(device)
    forget(monkeypatch)
    require(device)
    assert len(runs) == 1


def test_where_nothing_can_be_written_it_runs_in_each_process(device, runs, monkeypatch):
    monkeypatch.setattr(remembered, "directory", lambda: None)
    require(device)
    require(device)
    forget(monkeypatch)
    require(device)
    assert len(runs) == 2


def test_a_file_does_not_grow_for_ever(runs):
    for number in range(100):
        remembered.write("self_test.json", str(number), True)
    assert list(remembered.read("self_test.json")) == [str(number) for number in range(36, 100)]


@pytest.mark.usefixtures("no_leak")
def test_all_work_is_issued_before_the_one_read(device, monkeypatch):
    """A browser compiles the kernels of a later check while an earlier one is computed."""
    reads, submits = [], []
    finish = Readback.finish

    async def counted(readback):
        reads.append(readback)
        values = await finish(readback)
        submits.append(device.queue.submits)
        return values

    monkeypatch.setattr(Readback, "finish", counted)
    monkeypatch.setattr(remembered, "directory", lambda: None)
    forget(monkeypatch)
    require(device)
    assert len(reads) == 1
    assert submits == [device.queue.submits]
    assert gw.self_check(device).passed
    assert len(reads) == 2


@pytest.mark.usefixtures("no_leak")
def test_generation_refuses_a_device_that_computes_wrong_numbers(device, monkeypatch, tmp_path):
    monkeypatch.setattr(remembered, "directory", lambda: tmp_path / "cache")
    forget(monkeypatch)
    with gw.GPT2CausalLM.from_preset("fairytales", dtype="float16", device=device) as lm:
        epsilon = "inverseSqrt(variance + params.epsilon)"
        with doctored(device, tmp_path, "include/input_plain.wgsl", epsilon, "1.0"):
            for generate in (
                lambda: lm.generate("Once", max_length=10),
                lambda: next(lm.stream("Once", max_new_tokens=2)),
            ):
                with pytest.raises(DeviceError) as caught:
                    generate()
                message = str(caught.value)
                assert message.startswith(device.info.name)
                assert "float16 product behind a norm" in message  # the stage,
                assert "is allowed" in message  # how far off,
                assert "use another adapter" in message  # and what to do
                assert "gpt2-wgpu doctor" in message
        assert not (tmp_path / "cache").exists()  # a failure is not remembered
        assert lm.generate("Once", max_length=10)
        assert (tmp_path / "cache" / "self_test.json").exists()


def test_known_draws_are_far_from_other_outcomes():
    """A device that rounds otherwise draws the same."""
    for options in OPTIONS.values():
        assert known_draws(options).margin > 9e-4


@pytest.mark.parametrize("dtype", WEIGHT_FORMATS)
def test_known_tokens_lead_by_far(dtype):
    """An error that is allowed changes no greedy token."""
    for row, length in ((0, sum(self_test.CHUNKS) + 1), *enumerate(self_test.SHORT, 1)):
        for logits in self_test._known(dtype, row, length).logits:
            first, second = sorted(logits)[:-3:-1]
            spread = max(logits) - min(logits)
            assert first - second > 1.9 * self_test.TOLERANCE_INT8 * spread
