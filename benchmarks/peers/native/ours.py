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
        prompts = work["prompts"]
        rows: list[list[int]] = [[] for _ in prompts]
        given = 0
        stream = self._lm.stream(prompts, max_new_tokens=count, stop_token_ids=None)
        for row, _ in stream:
            rows[row] += stream.last_token_ids
            complete = min(map(len, rows))
            if complete > given:
                emit([ids[place] for place in range(given, complete) for ids in rows])
                given = complete
        if given < count:  # the last tokens of a row end within a character
            rows = [stats.token_ids for stats in stream.stats]
            emit([ids[place] for place in range(given, count) for ids in rows])
