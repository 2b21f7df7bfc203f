"""Hugging Face's ``tokenizer.json``, read strictly: what GPT-2 does not do is refused by name."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from gpt2_wgpu.errors import TokenizerError
from gpt2_wgpu.text.tokenizer_files import StoredMerges, StoredVocabulary, read_json

# Values under which these switches of a BPE model change nothing.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "dropout": (None, 0, 0.0),
    "continuing_subword_prefix": (None, ""),
    "end_of_word_suffix": (None, ""),
    "byte_fallback": (None, False),
    "ignore_merges": (None, False),
}


@dataclass(frozen=True)
class TokenizerDescription:
    """What a tokenizer's files say, in the words of ``GPT2Tokenizer``'s arguments."""

    vocabulary: StoredVocabulary
    merges: StoredMerges
    add_prefix_space: bool = False
    unsplittable_tokens: tuple[str, ...] = ()
    special_tokens: tuple[str, ...] = ()


def read_tokenizer_json(path: str | os.PathLike[str]) -> TokenizerDescription:
    """Read the ``tokenizer.json`` of a byte-level BPE that works as GPT-2's does.

    Added tokens marked special become special tokens, the others are never split, as in
    ``tokenizers``. The post-processor is ignored: start and end tokens are the preprocessor's
    business here.

    Raises:
        TokenizerError: malformed, or asks for something GPT-2's tokenizer does not do; the message
            names it.
    """
    name = os.fspath(path)
    content = _mapping(read_json(path), name)
    model = _mapping(content.get("model"), f"'model' in {name}")
    if model.get("type", "BPE") != "BPE":
        raise _unsupported(name, "model", model["type"], "BPE")
    for switch, neutral in _NEUTRAL.items():
        if model.get(switch) not in neutral:
            raise _unsupported(name, f"model.{switch}", model[switch], f"{neutral[-1]!r}")
    if content.get("normalizer") is not None:
        raise _unsupported(name, "normalizer", content["normalizer"], "none")
    if _type(content.get("decoder")) not in (None, "ByteLevel"):
        raise _unsupported(name, "decoder", _type(content["decoder"]), "ByteLevel")
    vocabulary = dict(_mapping(model.get("vocab"), f"'model.vocab' in {name}"))
    merges = _listing(model.get("merges"), f"'model.merges' in {name}")
    special, whole = _add_tokens(vocabulary, content.get("added_tokens") or [], name)
    return TokenizerDescription(
        vocabulary=StoredVocabulary(vocabulary, name),
        merges=StoredMerges(merges, name, lines=False),
        add_prefix_space=_add_prefix_space(content.get("pre_tokenizer"), name),
        unsplittable_tokens=tuple(whole),
        special_tokens=tuple(special),
    )


def _add_prefix_space(pre_tokenizer: Any, name: str) -> bool:
    """Check that the pre-tokenizer is GPT-2's and return its one option."""
    steps = [pre_tokenizer]
    if _type(pre_tokenizer) == "Sequence":
        steps = _listing(pre_tokenizer.get("pretokenizers"), f"'pre_tokenizer' in {name}")
    kinds = " + ".join(str(_type(step)) for step in steps)
    if kinds != "ByteLevel":
        raise _unsupported(name, "pre_tokenizer", kinds, "ByteLevel alone")
    [step] = steps
    if step.get("use_regex", True) is not True:
        raise _unsupported(name, "pre_tokenizer.use_regex", step["use_regex"], "true")
    return bool(step.get("add_prefix_space", True))  # the default of tokenizers


def _add_tokens(vocabulary: dict[str, int], added: Any, name: str) -> tuple[list[str], list[str]]:
    """Enter the added tokens into ``vocabulary``; return the special ones and the others."""
    special: list[str] = []
    whole: list[str] = []
    for entry in _listing(added, f"'added_tokens' in {name}"):
        token = _mapping(entry, f"an entry of 'added_tokens' in {name}")
        content, token_id = token.get("content"), token.get("id")
        if not isinstance(content, str) or not content or not isinstance(token_id, int):
            raise TokenizerError(f"an added token in {name} lacks its text or its id: {token!r}")
        for switch in ("lstrip", "rstrip", "single_word"):
            if token.get(switch):
                raise _unsupported(name, f"{switch} of added token {content!r}", True, "false")
        if vocabulary.setdefault(content, token_id) != token_id:
            raise TokenizerError(
                f"{name} gives the added token {content!r} the id {token_id!r}, but its "
                f"vocabulary says {vocabulary[content]!r}: make the two agree"
            )
        (special if token.get("special") else whole).append(content)
    return special, whole


def _unsupported(name: str, what: str, value: object, supported: str) -> TokenizerError:
    shown = repr(value)
    return TokenizerError(
        f"{name} asks for {what} = {shown[:80]}, but only {supported} is supported: this is not "
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
