"""Detection of unsupported checkpoint formats by file name, with a remedy for each."""

from __future__ import annotations

import re
from collections.abc import Iterable

from gpt2_wgpu.shown import listed

_SAVE = "load it in transformers and write it with save_pretrained()"
_ORIGINAL = "use the original checkpoint in Hugging Face's format"

# Pattern of a file's or folder's name → format and remedy. web/other-formats.js has the same table;
# a test compares the two.
FORMATS = (
    (
        r"adapter_config\.json|adapter_model\.(safetensors|bin)",
        "a LoRA adapter and no model: load its base model, with from_preset(..., adapter=...) or "
        "--adapter-weights",
    ),
    (
        r"model\.weights\.h5|task\.json|.*\.weights\.h5|assets",
        "a KerasHub preset: load its whole directory with from_preset() outside of a browser, or "
        "use the checkpoint in Hugging Face's format",
    ),
    (
        r".*\.keras",
        "a model that Keras saved: load it with from_preset() of GPT2CausalLM outside of a "
        "browser, and write it with save_to_preset()",
    ),
    (r".*\.gguf|ggml-.*\.bin", f"a GGUF file of llama.cpp: {_ORIGINAL}"),
    (r"onnx|.*\.onnx|.*\.ort", f"an ONNX export: {_ORIGINAL}"),
    (
        r"tf_model.*\.h5|saved_model\.pb|checkpoint|model\.ckpt.*|.*\.tflite",
        f"a TensorFlow model: {_SAVE} (from_tf=True), or {_ORIGINAL}",
    ),
    (r"flax_model.*\.msgpack", f"a Flax model: {_SAVE} (from_flax=True)"),
    (r".*\.npz", f"NumPy arrays (MLX?): {_ORIGINAL}"),
    (
        r".*\.(bin|pt|pth|ckpt|pkl)",
        f"a PyTorch pickle, which can run code and is not read here: {_SAVE}",
    ),
)
_OTHER_TOKENIZERS = (
    (r"vocab\.txt", "of BertTokenizer (WordPiece)"),
    (r"spiece\.model|tokenizer\.model|sentencepiece.*\.model", "of SentencePiece"),
    (r".*\.tiktoken|encoder\.json|vocab\.bpe", "OpenAI's own format"),
)
_MOST_NAMES = 10_000


def weights_instead(names: Iterable[str]) -> str:
    """Describe which weights a set of files has instead of safetensors, and the remedy."""
    there = sorted(names)[:_MOST_NAMES]
    others = [name for name in there if name.endswith(".safetensors")]
    for pattern, what in FORMATS:
        for name in there:
            if re.fullmatch(pattern, name):
                return f"there is no model.safetensors, but {name} is {what}"
    if others:
        return (
            "there is no model.safetensors or model.safetensors.index.json, only "
            f"{listed(others, 3)}; rename the file that holds the model"
        )
    return "there is no model.safetensors or model.safetensors.index.json in this directory"


def kind_of(names: Iterable[str]) -> str | None:
    """Describe the format of files without GPT-2's ``config.json``; None if unknown."""
    for pattern, what in FORMATS:
        for name in sorted(names)[:_MOST_NAMES]:
            if re.fullmatch(pattern, name):
                return f"{name} is {what}"
    return None


def tokenizer_instead(names: Iterable[str]) -> str:
    """Describe which other tokenizer files without GPT-2's tokenizer have; empty if none."""
    for pattern, what in _OTHER_TOKENIZERS:
        for name in sorted(names)[:_MOST_NAMES]:
            if re.fullmatch(pattern, name):
                return f", and {name} is {what}, not GPT-2's byte-level BPE"
    return ""
