"""Tests of this folder need no GPU: to look for an adapter is an error."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail a test that opens a device."""

    def fail(*_: object) -> None:
        pytest.fail("a test of tests/webgpu looked for an adapter")

    monkeypatch.setattr("gpt2_wgpu.webgpu.device.request_adapter", fail)
