"""Streaming text: incremental UTF-8 decoding of tokens, stop strings, and both for new tokens."""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from typing import Protocol

from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.shown import odd_item, shown


class TokenBytes(Protocol):
    """Protocol of the tokenizer of a streaming detokenizer."""

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes of one token."""


class Vocabulary(TokenBytes, Protocol):
    """Protocol of the tokenizer of a token reader."""

    @property
    def special_token_ids(self) -> Iterable[int]:
        """Return the ids of the special tokens."""

    def has_id(self, token_id: int) -> bool:
        """Return whether an id is in the vocabulary."""

    def id_to_token(self, token_id: int) -> str:
        """Return the token of an id."""


class StreamingDetokenizer:
    """Incremental detokenizer that returns complete characters only.

    An incomplete character is held back; invalid UTF-8 becomes U+FFFD as in
    ``bytes.decode("utf-8", "replace")``. All pieces plus ``flush()`` equal
    ``tokenizer.decode(all ids)``.

    Args:
        tokenizer: an object with ``token_bytes(id)``.
    """

    def __init__(self, tokenizer: TokenBytes) -> None:
        self._token_bytes = tokenizer.token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        """Add one token and return the text that it completes.

        Raises:
            TokenizerError: the id is not in the vocabulary.
        """
        return self._decoder.decode(self._token_bytes(token_id))

    def flush(self) -> str:
        """Return the bytes held back, as U+FFFD, and reset."""
        return self._decoder.decode(b"", final=True)


class StopTextMatcher:
    """Incremental matcher that cuts a stream of text before the first stop string.

    The first match is the one that ends first (of several, the longest), so the result does not
    depend on how the text is split into pieces.

    Args:
        stops: stop strings; may be empty.

    Raises:
        InvalidArgumentError: a stop string is empty or not a str.
    """

    def __init__(self, stops: Iterable[str]) -> None:
        if isinstance(stops, str) or not isinstance(stops, Iterable):
            raise InvalidArgumentError(
                f"stop_texts must be a list of non-empty str, not {shown(stops)}"
            )
        found = list(stops)
        if odd := odd_item(found, lambda stop: isinstance(stop, str) and stop != ""):
            raise InvalidArgumentError(f"stop_texts must be a list of non-empty str, but {odd}")
        self.stops = tuple(found)
        self._longest = max(map(len, found), default=1)
        self._held = ""
        self.matched: str | None = None
        """Matched stop string, or None."""

    def push(self, text: str) -> tuple[str, bool]:
        """Add text; return (text to output, whether a stop string was found).

        The end of the text is held back while it is a prefix of a stop string. The stop string
        and all text after it are never returned.
        """
        if self.matched is not None:
            return "", True
        text = self._held + text
        found = [(at + len(stop), at) for stop in self.stops if (at := text.find(stop)) >= 0]
        if found:
            end, start = min(found)
            self.matched, self._held = text[start:end], ""
            return text[:start], True
        cut = len(text) - self._hold_back(text)
        self._held = text[cut:]
        return text[:cut], False

    def flush(self) -> str:
        """Return the text held back, at the end of the stream."""
        rest, self._held = self._held, ""
        return rest

    def _hold_back(self, text: str) -> int:
        """Return the length of the longest suffix of ``text`` that is a prefix of a stop string."""
        longest = min(self._longest - 1, len(text))
        for size in range(longest, 0, -1):
            if any(stop.startswith(text[-size:]) for stop in self.stops):
                return size
        return 0


class TokenReader:
    """Reader of a row's new tokens: text in whole characters, up to the first stop text.

    Special tokens and ids without a token have no text; a special token that is a stop text ends
    the row where it is generated.

    Args:
        tokenizer: an object with ``token_bytes``, ``special_token_ids``, ``has_id`` and
            ``id_to_token``.
        stop_texts: as in ``StopTextMatcher``.
    """

    def __init__(self, tokenizer: Vocabulary, stop_texts: Iterable[str]) -> None:
        self._tokenizer = tokenizer
        self._hidden = set(tokenizer.special_token_ids)
        self._detokenizer = StreamingDetokenizer(tokenizer)
        self._matcher = StopTextMatcher(stop_texts)
        self.matched = False
        """Whether a stop text was found."""

    def push(self, token_id: int) -> str:
        """Add one token and return the text that it completes."""
        if not self._tokenizer.has_id(token_id):
            return ""
        if token_id not in self._hidden:
            return self.push_text(self._detokenizer.push(token_id))
        if self._tokenizer.id_to_token(token_id) not in self._matcher.stops:
            return ""
        piece = self.flush()
        self.matched = True
        return piece

    def push_text(self, text: str) -> str:
        """Add text in place of tokens; see :meth:`push`."""
        piece, matched = self._matcher.push(text)
        self.matched = self.matched or matched
        return piece

    def flush(self) -> str:
        """Return the text held back, at the end of the row."""
        return self.push_text(self._detokenizer.flush()) + self._matcher.flush()
