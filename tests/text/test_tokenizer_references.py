"""GPT-2's tokenizer against tiktoken and Hugging Face tokenizers on generated text."""

from __future__ import annotations

import random

import pytest
import tiktoken
import tokenizers
from tiktoken_ext.openai_public import r50k_pat_str

from gpt2_wgpu.text import GPT2Tokenizer

COUNT = 12_000

# Blocks that have not changed for many Unicode versions, as each library brings its own version.
SCRIPTS = [
    (0x61, 0x7A), (0x41, 0x5A), (0xC0, 0xFF), (0x391, 0x3A1), (0x410, 0x44F), (0x5D0, 0x5EA),
    (0x621, 0x63A), (0x905, 0x939), (0xE01, 0xE2E), (0x3041, 0x3096), (0x4E00, 0x9FA5),
    (0xAC00, 0xD7A3), (0x10400, 0x1044F), (0x20000, 0x2A6D6),
]  # fmt: skip
DIGITS = [(0x30, 0x39), (0x660, 0x669), (0x966, 0x96F), (0xBC, 0xBE), (0x2160, 0x216B)]
MARKS = [(0x300, 0x36F), (0x64B, 0x652), (0x93E, 0x94C), (0xFE00, 0xFE0F), (0x200B, 0x200F)]
SIGNS = [(0x21, 0x2F), (0x3A, 0x40), (0x5B, 0x60), (0x2010, 0x2027), (0x2200, 0x22FF)]
EMOJI = [(0x1F600, 0x1F64F), (0x1F300, 0x1F5FF), (0x1F1E6, 0x1F1FF), (0x1F3FB, 0x1F3FF)]
CONTROLS = [(0x00, 0x1F), (0x7F, 0x9F), (0xE000, 0xE010), (0xFFF0, 0xFFFF), (0x10FFF0, 0x10FFFF)]
SPACES = " \n\t\r\x0b\x0c\x85\xa0\u1680\u2003\u2028\u2029\u202f\u3000\x1c\x1f"
FIXED = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "\u2019s", "''t", "<|endoftext|>",
         "\r\n", "👩‍👩‍👧", "e\u0301", "Hello", " world", "don't", "    ", "\n\n",
         " \n "]  # fmt: skip


def generated_texts() -> list[str]:
    rng = random.Random(20_260)

    def run(blocks: list[tuple[int, int]], longest: int) -> str:
        low, high = rng.choice(blocks)
        return "".join(chr(rng.randint(low, high)) for _ in range(rng.randint(1, longest)))

    kinds = [
        lambda: run(SCRIPTS, 9),
        lambda: " " + run(SCRIPTS, 7),
        lambda: run(DIGITS, 5),
        lambda: run(MARKS, 2),
        lambda: run(SIGNS, 4),
        lambda: run(EMOJI, 2),
        lambda: run(CONTROLS, 2),
        lambda: "".join(rng.choices(SPACES, k=rng.randint(1, 4))),
        lambda: " " * rng.randint(1, 6),
        lambda: rng.choice(FIXED),
    ]
    return ["".join(rng.choice(kinds)() for _ in range(rng.randint(1, 9))) for _ in range(COUNT)]


TEXTS = generated_texts()


@pytest.fixture(scope="module")
def by_tiktoken(gpt2: GPT2Tokenizer) -> tiktoken.Encoding:
    return tiktoken.Encoding(
        "gpt2-from-our-merges",
        pat_str=r50k_pat_str,
        mergeable_ranks={gpt2.token_bytes(token_id): token_id for token_id in range(50_256)},
        special_tokens={"<|endoftext|>": 50_256},
    )


@pytest.fixture(scope="module")
def by_hugging_face(gpt2: GPT2Tokenizer) -> tokenizers.Tokenizer:
    config = gpt2.get_config()
    merges = [tuple(merge.split(" ")) for merge in config["merges"]]
    reference = tokenizers.Tokenizer(tokenizers.models.BPE(config["vocabulary"], merges))
    reference.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    return reference


def test_equals_tiktoken(gpt2: GPT2Tokenizer, by_tiktoken: tiktoken.Encoding) -> None:
    for text in TEXTS:
        assert gpt2.encode(text) == by_tiktoken.encode_ordinary(text), ascii(text)


def test_equals_tiktoken_with_special_tokens(
    gpt2: GPT2Tokenizer, by_tiktoken: tiktoken.Encoding
) -> None:
    texts = [text for text in TEXTS if "<|endoftext|>" in text]
    assert len(texts) > 250
    for text in texts:
        expected = by_tiktoken.encode(text, allowed_special="all")
        assert gpt2.encode(text, allowed_special="all") == expected, ascii(text)


@pytest.mark.slow
def test_equals_hugging_face(gpt2: GPT2Tokenizer, by_hugging_face: tokenizers.Tokenizer) -> None:
    for text, encoding in zip(TEXTS, by_hugging_face.encode_batch(TEXTS), strict=True):
        assert gpt2.encode(text) == encoding.ids, ascii(text)


def test_round_trip_is_exact(gpt2: GPT2Tokenizer) -> None:
    for text in TEXTS:
        assert gpt2.decode_bytes(gpt2.encode(text)) == text.encode("utf-8")


def test_decode_equals_tiktoken_on_random_ids(
    gpt2: GPT2Tokenizer, by_tiktoken: tiktoken.Encoding
) -> None:
    rng = random.Random(3)
    for _ in range(500):
        ids = [rng.randrange(50_257) for _ in range(rng.randrange(12))]
        assert gpt2.decode_bytes(ids) == by_tiktoken.decode_bytes(ids)
        assert gpt2.decode(ids) == by_tiktoken.decode(ids)
