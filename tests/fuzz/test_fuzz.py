"""Short fuzzing run of every reader: stored inputs and a few hundred reproducible mutations."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gpt2_wgpu.errors import WeightsError
from tests.fuzz import fuzzing
from tests.fuzz.fuzzing import Broken, Fuzzer, check
from tests.fuzz.mutator import Mutator
from tests.fuzz.targets import CORPUS, Target, targets

pytestmark = pytest.mark.native("files of many kinds")

NAMES = [
    "header", "checkpoint", "index", "config", "generation_config.json", "vocab.json", "merges.txt",
    "tokenizer.json", "added_tokens.json", "tokenizer_config.json", "special_tokens_map.json",
    "story.keras", "keras_config", "name", "text",
]  # fmt: skip


@pytest.fixture(scope="module")
def by_name(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Target]]:
    directory = tmp_path_factory.mktemp("fuzz")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("HF_HOME", str(directory))
        patch.chdir(directory)
        yield {target.name: target for target in targets(directory)}


@pytest.mark.parametrize("name", NAMES)
def test_any_input_gives_a_value_or_an_error_of_ours(by_name, name):
    fuzzer = Fuzzer(by_name[name], seed=1)
    fuzzer.run_inputs()
    fuzzer.run(600)
    assert len(fuzzer.outcomes) > 2  # mutations get past the first check


def test_every_target_and_every_stored_input_is_run(by_name):
    assert list(by_name) == NAMES
    assert {path.stem for path in CORPUS.glob("*")} <= set(NAMES)


def _raising(error):
    def run(data):
        raise error

    return Target("broken", [b"x"], run)


@pytest.mark.parametrize(
    "error",
    [
        KeyError("x"), RecursionError(), MemoryError(), TypeError("x"), AssertionError("x"),
        WeightsError("x" * 1001), WeightsError("a\nb"), WeightsError("\ud800"), WeightsError(""),
    ],
    ids=repr,
)  # fmt: skip
def test_what_breaks_the_property_is_noticed(error):
    with pytest.raises(Broken):
        check(_raising(error), b"x")


def test_time_and_memory_are_bounded(monkeypatch):
    monkeypatch.setattr(fuzzing, "MAX_SECONDS", 0.01)
    slow = Target("slow", [], lambda data: sum(range(3_000_000)))
    with pytest.raises(Broken, match=r"took .* s;"):
        check(slow, b"x")
    large = Target("large", [], lambda data: bytes(10 << 20))
    with pytest.raises(Broken, match="bytes of memory"):
        check(large, b"x", measure_memory=True)


def test_the_same_seed_gives_the_same_mutations():
    seeds = [b'{"a": [1, 2], "b": {"c": null}}', b"plain"]

    def some(seed):
        mutator = Mutator(seed)
        return [mutator.changed(seeds[n % 2], seeds) for n in range(200)]

    assert some(3) == some(3) != some(4)
    assert len({*some(3)}) > 150
