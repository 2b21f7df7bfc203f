"""Tokens of a session: which were given and which generated, and which are dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

from gpt2_wgpu.errors import ContextLengthError, InvalidArgumentError
from gpt2_wgpu.shown import shown

ContextPolicy = Literal["error", "truncate_left", "slide"]
POLICIES = ("error", "truncate_left", "slide")
MIN_LENGTH = 4  # of a session that drops tokens


@dataclass
class SessionTokens:
    """Token ids of a session, in at most ``max_length`` positions.

    ``given``: ranges of the ids that were given, as a prompt or later; the others were generated.
    ``start``: number of ids at the front that are never dropped (a start token).
    """

    max_length: int
    policy: ContextPolicy = "error"
    ids: list[int] = field(default_factory=list)
    given: list[tuple[int, int]] = field(default_factory=list)
    start: int = 0
    dropped: int = 0

    @property
    def prompt(self) -> int:
        """Number of ids up to the end of the last that were given."""
        return self.given[-1][1] if self.given else 0

    def copied(self) -> SessionTokens:
        """Return a copy."""
        return replace(self, ids=list(self.ids), given=list(self.given))

    def append(self, ids: Sequence[int], remedy: str = "rewind it, or append less") -> None:
        """Append ids that are given; ``remedy``: what the error advises.

        ContextLengthError if they do not fit; where the policy drops tokens, never.
        """
        length = len(self.ids) + len(ids)
        if self.policy == "error" and length > self.max_length:
            raise ContextLengthError(
                f"the session would have {length} tokens, but only {self.max_length} fit: "
                f"{remedy}, or begin one with another max_length or context_policy"
            )
        if not ids:
            return
        begin = len(self.ids)
        if self.given and self.given[-1][1] == begin:
            begin = self.given.pop()[0]
        self.ids = [*self.ids, *ids]
        self.given.append((begin, length))

    def truncate(self, length: int) -> None:
        """Remove all ids but the first ``length``."""
        self.ids = self.ids[:length]
        self.given = [(a, min(b, length)) for a, b in self.given if a < length]
        self.start = min(self.start, length)

    def room_for(self, max_new_tokens: int | None) -> int:
        """Return how many ids, from the front, must be dropped before new tokens.

        Raises:
            ContextLengthError: they do not fit.
        """
        length, most = len(self.ids), self.max_length
        if self.policy == "error":
            if length >= most:
                raise ContextLengthError(
                    f"the session's {length} tokens fill its {most} positions, so nothing can "
                    "follow: rewind it, or begin one with another context_policy"
                )
            return 0
        keep = most // 2
        if self.policy == "truncate_left" and max_new_tokens is not None:
            keep = most - max_new_tokens
            if keep < min(length, self.start + 1):
                raise ContextLengthError(
                    f"max_new_tokens {max_new_tokens} leaves no room for the text before them in "
                    f"the session's {most} positions: at most {most - self.start - 1} can"
                )
        elif length < most:
            return 0
        return max(0, length - keep)

    def drop(self, count: int) -> None:
        """Drop the ``count`` oldest ids after the start token."""
        start = self.start
        self.ids = self.ids[:start] + self.ids[start + count :]
        moved = [(max(a - count, start), max(b - count, start)) for a, b in self.given]
        self.given = [(a, b) for a, b in moved if a < b]
        if start:  # a part of the first range, or before it
            first = self.given.pop(0)[1] if self.given and self.given[0][0] <= start else start
            self.given.insert(0, (0, first))
        self.dropped += count


def check_policy(policy: Any, max_length: int) -> ContextPolicy:
    """Return ``policy``; InvalidArgumentError if it is unknown, or ``max_length`` too small."""
    if policy not in POLICIES:
        raise InvalidArgumentError(
            f"context_policy must be one of {', '.join(POLICIES)}, not {shown(policy)}"
        )
    if policy != "error" and max_length < MIN_LENGTH:
        raise InvalidArgumentError(
            f"a session that drops tokens needs max_length {MIN_LENGTH} at least, not {max_length}"
        )
    return cast(ContextPolicy, policy)


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Return the number of equal ids at the front."""
    pairs = enumerate(zip(a, b, strict=False))
    return next((i for i, (x, y) in pairs if x != y), min(len(a), len(b)))
