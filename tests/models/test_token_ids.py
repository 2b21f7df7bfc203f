"""Stop tokens, tokens allowed in a prompt, and tokens that may be sampled."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu import samplers
from gpt2_wgpu.errors import ConfigError, InvalidArgumentError, TokenizerError
from gpt2_wgpu.models.token_ids import Candidates
from tests.tiny_checkpoints import END, vocabulary, write

pytestmark = [pytest.mark.usefixtures("no_leak"), pytest.mark.native("writes checkpoints")]
SIZE = len(vocabulary())
SAMPLERS = [
    samplers.Greedy(),
    samplers.Random(seed=1, temperature=30.0),
    samplers.TopK(3, seed=1),
    samplers.TopK(10**6, seed=1, temperature=1e30),
    samplers.TopP(0.999, seed=1, temperature=30.0),
    samplers.Random(seed=1, repetition_penalty=1.3, frequency_penalty=0.5),
]


@pytest.fixture
def load(device: gw.Device, tmp_path: Path) -> Any:
    """Writes a checkpoint, loads it, and frees it at the end of the test."""
    loaded = []

    def load(rows: int, **contents: Any) -> gw.GPT2CausalLM:
        directory = write(tmp_path / str(len(loaded)), rows, **contents)
        lm = gw.GPT2CausalLM.from_preset(directory, dtype="float32")
        loaded.append(lm)
        lm.compile(sampler="greedy")
        return lm

    yield load
    for lm in loaded:
        lm.dispose()


def said(lm: gw.GPT2CausalLM, count: int = 3, **options: Any) -> tuple[str, list[int], str | None]:
    with lm.stream("Hello", max_new_tokens=count, **options) as stream:
        text = "".join(stream)
    return text, stream.stats.token_ids, stream.stats.finish_reason


# --- the end of a text --------------------------------------------------------------------------

EOS = "<|EOS|>"
NAMED = {"added_tokens.json": {EOS: SIZE}, "special_tokens_map.json": {"eos_token": EOS}}


@pytest.mark.parametrize(
    "contents",
    [
        {"eos_token_id": SIZE},
        {"eos_token_id": [1, SIZE]},
        {"eos_token_id": [[SIZE]]},
        {"eos_token_id": 1, "files": {"generation_config.json": {"eos_token_id": SIZE}}},
        {"files": {"generation_config.json": {"eos_token_id": [1, SIZE]}}},
        {"eos_token_id": SIZE, "files": {"generation_config.json": {"eos_token_id": None}}},
        {"eos_token_id": None, "files": NAMED},
        {"eos_token_id": 1, "files": {**NAMED, "generation_config.json": {"eos_token_id": 2}}},
        {"files": {"tokenizer_config.json": {
            "eos_token": EOS, "added_tokens_decoder": {str(SIZE): {"content": EOS}}}}},
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:config.json ends a text")
def test_what_ends_a_text(load: Any, contents: dict[str, Any]) -> None:
    lm = load(SIZE + 1, says=[SIZE], **contents)
    assert said(lm) == ("", [SIZE], "stop")
    assert lm.generate("Hello", max_length=20, strip_prompt=True) == ""


@pytest.mark.parametrize(
    "contents",
    [
        {"eos_token_id": 5},
        {"eos_token_id": SIZE, "files": {"generation_config.json": {"eos_token_id": 5}}},
        {"eos_token_id": 10**6},
    ],
)
@pytest.mark.filterwarnings("ignore:config.json ends a text")
def test_what_does_not_end_a_text(load: Any, contents: dict[str, Any]) -> None:
    """The later file wins, as in transformers; an id without a row ends nothing."""
    lm = load(SIZE + 1, says=[SIZE], tokens=vocabulary(after=(END, EOS)), **contents)
    assert said(lm) == (EOS * 3, [SIZE] * 3, "length")


def test_files_that_disagree_are_named(load: Any) -> None:
    files = {"generation_config.json": {"eos_token_id": 5}}
    with pytest.warns(UserWarning, match=r"config\.json .* 7, generation_config\.json with 5"):
        load(SIZE, eos_token_id=7, files=files)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        load(SIZE, eos_token_id=5, files={"generation_config.json": {"eos_token_id": [5, 7]}})
        load(SIZE, files=files)  # config.json says nothing


@pytest.mark.parametrize("value", [-1, "5", 1.5, True, {"a": 1}])
def test_malformed_end_tokens_are_named_with_the_file(load: Any, value: Any) -> None:
    with pytest.raises(ConfigError, match=r"generation_config\.json: eos_token_id"):
        load(SIZE, files={"generation_config.json": {"eos_token_id": value}})


def test_a_tokenizer_without_end_of_text(load: Any) -> None:
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    tokens = vocabulary(["<s>", "<pad>", "</s>"], after=())
    lm = load(len(tokens), says=[2], tokens=tokens, files={"special_tokens_map.json": names})
    assert said(lm) == ("", [2], "stop")
    assert lm.preprocessor.encode_prompts([""]) == [[0]]


@pytest.mark.parametrize("stop", [END, EOS])
def test_a_stop_text_that_is_a_special_token_stops(load: Any, stop: str) -> None:
    tokens = vocabulary(after=(END, EOS))
    config = {"additional_special_tokens": [EOS], "added_tokens_decoder": {}}
    lm = load(
        len(tokens), says=[tokens[stop]], tokens=tokens, files={"tokenizer_config.json": config}
    )
    options = {"stop_token_ids": None, "stop_texts": ["x", stop]}
    assert said(lm, **options) == ("", [tokens[stop]], "stop_text")
    assert said(lm, stop_token_ids=None)[2] == "length"


def test_text_that_was_held_back_comes_before_a_special_stop_text(load: Any) -> None:
    """The end of the text could have begun another stop text."""
    tokens = vocabulary()
    lm = load(SIZE, says=[tokens["he"], tokens[END]], eos_token_id=None)
    lm.compile(sampler=samplers.Greedy(presence_penalty=100.0))  # first the one, then the other
    found = said(lm, stop_token_ids=None, stop_texts=["hex", END])
    assert found == ("he", [tokens["he"], tokens[END]], "stop_text")


# --- special tokens in a prompt -----------------------------------------------------------------


def test_special_tokens_of_a_prompt_are_text_unless_allowed(load: Any) -> None:
    lm = load(SIZE, eos_token_id=None)
    prompt = f"he{END}"

    def prompt_tokens(**options: Any) -> int:
        with lm.stream(prompt, max_new_tokens=1, add_start_token=False, **options) as stream:
            return int(stream.stats.prompt_tokens)

    assert prompt_tokens() == 1 + len(END)  # the tiny vocabulary has a token a letter
    assert prompt_tokens(allowed_special=[END]) == prompt_tokens(allowed_special="all") == 2
    assert lm.generate(prompt, max_length=len(END) + 3).startswith(prompt)
    assert lm.generate([prompt], max_length=4, allowed_special={END})[0].startswith("he")
    with pytest.raises(InvalidArgumentError, match="the prompt has"):
        lm.generate(prompt, max_length=4)
    lm.preprocessor.allowed_special = "all"
    assert prompt_tokens() == 2
    assert prompt_tokens(allowed_special=()) == 1 + len(END)
    lm.perplexity([prompt])


@pytest.mark.parametrize("allowed", ["some", END, ["<no>"], [5], 5, [""]])
def test_what_cannot_be_allowed(load: Any, allowed: Any) -> None:
    lm = load(SIZE)
    with pytest.raises(TokenizerError):
        lm.stream("a", allowed_special=allowed)
    with pytest.raises(TokenizerError):
        lm.generate("a", allowed_special=allowed)
    with pytest.raises(TokenizerError):
        gw.GPT2CausalLMPreprocessor(lm.preprocessor.tokenizer, 8, allowed_special=allowed)


# --- ids and rows -------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
@pytest.mark.parametrize("hole", [0, 100, SIZE - 1])
def test_ids_without_a_text_are_never_drawn(load: Any, sampler: Any, hole: int) -> None:
    """Though their rows would win; the end token has the highest id, and wins among the rest."""
    tokens = {token: i + (i >= hole) for token, i in vocabulary().items()}
    lm = load(SIZE + 5, says=[hole, SIZE + 2, SIZE], tokens=tokens, eos_token_id=None)
    lm.compile(sampler=sampler)
    text, ids, reason = said(lm, count=40)
    assert not {*ids} & {hole, *range(SIZE + 1, SIZE + 5)}
    if isinstance(sampler, samplers.Greedy):
        assert (text, ids, reason) == ("", [SIZE], "stop")
    lm.generate(["Hello", "he"], max_length=40)
    packed = {"token_ids": [[1] * 40], "padding_mask": [[True] + [False] * 39]}
    drawn = lm.generate(packed, stop_token_ids=[])["token_ids"][0][1:]
    assert not {*map(int, drawn)} & {hole, *range(SIZE + 1, SIZE + 5)}


def test_an_end_token_without_a_text_is_drawn_and_not_shown(load: Any) -> None:
    lm = load(SIZE + 4, says=[SIZE + 1, SIZE + 2], eos_token_id=SIZE + 2)
    assert said(lm) == ("", [SIZE + 2], "stop")
    assert said(lm, stop_token_ids=[SIZE + 1]) == ("", [SIZE + 1], "stop")
    assert lm.generate("he", max_length=20) == "he"


def test_candidates(load: Any) -> None:
    tokens = {token: i + (i >= 100) for token, i in vocabulary().items()}
    lm = load(SIZE + 9, tokens=tokens)
    assert lm.candidates([]) == Candidates(SIZE + 1, (100,))
    assert lm.candidates([100]) == Candidates(SIZE + 1, ())
    assert lm.candidates([SIZE + 3]) == Candidates(SIZE + 4, (100, SIZE + 1, SIZE + 2))


@pytest.mark.parametrize("count", [1, 60])
def test_tokens_without_a_row_are_refused_where_a_prompt_uses_them(load: Any, count: int) -> None:
    added = {f"[T{place}]": SIZE + place for place in range(count)}
    lm = load(
        SIZE, files={"added_tokens.json": added, "special_tokens_map.json": {"pad_token": "[T0]"}}
    )
    assert said(lm)[2] == "length"
    assert lm.generate("[T0]", max_length=12)  # special: text, unless allowed
    for call in (lm.generate, lm.stream, lm.perplexity):
        options = {} if call == lm.perplexity else {"allowed_special": "all"}
        lm.preprocessor.allowed_special = "all"
        with pytest.raises(InvalidArgumentError, match=rf"'\[T0\]', id {SIZE}, .*\[0, {SIZE}\)"):
            call("he[T0]", **options)


def test_a_start_token_without_a_row_is_replaced(load: Any) -> None:
    """By the configuration's, then by the end token; else there is none."""
    tokens = vocabulary(["<s>", "</s>"], after=())
    names = {"bos_token": "<new>", "eos_token": "</s>", "pad_token": "<s>"}
    contents = {"tokens": tokens, "files": {"special_tokens_map.json": names}}
    lm = load(len(tokens), bos_token_id=0, **contents)
    assert lm.preprocessor.encode_prompts(["he"])[0][0] == 0
    lm = load(len(tokens), bos_token_id=None, **contents)
    assert lm.preprocessor.encode_prompts(["he"])[0][0] == 1
    lm = load(len(tokens), tokens=tokens)  # no special token has a name
    assert lm.preprocessor.encode_prompts(["h"]) == [[tokens["h"]]]
    with pytest.raises(InvalidArgumentError, match="no start token"):
        lm.generate("")


def test_a_padded_table_costs_no_mask(tales: gw.GPT2CausalLM) -> None:
    rows = tales.backbone.config.vocab_size
    assert tales.candidates([]) == Candidates(rows)
    assert Candidates.of(tales.preprocessor.tokenizer, rows + 64, []) == Candidates(rows)
