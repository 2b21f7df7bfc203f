"""Tokenizer of a checkpoint, as in transformers: special and added tokens, rules, ids."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import tokenizers

import gpt2_wgpu as gw
from gpt2_wgpu.errors import TokenizerError
from gpt2_wgpu.text import GPT2CausalLMPreprocessor, GPT2Tokenizer
from tests.tiny_checkpoints import END, MERGES, vocabulary, write_tokenizer

# Random directories and texts, with the ids and the text that transformers 4.57.6 gives them:
# GPT2Tokenizer.from_pretrained(...), its slow class, without spaces between added tokens.
RECORDED = Path(__file__).parent / "data" / "transformers4.json"
CASES = json.loads(RECORDED.read_text("utf-8"))
SIZE = len(vocabulary())


def read(directory: Path, tokens: dict[str, int] | None = None, **files: Any) -> GPT2Tokenizer:
    """The tokenizer of a directory with ``files``, name without ".json" → value."""
    named = {f"{name}.json": value for name, value in files.items()}
    write_tokenizer(directory, vocabulary() if tokens is None else tokens, named)
    return GPT2Tokenizer.from_directory(directory)


def token(content: str, **flags: bool) -> dict[str, Any]:
    return {"content": content, **flags}


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_ids_and_text_are_transformers(case: dict[str, Any], tmp_path: Path) -> None:
    tokens = vocabulary(case["before"], case["after"])
    tokenizer = GPT2Tokenizer.from_directory(write_tokenizer(tmp_path, tokens, case["files"]))
    for text, ids, decoded in zip(case["texts"], case["ids"], case["decoded"], strict=True):
        assert tokenizer.encode(text, allowed_special="all") == ids, text
        assert decoded is None or tokenizer.decode(ids) == decoded
    if case["eos"] is not None:
        assert tokenizer.end_token_id == case["eos"]


def test_added_tokens_without_a_name_are_not_special(tmp_path: Path) -> None:
    added = {"[TITLE]": SIZE, "<|im_end|>": SIZE + 1}
    tokenizer = read(tmp_path, added_tokens=added, special_tokens_map={"eos_token": "<|im_end|>"})
    assert tokenizer.encode("a[TITLE]") == [64, SIZE]
    assert SIZE + 1 not in tokenizer.encode("a<|im_end|>")
    assert tokenizer.encode("a<|im_end|>", ["<|im_end|>"]) == [64, SIZE + 1]
    assert tokenizer.decode_shown([SIZE, SIZE + 1, 64]) == "[TITLE]a"


def test_tokens_that_only_added_tokens_decoder_names(tmp_path: Path) -> None:
    decoder = {
        str(SIZE): token("[TITLE]", special=False),
        str(SIZE + 5): token("<s>", special=True),
    }
    tokenizer = read(tmp_path, tokenizer_config={"added_tokens_decoder": decoder})
    assert tokenizer.encode("[TITLE]<s>", "all") == [SIZE, SIZE + 5]
    assert tokenizer.ids_without_text(SIZE + 8) == [SIZE + i for i in (1, 2, 3, 4, 6, 7)]
    assert tokenizer.ids_without_text(SIZE) == []


@pytest.mark.parametrize(
    ("files", "end"),
    [
        ({}, END),
        ({"tokenizer_config": {"eos_token": "</s>"}}, "</s>"),
        ({"special_tokens_map": {"eos_token": token("</s>")}}, "</s>"),
        # Without added_tokens_decoder the map wins; with it, the configuration.
        ({"tokenizer_config": {"eos_token": END}, "special_tokens_map": {"eos_token": "</s>"}},
         "</s>"),
        ({"tokenizer_config": {"eos_token": "</s>", "added_tokens_decoder": {}},
          "special_tokens_map": {"eos_token": END}}, "</s>"),
        ({"tokenizer_config": {"eos_token": None}}, END),
    ],
)  # fmt: skip
def test_which_file_names_the_end_token(files: dict[str, Any], end: str, tmp_path: Path) -> None:
    tokenizer = read(tmp_path, vocabulary(["</s>"]), **files)
    assert tokenizer.end_token == end
    assert tokenizer.start_token == END
    assert tokenizer.special_token_ids[0] == tokenizer.end_token_id


def test_no_end_token_at_all(tmp_path: Path) -> None:
    tokenizer = read(tmp_path, vocabulary(after=()))
    assert (tokenizer.start_token_id, tokenizer.end_token_id) == (None, None)
    assert tokenizer.special_token_ids == []
    preprocessor = GPT2CausalLMPreprocessor(tokenizer, 4)
    assert preprocessor.encode_prompts(["he"]) == [[256]]
    with pytest.raises(
        ValueError, match="the prompt is empty, and the tokenizer has no start token"
    ):
        preprocessor.encode_prompts([""])


@pytest.mark.parametrize("name", ["tokenizer_config", "special_tokens_map"])
def test_named_tokens_without_an_id_get_the_next_one(name: str, tmp_path: Path) -> None:
    values: Any = {"pad_token": "[PAD]", "additional_special_tokens": ["<|user|>", "<|bot|>"]}
    tokenizer = read(tmp_path, **{name: values})
    assert tokenizer.encode("[PAD]<|user|><|bot|>", "all") == [SIZE, SIZE + 1, SIZE + 2]


def test_a_whole_token_may_be_renamed(tmp_path: Path) -> None:
    decoder = {str(SIZE - 1): token("<|im_end|>", special=True)}
    config = {"added_tokens_decoder": decoder, "eos_token": "<|im_end|>"}
    tokenizer = read(tmp_path, tokenizer_config=config)
    assert tokenizer.end_token_id == SIZE - 1
    assert tokenizer.decode([SIZE - 1]) == "<|im_end|>"


@pytest.mark.parametrize("extra", [["<a>", token("<b>")], {"first": "<a>", "second": "<b>"}])
def test_transformers_5_lists_special_tokens_otherwise(extra: Any, tmp_path: Path) -> None:
    """It saves tokenizer.json and tokenizer_config.json, and nothing else."""
    tokens = vocabulary(["<a>", "<b>"])
    config = {"extra_special_tokens": extra, "eos_token": "<b>", "bos_token": "<a>"}
    tokenizer = whole(tmp_path, tokens, tokenizer_config=config)
    assert tokenizer.special_token_ids == [1, 0, tokens[END]]
    assert (tokenizer.start_token, tokenizer.end_token) == ("<a>", "<b>")


def whole(directory: Path, tokens: dict[str, int], /, *added: Any, **files: Any) -> GPT2Tokenizer:
    """The tokenizer of a directory with a tokenizer.json and no vocab.json."""
    write_tokenizer(directory, {}, {f"{name}.json": value for name, value in files.items()})
    merges = (directory / "merges.txt").read_text("utf-8").splitlines()[1:]
    content = {
        "added_tokens": [{"id": tokens[END], **token(END, special=True)}, *added],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False},
        "decoder": files.get("decoder", {"type": "ByteLevel"}),
        "normalizer": files.get("normalizer"),
        "model": {"type": "BPE", "vocab": tokens, "merges": merges},
    }
    (directory / "tokenizer.json").write_text(json.dumps(content), "utf-8")
    return GPT2Tokenizer.from_directory(directory)


@pytest.mark.parametrize(
    ("config", "ids"),
    [
        ({}, [86]),
        ({"add_prefix_space": True}, [86]),  # which class reads it is not said
        ({"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True}, [260]),
        ({"tokenizer_class": "GPT2TokenizerFast", "add_prefix_space": True}, [260]),
        ({"tokenizer_class": "PreTrainedTokenizerFast", "add_prefix_space": True}, [86]),
    ],
)
def test_the_class_says_whose_prefix_space_counts(
    config: dict[str, Any], ids: list[int], tmp_path: Path
) -> None:
    assert whole(tmp_path, vocabulary(), tokenizer_config=config).encode("w") == ids


def test_the_slow_class_puts_one_space_before_every_text(tmp_path: Path) -> None:
    tokenizer = read(
        tmp_path, tokenizer_config={"add_prefix_space": True}, added_tokens={"[A]": SIZE}
    )
    assert tokenizer.encode(" w[A]w") == [220, 260, SIZE, 86]


def test_rules_of_tokens_in_tokenizer_json(tmp_path: Path) -> None:
    mask = {"id": SIZE, **token("<mask>", special=True, lstrip=True, rstrip=True)}
    word = {"id": SIZE + 1, **token("[W]", single_word=True)}
    tokenizer = whole(tmp_path, vocabulary(), mask, word)
    assert tokenizer.encode("he  <mask>\n he", "all") == [256, SIZE, 256]
    assert tokenizer.encode("he [W] he") == [256, 220, SIZE + 1, 220, 256]
    assert SIZE + 1 not in tokenizer.encode("x[W] he")
    again = GPT2Tokenizer.from_config(json.loads(json.dumps(tokenizer.get_config())))
    assert again.encode("he  <mask>\n he [W] ", "all") == tokenizer.encode(
        "he  <mask>\n he [W] ", "all"
    )
    assert again.get_config() == tokenizer.get_config()


@pytest.mark.parametrize("seed", range(40))
def test_tokenizer_json_with_rules_equals_tokenizers(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    merges = [(first, second) for first, second in map(str.split, MERGES)]
    reference = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary(), merges))
    byte_level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=rng.random() < 0.3)
    reference.pre_tokenizer = byte_level
    names = [END, "<mask>", "[A]", "[AB]", "<s>", "é!"]
    for name in [END, *rng.sample(names[1:], 3)]:
        special, left, right = (rng.random() < 0.4 for _ in range(3))
        flags = {"special": special, "normalized": not special, "lstrip": left, "rstrip": right}
        add = reference.add_special_tokens if special else reference.add_tokens
        add([tokenizers.AddedToken(name, **flags)])
    reference.save(str(tmp_path / "tokenizer.json"))
    tokenizer = GPT2Tokenizer.from_directory(tmp_path)
    parts = [*names, " ", "  ", "\n", "hello", " world", "w", "12", "é", "🙂"]
    for _ in range(25):
        text = "".join(rng.choices(parts, k=rng.randrange(9)))
        assert tokenizer.encode(text, "all") == reference.encode(text).ids, text


@pytest.mark.parametrize(
    "parts",
    [{"decoder": {"type": "Sequence", "decoders": [{"type": "ByteLevel"}]}},
     {"decoder": {"type": "Sequence", "decoders": [{"type": "ByteLevel"}, {"type": "Fuse"}]}},
     {"decoder": None}, {"normalizer": {"type": "Sequence", "normalizers": []}}],
)  # fmt: skip
def test_sequences_that_change_nothing(parts: dict[str, Any], tmp_path: Path) -> None:
    assert whole(tmp_path, vocabulary(), **parts).encode("he") == [256]


@pytest.mark.parametrize(
    "parts",
    [{"decoder": {"type": "Sequence", "decoders": [{"type": "ByteLevel"}, {"type": "Strip"}]}},
     {"decoder": {"type": "Sequence", "decoders": []}}, {"decoder": {"type": "Fuse"}},
     {"decoder": {"type": "Sequence"}}, {"normalizer": {"type": "Sequence"}},
     {"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}]}}],
)  # fmt: skip
def test_sequences_that_change_something(parts: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=next(iter(parts))):
        whole(tmp_path, vocabulary(), **parts)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer_config", {"eos_token": 5}),
        ("tokenizer_config", {"eos_token": {"lstrip": True}}),
        ("tokenizer_config", {"eos_token": ["</s>"]}),
        ("tokenizer_config", {"add_prefix_space": "yes"}),
        ("tokenizer_config", {"added_tokens_decoder": ["<s>"]}),
        ("tokenizer_config", {"added_tokens_decoder": {"x": token("<s>")}}),
        ("tokenizer_config", {"added_tokens_decoder": {"²": token("<s>")}}),
        ("tokenizer_config", {"added_tokens_decoder": {"9" * 5000: token("<s>")}}),
        ("tokenizer_config", {"added_tokens_decoder": {"300": 5}}),
        ("tokenizer_config", {"added_tokens_decoder": {"300": token("<s>"), "301": token("<s>")}}),
        ("tokenizer_config", {"added_tokens_decoder": {"99999999999": token("<s>")}}),
        ("tokenizer_config", {"additional_special_tokens": 5}),
        ("tokenizer_config", {"additional_special_tokens": [5]}),
        ("tokenizer_config", []),
        ("special_tokens_map", {"bos_token": 1.5}),
        ("special_tokens_map", None),
        ("added_tokens", {"<a>": "5"}),
        ("added_tokens", {"<a>": -1}),
        ("added_tokens", {"<a>": True}),
        ("added_tokens", {"": 400}),
        ("added_tokens", {"<a>": 400, "<b>": 400}),
        ("added_tokens", {"<a>": 10**30}),
    ],
)
def test_malformed_files_are_named(name: str, content: Any, tmp_path: Path) -> None:
    with pytest.raises(TokenizerError) as caught:
        read(tmp_path, **{name: content})
    assert f"{name}.json" in str(caught.value)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize(
    "rules", [5, {"<a>": "lstrip"}, {"<a>": ["strip"]}, {"<a>": [1]}, {5: ["lstrip"]}]
)
def test_malformed_rules(rules: Any) -> None:
    with pytest.raises(TokenizerError, match="rule"):
        GPT2Tokenizer(token_rules=rules)


def test_a_byte_pair_tokenizer_of_a_preset_has_its_ids() -> None:
    text = "Once upon a time<|endoftext|>"
    whole = gw.GPT2Tokenizer.from_preset("fairytales")
    tokenizer = gw.BytePairTokenizer.from_preset("fairytales", sequence_length=9)
    assert type(tokenizer) is gw.BytePairTokenizer and tokenizer.sequence_length == 9
    for allowed in ("all", ()):
        assert tokenizer.encode(text, allowed) == whole.encode(text, allowed)
    assert tokenizer.special_tokens == whole.special_tokens
    again = gw.BytePairTokenizer.from_config(tokenizer.get_config())
    assert again.get_config() == tokenizer.get_config()
