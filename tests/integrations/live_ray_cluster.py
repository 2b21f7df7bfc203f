"""Two workers of a local Ray cluster against one process, row for row."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu import samplers
from gpt2_wgpu.integrations.ray import GPT2Generator

ROOT = Path(__file__).parents[2]
OPENINGS = ["Once upon a time", "The king", "A wolf", "In the forest there", ""]
ROWS = [
    {"id": i, "prompt": f"{OPENINGS[i % 5]} {i}" if i % 11 else None, "seed": i // 2}
    for i in range(48)
]


@pytest.fixture(scope="module")
def cluster():
    """Ray with two GPUs that only it believes in."""
    import ray

    ray.init(
        num_cpus=3,  # two workers, and one that reads; Ray does not ask the machine
        num_gpus=2,
        object_store_memory=100 << 20,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}},
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def arguments(checkpoint):
    return {
        "preset": str(checkpoint),
        "dtype": "float16",
        "sampler": samplers.TopK(k=20, seed=3),
        "seed_column": "seed",
        "max_new_tokens": 8,
        "rows_at_once": 4,
        "adapter": gw.adapters()[0].name,
    }


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    """Two files of JSON lines, as one would have them."""
    directory = tmp_path_factory.mktemp("prompts")
    for part in (0, 1):
        lines = [json.dumps(row) for row in ROWS[part * 24 : part * 24 + 24]]
        (directory / f"{part}.jsonl").write_text("\n".join(lines))
    return str(directory)


def make_witness(meeting):
    """The generator, telling also who computed a row and what is left on the device after it.

    Its first call waits in the directory ``meeting`` until two workers are there: else a fast one
    may do everything. Made in a function, so that Ray sends the class itself: workers cannot
    import test files.
    """

    class Witness(GPT2Generator):
        def __call__(self, batch):
            (meeting / str(os.getpid())).touch()
            patience = time.monotonic() + (0 if hasattr(self, "first") else 40)
            while len([*meeting.iterdir()]) < 2 and time.monotonic() < patience:
                time.sleep(0.05)
            result = super().__call__(batch)
            info, rows = gw.memory(self._device), len(batch["id"])
            self.first = getattr(self, "first", (info.num_tensors, info.num_bytes))
            record = {
                "pid": os.getpid(),
                "gpu": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
                "leaked": (info.num_tensors, info.num_bytes) != self.first,
            }
            return result | {name: [value] * rows for name, value in record.items()}

    return Witness


@pytest.fixture(scope="module")
def expected(arguments):
    """What one process makes of all rows in one batch."""
    with GPT2Generator(**arguments) as generator:
        columns = generator({name: [row[name] for row in ROWS] for name in ROWS[0]})
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def test_two_workers_equal_one_process_row_for_row(cluster, arguments, prompts, expected, tmp_path):
    import ray

    dataset = ray.data.read_json(prompts, override_num_blocks=8)
    found = dataset.map_batches(
        make_witness(tmp_path),
        fn_constructor_kwargs=arguments,
        compute=ray.data.ActorPoolStrategy(size=2, max_tasks_in_flight_per_actor=1),
        num_gpus=1,
        num_cpus=0.5,
        batch_size=5,
    ).take_all()
    found.sort(key=lambda row: row["id"])
    assert [{name: row[name] for name in expected[0]} for row in found] == expected
    assert len({row["generated_text"] for row in found}) > 20
    failed = [row["id"] for row in found if row["error"]]
    assert failed == [row["id"] for row in ROWS if row["prompt"] is None]
    assert len({row["pid"] for row in found}) == 2
    assert {row["gpu"] for row in found} == {"0", "1"}
    assert not any(row["leaked"] for row in found)
