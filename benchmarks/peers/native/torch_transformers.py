"""Hugging Face transformers on PyTorch, with the settings of its guide to faster generation.

In the prefill, ``generate`` computes the head for the last position only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import GPT2LMHeadModel
from transformers.generation.streamers import BaseStreamer

from benchmarks.peers.native.worker import Emit


class _Streamer(BaseStreamer):
    """Streamer: transformers puts the prompt first, then token by token."""

    def __init__(self, emit: Emit) -> None:
        self._emit, self._started = emit, False

    def put(self, value: torch.Tensor) -> None:
        if self._started:
            self._emit(value.tolist())
        self._started = True

    def end(self) -> None:
        pass


class Engine:
    def __init__(self, device: str = "cpu", compile: bool = False) -> None:
        self._device, self._compile = device, compile

    def load(self, model: Path, threads: int) -> dict[str, str]:
        torch.set_num_threads(threads)
        loaded = GPT2LMHeadModel.from_pretrained(model, dtype=torch.float32).eval()
        loaded.to(device=torch.device(self._device))
        if self._compile:
            loaded.generation_config.cache_implementation = "static"
            # CUDA graphs need CUDA; elsewhere the mode equals the default.
            mode = "reduce-overhead" if self._device == "cuda" else "default"
            loaded.forward = torch.compile(loaded.forward, mode=mode, fullgraph=True)
        self._model = loaded
        versions = {"torch": torch.__version__, "transformers": transformers.__version__}
        if self._device == "cuda":
            versions["adapter"] = torch.cuda.get_device_name()
        return versions

    @torch.inference_mode()
    def generate(self, work: dict[str, Any], count: int, emit: Emit) -> None:
        ids = torch.tensor(work["ids"], device=self._device)
        self._model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=count,
            min_new_tokens=count,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            streamer=_Streamer(emit),
        )
