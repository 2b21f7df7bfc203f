"""Checkpoints of a few kilobytes in Hugging Face's format, with arbitrary additional files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

END = "<|endoftext|>"
MERGES = ["h e", "l l", "he ll", "hell o", "Ġ w", "o r", "Ġw or", "l d", "Ġwor ld", "H e", "He ll",
          "Hell o"]  # fmt: skip
WIDTH, CONTEXT = 16, 64


def byte_symbols() -> list[str]:
    """GPT-2's symbols of the 256 bytes, in its order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = 256 - len(printable)
    return [*map(chr, printable), *(chr(256 + index) for index in range(hidden))]


def vocabulary(before: Iterable[str] = (), after: Iterable[str] = (END,)) -> dict[str, int]:
    """Bytes and merges, with whole tokens before and after them → contiguous ids."""
    merged = (merge.replace(" ", "") for merge in MERGES)
    tokens = dict.fromkeys([*before, *byte_symbols(), *merged, *after])
    return {token: token_id for token_id, token in enumerate(tokens)}


def write_tokenizer(directory: Path, tokens: Mapping[str, int], files: Mapping[str, Any]) -> Path:
    """vocab.json, merges.txt and ``files``, name → JSON value."""
    directory.mkdir(exist_ok=True)
    (directory / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES, ""]), "utf-8")
    for name, value in {"vocab.json": tokens, **files}.items():
        (directory / name).write_text(json.dumps(value), "utf-8")
    return directory


def write(
    directory: Path,
    rows: int,
    *,
    says: Iterable[int] = (),
    tokens: Mapping[str, int] | None = None,
    files: Mapping[str, Any] | None = None,
    **config: Any,
) -> Path:
    """A GPT-2 of one layer with a table of ``rows``.

    Logits do not depend on the prompt: ids of ``says`` have the largest, the first most.
    """
    write_tokenizer(directory, vocabulary() if tokens is None else tokens, files or {})
    sizes = {"n_embd": WIDTH, "n_layer": 1, "n_head": 2, "n_positions": CONTEXT}
    whole = {"model_type": "gpt2", **sizes, "vocab_size": rows, **config}
    (directory / "config.json").write_text(json.dumps(whole), "utf-8")
    rng = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {}
    shapes |= {"wte.weight": (rows, WIDTH), "wpe.weight": (CONTEXT, WIDTH)}
    for name, inner, outer in (("attn.c_attn", 1, 3), ("attn.c_proj", 1, 1), ("mlp.c_fc", 1, 4),
                               ("mlp.c_proj", 4, 1)):  # fmt: skip
        shapes[f"h.0.{name}.weight"] = (inner * WIDTH, outer * WIDTH)
        shapes[f"h.0.{name}.bias"] = (outer * WIDTH,)
    for norm in ("h.0.ln_1", "h.0.ln_2", "ln_f"):
        shapes |= {f"{norm}.weight": (WIDTH,), f"{norm}.bias": (WIDTH,)}
    tensors = {name: rng.normal(0, 0.3, shape).astype("f4") for name, shape in shapes.items()}
    tensors["ln_f.weight"][:], tensors["ln_f.bias"][:] = 0, 1
    tensors["wte.weight"] *= 0.01
    for place, token_id in enumerate(says):
        tensors["wte.weight"][token_id] = 1 - 0.05 * place
    save_file(tensors, directory / "model.safetensors")
    return directory
