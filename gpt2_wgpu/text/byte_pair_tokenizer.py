"""GPT-2's byte-level byte-pair encoding, with KerasHub's API."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal, Self

from gpt2_wgpu.errors import TokenizerError
from gpt2_wgpu.shown import odd_item, shown
from gpt2_wgpu.text import tokenizer_files
from gpt2_wgpu.text.byte_symbols import BYTE_TO_SYMBOL
from gpt2_wgpu.text.keras_preset import directory_arguments
from gpt2_wgpu.text.merge_table import Merge, MergeTable
from gpt2_wgpu.text.preprocessing_layer import PreprocessingLayer
from gpt2_wgpu.text.pretokenizer import split_words
from gpt2_wgpu.text.special_tokens import checked_rules, split_at_tokens, token_list
from gpt2_wgpu.text.token_arrays import is_one_row, rows_of_ids
from gpt2_wgpu.text.tokenizer_directory import END_OF_TEXT, find_directory
from gpt2_wgpu.text.vocabulary import Vocabulary
from gpt2_wgpu.validation import dtype_of_policy, made_from

VocabularySource = Mapping[str, int] | str | os.PathLike[str]
MergesSource = Iterable[Merge] | str | os.PathLike[str]

# Word cache: natural text repeats few words often. The bounds limit the memory of a long process.
CACHED_WORDS = 65_536
CACHED_WORD_LENGTH = 64


class BytePairTokenizer(PreprocessingLayer):
    """Byte-level BPE tokenizer: text → token ids → text, lossless for all valid Unicode text.

    Differs from KerasHub where KerasHub loses text: words are split by GPT-2's own pattern, and a
    byte that is missing from the vocabulary is an error (KerasHub drops it). A lone surrogate has
    no UTF-8 form and is an error, too; it is never replaced silently.

    Args:
        vocabulary: token → id, or the path of a JSON file with that object. Tokens are written in
            GPT-2's byte symbols (" at" is "Ġat").
        merges: "left right" rules in order of precedence, or the path of a text file with one a
            line; a leading "#version" line is skipped.
        sequence_length: if given, ``tokenize`` truncates or pads (with ``pad_token_id``, 0) every
            row to this length.
        add_prefix_space: prepend a space to a text that does not start with one (and after an
            unsplittable token), so that its first word is encoded as in mid-sentence. "always":
            one space before every text and nowhere else, as in transformers' slow GPT2Tokenizer.
        unsplittable_tokens: tokens that are never split and always recognised in text.
        dtype: "int32", or "string": ``tokenize`` returns tokens instead of ids.
        special_tokens: tokens that ``encode`` treats as plain text unless they are allowed.
        added_tokens: token → id of tokens outside ``vocabulary``, in plain text (`Vocabulary`).
        token_rules: token → matching rules: "lstrip", "rstrip", "single_word".
        name: a name, for ``get_config``.
        **kwargs: other arguments of a Keras layer (``trainable``), without effect.

    Raises:
        TokenizerError: vocabulary and merges are inconsistent, a file is malformed, or an option
            is out of range.
    """

    pad_token_id: int = 0

    def __init__(
        self,
        vocabulary: VocabularySource,
        merges: MergesSource,
        sequence_length: int | None = None,
        add_prefix_space: bool | Literal["always"] = False,
        unsplittable_tokens: Iterable[str] | None = None,
        dtype: Literal["int32", "string"] = "int32",
        special_tokens: Iterable[str] = (),
        added_tokens: Mapping[str, int] | None = None,
        token_rules: Mapping[str, Iterable[str]] | None = None,
        *,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.take_layer_arguments(name, kwargs)
        dtype = dtype_of_policy(dtype)
        if not isinstance(dtype, str) or dtype not in ("int32", "string"):
            raise TokenizerError(f"dtype must be 'int32' or 'string', not {shown(dtype)}")
        if sequence_length is not None and not _is_count(sequence_length):
            raise TokenizerError(
                f"sequence_length must be a positive integer or None, not {shown(sequence_length)}"
            )
        self.sequence_length = sequence_length
        is_always = isinstance(add_prefix_space, str) and add_prefix_space == "always"
        if not is_always and not isinstance(add_prefix_space, (bool, int)):
            raise TokenizerError(
                f"add_prefix_space must be True, False or 'always', not {shown(add_prefix_space)}"
            )
        self.add_prefix_space: bool | Literal["always"] = (
            "always" if is_always else bool(add_prefix_space)
        )
        self.unsplittable_tokens = token_list(unsplittable_tokens, "unsplittable_tokens")
        self.special_tokens = token_list(special_tokens, "special_tokens")
        self.added_tokens = {} if added_tokens is None else added_tokens
        self.token_rules = checked_rules({} if token_rules is None else token_rules)
        self.dtype = dtype
        self.set_vocabulary_and_merges(vocabulary, merges)

    # --- vocabulary -----------------------------------------------------------------------------

    def set_vocabulary_and_merges(self, vocabulary: VocabularySource, merges: MergesSource) -> None:
        """Replace vocabulary and merges; arguments and errors as in the class."""
        if isinstance(vocabulary, (str, os.PathLike)):
            vocabulary = tokenizer_files.read_vocabulary(vocabulary)
        if isinstance(merges, (str, os.PathLike)):
            merges = tokenizer_files.read_merges(merges)
        try:
            self._vocabulary = Vocabulary(
                vocabulary,
                verbatim={*self.unsplittable_tokens, *self.special_tokens},
                added=self.added_tokens,
            )
        except TokenizerError as error:
            if not isinstance(vocabulary, tokenizer_files.StoredVocabulary):
                raise
            raise TokenizerError(f"{vocabulary.where}: {error}") from None
        self._merges = MergeTable(self._vocabulary.plain_ids, merges)
        self._words: dict[str, list[int]] = {}

    def get_vocabulary(self) -> dict[str, int]:
        """Return a copy of the vocabulary, token → id, with added tokens."""
        return dict(self._vocabulary.ids)

    def vocabulary_size(self) -> int:
        """Return the number of tokens; ids need not be contiguous and may be larger."""
        return len(self._vocabulary)

    def plain_ids(self) -> Collection[int]:
        """Return the ids of the vocabulary without added tokens."""
        return self._vocabulary.plain_ids.values()

    def has_id(self, token_id: object) -> bool:
        """Return whether the integer ``token_id`` is in the vocabulary."""
        return self._vocabulary.has(token_id)

    def ids_without_text(self, below: int) -> list[int]:
        """Return the ids in ``[0, below)`` that belong to no token."""
        return self._vocabulary.unused_ids(below)

    def id_to_token(self, id: int) -> str:
        """Return the token of ``id``, in byte symbols.

        Raises:
            TokenizerError: the id is not in the vocabulary.
        """
        if isinstance(id, (list, tuple)):
            raise TokenizerError(f"id must be an integer, not {shown(id)}")
        [[token_id]] = rows_of_ids([id], name="id")
        return self._vocabulary.token_of(token_id)

    def token_to_id(self, token: str) -> int:
        """Return the id of ``token``, written in byte symbols ("Ġat").

        Raises:
            TokenizerError: the token is not in the vocabulary.
        """
        return self._vocabulary.id_of(token)

    # --- text → ids -----------------------------------------------------------------------------

    def __call__(self, inputs: Any) -> list[Any]:
        """Same as ``tokenize``."""
        return self.tokenize(inputs)

    def tokenize(self, inputs: Any) -> list[Any]:
        """Encode one text or several.

        Args:
            inputs: a str, or a list, tuple or array of str.

        Returns:
            One row of ids for a str, a list of rows for several texts; with ``sequence_length``
            all rows have that length. With dtype "string": tokens instead of ids.

        Raises:
            TokenizerError: as in ``encode``.
        """
        if isinstance(inputs, str):
            return self._tokenize_one(inputs)
        texts = inputs.tolist() if hasattr(inputs, "tolist") else inputs
        if isinstance(texts, str):  # an array of shape []
            return self._tokenize_one(texts)
        if not isinstance(texts, (list, tuple)):
            raise TokenizerError(f"tokenize takes a str or a list of str, not {shown(inputs)}")
        if odd := odd_item(texts, lambda text: isinstance(text, str)):
            raise TokenizerError(f"tokenize takes a str or a list of str, but {odd}")
        return [self._tokenize_one(text) for text in texts]

    def encode(
        self, text: str, allowed_special: Collection[str] | Literal["all"] = ()
    ) -> list[int]:
        """Encode one text, without padding or truncation.

        Args:
            text: any text.
            allowed_special: special tokens to recognise in the text, or "all". All others are
                encoded as plain text, so that user input cannot inject them (tiktoken's
                convention; KerasHub and transformers always recognise them).

        Returns:
            Token ids.

        Raises:
            TokenizerError: the text contains a lone surrogate or a byte outside the vocabulary,
                or an allowed token does not exist.
        """
        if not isinstance(text, str):
            raise TokenizerError(f"only a str can be encoded, not {shown(text)}")
        _reject_surrogates(text)
        allowed = self._allowed(allowed_special)
        whole = {
            token: self._vocabulary.id_of(token) for token in (*self.unsplittable_tokens, *allowed)
        }
        if self.add_prefix_space == "always":
            text = " " + text
        ids: list[int] = []
        for piece, is_token in split_at_tokens(text, frozenset(whole), self.token_rules):
            if is_token:
                ids.append(whole[piece])
            else:
                self._encode_plain(piece, ids)
        return ids

    def _tokenize_one(self, text: str) -> list[Any]:
        ids = self.encode(text)
        if self.sequence_length is not None:
            padding = [self.pad_token_id] * (self.sequence_length - len(ids))
            ids = ids[: self.sequence_length] + padding
        return ids if self.dtype == "int32" else [self.id_to_token(token_id) for token_id in ids]

    def _encode_plain(self, text: str, ids: list[int]) -> None:
        """Append the ids of a text without special tokens to ``ids``."""
        if self.add_prefix_space is True and text and not text.startswith(" "):
            text = " " + text
        words = self._words
        for word in split_words(text):
            known = words.get(word)
            ids.extend(self._encode_word(word) if known is None else known)

    def _encode_word(self, word: str) -> list[int]:
        data = word.encode("utf-8")
        byte_ids = self._vocabulary.byte_ids
        symbols = [byte_ids[byte] for byte in data]
        if -1 in symbols:
            byte = data[symbols.index(-1)]
            raise TokenizerError(
                f"the vocabulary has no token for byte 0x{byte:02X} ({BYTE_TO_SYMBOL[byte]!r}) of "
                f"{shown(word)}: use a vocabulary that holds all 256 byte symbols"
            )
        ids = self._merges.apply(symbols)
        if len(word) <= CACHED_WORD_LENGTH:
            if len(self._words) >= CACHED_WORDS:
                self._words.clear()
            self._words[word] = ids
        return ids

    def _allowed(self, allowed_special: Any) -> list[str]:
        """Return the allowed special tokens; TokenizerError if one does not exist."""
        if isinstance(allowed_special, str):
            if allowed_special == "all":
                return self.special_tokens
            raise TokenizerError(
                f'allowed_special must be "all" or a list of special tokens, not '
                f"{shown(allowed_special)}"
            )
        allowed = token_list(allowed_special, "allowed_special")
        for token in allowed:
            if token not in self._vocabulary.ids:
                special = ", ".join(map(repr, self.special_tokens[:5])) or "none"
                raise TokenizerError(
                    f"allowed_special: {shown(token)} is not in the vocabulary; its special "
                    f"tokens are: {special}"
                )
        return allowed

    # --- ids → text -----------------------------------------------------------------------------

    def detokenize(self, inputs: Any) -> str | list[str]:
        """Decode one id, one row of ids, or a batch of rows.

        Args:
            inputs: an integer, [T] or [B, T] (rows may differ in length): lists or arrays.

        Returns:
            A str, or a list of str for a batch. Invalid UTF-8 becomes U+FFFD.

        Raises:
            TokenizerError: an id is not in the vocabulary.
            InvalidArgumentError: an entry is not an integer.
        """
        values = inputs.tolist() if hasattr(inputs, "tolist") else inputs
        if isinstance(values, int):
            return self.decode([values])
        if is_one_row(inputs):
            return self.decode(values)
        return [self.decode(row) for row in rows_of_ids(inputs)]

    def decode(self, ids: Any, errors: str = "replace") -> str:
        """Decode one row of ids, [T]; ``errors`` as in ``bytes.decode``.

        Raises:
            TokenizerError: an id is not in the vocabulary.
            UnicodeDecodeError: the bytes are not UTF-8 and ``errors`` is "strict".
        """
        return self.decode_bytes(ids).decode("utf-8", errors)

    def decode_bytes(self, ids: Any) -> bytes:
        """Return the exact bytes of one row of ids, [T].

        Raises:
            TokenizerError: an id is not in the vocabulary, or ``ids`` is a batch.
        """
        if not is_one_row(ids):
            raise TokenizerError("decode takes one row of ids, [T]; use detokenize for a batch")
        [row] = rows_of_ids(ids)
        return b"".join(map(self._vocabulary.bytes_of, row))

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes of one token.

        Raises:
            TokenizerError: the id is not in the vocabulary.
        """
        try:
            return self._vocabulary.bytes_of(token_id)
        except TypeError:  # unhashable, e.g. a list
            raise TokenizerError(f"an id must be an integer, not {shown(token_id)}") from None

    @classmethod
    def from_preset(cls, preset: str | os.PathLike[str], **kwargs: Any) -> Self:
        """Load the tokenizer of a preset, hub id or directory, also one of tokenizer files alone.

        ``kwargs``: arguments that replace those of the files. Raises PresetError, TokenizerError.
        """
        return cls.from_directory(find_directory(preset), **kwargs)

    @classmethod
    def from_directory(cls, path: str | os.PathLike[str], **kwargs: Any) -> Self:
        """As in ``GPT2Tokenizer``; start and end token become special tokens."""
        found = directory_arguments(path)
        ends = [found.pop(name, END_OF_TEXT) for name in ("end_token", "start_token")]
        special = dict.fromkeys(filter(None, [*ends, *found.get("special_tokens", ())]))
        return cls(**(found | {"special_tokens": list(special)} | kwargs))

    # --- files and configuration ----------------------------------------------------------------

    def save_assets(self, dir_path: str | os.PathLike[str]) -> None:
        """Write ``vocabulary.json`` and ``merges.txt`` into an existing directory."""
        tokenizer_files.write_assets(
            tokenizer_files.checked_path(dir_path), self._vocabulary.by_text(), self._merges.pairs
        )

    def load_assets(self, dir_path: str | os.PathLike[str]) -> None:
        """Replace vocabulary and merges by the files of ``save_assets``.

        Raises:
            TokenizerError: a file is missing or malformed.
        """
        path = tokenizer_files.checked_path(dir_path)
        self.set_vocabulary_and_merges(
            os.path.join(path, "vocabulary.json"), os.path.join(path, "merges.txt")
        )

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments as JSON-serialisable values."""
        return {
            "name": self.name,
            "vocabulary": dict(self._vocabulary.plain_ids),
            "merges": [f"{left} {right}" for left, right in self._merges.pairs],
            "sequence_length": self.sequence_length,
            "add_prefix_space": self.add_prefix_space,
            "unsplittable_tokens": list(self.unsplittable_tokens),
            "dtype": self.dtype,
            "special_tokens": list(self.special_tokens),
            "added_tokens": dict(self.added_tokens),
            "token_rules": {token: sorted(rules) for token, rules in self.token_rules.items()},
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build a tokenizer from the result of ``get_config``."""
        return made_from(cls, config)


def _reject_surrogates(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise TokenizerError(
            f"the text holds a lone surrogate, U+{ord(text[error.start]):04X}, at position "
            f"{error.start}: it has no UTF-8 form; replace or remove it"
        ) from None


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
