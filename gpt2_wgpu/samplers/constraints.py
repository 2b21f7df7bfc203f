"""Constrained output: logits processors that leave only the tokens with which a text may go on.

Every token of the vocabulary is a candidate, not only the most likely ones. The end token is
allowed only where the text may end. Each row has its own state, which follows from its new ids.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self

from gpt2_wgpu.errors import DependencyError, InvalidArgumentError
from gpt2_wgpu.shown import shown
from gpt2_wgpu.tensors import Tensor, ops, tensor
from gpt2_wgpu.text import GPT2Tokenizer


class Matcher(Protocol):
    """State of one text."""

    def allowed(self) -> bytes:
        """Return a byte for each id of the vocabulary, 0 for a token that is excluded."""

    def consume(self, token_id: int) -> bool:
        """Append a token → whether it was allowed."""


class TextRules(Protocol):
    """Rules for a text, in characters."""

    def allows(self, text: str, piece: str) -> bool:
        """Return whether ``piece``, one or more characters, may follow ``text``."""

    def finished(self, text: str) -> bool:
        """Return whether ``text`` may end."""


class Constraint:
    """Base class of constraints, for ``compile(logits_processors=[...])``.

    A subclass defines :meth:`new_matcher`.

    Args:
        tokenizer: tokenizer of the model.

    Raises:
        InvalidArgumentError: the tokenizer has no end token.
    """

    def __init__(self, tokenizer: GPT2Tokenizer) -> None:
        if not isinstance(tokenizer, GPT2Tokenizer):
            raise InvalidArgumentError(
                f"a constraint needs the model's GPT2Tokenizer, not {shown(tokenizer)}"
            )
        if tokenizer.end_token_id is None:
            raise InvalidArgumentError(
                "a constraint needs a tokenizer with an end token, with which a text can end"
            )
        self.end_token_id = tokenizer.end_token_id
        self.tokens = _token_bytes(tokenizer)
        self._rows: list[_Row] | None = None

    def new_matcher(self) -> Matcher:
        """Return the state of an empty text."""
        raise NotImplementedError

    def for_generation(self) -> Self:
        """Return the processor of one generation, whose first ids are the prompts."""
        started = copy.copy(self)
        started._rows = []
        return started

    def __call__(self, token_ids: Sequence[Sequence[int]], logits: Tensor) -> Tensor:
        """Return ``logits`` [B, V] with minus infinity for each token that is excluded.

        Raises:
            InvalidArgumentError: a token was chosen that had been excluded.
        """
        if self._rows is None:
            raise InvalidArgumentError(
                "a constraint is called in a generation only: give it to compile(logits_processors="
                "[...]), or call what for_generation() returns"
            )
        if len(self._rows) != len(token_ids):
            self._rows = [_Row(self.new_matcher(), len(ids)) for ids in token_ids]
        width = logits.shape[1]
        masks = [
            list(row.mask_after(ids)[:width].ljust(width, b"\0"))
            for row, ids in zip(self._rows, token_ids, strict=True)
        ]
        return ops.where(tensor(masks, "bool", device=logits.device), logits, -math.inf)


class TextConstraint(Constraint):
    """Constraint by rules for the decoded text, which know no tokenizer.

    Tokens that are not whole characters (parts of a UTF-8 sequence) are excluded. ``allows`` is
    called for every other token of the vocabulary at each step.

    Args:
        tokenizer: tokenizer of the model.
        rules: object with ``allows(text, piece)`` and ``finished(text)``. ``text`` is the new text
            so far, without the prompt.

    Raises:
        InvalidArgumentError: ``rules`` lacks a method, or the tokenizer has no end token.
    """

    def __init__(self, tokenizer: GPT2Tokenizer, rules: TextRules) -> None:
        super().__init__(tokenizer)
        for name in ("allows", "finished"):
            if not callable(getattr(rules, name, None)):
                raise InvalidArgumentError(f"rules must have a method {name}: {shown(rules)}")
        self.rules = rules
        hidden = {self.end_token_id, *tokenizer.special_token_ids}
        self._pieces = {
            i: piece
            for i, token in enumerate(self.tokens)
            if i not in hidden and (piece := _characters(token))
        }

    def new_matcher(self) -> Matcher:
        """Return the state of an empty text."""
        return _TextMatcher(self.rules, self._pieces, self.end_token_id, len(self.tokens))


class GrammarConstraint(Constraint):
    """Constraint by a context-free grammar, compiled by llguidance (``gpt2-wgpu[grammar]``).

    Args:
        tokenizer: tokenizer of the model.
        grammar: grammar in llguidance's variant of Lark's syntax, with a rule ``start``.

    Raises:
        InvalidArgumentError: the grammar is malformed, or the tokenizer has no end token.
        DependencyError: llguidance is not installed.
    """

    def __init__(self, tokenizer: GPT2Tokenizer, grammar: str) -> None:
        super().__init__(tokenizer)
        if not isinstance(grammar, str):
            raise InvalidArgumentError(f"a grammar is a str, not {shown(grammar)}")
        self._library = _llguidance()
        wrapper = self._library.TokenizerWrapper(
            _Vocabulary(tokenizer, self.tokens, self.end_token_id)
        )
        self._tokenizer = self._library.LLTokenizer(wrapper)
        self._grammar = grammar
        self.new_matcher().allowed()

    @classmethod
    def from_json_schema(cls, tokenizer: GPT2Tokenizer, schema: Mapping[str, Any] | str) -> Self:
        """Return a constraint to JSON of ``schema``, a mapping or its JSON.

        There is no optional white space, unless the schema's ``x-guidance`` asks for it.
        """
        matcher = _llguidance().LLMatcher
        try:
            text = schema if isinstance(schema, str) else json.dumps(dict(schema))
            grammar = matcher.grammar_from_json_schema(text, {"whitespace_flexible": False})
        except (TypeError, ValueError) as error:
            raise InvalidArgumentError(f"the JSON schema is malformed: {error}") from None
        return cls(tokenizer, grammar)

    @classmethod
    def from_regex(cls, tokenizer: GPT2Tokenizer, pattern: str) -> Self:
        """Return a constraint to texts that match ``pattern`` as a whole."""
        return cls(tokenizer, _llguidance().LLMatcher.grammar_from_regex(pattern))

    def new_matcher(self) -> Matcher:
        """Return the state of an empty text."""
        matcher = self._library.LLMatcher(self._tokenizer, self._grammar, log_level=0)
        return _GrammarMatcher(matcher, self.end_token_id, len(self.tokens))


class _Row:
    """State of a batch row: ``seen`` ids are the prompt or consumed."""

    def __init__(self, matcher: Matcher, seen: int) -> None:
        self._matcher, self._seen = matcher, seen
        self._mask = matcher.allowed()
        self._wrong: int | None = None  # a token that is excluded: right as the last, forced one

    def mask_after(self, ids: Sequence[int]) -> bytes:
        """Return the mask of the token that follows ``ids``. A row that has ended keeps its own."""
        new = ids[self._seen :]
        for token_id in new:
            if self._wrong is not None:
                raise InvalidArgumentError(
                    f"token {self._wrong} was chosen, which the constraint excludes: use a sampler "
                    "that chooses no token whose logit is minus infinity"
                )
            if not self._matcher.consume(token_id):
                self._wrong = token_id
        if new:
            self._seen = len(ids)
        if new and self._wrong is None:
            self._mask = self._matcher.allowed()
        return self._mask


class _TextMatcher:
    def __init__(
        self, rules: TextRules, pieces: Mapping[int, str], end_token_id: int, size: int
    ) -> None:
        self._rules, self._pieces = rules, pieces
        self._end, self._size = end_token_id, size
        self._text, self._ended = "", False

    def allowed(self) -> bytes:
        mask = bytearray(self._size)
        if not self._ended:
            for i, piece in self._pieces.items():
                mask[i] = bool(self._rules.allows(self._text, piece))
        mask[self._end] = self._ended or bool(self._rules.finished(self._text))
        return bytes(mask)

    def consume(self, token_id: int) -> bool:
        if token_id == self._end:
            was, self._ended = self._ended, True
            return was or bool(self._rules.finished(self._text))
        piece = self._pieces.get(token_id)
        if piece is None or self._ended or not self._rules.allows(self._text, piece):
            return False
        self._text += piece
        return True


class _GrammarMatcher:
    def __init__(self, matcher: Any, end_token_id: int, size: int) -> None:
        self._matcher, self._end, self._size = matcher, end_token_id, size
        self._ended = False

    def allowed(self) -> bytes:
        if self._ended:
            return bytes(i == self._end for i in range(self._size))
        mask = bytes(self._matcher.compute_logit_bias())
        if error := self._matcher.get_error():
            raise InvalidArgumentError(
                f"llguidance rejects the grammar: {error.splitlines()[0][:200]}"
            )
        return mask

    def consume(self, token_id: int) -> bool:
        if self._ended:
            return token_id == self._end
        self._ended = token_id == self._end
        return bool(self._matcher.consume_token(token_id))


class _Vocabulary:
    """What llguidance reads of a tokenizer."""

    bos_token_id = None

    def __init__(
        self, tokenizer: GPT2Tokenizer, tokens: Sequence[bytes], end_token_id: int
    ) -> None:
        self.tokens = tokens
        self.eos_token_id = end_token_id
        self.special_token_ids = sorted({end_token_id, *tokenizer.special_token_ids})
        self._tokenizer = tokenizer

    def __call__(self, text: bytes) -> list[int]:
        return self._tokenizer.encode(text.decode())


def _token_bytes(tokenizer: GPT2Tokenizer) -> list[bytes]:
    """Return the bytes of each id; none where an id belongs to no token."""
    size = max(tokenizer.get_vocabulary().values()) + 1
    missing = set(tokenizer.ids_without_text(size))
    return [b"" if i in missing else tokenizer.token_bytes(i) for i in range(size)]


def _characters(token: bytes) -> str:
    """Return the text of a token; empty if it is not whole characters."""
    try:
        return token.decode()
    except UnicodeDecodeError:
        return ""


def _llguidance() -> Any:
    try:
        import llguidance
    except ImportError:
        raise DependencyError(
            "a GrammarConstraint needs llguidance: pip install 'gpt2-wgpu[grammar]', or use a "
            "TextConstraint, which needs no package"
        ) from None
    return llguidance
