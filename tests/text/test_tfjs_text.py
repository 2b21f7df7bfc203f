"""What TensorFlow.js's specs of tokenizers, packer and preprocessor check, one check each.

Names are those of the specs (tfjs-layers/src/layers/nlp). Their vocabularies lack the parts of
their merges, which is an error here and in KerasHub: these have them, behind the ids of the specs.
docs/coming-from-tfjs.md lists all specs; tests/gpu/layers/test_tfjs_*.py have the layers.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import InvalidArgumentError, TokenizerError
from tests.tfjs_specs import Specs

ROOT = Path(__file__).parents[2]
LAYERS = sorted((ROOT / "tests" / "gpu" / "layers").glob("test_tfjs_*.py"))

spec = Specs()


def merges_of(text: str) -> list[str]:
    """A table of merges, "a b|c d"."""
    return text.split("|")


def ids_of(tokens: str) -> dict[str, int]:
    return {token: i for i, token in enumerate(tokens.split())}


WORDS = {"butter": 1, "fly": 2}
MERGES = merges_of("b u|t t|e r|bu tt|butt er|f l|fl y")
LETTERS = ids_of("br wn ck b r o w n . l a c d k")
AIR = ids_of("! air Ġair plane Ġat port <|endoftext|>")
AIR_MERGES = merges_of("Ġ a|a i|p l|n e|Ġa t|p o|r t|ai r|pl a|po rt|Ġa i|Ġai r|pla ne")
BEST = ids_of("<|endoftext|> Ġair plane Ġat port Ġkoh li Ġis Ġthe Ġbest")
BEST_MERGES = merges_of(
    "Ġ a|Ġ t|Ġ k|Ġ i|Ġ b|Ġa i|p l|n e|Ġa t|p o|r t|o h|l i|Ġi s|Ġb e|s t|Ġt h|Ġai r|pl a|Ġk oh"
    "|Ġth e|Ġbe st|po rt|pla ne"
)


def completed(vocabulary: dict[str, int], merges: list[str]) -> dict[str, int]:
    """The vocabulary with all parts of its merges."""
    parts = [part for merge in merges for part in (*merge.split(), merge.replace(" ", ""))]
    new = dict.fromkeys(part for part in parts if part not in vocabulary)
    return vocabulary | {part: 100 + i for i, part in enumerate(new)}


def butterfly(**arguments: Any) -> gw.BytePairTokenizer:
    return gw.BytePairTokenizer(completed(WORDS, MERGES), MERGES, **arguments)


def letters(**arguments: Any) -> gw.BytePairTokenizer:
    return gw.BytePairTokenizer(LETTERS, ["b r", "w n", "c k"], **arguments)


def gpt2() -> gw.GPT2Tokenizer:
    return gw.GPT2Tokenizer(completed(BEST, BEST_MERGES), BEST_MERGES)


def preprocessor(**arguments: Any) -> gw.GPT2Preprocessor:
    tokenizer = gw.GPT2Tokenizer(completed(AIR, AIR_MERGES), AIR_MERGES)
    return gw.GPT2Preprocessor(tokenizer, sequence_length=8, **arguments)


def plain(values: Any) -> Any:
    return values.tolist() if hasattr(values, "tolist") else values


# --- BytePairTokenizer --------------------------------------------------------------------------


@spec("BytePairTokenizer: gets correct set up")
def _() -> None:
    tokenizer = butterfly()
    assert {"butter", "fly"} < {*tokenizer.get_vocabulary()}
    assert tokenizer.vocabulary_size() == len(completed(WORDS, MERGES))
    assert tokenizer.id_to_token(1) == "butter" and tokenizer.token_to_id("butter") == 1
    with pytest.raises(TokenizerError):
        tokenizer.id_to_token(3)  # undefined there
    assert tokenizer.get_config()["merges"] == MERGES


@spec("BytePairTokenizer: tokenize with special tokens")
def _() -> None:
    vocabulary = {"sp": 0, "s": 1, "p": 2}
    whole = gw.BytePairTokenizer(vocabulary, ["s p"])
    split = gw.BytePairTokenizer(vocabulary, ["s p"], unsplittable_tokens=["s", "p"])
    assert plain(split.tokenize("sp")) == plain(split("sp")) == [1, 2]
    assert plain(whole.tokenize("sp")) == [0]


@spec("BytePairTokenizer: tokenize with merges")
def _() -> None:
    found = letters()(["brown.", "black."])
    assert [plain(row) for row in found] == [[0, 5, 1, 8], [3, 9, 10, 2, 8]]


@spec("BytePairTokenizer: tokenize with unsplittable tokens")
def _() -> None:
    vocabulary = completed({"<|end|>": 0, **WORDS}, MERGES)
    tokenizer = gw.BytePairTokenizer(vocabulary, MERGES, unsplittable_tokens=["<|end|>"])
    assert plain(tokenizer("butterfly<|end|>")) == [1, 2, 0]


@spec("BytePairTokenizer: tokenize with sequence length")
def _() -> None:
    found = butterfly(sequence_length=2)(["butterfly", "butter", "butterflybutter"])
    assert plain(found) == [[1, 2], [1, 0], [1, 2]]


@spec("BytePairTokenizer: detokenize with multiple inputs")
def _() -> None:
    tokenizer, texts = butterfly(), ["butterfly", "butter"]
    assert tokenizer.detokenize(tokenizer(texts)) == texts


# --- GPT2Tokenizer ------------------------------------------------------------------------------


@spec("GPT2Tokenizer: tokenize")
def _() -> None:
    assert plain(gpt2()(" airplane at airport")) == [1, 2, 3, 1, 4]


@spec("GPT2Tokenizer: tokenize end token")
def _() -> None:
    """There without being asked; here only where the call allows it."""
    text = " airplane at airport<|endoftext|>"
    assert gpt2().encode(text, allowed_special="all") == [1, 2, 3, 1, 4, 0]


@spec("GPT2Tokenizer: tokenize batch")
def _() -> None:
    found = gpt2()([" airplane at airport", " kohli is the best"])
    assert [plain(row) for row in found] == [[1, 2, 3, 1, 4], [5, 6, 7, 8, 9]]


@spec("GPT2Tokenizer: detokenize")
def _() -> None:
    assert gpt2().detokenize([[1, 2, 3, 1, 4]]) == [" airplane at airport"]


@spec("GPT2Tokenizer: vocabulary size")
def _() -> None:
    assert gw.GPT2Tokenizer({"<|endoftext|>": 0, "a": 1, "b": 2}, []).vocabulary_size() == 3


@spec("GPT2Tokenizer: errors with missing special tokens")
def _() -> None:
    with pytest.raises(TokenizerError, match="endoftext"):
        gw.GPT2Tokenizer({"a": 1, "b": 2, "c": 3}, [])


# --- GPT2Preprocessor ---------------------------------------------------------------------------


def check_packed(found: dict[str, Any], ids: list[int], tokens: int, rows: int) -> None:
    assert plain(found["token_ids"]) == [ids] * rows
    assert plain(found["padding_mask"]) == [[i < tokens for i in range(8)]] * rows


@spec("GPT2Preprocessor: tokenize")
def _() -> None:
    check_packed(preprocessor()(["airplane at airport"]), [6, 1, 3, 4, 2, 5, 6, 0], 7, 1)


@spec("GPT2Preprocessor: no start end token")
def _() -> None:
    found = preprocessor(add_start_token=False, add_end_token=False)(["airplane at airport"] * 4)
    check_packed(found, [1, 3, 4, 2, 5, 0, 0, 0], 5, 4)


@spec("GPT2Preprocessor: tokenize labeled batch")
def _() -> None:
    labels, weights = [1, 1, 1, 1], [1.0, 1.0, 1.0, 1.0]
    x, y, sample_weight = preprocessor()(["airplane at airport"] * 4, labels, weights)
    check_packed(x, [6, 1, 3, 4, 2, 5, 6, 0], 7, 4)
    assert plain(y) == labels and plain(sample_weight) == weights


@spec("GPT2Preprocessor: sequence length override")
def _() -> None:
    found = preprocessor()(["airplane at airport"], sequence_length=4)
    assert plain(found["token_ids"]) == [[6, 1, 3, 6]]


@spec("GPT2Preprocessor: serialization round-trip")
def _() -> None:
    config = preprocessor(add_end_token=False).get_config()
    assert gw.GPT2Preprocessor.from_config(config).get_config() == config


# --- StartEndPacker -----------------------------------------------------------------------------

# Rows, arguments, result.
PACKED: dict[str, tuple[Any, dict[str, Any], Any]] = {
    "tensor input": ([5, 6, 7], {"sequence_length": 5}, [5, 6, 7, 0, 0]),
    "tensor array input": ([[5, 6, 7]], {"sequence_length": 5}, [[5, 6, 7, 0, 0]]),
    "uneven tensor array input": (
        [[5, 6, 7], [8, 9, 10, 11]],
        {"sequence_length": 5},
        [[5, 6, 7, 0, 0], [8, 9, 10, 11, 0]],
    ),
    "tensor array truncation": (
        [[5, 6, 7], [8, 9, 10, 11]],
        {"sequence_length": 3},
        [[5, 6, 7], [8, 9, 10]],
    ),
    "start only": (
        [[5, 6, 7], [8, 9, 10, 11]],
        {"sequence_length": 3, "start_value": -1},
        [[-1, 5, 6], [-1, 8, 9]],
    ),
    "start end token": (
        [[5, 6, 7], [8, 9, 10, 11]],
        {"sequence_length": 6, "start_value": 1, "end_value": 2},
        [[1, 5, 6, 7, 2, 0], [1, 8, 9, 10, 11, 2]],
    ),
    "start end and padding": (
        [[5, 6, 7], [8, 9, 10, 11]],
        {"sequence_length": 7, "start_value": 1, "end_value": 2, "pad_value": 3},
        [[1, 5, 6, 7, 2, 3, 3], [1, 8, 9, 10, 11, 2, 3]],
    ),
    "end token value during truncation": (
        [[5, 6], [8, 9, 10, 11, 12, 13]],
        {"sequence_length": 5, "start_value": 1, "end_value": 2, "pad_value": 0},
        [[1, 5, 6, 2, 0], [1, 8, 9, 10, 2]],
    ),
    "string input": (
        [["TensorflowJS", "is", "awesome"], ["amazing"]],
        {"sequence_length": 5, "start_value": "S", "end_value": "E", "pad_value": "P"},
        [["S", "TensorflowJS", "is", "awesome", "E"], ["S", "amazing", "E", "P", "P"]],
    ),
}
for _name, (_rows, _arguments, _expected) in PACKED.items():

    @spec(f"StartEndPacker: {_name}")
    def _(rows: Any = _rows, arguments: Any = _arguments, expected: Any = _expected) -> None:
        found = gw.StartEndPacker(**arguments)(rows)
        assert [plain(row) for row in found] == expected


@spec("StartEndPacker: tensor array input error")
def _() -> None:
    with pytest.raises(InvalidArgumentError):
        gw.StartEndPacker(5)([[[5, 6, 7], [8, 9, 10, 11]]])


@spec("StartEndPacker: correct mask")
def _() -> None:
    packer = gw.StartEndPacker(6, start_value=1, end_value=2, return_padding_mask=True)
    _ids, mask = packer([[5, 6], [8, 9, 10, 11]])
    assert plain(mask) == [[True] * 4 + [False] * 2, [True] * 6]


@spec("StartEndPacker: correct getConfig")
def _() -> None:
    config: dict[str, Any] = {
        "sequence_length": 512,
        "start_value": 10,
        "end_value": 20,
        "pad_value": 100,
    }
    assert gw.StartEndPacker(**config).get_config().items() >= config.items()


@pytest.mark.parametrize("name", spec)
def test_spec(name: str) -> None:
    spec[name]()


def test_the_documentation_lists_all_specs() -> None:
    page = (ROOT / "docs" / "coming-from-tfjs.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| ([^|]+) \|", page, re.MULTILINE)
    listed = [f"{name}: {each.strip()}" for name, _, specs in rows for each in specs.split(";")]
    of_layers = "".join(path.read_text("utf-8") for path in LAYERS)
    checks = [*spec, *re.findall(r'^@spec\("(.+)"\)$', of_layers, re.MULTILINE)]
    assert sorted(listed) == sorted(checks)
    assert all(int(count) == len(specs.split(";")) for _, count, specs in rows)
    (total,) = re.findall(r"\*\*(\d+) of", page)
    assert int(total) == len(listed)
