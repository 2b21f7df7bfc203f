"""Files of other formats, told by their names, with the way to a checkpoint that can be read."""

from __future__ import annotations

import re
from collections.abc import Iterable

from gpt2_wgpu.shown import listed

_SAVE = "load it in transformers and write it with save_pretrained()"
_ORIGINAL = "take the checkpoint in Hugging Face's format that it was made from"

# Pattern of a file's or folder's name → what it is and the way out. web/other-formats.js holds the
# same table; a test compares them.
FORMATS = (
    (
        r"adapter_config\.json|adapter_model\.(safetensors|bin)",
        "a LoRA adapter and no model: merge it into its base model with PEFT's merge_and_unload() "
        "and save_pretrained()",
    ),
    (
        r"model\.weights\.h5|task\.json|.*\.weights\.h5|assets",
        "a KerasHub preset: take the checkpoint in Hugging Face's format (gpt2_base_en and so on "
        "load by name)",
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
    """Of files without weights that can be read: what is there, and the way out. One sentence."""
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
    """What files without a ``config.json`` of GPT-2 are, in words; None if unknown."""
    for pattern, what in FORMATS:
        for name in sorted(names)[:_MOST_NAMES]:
            if re.fullmatch(pattern, name):
                return f"{name} is {what}"
    return None


def tokenizer_instead(names: Iterable[str]) -> str:
    """Of files without GPT-2's tokenizer: which other tokenizer is there, or an empty text."""
    for pattern, what in _OTHER_TOKENIZERS:
        for name in sorted(names)[:_MOST_NAMES]:
            if re.fullmatch(pattern, name):
                return f", and {name} is {what}, not GPT-2's byte-level BPE"
    return ""
