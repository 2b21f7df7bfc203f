"""GPT2Tokenizer: OpenAI's data, special tokens, and checkpoint directories."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from gpt2_wgpu.errors import TokenizerError
from gpt2_wgpu.text import GPT2Tokenizer

# As tiktoken_ext.openai_public.gpt2 pins OpenAI's vocab.bpe and encoder.json.
VOCAB_BPE = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"
ENCODER_JSON = "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"

CORPUS = ["Once upon a time there was a king.", "The king's son didn't know 12 words, café 🙂!"] * 4


def test_the_data_are_openais(gpt2: GPT2Tokenizer) -> None:
    packed = resources.files("gpt2_wgpu.text").joinpath("data/gpt2_merges.txt.gz").read_bytes()
    assert hashlib.sha256(gzip.decompress(packed)).hexdigest() == VOCAB_BPE
    encoder = json.dumps(gpt2.get_vocabulary()).encode()
    assert hashlib.sha256(encoder).hexdigest() == ENCODER_JSON


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("Hello\n\nHello", [15496, 198, 198, 15496]),  # KerasHub: [15496, 628, 15496]
        ("Hello, world!", [15496, 11, 995, 0]),
        ("can''t", [5171, 7061, 83]),
        ("hello123world", [31373, 10163, 6894]),
        ("日本", [33768, 98, 17312, 105]),
        ("", []),
        ("<|endoftext|>", [27, 91, 437, 1659, 5239, 91, 29]),
    ],
)
def test_known_ids(gpt2: GPT2Tokenizer, text: str, ids: list[int]) -> None:
    assert gpt2(text) == ids
    assert gpt2.detokenize(ids) == text


def test_special_tokens(gpt2: GPT2Tokenizer) -> None:
    assert gpt2.end_token == gpt2.start_token == "<|endoftext|>"
    assert gpt2.end_token_id == gpt2.start_token_id == 50256
    assert gpt2.pad_token_id == 0
    assert gpt2.special_token_ids == [50256]
    assert gpt2.encode("a<|endoftext|>", allowed_special="all") == [64, 50256]
    assert gpt2.detokenize([64, 50256]) == "a<|endoftext|>"


def test_end_of_text_is_required() -> None:
    with pytest.raises(TokenizerError, match="endoftext"):
        GPT2Tokenizer({"a": 0}, [])


@pytest.mark.parametrize(("given", "missing"), [("vocabulary", "merges"), ("merges", "vocabulary")])
def test_one_of_vocabulary_and_merges_is_not_enough(given: str, missing: str) -> None:
    with pytest.raises(TokenizerError, match=f"^{missing} is missing"):
        GPT2Tokenizer(**{given: {}})  # type: ignore[arg-type]


def test_config_round_trip() -> None:
    vocabulary = {"a": 0, "b": 1, "ab": 2, "<|endoftext|>": 3}
    tokenizer = GPT2Tokenizer(vocabulary, ["a b"], unsplittable_tokens=["<|endoftext|>"])
    again = GPT2Tokenizer.from_config(json.loads(json.dumps(tokenizer.get_config())))
    assert again.get_config() == tokenizer.get_config()
    assert again("ab<|endoftext|>a") == [2, 3, 0]


# --- directories --------------------------------------------------------------------------------


def trained(**options: Any) -> tokenizers.Tokenizer:
    """Return a small tokenizer of the kind that Hugging Face saves for GPT-2 checkpoints."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
        add_prefix_space=options.get("add_prefix_space", False)
    )
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(CORPUS, trainer)
    return made


def write_json(directory: Path, change: dict[str, Any] | None = None) -> None:
    content = json.loads(trained().to_str())
    for place, value in (change or {}).items():
        *parents, last = place.split("/")
        target = content
        for parent in parents:
            target = target[int(parent)] if isinstance(target, list) else target[parent]
        target[int(last) if isinstance(target, list) else last] = value
    (directory / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize("add_prefix_space", [False, True])
def test_tokenizer_json_equals_hugging_face(tmp_path: Path, add_prefix_space: bool) -> None:
    reference = trained(add_prefix_space=add_prefix_space)
    reference.add_tokens(["<keep>"])
    reference.save(str(tmp_path / "tokenizer.json"))
    ours = GPT2Tokenizer.from_directory(tmp_path)
    assert ours.vocabulary_size() == reference.get_vocab_size()
    assert ours.special_token_ids == [reference.token_to_id("<|endoftext|>")]
    for text in [*CORPUS, "", " The", "x<keep>y", "日本\n\n king", "a<|endoftext|> b<|endoftext|>"]:
        assert ours.encode(text, allowed_special="all") == reference.encode(text).ids, text
        assert ours.decode(reference.encode(text).ids).replace(" ", "") == text.replace(" ", "")


def test_merges_may_be_strings_or_pairs(tmp_path: Path) -> None:
    merges = json.loads(trained().to_str())["model"]["merges"]
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in merges]
    found = []
    for spelling in (pairs, [" ".join(pair) for pair in pairs]):
        write_json(tmp_path, {"model/merges": spelling})
        found.append(GPT2Tokenizer.from_directory(tmp_path).get_config())
    assert found[0] == found[1]
    assert len(found[0]["merges"]) == len(merges) > 20


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model/type": "Unigram"}, "Unigram"),
        ({"model/dropout": 0.1}, "dropout"),
        ({"model/byte_fallback": True}, "byte_fallback"),
        ({"model/ignore_merges": True}, "ignore_merges"),
        ({"model/end_of_word_suffix": "</w>"}, "end_of_word_suffix"),
        ({"model/continuing_subword_prefix": "##"}, "continuing_subword_prefix"),
        ({"normalizer": {"type": "NFC"}}, "NFC"),
        ({"decoder": {"type": "Metaspace"}}, "Metaspace"),
        ({"pre_tokenizer": None}, "pre_tokenizer"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "Whitespace"),
        ({"pre_tokenizer/use_regex": False}, "use_regex"),
        (
            {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Digits", "individual_digits": True}, {"type": "ByteLevel"}]}},
            r"Digits \+ ByteLevel",
        ),
        ({"added_tokens/0/id": 7}, "'<|endoftext|>' the id 7"),
        ({"added_tokens/0/id": "7"}, "lacks its text or its id"),
        ({"added_tokens": {}}, None),
        ({"added_tokens": {"a": 1}}, "added_tokens"),
        ({"model": None}, "'model'"),
        ({"model/vocab": []}, "vocab"),
        ({"model/merges": None}, "merges"),
        ({"model/merges": [["no", "such"]]}, "'no'"),
    ],
)  # fmt: skip
def test_what_gpt2_does_not_do_is_refused_by_name(
    tmp_path: Path, change: dict[str, Any], named: str | None
) -> None:
    write_json(tmp_path, change)
    if named is None:
        assert GPT2Tokenizer.from_directory(tmp_path).special_tokens == ["<|endoftext|>"]
        return
    with pytest.raises(TokenizerError, match=named.replace("|", r"\|")) as caught:
        GPT2Tokenizer.from_directory(tmp_path)
    assert str(tmp_path / "tokenizer.json") in str(caught.value)


def test_a_sequence_of_byte_level_alone_is_accepted(tmp_path: Path) -> None:
    step = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True}
    write_json(tmp_path, {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [step]}})
    assert GPT2Tokenizer.from_directory(tmp_path).add_prefix_space


@pytest.mark.parametrize("name", ["vocab.json", "vocabulary.json"])
def test_vocabulary_and_merges(tmp_path: Path, name: str) -> None:
    reference = trained()
    reference.model.save(str(tmp_path))
    (tmp_path / "vocab.json").rename(tmp_path / name)
    ours = GPT2Tokenizer.from_directory(tmp_path)
    assert [ours(text) for text in CORPUS] == [reference.encode(text).ids for text in CORPUS]
    (tmp_path / "tokenizer_config.json").write_text('{"add_prefix_space": true}')
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<new>": ours.vocabulary_size()}))
    more = GPT2Tokenizer.from_directory(str(tmp_path))
    assert more.add_prefix_space
    assert more.encode("<new>")[-1] == ours.vocabulary_size()
    assert more.special_token_ids == [0]  # no file gives <new> a special token's name


def test_a_directory_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"expected tokenizer\.json"):
        GPT2Tokenizer.from_directory(tmp_path)
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(TokenizerError, match=r"merges\.txt"):
        GPT2Tokenizer.from_directory(tmp_path)


# --- without numpy and regex --------------------------------------------------------------------

IN_A_BROWSER = """
import sys
sys.modules["regex"] = sys.modules["numpy"] = None  # importing either raises ImportError
from gpt2_wgpu.text import GPT2CausalLMPreprocessor, GPT2Tokenizer
preprocessor = GPT2CausalLMPreprocessor(GPT2Tokenizer(), sequence_length=6)
packed = preprocessor.generate_preprocess("Hello\\n\\nHello")
assert packed["token_ids"] == [50256, 15496, 198, 198, 15496, 0], packed
assert packed["padding_mask"] == [True] * 5 + [False], packed
assert preprocessor.generate_postprocess(packed) == "Hello\\n\\nHello"
x, y, weights = preprocessor.call(["Hi", "Hi there"], sequence_length=3)
assert x["token_ids"] == [[50256, 17250, 50256], [50256, 17250, 612]], x
assert y == [[17250, 50256, 0], [17250, 612, 50256]], y
assert weights == [[True, True, False], [True, True, True]], weights
"""


def test_runs_where_numpy_and_regex_do_not_exist() -> None:
    done = subprocess.run([sys.executable, "-c", IN_A_BROWSER], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
