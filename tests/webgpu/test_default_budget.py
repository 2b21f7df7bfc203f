"""The default memory budget, from the adapter's type and the machine's memory."""

from __future__ import annotations

import os

import pytest

from gpt2_wgpu.webgpu.capabilities import AdapterInfo, default_budget


def budget(adapter_type):
    return default_budget(AdapterInfo("a GPU", "", "", "", adapter_type))


@pytest.mark.parametrize(
    ("adapter_type", "expected"),
    [("CPU", 800), ("IntegratedGPU", 800), ("Unknown", 800), ("DiscreteGPU", 2000)],
)
def test_is_four_fifths_of_a_shared_memory_and_twice_the_machines_beside_a_gpu_with_its_own(
    monkeypatch, adapter_type, expected
):
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 10, "SC_PHYS_PAGES": 100}.get)
    assert budget(adapter_type) == expected


@pytest.mark.parametrize("error", [ValueError, OSError, AttributeError])
def test_where_the_machine_tells_no_size_8_gib_are_assumed(monkeypatch, error):
    def unknown(name):
        raise error(name)

    monkeypatch.setattr(os, "sysconf", unknown)
    assert budget("DiscreteGPU") == 16 << 30
