"""The list of a first visit's kernels: what measurement, self-test, loading and text take."""

from __future__ import annotations

from dataclasses import asdict

import first_kernels
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.diagnostics import dtype_timing
from gpt2_wgpu.integrations.web_worker import Model
from gpt2_wgpu.models import remembered, self_test
from gpt2_wgpu.models.default_dtype import ROUNDED, USUAL
from gpt2_wgpu.webgpu.capabilities import AdapterInfo, Capabilities
from gpt2_wgpu.webgpu.pipelines import PipelineCache
from gpt2_wgpu.webgpu.waiting import sync

pytestmark = [pytest.mark.usefixtures("no_leak"), pytest.mark.native("reads a directory")]

KINDS = {  # of adapters, and their likely formats
    "swiftshader": ROUNDED,
    "software": ROUNDED,
    "gpu": USUAL,
}


@pytest.mark.parametrize(("place", "dtype"), [*enumerate(KINDS.values())], ids=KINDS)
def test_the_list_is_what_a_first_visit_takes(
    device, capabilities, monkeypatch, tmp_path, place, dtype
):
    """Also in its order, on a device that chooses kernels as such an adapter."""
    _, described = first_kernels.ADAPTERS[place]
    info = AdapterInfo.from_adapter(described)
    phases = sync(first_kernels.phases_of(info), "")
    listed = [*phases["measure"].get("", []), *phases["test"][dtype], *phases["text"][dtype]]

    monkeypatch.setattr(remembered, "directory", lambda: tmp_path)
    monkeypatch.setattr(self_test, "_passed", set())
    monkeypatch.setattr(device, "pipelines", PipelineCache(device))
    capabilities(**asdict(Capabilities.of(info, first_kernels.LIMITS)))
    if info.is_software:
        sync(dtype_timing.seconds_of_products(device, (USUAL, ROUNDED)), "")
    sync(self_test.require_right_results(device, dtype), "")
    with gw.GPT2CausalLM.from_preset("fairytales", dtype=dtype, device=device) as lm:
        sync(Model("fairytales", lm).warm_up(), "")
    assert device.pipelines.keys == list(dict.fromkeys(listed))
