"""The engine with only the standard library and wgpu, as in a browser."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.native("processes")

OPTIONAL = ["numpy", "regex", "tqdm", "huggingface_hub"]

PROGRAM = """
import asyncio, json, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1:]:
            raise ImportError(f"{name} is not here")

sys.meta_path.insert(0, Blocked())

import gpt2_wgpu as gw

lm = gw.GPT2CausalLM.from_preset("fairytales", dtype="float16")
lm.compile(sampler=gw.samplers.TopK(k=5, seed=1))
text = lm.generate("Once upon a time, café 12", max_length=40)
pieces = list(lm.stream("The wolf", max_new_tokens=20))
ids = lm.generate(
    {"token_ids": [[5, 6, 7, 0, 0, 0]] * 2, "padding_mask": [[1, 1, 1, 0, 0, 0]] * 2},
    stop_token_ids=None,
)
with gw.tidy():
    data = asyncio.run(gw.tensor([[1.5, 2.0], [3.0, 4.0]]).data())
    total = gw.ops.add([1, 2], [3, 4]).tolist()
    empty = gw.tensor([[], []]).tolist()
print(json.dumps({
    "text": text,
    "pieces": pieces,
    "kinds": [type(ids[key]).__name__ for key in ("token_ids", "padding_mask")],
    "ids": [getattr(ids[key], "tolist", lambda: ids[key])() for key in ids],
    "data": [data.format, data.shape, data.tolist()],
    "total": total,
    "empty": empty,
    "imported": [name for name in ("numpy", "regex", "tqdm", "huggingface_hub")
                 if name in sys.modules],
}))
"""


def run(*blocked: str) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *blocked],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, object] = json.loads(done.stdout)
    return result


@pytest.fixture(scope="module")
def bare() -> dict[str, object]:
    return run(*OPTIONAL)


def test_nothing_optional_is_needed_and_the_output_is_the_same(bare: dict[str, object]) -> None:
    full = run()
    assert (bare["imported"], bare["kinds"]) == ([], ["list", "list"])
    assert "numpy" in str(full["imported"])
    assert full["kinds"] == ["ndarray", "ndarray"]
    other = {"imported": None, "kinds": None}
    assert bare | other == full | other


def test_values_are_right(bare: dict[str, object]) -> None:
    assert bare["data"] == ["f", [2, 2], [[1.5, 2.0], [3.0, 4.0]]]
    assert bare["total"] == [4.0, 6.0]
    assert bare["empty"] == [[], []]
    assert str(bare["text"]).startswith("Once upon a time, café 12")
    assert len(bare["pieces"]) > 5
