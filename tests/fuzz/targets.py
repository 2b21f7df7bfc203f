"""Fuzzing targets: each reader of a file or a name, with seed inputs.

A target takes any bytes. It returns for a value, or raises an error of ``gpt2_wgpu.errors``; it may
check the value and raise ``AssertionError``. Files are in a directory of their own, under the names
that a checkpoint has.
"""

from __future__ import annotations

import ast
import io
import json
import os
import warnings
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt2_wgpu.errors import TokenizerError
from gpt2_wgpu.models.config import GPT2Config
from gpt2_wgpu.models.generation_config import read_config
from gpt2_wgpu.models.loading import open_keras_file
from gpt2_wgpu.text import GPT2Tokenizer, pretokenizer
from gpt2_wgpu.text.streaming import StreamingDetokenizer
from gpt2_wgpu.weights.checkpoint import Checkpoint, parse_index
from gpt2_wgpu.weights.header import parse_header
from gpt2_wgpu.weights.keras_archive import KerasArchive
from gpt2_wgpu.weights.naming import resolve as resolve_names
from gpt2_wgpu.weights.presets import resolve
from gpt2_wgpu.weights.quantized import quantization_of
from tests.models import keras_files
from tests.weights.attacks import ATTACKS, OTHER_KINDS
from tests.weights.building import valid_file, zeros

Run = Callable[[bytes], object]
CORPUS = Path(__file__).parent / "corpus"
END = "<|endoftext|>"
OTHER_FILES = [content for content, _ in OTHER_KINDS.values()]


@dataclass(frozen=True)
class Target:
    """A reader. ``start``: where JSON begins in its inputs (8 in a safetensors file)."""

    name: str
    seeds: list[bytes]
    run: Run
    start: int = 0

    def inputs(self) -> list[bytes]:
        """The seeds and the stored inputs."""
        return [*self.seeds, *stored(self.name)]


def stored(name: str) -> list[bytes]:
    """The inputs of ``corpus/<name>.txt``, a bytes literal a line."""
    path = CORPUS / f"{name}.txt"
    return (
        [ast.literal_eval(line) for line in path.read_text().splitlines()] if path.exists() else []
    )


def store(name: str, inputs: Iterable[bytes]) -> None:
    """Adds inputs to those that are stored."""
    lines = sorted({*map(repr, stored(name)), *map(repr, inputs)})
    (CORPUS / f"{name}.txt").write_text("\n".join(lines) + "\n")


def targets(directory: Path) -> list[Target]:
    """All targets; they keep their files in ``directory``."""
    return [
        Target("header", _header_seeds(), _read_header, start=8),
        Target("checkpoint", _checkpoint_seeds(), _checkpoint(directory / "weights"), start=8),
        Target(
            "index", [*map(_json, INDEXES), *OTHER_FILES], lambda data: parse_index(data, "index")
        ),
        Target("config", [*map(_json, CONFIGS), *OTHER_FILES], _config(directory)),
        Target(
            "generation_config.json",
            [*map(_json, GENERATION_CONFIGS), *OTHER_FILES],
            _generation_config(directory / "generation"),
        ),
        *(
            Target(name, [*seeds, *OTHER_FILES], _tokenizer(directory / name, name))
            for name, seeds in TOKENIZER_SEEDS.items()
        ),
        Target(
            "story.keras",
            [
                _keras_file({}, method)
                for method in (
                    zipfile.ZIP_STORED,
                    zipfile.ZIP_DEFLATED,
                    zipfile.ZIP_BZIP2,
                    zipfile.ZIP_LZMA,
                )
            ],
            _keras(directory),
        ),
        Target(
            "keras_config",
            [*map(_json, KERAS_CONFIGS), *OTHER_FILES],
            lambda data: _keras(directory)(_keras_file({"config.json": data})),
        ),
        Target("name", [name.encode() for name in NAMES], _read_name),
        Target("text", [text.encode() for text in TEXTS], _round_trip()),
    ]


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


# --- weights --------------------------------------------------------------------------------------


def _header_seeds() -> list[bytes]:
    attacks = [content for content, _ in ATTACKS.values() if len(content) < 3000]
    whole = valid_file(
        {"a": ("F32", [2, 3], bytes(24)), "b": ("F16", [5], bytes(10)), "c": ("I64", [], bytes(8))},
        {"format": "pt"},
        padding=3,
    )
    empty = valid_file({"transformer.h.0.attn.bias": ("BOOL", [0, 4], b"")})
    return [whole, empty, *attacks, *OTHER_FILES]


def _read_header(data: bytes) -> object:
    header = parse_header(data, len(data), "model.safetensors")
    end = header.data_begin
    for entry in header.tensors.values():
        assert entry.begin == end and entry.end <= len(data)
        end = entry.end
    assert end == len(data)
    return header


SMALL = GPT2Config(vocab_size=3, n_positions=2, n_embd=2, n_layer=1, n_head=1)


def _checkpoint_seeds() -> list[bytes]:
    """A model's tensors under the names that trainers give them, and tensors of other kinds."""
    shapes = SMALL.expected_tensors()

    def file(rename: Callable[[str], str], **extra: tuple[int, ...]) -> bytes:
        named = {rename(name): shape for name, shape in shapes.items()}
        return valid_file(zeros(named | extra, "F16"), {"format": "pt"})

    return [
        file(lambda name: name),
        file("transformer.{}".format, **{"lm_head.weight": (3, 2)}),
        file("_orig_mod.module.transformer.{}".format),
        file("model.transformer.{}".format, **{"transformer.h.0.attn.bias": (1, 1, 2, 2)}),
        valid_file(zeros({"base_model.model.transformer.h.0.attn.c_attn.lora_A.weight": (1, 2)})),
    ]


def _checkpoint(directory: Path) -> Run:
    directory.mkdir()
    path = directory / "model.safetensors"

    def read(data: bytes) -> object:
        path.write_bytes(data)
        with Checkpoint.open(directory) as checkpoint, warnings.catch_warnings(record=True) as said:
            quantization_of(checkpoint)
            entries = resolve_names(checkpoint, SMALL.expected_tensors())
            for entry in entries.values():
                assert len(checkpoint.read(entry.name)) == entry.nbytes
        assert all(len(str(warning.message)) <= 1000 for warning in said)
        return entries

    return read


INDEXES: list[Any] = [
    {
        "metadata": {"total_size": 12},
        "weight_map": {"wte.weight": "model-00001-of-00002.safetensors", "b": "x.safetensors"},
    },
    {"weight_map": {"a": "a.safetensors"}},
]


# --- configuration --------------------------------------------------------------------------------

CONFIGS: list[Any] = [
    {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 300},
    {"n_embd": 8, "n_layer": 1, "n_head": 1, "n_ctx": 64, "eos_token_id": [1, 2], "n_inner": None},
    {"model_type": "gpt2", "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
    {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "tie_word_embeddings": True,
        "bos_token_id": 50256,
        "eos_token_id": 50256,
        "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
        "quantization_config": None,
    },
]


def _config(directory: Path) -> Run:
    path = directory / "config.json"

    def read(data: bytes) -> object:
        path.write_bytes(data)
        config = GPT2Config.from_json_file(path)
        assert GPT2Config.from_dict(config.to_dict()) == config
        return config

    return read


GENERATION_CONFIGS: list[Any] = [
    {"eos_token_id": [3], "bos_token_id": 3, "max_length": 20},
    {"_from_model_config": True, "eos_token_id": 50256, "transformers_version": "5.0.0"},
]


def _generation_config(directory: Path) -> Run:
    directory.mkdir()
    (directory / "config.json").write_bytes(_json(CONFIGS[0]))
    path = directory / "generation_config.json"

    def read(data: bytes) -> object:
        path.write_bytes(data)
        with warnings.catch_warnings(record=True) as said:
            config = read_config(directory)
        assert all(len(str(warning.message)) <= 1000 for warning in said)
        return config

    return read


# --- tokenizers -----------------------------------------------------------------------------------

VOCABULARY: Any = {"a": 0, "b": 1, "ab": 2, END: 3, "Ġ": 4, "Ġa": 5}
MERGES = ["a b", "Ġ a"]
TOKENIZER: Any = {
    "version": "1.0",
    "added_tokens": [
        {"id": 3, "content": END, "special": True, "normalized": True, "lstrip": False},
        {"id": 6, "content": "<x>", "special": False, "normalized": False},
    ],
    "normalizer": None,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True},
    "post_processor": {"type": "ByteLevel", "add_prefix_space": True},
    "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "dropout": None, "vocab": VOCABULARY, "merges": MERGES},
}
TOKENIZER_CONFIG: Any = {
    "add_prefix_space": False,
    "added_tokens_decoder": {"3": {"content": END, "special": True, "lstrip": False}},
    "bos_token": END,
    "eos_token": {"__type": "AddedToken", "content": END, "normalized": True},
    "errors": "replace",
    "model_max_length": 1024,
    "tokenizer_class": "GPT2Tokenizer",
}
SMALL_FILES = {
    "vocab.json": _json(VOCABULARY),
    "merges.txt": "#version: 0.2\na b\nĠ a\n".encode(),
}
TOKENIZER_SEEDS: dict[str, list[bytes]] = {
    "vocab.json": [_json(VOCABULARY)],
    "merges.txt": [SMALL_FILES["merges.txt"], b"a b", "Ġ a\r\na b\r\n\r\n".encode()],
    "tokenizer.json": [
        _json(TOKENIZER),
        _json(TOKENIZER | {"model": {"vocab": VOCABULARY, "merges": [["a", "b"], ["Ġ", "a"]]}}),
    ],
    "added_tokens.json": [_json({"<x>": 6, "<|im_end|>": 7}), b"{}"],
    "tokenizer_config.json": [_json(TOKENIZER_CONFIG), b"{}"],
    "special_tokens_map.json": [
        _json({"eos_token": END, "additional_special_tokens": ["<x>", "a"]}),
        _json({"bos_token": {"content": END, "lstrip": False}, "pad_token": "[PAD]"}),
    ],
}


def _tokenizer(directory: Path, name: str) -> Run:
    """Reads a tokenizer of which the file ``name`` is any bytes, and uses it."""
    directory.mkdir()
    for other, content in SMALL_FILES.items():
        (directory / other).write_bytes(content)
    path = directory / name

    def read(data: bytes) -> object:
        path.write_bytes(data)
        tokenizer = GPT2Tokenizer.from_directory(directory)
        ids = tokenizer.encode("ab a")
        assert all(type(token_id) is int and token_id >= 0 for token_id in ids)
        assert isinstance(tokenizer.decode(ids), str)
        return tokenizer

    return read


# --- models that Keras saved ----------------------------------------------------------------------

KERAS_CONFIGS: list[Any] = [keras_files.causal_lm_config(), keras_files.backbone_config()]


def _keras_file(changed: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A ``.keras`` file without HDF5, whose own library reads it."""
    assets = "assets/preprocessor/tokenizer"
    contents = {
        "metadata.json": b"{}",
        "config.json": _json(KERAS_CONFIGS[0]),
        "model.weights.h5": b"weights",
        f"{assets}/vocabulary.json": SMALL_FILES["vocab.json"],
        f"{assets}/merges.txt": b"a b\n",
    }
    file = io.BytesIO()
    keras_files.write(file, contents | changed, compression)
    return file.getvalue()


def _keras(directory: Path) -> Run:
    path = directory / "story.keras"

    def read(data: bytes) -> object:
        path.write_bytes(data)
        with warnings.catch_warnings(record=True) as said, KerasArchive(path) as archive:
            saved = archive.saved()
            text = None if saved.preprocessor is None else "auto"
            files = open_keras_file(path, text, load_weights=False)
            assert len(archive.weights().read()) <= len(data)
        assert all(len(str(warning.message)) <= 1000 for warning in said)
        return files

    return read


# --- names ----------------------------------------------------------------------------------------

NAMES = [
    "fairytales", "gpt2_base_en_cnn_dailymail", "gpt3", "", " ", ".", "..", "~", "~root/x", "/",
    "./model", "a/b/c", "a\\b", "C:\\model", "hf://", "hf:///", "hf://a@b", "hf://a/b@main@x",
    "https://huggingface.co/openai-community/gpt2", "file:///etc", "a\0b", "hf://a\0/b", "x" * 5000,
    "../" * 2000, "-n", "hf://a--b/c..d", "ä/ö", "\u202e/x", "a /b", "\n", "owner/name@" + "f" * 40,
]  # fmt: skip


def _read_name(data: bytes) -> object:
    # HF_HUB_OFFLINE, set by the runners of this, rejects requests to the Hub.
    assert os.environ.get("HF_HUB_OFFLINE") == "1"
    try:
        name = data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        name = data.decode("utf-8", "surrogateescape")  # as a command line is read
    found = resolve(name)
    assert (found / "config.json").is_file()
    return found


# --- texts ----------------------------------------------------------------------------------------

TEXTS = [
    "Once upon a time, there was a king.", "It's 12 o'clock\n\n  in the  'LL\t", "", " ", "\r\n",
    "naïve café über 東京 😀 \U0001f469\u200d\U0001f467 ⅷ ² ﬀ \x85", f"{END} a {END}", "a" * 300,
    "\u2028\u3000\ufeff", "x\0y",
]  # fmt: skip


def _round_trip() -> Run:
    tokenizer = GPT2Tokenizer()
    splitters = pretokenizer.regex_splitter(), pretokenizer.standard_splitter()

    def check(data: bytes) -> object:
        text = data.decode("utf-8", "surrogatepass" if len(data) % 2 else "replace")
        ids = tokenizer.encode(text)  # rejects a lone surrogate
        assert tokenizer.decode(ids) == text
        assert splitters[0](text) == splitters[1](text)
        assert tokenizer.decode(tokenizer.encode(text, allowed_special="all")) == text
        # Bytes as ids: any sequence of tokens decodes, at once or one at a time.
        ids = [50_257 * byte // 256 for byte in data[:64]]
        stream = StreamingDetokenizer(tokenizer)
        pieces = [stream.push(token_id) for token_id in ids]
        assert "".join(pieces) + stream.flush() == tokenizer.decode(ids)
        return ids

    def read(data: bytes) -> object:
        try:
            return check(data)
        except UnicodeDecodeError:  # of this function: the bytes are no text
            raise TokenizerError("not a text") from None

    return read
