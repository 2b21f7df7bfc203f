"""Merge rules of a byte-pair encoding, and the merge loop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from heapq import heapify, heappop, heappush
from itertools import pairwise

from gpt2_wgpu.errors import TokenizerError
from gpt2_wgpu.shown import shown

Merge = str | Sequence[str]
"""Merge rule: "left right", or the pair (left, right)."""


class MergeTable:
    """Merge rules over token ids; a rule's rank is its index in the list.

    Args:
        vocabulary: token → id.
        merges: rules in order of precedence; a leading "#version" line is skipped.

    Raises:
        TokenizerError: a rule is malformed or appears twice, or one of its sides or its result is
            not in the vocabulary. The message has the ``place(index)`` of merges that have one.
    """

    def __init__(self, vocabulary: Mapping[str, int], merges: Iterable[Merge]) -> None:
        if not isinstance(merges, Iterable):
            raise TokenizerError(f"merges must be a list of 'left right', not {shown(merges)}")
        self.pairs: list[tuple[str, str]] = []
        self._rank: dict[tuple[int, int], int] = {}
        self._merged: list[int] = []
        for index, merge in enumerate(merges):
            if index == 0 and isinstance(merge, str) and merge.startswith("#version"):
                continue
            try:
                self._add(*_sides(merge), vocabulary)
            except TokenizerError as error:
                place = getattr(merges, "place", None)
                if place is None:
                    raise
                raise TokenizerError(f"{place(index)}: {error}") from None

    def _add(self, left: str, right: str, vocabulary: Mapping[str, int]) -> None:
        rank = len(self.pairs)
        try:
            ids = (vocabulary[left], vocabulary[right])
            self._merged.append(vocabulary[left + right])
        except KeyError as missing:
            raise TokenizerError(
                f"merge {rank} ({shown(left)} + {shown(right)}) needs the token "
                f"{shown(missing.args[0])}, which is not in the vocabulary: "
                "pass the vocabulary the merges were made with"
            ) from None
        if self._rank.setdefault(ids, rank) != rank:
            raise TokenizerError(
                f"merge {rank} ({shown(left)} + {shown(right)}) is listed twice: "
                "remove one of the two"
            )
        self.pairs.append((left, right))

    def apply(self, symbols: list[int]) -> list[int]:
        """Merge the ids of one word until no rule applies.

        The pair of the lowest rank is merged first; of equal ranks, the leftmost. A heap of
        candidates over a linked list of symbols gives O(n log n) for n bytes.
        """
        count = len(symbols)
        if count < 2:
            return symbols
        rank_of = self._rank.get
        # A candidate is one integer, rank * count + position, which sorts like (rank, position).
        heap = [
            rank * count + position
            for position, pair in enumerate(pairwise(symbols))
            if (rank := rank_of(pair)) is not None
        ]
        if not heap:
            return symbols
        heapify(heap)
        ids: list[int] = symbols.copy()
        following = list(range(1, count + 1))
        preceding = list(range(-1, count - 1))
        while heap:
            rank, position = divmod(heappop(heap), count)
            after = following[position]
            # Stale candidate: one side has been merged into its neighbour (id -1) or has grown.
            if after == count or rank_of((ids[position], ids[after])) != rank:
                continue
            merged = ids[position] = self._merged[rank]
            ids[after] = -1
            after = following[position] = following[after]
            if after < count:
                preceding[after] = position
                rank_after = rank_of((merged, ids[after]))
                if rank_after is not None:
                    heappush(heap, rank_after * count + position)
            before = preceding[position]
            if before >= 0:
                rank_before = rank_of((ids[before], merged))
                if rank_before is not None:
                    heappush(heap, rank_before * count + before)
        return [token_id for token_id in ids if token_id >= 0]


def _sides(merge: Merge) -> tuple[str, str]:
    sides = merge.split(" ") if isinstance(merge, str) else merge
    if isinstance(sides, (list, tuple)) and len(sides) == 2:
        left, right = sides
        if isinstance(left, str) and isinstance(right, str) and left and right:
            return left, right
    raise TokenizerError(
        f"a merge must be two tokens, 'left right' or (left, right), not {shown(merge)}"
    )
