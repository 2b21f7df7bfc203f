"""The run that the page shows before a model is loaded: what the engine gives today."""

from __future__ import annotations

import asyncio
import base64
import json
import math
from typing import Any

import pytest
import record_run

pytestmark = pytest.mark.native("the tests of the page show it in the browser")


CLOSE = 2e-3  # between the numbers of two GPUs


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    run: dict[str, Any] = json.loads(record_run.RUN.read_text("utf-8"))
    return run


def test_the_engine_gives_it_again(recorded, tales) -> None:
    """If this fails: `python scripts/record_run.py`."""
    again = asyncio.run(record_run.record(tales))
    assert differences(again, recorded) == []


def differences(new: dict[str, Any], old: dict[str, Any]) -> list[str]:
    """Where two runs differ by more than another GPU's rounding."""
    return near(comparable(new), comparable(old), "run")


def test_the_time_is_that_of_a_step(recorded) -> None:
    """Of the adapter that it was recorded on: kernels and times of others differ."""
    time = recorded["time"]
    assert (time["steps"], time["position"]) == (32, recorded["attention"]["length"])
    count = len(time["kernels"])
    assert all(len(time[name]) == count for name in ("weights", "seconds", "bytes"))
    assert all((record_run.ROOT / "shaders" / f"{name}.wgsl").is_file() for name in time["kernels"])
    assert min(time["seconds"]) > 0
    assert time["kernels"][-1] == "sample"


def comparable(run: dict[str, Any]) -> dict[str, Any]:
    """The run with alternatives as {id: value}, weights as numbers, and without their pieces."""
    odds, lens, attention = run["odds"], run["lens"], run["attention"]
    rows = zip(odds["topIds"], odds["topLogprobs"], strict=True)
    cells = zip(lens["ids"], lens["probabilities"], strict=True)
    return {
        **{name: run[name] for name in run if name not in ("adapter", "pieces", "time")},
        "odds": {
            **{name: value for name, value in odds.items() if not name.startswith("top")},
            "top": [dict(zip(*row, strict=True)) for row in rows],
        },
        "attention": {
            **attention,
            "patterns": [[x / 255 for x in base64.b64decode(p)] for p in attention["patterns"]],
        },
        "lens": {
            **{name: lens[name] for name in ("layers", "positions", "count", "divergences")},
            "top": [dict(cell) for cell in zip(*[cells] * lens["count"], strict=True)],
            "ranks": [
                math.log1p(rank + 1) / 100 for rank in lens["ranks"]
            ],  # the last of thousands
        },
    }


def near(new: Any, old: Any, where: str) -> list[str]:
    if isinstance(new, dict) and ".top" in where:
        # An id that is only in one of them is as likely as the last of the other.
        pairs = [(new.get(x, min(new.values())), old.get(x, min(old.values()))) for x in new | old]
        same = all(abs(a - b) <= CLOSE for a, b in pairs)
    elif isinstance(new, dict) and list(new) == list(old):
        return [line for name in new for line in near(new[name], old[name], f"{where}.{name}")]
    elif isinstance(new, list) and len(new) == len(old):
        pairs = list(zip(new, old, strict=True))
        return [line for i, pair in enumerate(pairs) for line in near(*pair, f"{where}[{i}]")]
    elif isinstance(new, float):
        same = abs(new - old) <= (0.01 if ".patterns" in where else CLOSE)
    else:
        same = new == old
    return [] if same else [f"{where}: {str(new)[:50]} is not {str(old)[:50]}"]


def test_a_difference_is_found(recorded) -> None:
    other = json.loads(json.dumps(recorded))
    assert differences(other, recorded) == []
    other["odds"]["logprobs"][3] += 0.01
    other["odds"]["topIds"][1][0] += 1
    other["lens"]["probabilities"][7] += 0.01
    levels = bytearray(base64.b64decode(other["attention"]["patterns"][2]))
    levels[7] ^= 64
    other["attention"]["patterns"][2] = base64.b64encode(levels).decode()
    found = [line.partition(":")[0] for line in differences(other, recorded)]
    assert found == [
        "run.odds.logprobs[3]",
        "run.odds.top[1]",
        "run.attention.patterns[2][7]",
        "run.lens.top[1]",
    ]


def test_the_page_has_its_text(recorded) -> None:
    page = record_run.PAGE.read_text("utf-8")
    assert record_run.with_text(page, recorded) == page
    with pytest.raises(ValueError, match="has 0 places"):
        record_run.with_text("<p>nothing</p>", recorded)


def test_it_is_small() -> None:
    assert record_run.RUN.stat().st_size <= 100_000
