"""Strict reader of Hugging Face's ``tokenizer.json``: features GPT-2 lacks are rejected."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gpt2_wgpu.errors import TokenizerError
from gpt2_wgpu.shown import shown
from gpt2_wgpu.text.added_tokens import AddedToken, added_token
from gpt2_wgpu.text.tokenizer_files import StoredMerges, StoredVocabulary, read_json
from gpt2_wgpu.text.vocabulary import MAX_ID

# Values at which these options of a BPE model have no effect.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "dropout": (None, 0, 0.0),
    "continuing_subword_prefix": (None, ""),
    "end_of_word_suffix": (None, ""),
    "byte_fallback": (None, False),
    "ignore_merges": (None, False),
}


@dataclass(frozen=True)
class TokenizerJson:
    """Contents of a ``tokenizer.json``."""

    vocabulary: StoredVocabulary
    merges: StoredMerges
    add_prefix_space: bool
    added: Mapping[int, AddedToken]


def read_tokenizer_json(path: str | os.PathLike[str]) -> TokenizerJson:
    """Read the ``tokenizer.json`` of a GPT-2-style byte-level BPE.

    The post-processor is ignored: the preprocessor adds start and end tokens.

    Raises:
        TokenizerError: the file is malformed or uses a feature that GPT-2's tokenizer lacks,
            which the message names.
    """
    name = os.fspath(path)
    content = _mapping(read_json(path), name)
    model = _mapping(content.get("model"), f"'model' in {name}")
    if model.get("type", "BPE") != "BPE":
        raise _unsupported(name, "model", model["type"], "BPE")
    for switch, neutral in _NEUTRAL.items():
        if model.get(switch) not in neutral:
            raise _unsupported(name, f"model.{switch}", model[switch], f"{neutral[-1]!r}")
    if content.get("normalizer") is not None and _steps(content["normalizer"], "normalizers"):
        raise _unsupported(name, "normalizer", content["normalizer"], "none")
    decoder = content.get("decoder")
    kinds = [str(_type(step)) for step in _steps(decoder, "decoders")]
    if decoder is not None and sorted({*kinds, "Fuse"}) != ["ByteLevel", "Fuse"]:
        raise _unsupported(name, "decoder", " + ".join(kinds), "ByteLevel")
    vocabulary = _mapping(model.get("vocab"), f"'model.vocab' in {name}")
    merges = _listing(model.get("merges"), f"'model.merges' in {name}")
    return TokenizerJson(
        vocabulary=StoredVocabulary(vocabulary, name),
        merges=StoredMerges(merges, name, lines=False),
        add_prefix_space=_add_prefix_space(content.get("pre_tokenizer"), name),
        added=_added_tokens(vocabulary, content.get("added_tokens") or [], name),
    )


def _steps(part: Any, key: str) -> list[Any]:
    """Return the steps of a component, which is a sequence or a single step."""
    if _type(part) != "Sequence":
        return [part]
    steps = part.get(key)
    nested = [_steps(step, key) for step in steps] if isinstance(steps, list) else [[part]]
    return [step for inner in nested for step in inner]


def _add_prefix_space(pre_tokenizer: Any, name: str) -> bool:
    """Check that the pre-tokenizer is GPT-2's and return its one option."""
    steps = _steps(pre_tokenizer, "pretokenizers")
    kinds = " + ".join(str(_type(step)) for step in steps)
    if kinds != "ByteLevel":
        raise _unsupported(name, "pre_tokenizer", kinds, "ByteLevel alone")
    [step] = steps
    if step.get("use_regex", True) is not True:
        raise _unsupported(name, "pre_tokenizer.use_regex", step["use_regex"], "true")
    return bool(step.get("add_prefix_space", True))  # the default of tokenizers


def _added_tokens(vocabulary: dict[str, Any], added: Any, name: str) -> dict[int, AddedToken]:
    """Return id → added token."""
    found: dict[int, AddedToken] = {}
    for entry in _listing(added, f"'added_tokens' in {name}"):
        token_id = _mapping(entry, f"an entry of 'added_tokens' in {name}").get("id")
        token = added_token(entry)
        if token is None or type(token_id) is not int or not 0 <= token_id <= MAX_ID:
            raise TokenizerError(
                f"an added token in {name} lacks its text or its id: {shown(entry)}"
            )
        if vocabulary.get(token.content, token_id) != token_id:
            raise TokenizerError(
                f"{name} gives the added token {shown(token.content)} the id {token_id!r}, but its "
                f"vocabulary says {shown(vocabulary[token.content])}: make the two agree"
            )
        if found.setdefault(token_id, token).content != token.content:
            raise TokenizerError(
                f"{name} gives id {token_id} to both {shown(found[token_id].content)} and "
                f"{shown(token.content)}: make it one"
            )
    return found


def _unsupported(name: str, what: str, value: object, supported: str) -> TokenizerError:
    return TokenizerError(
        f"{name} asks for {what} = {shown(value)}, but only {supported} is supported: this is not "
        "GPT-2's byte-level BPE"
    )


def _type(value: Any) -> Any:
    return value.get("type") if isinstance(value, dict) else None


def _mapping(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TokenizerError(f"{name} must be a JSON object, not a {type(value).__name__}")
    return value


def _listing(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise TokenizerError(f"{name} must be a JSON list, not a {type(value).__name__}")
    return value
