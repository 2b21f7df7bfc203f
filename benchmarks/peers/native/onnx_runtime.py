"""onnxruntime with the graph of onnx_graph.py; the cache is passed on without a copy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from benchmarks.peers.native.worker import Emit


class Engine:
    def __init__(self, provider: str = "CPUExecutionProvider", graph: str = "model") -> None:
        self._provider, self._graph = provider, graph

    def load(self, model: Path, threads: int) -> dict[str, str]:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        gpu = self._provider != "CPUExecutionProvider"
        path = str(model / "onnx" / f"{self._graph}.onnx")
        session = onnxruntime.InferenceSession(
            path,
            options,
            providers=[self._provider],
            enable_fallback=False,  # else a silent fallback to the CPU
        )
        if session.get_providers()[0] != self._provider:
            raise RuntimeError(f"{self._provider} rejected, {session.get_providers()[0]} taken")
        self._session, self._device = session, "webgpu" if gpu else "cpu"
        self._caches = [i for i in session.get_inputs() if i.name.startswith("past")]
        self._presents = [i.name.replace("past_key_values", "present") for i in self._caches]
        return {"onnxruntime-webgpu" if gpu else "onnxruntime": onnxruntime.__version__}

    def generate(self, work: dict[str, Any], count: int, emit: Emit) -> None:
        new, position = np.array(work["ids"], np.int64), 0
        batch = len(new)
        value = onnxruntime.OrtValue.ortvalue_from_numpy
        shapes = [(batch, cache.shape[1], 0, cache.shape[3]) for cache in self._caches]
        caches = [value(np.zeros(shape, np.float32)) for shape in shapes]
        for _ in range(count):
            binding = self._session.io_binding()
            places = np.arange(position, position + new.shape[1], dtype=np.int64)
            places = np.tile(places, (batch, 1))
            binding.bind_cpu_input("input_ids", new)
            binding.bind_cpu_input("position_ids", places)
            for cache, held in zip(self._caches, caches, strict=True):
                binding.bind_ortvalue_input(cache.name, held)
            binding.bind_output("logits")
            for name in self._presents:
                binding.bind_output(name, self._device)
            self._session.run_with_iobinding(binding)
            logits, *caches = binding.get_outputs()
            position += new.shape[1]
            new = logits.numpy()[:, -1].argmax(axis=-1)[:, None].astype(np.int64)
            emit(new[:, 0].tolist())
