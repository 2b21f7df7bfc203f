"""Ray Data's checkpointing: a job that failed goes on where it was, and computes no row twice."""

from __future__ import annotations

import json

import pytest

from gpt2_wgpu.integrations.ray import GPT2Generator
from tests.integrations.live_ray_cluster import ROWS, arguments, cluster, expected

__all__ = ["arguments", "cluster", "expected"]


def make_failing(directory):
    """The generator, which writes the ids that it computes, and fails at row 30 the first time.

    Made in a function, so that Ray sends the class itself: workers cannot import test files.
    """

    class Failing(GPT2Generator):
        def __call__(self, batch):
            ids = [int(each) for each in batch["id"]]
            if 30 in ids and not (directory / "repaired").exists():
                raise RuntimeError("the machine fails")
            result = super().__call__(batch)
            with (directory / f"computed-{ids[0]}").open("a") as file:
                file.write(json.dumps(ids) + "\n")
            return result

    return Failing


def computed(directory):
    """The ids of all rows that were computed, in order."""
    lines = [path.read_text().splitlines() for path in directory.glob("computed-*")]
    return sorted(each for text in lines for line in text for each in json.loads(line))


def test_a_job_goes_on_after_a_failure(cluster, arguments, expected, tmp_path):
    import ray
    from ray.data.checkpoint import CheckpointConfig

    context = ray.data.DataContext.get_current()
    context.checkpoint_config = CheckpointConfig("id", str(tmp_path / "checkpoint"))
    source, texts = tmp_path / "prompts", tmp_path / "texts"
    source.mkdir()
    for part in range(8):
        lines = [json.dumps(row) for row in ROWS[part * 6 : part * 6 + 6]]
        (source / f"{part}.jsonl").write_text("\n".join(lines))

    def run():
        dataset = ray.data.read_json(str(source), override_num_blocks=8).map_batches(
            make_failing(tmp_path),
            fn_constructor_kwargs=arguments,
            compute=ray.data.ActorPoolStrategy(size=1),
            num_gpus=1,
            num_cpus=0.5,
            batch_size=6,
        )
        dataset.write_parquet(str(texts))

    try:
        with pytest.raises(ray.exceptions.RayTaskError, match="the machine fails"):
            run()
        first = computed(tmp_path)
        assert 0 < len(first) < len(ROWS)
        saved = {row["id"] for row in ray.data.read_parquet(str(texts)).take_all()}
        (tmp_path / "repaired").touch()
        run()
    finally:
        context.checkpoint_config = None
    # What was written before the failure was not computed again.
    again = computed(tmp_path)
    assert sorted(set(again)) == [row["id"] for row in ROWS]
    assert saved and len(again) == len(first) + len(ROWS) - len(saved)
    found = sorted(ray.data.read_parquet(str(texts)).take_all(), key=lambda row: row["id"])
    assert [{name: row[name] for name in expected[0]} for row in found] == expected
