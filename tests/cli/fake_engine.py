"""Fake engine without a GPU for tests of the command."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

import gpt2_wgpu
from gpt2_wgpu import samplers

Pieces = list[tuple[str, list[int]]]


@dataclass
class FakeStream:
    """Yields prepared pieces except empty ones; raises exceptions among them."""

    pieces: list[tuple[str, list[int]] | BaseException]
    stats: Any
    closed: bool = False

    def __iter__(self) -> Iterator[str]:
        for piece in self.pieces:
            if isinstance(piece, BaseException):
                raise piece
            text, ids = piece
            self.stats.token_ids += ids
            self.stats.new_tokens += len(ids)
            if text:
                yield text

    def __enter__(self) -> FakeStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True


class FakeEngine:
    """Fake of the library's classes that records its calls."""

    def __init__(self) -> None:
        self.calls: dict[str, Any] = {}
        self.presets: list[dict[str, Any]] = []  # of all models
        self.pieces: list[tuple[str, list[int]] | BaseException] = [(" a", [5]), (" b", [6])]
        self.stats = SimpleNamespace(
            prompt_tokens=3,
            new_tokens=0,
            token_ids=[],
            finish_reason="length",
            seconds_to_first_token=0.25,
            tokens_per_second=12.5,
            drafted_tokens=0,
            accepted_tokens=0,
        )
        self.info = SimpleNamespace(
            name="Fake 9000",
            vendor="Fake",
            backend="Vulkan",
            driver="1.0",
            adapter_type="DiscreteGPU",
            is_software=False,
        )
        self.checks = [check("matmul", True), check("softmax", True)]
        self.failure: Exception | None = None
        self.warning = ""
        self.generation_defaults: dict[str, float] = {}
        self.generation_limits: dict[str, int] = {}
        self.progress: list[tuple[int, int]] = []
        self.device_closed = False
        self.stream: FakeStream | None = None

    def install(self, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
        """Puts this engine in the library's place."""
        fakes = {
            "GPT2CausalLM": SimpleNamespace(from_preset=self._from_preset),
            "Device": self._device,
            "adapters": lambda: [self.info],
            "memory": lambda _: SimpleNamespace(budget=2**32, peak_bytes_in_gpu=2**21),
            "self_check": self._self_check,
        }
        for name, fake in fakes.items():
            monkeypatch.setattr(gpt2_wgpu, name, fake, raising=False)
        return self

    def _from_preset(
        self, preset: str, *, dtype: str, on_progress: Any, cache_dtype: Any = None, adapter: Any
    ) -> Any:
        given = {"preset": preset, "dtype": dtype, "cache_dtype": cache_dtype, "adapter": adapter}
        self.calls["from_preset"] = given
        self.presets.append(given)
        if self.failure:
            raise self.failure
        if self.warning:
            warnings.warn(self.warning, stacklevel=2)
        for done, total in self.progress:
            if on_progress is not None:
                on_progress(done, total)
        return SimpleNamespace(
            device=SimpleNamespace(info=self.info),
            generation_defaults=self.generation_defaults,
            generation_limits=self.generation_limits,
            compile=self._compile,
            stream=self._stream,
        )

    def _compile(self, sampler: samplers.Sampler, prompt_lookup_num_tokens: int = 0) -> None:
        self.calls["sampler"] = samplers.serialize(sampler)
        self.calls["draft_model"] = getattr(sampler, "draft_model", None)
        self.calls["prompt_lookup_num_tokens"] = prompt_lookup_num_tokens

    def _stream(self, inputs: str, *, cancellation: Any, **options: Any) -> FakeStream:
        self.calls["stream"] = {"inputs": inputs, **options}
        self.cancellation = cancellation
        self.stats.new_tokens, self.stats.token_ids = 0, []
        self.stream = FakeStream(self.pieces, self.stats)
        return self.stream

    def _device(self, adapter: int | str | None = None) -> Any:
        self.calls["Device"] = {"adapter": adapter}
        if self.failure:
            raise self.failure
        return SimpleNamespace(
            info=self.info,
            limits={"max-buffer-size": 2**31, "max-bind-groups": 8},
            features={"timestamp-query", "shader-f16"},
            close=lambda: setattr(self, "device_closed", True),
        )

    def _self_check(self, _: object) -> Any:
        passed = all(one.passed for one in self.checks)
        return SimpleNamespace(passed=passed, checks=self.checks)


def check(name: str, passed: bool, detail: str = "") -> Any:
    """One line of a device check."""
    return SimpleNamespace(
        name=name, passed=passed, worst_error=1e-7, tolerance=1e-5, detail=detail
    )
