"""Text that arrives token by token: whole characters only, and stop strings."""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from typing import Protocol

from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.shown import odd_item, shown


class TokenBytes(Protocol):
    """What a streaming detokenizer needs of a tokenizer."""

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes of one token."""


class StreamingDetokenizer:
    """Decodes ids one at a time and never shows a piece of a character.

    Bytes that may still become a character are held back; bytes that never can become U+FFFD,
    just as in ``bytes.decode("utf-8", "replace")``. So all pieces and ``flush()`` joined equal
    ``tokenizer.decode(all ids)``.

    Args:
        tokenizer: anything with ``token_bytes(id)``.
    """

    def __init__(self, tokenizer: TokenBytes) -> None:
        self._token_bytes = tokenizer.token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        """Add one token and return the text that it completes, often all of its own.

        Raises:
            TokenizerError: no token has this id.
        """
        return self._decoder.decode(self._token_bytes(token_id))

    def flush(self) -> str:
        """Return what is held back (as U+FFFD) and start anew."""
        return self._decoder.decode(b"", final=True)


class StopTextMatcher:
    """Cuts a stream of text before the first stop string.

    The first is the one that is complete first (of those the longest), so the result does not
    depend on how the text is cut into pieces.

    Args:
        stops: stop strings; none means that everything passes.

    Raises:
        InvalidArgumentError: a stop string is empty or no str.
    """

    def __init__(self, stops: Iterable[str]) -> None:
        if isinstance(stops, str) or not isinstance(stops, Iterable):
            raise InvalidArgumentError(f"stops must be a list of non-empty str, not {shown(stops)}")
        found = list(stops)
        if odd := odd_item(found, lambda stop: isinstance(stop, str) and stop != ""):
            raise InvalidArgumentError(f"stops must be a list of non-empty str, but {odd}")
        self.stops = tuple(found)
        self._longest = max(map(len, found), default=1)
        self._held = ""
        self.matched: str | None = None
        """The stop string that was found, if any."""

    def push(self, text: str) -> tuple[str, bool]:
        """Add text; return (text that may be shown, whether a stop string was found).

        The end of the text is held back as long as it could begin a stop string. The stop string
        and what follows it are never returned.
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
        """Return what is held back, at the end of the stream."""
        rest, self._held = self._held, ""
        return rest

    def _hold_back(self, text: str) -> int:
        """Return the length of the longest end of ``text`` that begins a stop string."""
        longest = min(self._longest - 1, len(text))
        for size in range(longest, 0, -1):
            if any(stop.startswith(text[-size:]) for stop in self.stops):
                return size
        return 0
