"""Tokenizer of a checkpoint directory, as read by transformers' slow GPT2Tokenizer.

``tokenizer.json`` is read if it exists; else ``vocab.json`` (or KerasHub's ``vocabulary.json``)
and ``merges.txt``. Three optional files:

- ``tokenizer_config.json``: added tokens with ids and rules (``added_tokens_decoder``), the special
  tokens by name (``eos_token`` and so on), ``tokenizer_class`` and ``add_prefix_space``.
- ``special_tokens_map.json``: special tokens by name; takes precedence if there is no
  ``added_tokens_decoder``, else only adds missing names.
- ``added_tokens.json``: token → id, read if there is no ``added_tokens_decoder``. Its tokens are
  special if they have a name, else unsplittable.

A special token that has a name but no id gets the next free one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gpt2_wgpu.checkpoint_files import MERGES, VOCABULARIES, WHOLE_TOKENIZER
from gpt2_wgpu.errors import TokenizerError
from gpt2_wgpu.other_formats import tokenizer_instead
from gpt2_wgpu.shown import shown
from gpt2_wgpu.text.added_tokens import AddedToken, added_token
from gpt2_wgpu.text.tokenizer_files import (
    StoredMerges,
    StoredVocabulary,
    checked_path,
    read_json,
    read_merges,
    read_vocabulary,
)
from gpt2_wgpu.text.tokenizer_json import read_tokenizer_json
from gpt2_wgpu.text.vocabulary import MAX_ID, tokens_of
from gpt2_wgpu.weights.presets import resolve

END_OF_TEXT = "<|endoftext|>"

# transformers' SPECIAL_TOKENS_ATTRIBUTES, in the order in which ids are assigned.
_NAMES = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
_LISTS = ("additional_special_tokens", "extra_special_tokens")
# GPT2Tokenizer's defaults.
_DEFAULTS = dict.fromkeys(("bos_token", "eos_token", "unk_token"), END_OF_TEXT)
_SLOW, _FAST = "GPT2Tokenizer", "GPT2TokenizerFast"


@dataclass(frozen=True)
class TokenizerDescription:
    """Contents of a tokenizer's files, as arguments of ``GPT2Tokenizer``."""

    vocabulary: StoredVocabulary
    merges: StoredMerges
    add_prefix_space: bool | Literal["always"] = False
    unsplittable_tokens: tuple[str, ...] = ()
    special_tokens: tuple[str, ...] = ()
    added_tokens: Mapping[str, int] = field(default_factory=dict)
    token_rules: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    start_token: str | None = None
    end_token: str | None = None


def find_directory(preset: str | os.PathLike[str]) -> Path:
    """Return the directory of a preset's tokenizer, which may be one of tokenizer files alone.

    Raises:
        PresetError: as `gpt2_wgpu.weights.presets.resolve`, for anything else.
    """
    name: object = os.fspath(preset) if isinstance(preset, str | os.PathLike) else preset
    if isinstance(name, str) and name.strip():
        with suppress(ValueError):  # a NUL in the name
            path = os.path.expanduser(name)
            files = (os.path.join(path, file) for file in (WHOLE_TOKENIZER, *VOCABULARIES))
            if any(map(os.path.isfile, files)):
                return Path(path)
    return resolve(preset)


def read_directory(path: str | os.PathLike[str]) -> TokenizerDescription:
    """Read the tokenizer of a directory.

    Raises:
        TokenizerError: files are missing or malformed, or the tokenizer is not GPT-2's byte-level
            BPE; the message names the file and what is wrong.
    """
    directory = Path(checked_path(path))
    config = _Config(directory)
    is_whole = (directory / WHOLE_TOKENIZER).is_file()
    if is_whole:
        content = read_tokenizer_json(directory / WHOLE_TOKENIZER)
        vocabulary, merges, added = content.vocabulary, content.merges, dict(content.added)
        prefix_space = config.prefix_space(of_file=content.add_prefix_space)
    else:
        vocabulary, merges = _vocabulary_and_merges(directory)
        added = {}
        prefix_space = config.prefix_space(of_file=None)
    _require_ids(vocabulary)
    added |= config.added_tokens()
    _reject_conflicts(vocabulary, merges, added, config.added_file)
    named = config.named_tokens()
    _give_ids(vocabulary, added, named)
    present = {*vocabulary, *(token.content for token in added.values())}
    special = {token.content for token in added.values() if token.special}
    special |= {token.content for token in named.values()}
    return TokenizerDescription(
        vocabulary=vocabulary,
        merges=merges,
        add_prefix_space=prefix_space,
        unsplittable_tokens=tuple(
            token.content for token in added.values() if token.content not in special
        ),
        special_tokens=tuple(sorted(special & present)),
        added_tokens={token.content: token_id for token_id, token in added.items()},
        token_rules={
            content: rules
            for content, rules in config.rules(added, named, is_whole=is_whole).items()
            if rules and content in present
        },
        start_token=_present(named.get("bos_token"), present),
        end_token=_present(named.get("eos_token"), present),
    )


def _require_ids(vocabulary: StoredVocabulary) -> None:
    try:
        tokens_of(vocabulary, "the vocabulary")
    except TokenizerError as error:
        raise TokenizerError(f"{vocabulary.where}: {error}") from None


def _reject_conflicts(
    vocabulary: StoredVocabulary, merges: StoredMerges, added: Mapping[int, AddedToken], file: str
) -> None:
    """Reject added tokens that have the id of an ordinary token.

    Another unsplittable token (``<|endoftext|>``) may be replaced.
    """
    tokens = {token_id: token for token, token_id in vocabulary.items() if token_id in added}
    clashes = {
        tokens[token_id]: token_id
        for token_id, token in added.items()
        if tokens.get(token_id, token.content) != token.content
    }
    if not clashes:
        return
    made = {
        "".join(map(str, merge)).replace(" ", "")
        for merge in merges
        if isinstance(merge, (str, list))
    }
    for other, token_id in clashes.items():
        if len(other) == 1 or other in made:
            raise TokenizerError(
                f"{vocabulary.where} with {file}: the vocabulary gives id {token_id} to both "
                f"{shown(other)} and {shown(added[token_id].content)}"
            )


def _present(token: AddedToken | None, present: set[str]) -> str | None:
    """Return the content of ``token``; if None, GPT-2's own token if the vocabulary has it."""
    if token is not None and token.content in present:
        return token.content
    return END_OF_TEXT if token is None and END_OF_TEXT in present else None


def _give_ids(
    vocabulary: Mapping[str, int], added: dict[int, AddedToken], named: dict[str, AddedToken]
) -> None:
    """Add named tokens without an id to ``added``, each with the next free id."""
    known = {*vocabulary, *(token.content for token in added.values())}
    taken = {*vocabulary.values(), *added}
    following = len(known)
    for token in named.values():
        if token.content in known:
            continue
        while following in taken:
            following += 1
        known.add(token.content)
        taken.add(following)
        if not token.is_default:  # the model has no embedding row for an absent default
            added[following] = token


def _vocabulary_and_merges(directory: Path) -> tuple[StoredVocabulary, StoredMerges]:
    path = next((directory / name for name in VOCABULARIES if (directory / name).is_file()), None)
    if path is None or not (directory / MERGES).is_file():
        raise TokenizerError(
            f"{directory} holds no tokenizer: expected tokenizer.json, or vocab.json with "
            f"merges.txt{_other_tokenizer(directory)}"
        )
    return read_vocabulary(path), read_merges(directory / MERGES)


def _is_id(text: str) -> bool:
    return text.isdecimal() and len(text) <= len(str(MAX_ID)) and int(text) <= MAX_ID


def _other_tokenizer(directory: Path) -> str:
    with suppress(OSError, ValueError):  # ValueError: a NUL or a lone surrogate
        return tokenizer_instead(os.listdir(directory))
    return ""


class _Config:
    """The optional files of a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._config = self._read("tokenizer_config.json")
        self._map = self._read("special_tokens_map.json")
        self.added_file = "added_tokens.json"
        self._has_decoder = self._config.get("added_tokens_decoder") is not None
        if self._has_decoder:
            self.added_file = "tokenizer_config.json"

    def prefix_space(self, of_file: bool | None) -> bool | Literal["always"]:
        """Return ``add_prefix_space``; ``of_file``: the value in ``tokenizer.json``, if any.

        For GPT-2's classes the configuration takes precedence (default False); for other classes
        ``tokenizer.json`` does.
        """
        kind = self._config.get("tokenizer_class")
        given = self._config.get("add_prefix_space")
        if given is not None and not isinstance(given, bool):
            raise self._error("tokenizer_config.json", "add_prefix_space", given, "true or false")
        if kind == _FAST:
            return bool(given)
        if kind == _SLOW or of_file is None:
            return "always" if given else False
        return of_file

    def added_tokens(self) -> dict[int, AddedToken]:
        """Return id → token for tokens outside the vocabulary or with matching rules."""
        if self._has_decoder:
            return self._decoder()
        special = {token.content for token in self.named_tokens().values()}
        found: dict[int, AddedToken] = {}
        for content, token_id in self._read("added_tokens.json").items():
            if type(token_id) is not int or not 0 <= token_id <= MAX_ID or not content:
                raise self._error("added_tokens.json", shown(content), token_id, "a token's id")
            if token_id in found:
                raise TokenizerError(
                    f"{self._directory / 'added_tokens.json'} gives id {token_id} to both "
                    f"{shown(found[token_id].content)} and {shown(content)}"
                )
            found[token_id] = AddedToken(content, special=content in special)
        return found

    def _decoder(self) -> dict[int, AddedToken]:
        file, key = "tokenizer_config.json", "added_tokens_decoder"
        decoder = self._config[key]
        if not isinstance(decoder, dict):
            raise self._error(file, key, decoder, "an object of ids and tokens")
        found: dict[int, AddedToken] = {}
        for written_id, value in decoder.items():
            token = added_token(value)
            if token is None or not _is_id(written_id):
                raise self._error(file, key, {written_id: value}, "an object of ids and tokens")
            found[int(written_id)] = token
        if len({token.content for token in found.values()}) < len(found):
            raise self._error(file, key, decoder, "one id for each token")
        return found

    def rules(
        self, added: Mapping[int, AddedToken], named: Mapping[str, AddedToken], *, is_whole: bool
    ) -> dict[str, tuple[str, ...]]:
        """Return token → rules; ``is_whole``: ``added`` includes those of a ``tokenizer.json``.

        Entries with ids take precedence over names if their file has rules, but without a
        ``tokenizer.json`` not over the defaults of the slow class.
        """
        first: dict[str, AddedToken] = {}  # the first of two entries of a named token counts
        for token in named.values():
            first.setdefault(token.content, token)
        for token in added.values():
            name = first.get(token.content)
            knows_rules = is_whole or self._has_decoder
            if name is None or is_whole or (knows_rules and not name.is_default):
                first[token.content] = token
        return {content: token.rules for content, token in first.items()}

    def named_tokens(self) -> dict[str, AddedToken]:
        """Return name → special token, in the order in which ids are assigned."""
        named: dict[str, AddedToken] = {}
        kind = self._config.get("tokenizer_class")
        for name in _NAMES:
            for file, values in self._by_precedence():
                if values.get(name) is not None:
                    token = added_token(values[name])
                    if token is None:
                        raise self._error(file, name, values[name], "a token")
                    named[name] = token
                    break
            else:
                if name in _DEFAULTS and kind in (None, _SLOW, _FAST):
                    named[name] = AddedToken(_DEFAULTS[name], special=True, is_default=True)
        for name in _LISTS:
            for file, values in self._by_precedence():
                tokens = values.get(name) or []
                listed = list(tokens.values()) if isinstance(tokens, dict) else tokens
                if not isinstance(listed, list) or None in map(added_token, listed):
                    raise self._error(file, name, tokens, "a list of tokens")
                for token in filter(None, map(added_token, listed)):
                    named.setdefault(f"{name} {token.content}", token)
        return named

    def _by_precedence(self) -> list[tuple[str, dict[str, Any]]]:
        config = ("tokenizer_config.json", self._config)
        named = ("special_tokens_map.json", self._map)
        return [config, named] if self._has_decoder else [named, config]

    def _read(self, name: str) -> dict[str, Any]:
        """Return the JSON object in a file; empty if the file does not exist."""
        path = self._directory / name
        if not path.is_file():
            return {}
        content = read_json(path)
        if not isinstance(content, dict):
            raise TokenizerError(f"{path} must hold a JSON object, not a {type(content).__name__}")
        return content

    def _error(self, file: str, key: str, value: object, wanted: str) -> TokenizerError:
        return TokenizerError(
            f"{self._directory / file}: {key} is {shown(value)}, but must be {wanted}"
        )
