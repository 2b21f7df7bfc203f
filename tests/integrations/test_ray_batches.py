"""Batches as Ray Data makes them, recorded by `make parity`: the same rows as in one batch.

The same with Ray itself, and two workers: live_ray_cluster.py, run by `make parity`.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np

from gpt2_wgpu import samplers
from gpt2_wgpu.integrations.ray import GPT2Generator
from tests.parity import cases


def rows_of(columns: Any) -> list[dict[str, Any]]:
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def test_ray_s_batches_give_the_rows_of_one_batch(checkpoint):
    arguments = {
        "dtype": "float16",
        "sampler": samplers.TopK(k=20, seed=3),
        "seed_column": "seed",
        "max_new_tokens": 8,
        "rows_at_once": 4,
        "adapter": None,
    }
    batches = [
        {name: np.array(column["values"], dtype=column["dtype"]) for name, column in batch.items()}
        for batch in cases.recorded("ray")["batches"]
    ]
    assert len(batches) == -(-len(cases.ROWS) // cases.BATCH)
    with GPT2Generator(str(checkpoint), **arguments) as generator:
        expected = rows_of(
            generator({key: [row[key] for row in cases.ROWS] for key in cases.ROWS[0]})
        )
        found = [row for batch in batches for row in rows_of(generator(batch))]
    assert found == expected
    assert len({row["generated_text"] for row in found}) > 10
    failed = [row["id"] for row in found if row["error"]]
    assert failed == [row["id"] for row in cases.ROWS if row["prompt"] is None]


def test_nothing_imports_ray():
    code = (
        "import sys, gpt2_wgpu.integrations.ray\n"
        "print([name for name in sys.modules if name.partition('.')[0] == 'ray'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cases.ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
