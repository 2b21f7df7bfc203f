"""Batches as Ray Data hands them to a callable: names, dtypes and values of their columns."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import ray

from tests.parity import cases


def values() -> dict[str, Any]:
    """The batches of ``cases.ROWS``, read from JSON lines."""
    ray.init(num_cpus=2, object_store_memory=100 << 20, include_dashboard=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "prompts.jsonl"
            path.write_text("\n".join(map(json.dumps, cases.ROWS)))
            dataset = ray.data.read_json(str(path), override_num_blocks=1)
            batches = [*dataset.iter_batches(batch_size=cases.BATCH, batch_format="numpy")]
        return {"version": ray.__version__, "batches": [columns(batch) for batch in batches]}
    finally:
        ray.shutdown()


def columns(batch: dict[str, Any]) -> dict[str, Any]:
    """Column → its dtype and values."""
    return {
        name: {"dtype": str(column.dtype), "values": column.tolist()}
        for name, column in batch.items()
    }
