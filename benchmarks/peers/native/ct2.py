"""CTranslate2, converted from the same checkpoint by its own converter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ctranslate2
from ctranslate2.converters import TransformersConverter

from benchmarks.peers.native.worker import Emit


class Engine:
    def load(self, model: Path, threads: int) -> dict[str, str]:
        converted = model / "ctranslate2"
        if not converted.is_dir():
            TransformersConverter(str(model)).convert(str(converted), quantization="float32")
        self._generator = ctranslate2.Generator(
            str(converted), inter_threads=1, intra_threads=threads, compute_type="float32"
        )
        return {"CTranslate2": ctranslate2.__version__}

    def generate(self, work: dict[str, Any], count: int, emit: Emit) -> None:
        words = work["words"]
        rows: dict[int, int] = {}  # of the current step

        def step(result: ctranslate2.GenerationStepResult) -> bool:
            rows[result.batch_id] = result.token_id
            if len(rows) == len(work["ids"]):
                emit([rows[row] for row in sorted(rows)])
                rows.clear()
            return False

        self._generator.generate_batch(
            [[words[index] for index in ids] for ids in work["ids"]],
            max_length=count,
            min_length=count,
            sampling_topk=1,
            include_prompt_in_result=False,
            callback=step,
        )
