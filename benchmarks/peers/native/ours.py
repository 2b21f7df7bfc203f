"""gpt2-wgpu as in README.md: text in, stream out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gpt2_wgpu as gw
from benchmarks.peers.native.worker import Emit
from gpt2_wgpu._version import __version__


class Engine:
    def __init__(self, dtype: str) -> None:
        self._dtype = dtype

    def load(self, model: Path, threads: int) -> dict[str, str]:
        self._lm = gw.GPT2CausalLM.from_preset(model, dtype=self._dtype)
        self._lm.compile(sampler="greedy")
        info = self._lm.device.info
        software = "software" if info.adapter_type == "CPU" else ""
        return {
            "gpt2-wgpu": __version__,
            "adapter": info.name,
            "driver": info.driver,
            "software": software,
        }

    def generate(self, work: dict[str, Any], count: int, emit: Emit) -> None:
        stream = self._lm.stream(work["prompt"], max_new_tokens=count, stop_token_ids=None)
        given = 0
        for _ in stream:
            emit(stream.last_token_ids)
            given += len(stream.last_token_ids)
        if given < count:  # the last tokens end within a character
            emit(stream.stats.token_ids[given:])
