"""Kernel checks: they pass on a correct device and detect each of many modified kernels."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import DeviceError
from gpt2_wgpu.models import remembered, self_test
from gpt2_wgpu.models.self_test import require_right_results
from gpt2_wgpu.webgpu.pipelines import PipelineCache
from gpt2_wgpu.webgpu.waiting import sync
from gpt2_wgpu.weight_formats import WEIGHT_FORMATS
from tests.gpu.doctored import doctored

pytestmark = [pytest.mark.usefixtures("no_leak"), pytest.mark.native("files are copied")]

# Kinds of adapters, which have kernels of their own.
CPU, GPU = "cpu", "gpu"
SUBGROUPS, MASKED = "subgroups", "masked"  # other CPU adapters


def as_kind(device, capabilities, kind):
    """Choose the kernels of such an adapter."""
    if kind == SUBGROUPS and "subgroup" not in device.features:
        pytest.skip("no subgroups")
    cpu = kind != GPU
    capabilities(
        prefers_no_barriers=cpu, prefers_w8a8=cpu, prefers_f16_cache=not cpu,
        shares_loads=kind == SUBGROUPS, emulates_packed_dot=kind == MASKED,
    )  # fmt: skip


known_draws = cache(self_test.known_draws)  # once for all of these tests


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch):
    monkeypatch.setattr(self_test, "known_draws", known_draws)
    monkeypatch.setattr(remembered, "directory", lambda: None)
    monkeypatch.setattr(self_test, "_passed", set())


@pytest.mark.parametrize("kind", [CPU, GPU, SUBGROUPS, MASKED])
def test_a_right_device_passes(device, capabilities, kind):
    as_kind(device, capabilities, kind)
    report = gw.self_check(device)
    assert report.passed
    assert not report.describe_wrong()
    names = [check.name for check in report.checks]
    assert names[:3] == ["matmul", "softmax", "gelu"]
    for dtype in WEIGHT_FORMATS:
        assert [name for name in names if name.startswith(f"{dtype} prompt")] == [
            f"{dtype} prompt, {count} tokens" for count in (70, 62, 12)
        ]
        assert f"{dtype} step, 1 row" in names
        assert f"{dtype} step, 3 rows, token" in names
    # Far from failing: another adapter may round otherwise.
    assert all(check.worst_error <= check.tolerance / 2 for check in report.checks)


@pytest.mark.parametrize("kind", [CPU, GPU, SUBGROUPS])
def test_a_cache_in_f16_passes(device, capabilities, kind):
    as_kind(device, capabilities, kind)
    sync(require_right_results(device, "float32", "float16"), "")


def test_the_asynchronous_form(device):
    report = asyncio.run(gw.self_check_async(device, ["float16"]))
    assert report.passed
    assert not any(check.name.startswith("q8") for check in report.checks)


def test_the_sampling_kernel_is_compiled_once(device, capabilities, monkeypatch):
    """One pipeline samples with and without penalties: SwiftShader takes a second for each."""
    as_kind(device, capabilities, CPU)
    compiled = []

    def recorded(name, *rest):
        compiled.append(name)
        return compile_kernel(name, *rest)

    monkeypatch.setattr(device, "pipelines", PipelineCache(device))
    compile_kernel = device.pipelines._compile
    monkeypatch.setattr(device.pipelines, "_compile", recorded)
    assert gw.self_check(device, ["float16"]).passed
    assert compiled.count("sample") == 1


# Kernels that a text may use, by the kind of adapter.
KERNELS = {
    CPU: {
        "embed", "linear_gemv_cpu", "linear_gemm_cpu", "linear_w8a8_gemv_cpu",
        "linear_w8a8_gemm_cpu", "quantize_activations_cpu", "layer_norm_cpu",
        "attention_lanes_cpu", "attention_cpu", "sample", "load_weight", "quantize_weight",
    },
    GPU: {
        "embed", "linear_gemv", "linear_gemm", "layer_norm", "attention", "attention_flash",
        "sample", "load_weight", "quantize_weight",
    },
}  # fmt: skip
KERNELS[SUBGROUPS] = KERNELS[CPU] | {
    "linear_gemm_subgroups_cpu", "linear_w8a8_gemm_subgroups_cpu",
}  # fmt: skip
KERNELS[MASKED] = KERNELS[CPU] - {"linear_w8a8_gemv_cpu"} | {"linear_w8a8_gemv_masked_cpu"}


@pytest.mark.parametrize("kind", [CPU, GPU, SUBGROUPS, MASKED])
def test_what_generation_runs_is_checked(device, capabilities, kind):
    """Each kernel and variant that a prompt, a batch and their steps use, the self-test uses."""
    as_kind(device, capabilities, kind)

    def used(work):
        profile = gw.profile(work, device)
        return profile.result, set(profile.by_kernel())

    report, checked = used(lambda: gw.self_check(device, ["float16", "q8"]))
    assert report.passed
    assert checked >= KERNELS[kind]
    text = "Once upon a time there was a king who had a daughter, and she said: " * 3
    for dtype in ("float16", "q8") if kind != GPU else ("float16",):
        with gw.GPT2CausalLM.from_preset("fairytales", dtype=dtype, device=device) as lm:
            for prompts in ([text], [text, "A"]):
                _, kernels = used(partial(lm.generate, prompts, max_length=90))
                assert kernels <= checked


@dataclass(frozen=True)
class Doctored:
    """A line of doctored_kernels.txt."""

    kind: str
    dtype: str
    file: str
    old: str
    new: str

    @classmethod
    def parse(cls, line: str) -> Doctored:
        where, _, change = line.partition(": ")
        old, arrow, new = change.partition(" => ")
        assert arrow, line
        kind, dtype, file = where.split()
        return cls(kind, dtype, file, old, new)

    def __str__(self) -> str:
        return f"{self.kind}-{self.dtype}-{self.file}-{self.old}".replace(" ", "")


LINES = (Path(__file__).parents[1] / "doctored_kernels.txt").read_text().splitlines()
DOCTORED = [Doctored.parse(line) for line in LINES if line and not line.startswith("#")]


def pytest_generate_tests(metafunc):
    if "change" in metafunc.fixturenames:  # SwiftShader takes two seconds for each
        every = 24 if metafunc.config.getoption("--gpu") == "chromium" else 1
        metafunc.parametrize("change", DOCTORED[::every], ids=str)


def test_a_doctored_kernel_is_found(device, capabilities, tmp_path, change):
    as_kind(device, capabilities, change.kind)
    cache_dtype = "float16" if change.kind == GPU or "cache_" in change.file else "float32"
    with doctored(device, tmp_path, change.file, change.old, change.new):
        with pytest.raises(DeviceError, match="computes wrong numbers: ") as caught:
            sync(require_right_results(device, change.dtype, cache_dtype), "")
        print(caught.value)  # which check found it
