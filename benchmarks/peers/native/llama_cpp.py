"""llama.cpp by llama-cpp-python's bindings of its C API, on the GGUF of gguf_file.py.

All prompts are one batch of sequences; the logits of the last token of each are computed.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

from benchmarks.peers.native.worker import Emit


class Engine:
    def load(self, model: Path, threads: int) -> dict[str, str]:
        llama_cpp.llama_backend_init()
        parameters = llama_cpp.llama_model_default_params()
        parameters.n_gpu_layers = 0
        path = str(model / "model.gguf").encode()
        self._model = llama_cpp.llama_model_load_from_file(path, parameters)
        if not self._model:
            raise RuntimeError("llama.cpp cannot load the model")
        vocabulary = llama_cpp.llama_model_get_vocab(self._model)
        self._width = llama_cpp.llama_vocab_n_tokens(vocabulary)
        self._threads = threads
        self._context: Any = None
        return {"llama-cpp-python": version("llama-cpp-python")}

    def generate(self, work: dict[str, Any], count: int, emit: Emit) -> None:
        rows: list[list[int]] = work["ids"]
        if self._context is None:
            self._open(len(rows))
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)
        position, new = 0, rows
        for _ in range(count):
            last = self._decode(new, position)
            position += len(new[0])
            tokens = last.argmax(axis=-1).tolist()
            new = [[token] for token in tokens]
            emit(tokens)

    def _open(self, rows: int) -> None:
        context = llama_cpp.llama_model_n_ctx_train(self._model)
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = parameters.n_batch = context * rows
        parameters.n_seq_max = rows
        parameters.n_threads = parameters.n_threads_batch = self._threads
        parameters.type_k = parameters.type_v = llama_cpp.GGML_TYPE_F32
        self._context = llama_cpp.llama_init_from_model(self._model, parameters)
        self._batch = llama_cpp.llama_batch_init(context * rows, 0, 1)

    def _decode(self, rows: list[list[int]], position: int) -> np.ndarray:
        """Return the logits [B, V] after new tokens of each row from ``position`` on."""
        batch = self._batch
        batch.n_tokens = len(rows) * len(rows[0])
        outputs = []
        for row, ids in enumerate(rows):
            for place, token in enumerate(ids):
                index = row * len(ids) + place
                batch.token[index], batch.pos[index] = token, position + place
                batch.n_seq_id[index], batch.seq_id[index][0] = 1, row
                batch.logits[index] = place == len(ids) - 1
            outputs.append(row * len(ids) + len(ids) - 1)
        if llama_cpp.llama_decode(self._context, batch):
            raise RuntimeError("llama_decode failed")
        found = [llama_cpp.llama_get_logits_ith(self._context, index) for index in outputs]
        return np.stack([np.ctypeslib.as_array(row, (self._width,)) for row in found])
