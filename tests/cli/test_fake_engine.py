"""The fake engine has the names, parameters and types of the library that it replaces."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.cli.main import main
from tests.cli.fake_engine import FakeEngine


def same_shape(fake: SimpleNamespace, real: object) -> None:
    """All attributes of the fake exist on the real object, with the same type."""
    for name, value in vars(fake).items():
        if isinstance(value, SimpleNamespace):
            same_shape(value, getattr(real, name))
        elif not callable(value):
            assert isinstance(getattr(real, name), type(value)), name
        else:
            assert callable(getattr(real, name)), name


def accepts(real: Callable[..., Any], fake: Callable[..., Any]) -> None:
    """The real function takes what the fake takes, by the same names."""
    taken = inspect.signature(fake).parameters.values()
    by_name = {one.name: None for one in taken if one.kind is not one.VAR_KEYWORD}
    inspect.signature(real).bind(**by_name)


def test_a_real_text_is_what_the_fake_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    reports: list[tuple[int, int]] = []
    lm = gw.GPT2CausalLM.from_preset(
        "fairytales", dtype="float16", on_progress=lambda *report: reports.append(report)
    )
    assert all(type(done) is type(total) is int for done, total in reports)
    assert reports[-1][0] == reports[-1][1] > 0
    accepts(gw.GPT2CausalLM.from_preset, FakeEngine()._from_preset)

    engine = FakeEngine().install(monkeypatch)
    assert main(["generate", "-q", "--greedy", "-n", "4", "--stop", "zzz", "Once"]) == 0
    fake = engine._from_preset("fairytales", dtype="float16", on_progress=None, adapter=None)
    same_shape(fake, lm)
    asked = dict(engine.calls["stream"])  # as the command has asked
    lm.compile("greedy")
    with lm.stream(**asked) as stream:
        pieces, counted = [], []
        for piece in stream:
            pieces.append(piece)
            counted.append(len(stream.stats.token_ids))
    assert all(type(piece) is str and piece for piece in pieces)  # none is empty
    assert counted == sorted(counted) and stream.stats.new_tokens == counted[-1] == 4
    fresh = FakeEngine().stats
    same_shape(fresh, stream.stats)
    assert all(type(token) is int for token in stream.stats.token_ids)
    assert stream.stats.finish_reason == fresh.finish_reason
    public = {name for name in dir(engine.stream) if name in ("__iter__", "__enter__", "__exit__")}
    assert len(public) == 3 and all(hasattr(stream, name) for name in public)


def test_a_real_device_is_what_the_fake_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FakeEngine()
    accepts(gw.Device, engine._device)
    fake = engine._device()
    device = gw.Device()
    try:
        report = gw.self_check(device)
        same_shape(SimpleNamespace(info=engine.info, close=fake.close), device)
        for name in fake.limits:
            assert type(device.limits[name]) is int
        assert all(type(name) is str for name in device.features)
        assert report.passed is True
        for check in report.checks:
            same_shape(engine.checks[0], check)
    finally:
        device.close()
