"""Baselines: gzip, bzip2 and n-gram models of the same books."""

from __future__ import annotations

import bz2
import gzip
from collections.abc import Sequence

import numpy as np

from data import Book


class KneserNey:
    """Interpolated Kneser-Ney n-gram model with one discount per order.

    An n-gram is packed into one integer, so that counting is sorting and lookup is binary search.
    The order of an n-gram is its length, including the predicted symbol.
    """

    def __init__(self, texts: Sequence[np.ndarray], symbols: int, pad: int, order: int) -> None:
        if symbols**order >= 2**63:
            raise ValueError("an n-gram does not fit in 63 bits")
        self.symbols, self.pad, self.order = symbols, pad, order
        grams = np.concatenate([self._grams(text, order) for text in texts])
        keys, counts = np.unique(grams, return_counts=True)
        self.levels = []
        for n in range(order, 0, -1):
            self.levels.append(self._level(keys, counts))
            if n > 1:
                # Lower orders count the distinct contexts of an n-gram.
                keys, counts = np.unique(keys % symbols ** (n - 1), return_counts=True)

    def _grams(self, text: np.ndarray, n: int) -> np.ndarray:
        padded = np.concatenate([np.full(n - 1, self.pad), text]).astype(np.int64)
        result = np.zeros(len(text), dtype=np.int64)
        for i in range(n):
            result = result * self.symbols + padded[i : i + len(text)]
        return result

    def _level(self, keys: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, ...]:
        once, twice = (counts == 1).sum(), (counts == 2).sum()
        discount = once / (once + 2 * twice) if once else 0.5
        contexts, first = np.unique(keys // self.symbols, return_index=True)
        totals = np.add.reduceat(counts, first)
        kinds = np.diff(np.append(first, len(keys)))
        return keys, np.maximum(counts - discount, 0), contexts, totals, discount * kinds

    def bits(self, text: np.ndarray) -> float:
        """Return the number of bits of a text under the model."""
        share = np.full(len(text), 1 / self.symbols)
        for n in range(1, self.order + 1):
            keys, weights, contexts, totals, left = self.levels[self.order - n]
            grams = self._grams(text, n)
            weight = _look_up(keys, weights, grams)
            total = _look_up(contexts, totals, grams // self.symbols)
            rest = _look_up(contexts, left, grams // self.symbols)
            known = total > 0
            mixed = (weight + rest * share)[known] / total[known]
            share[known] = mixed
        return float(-np.log2(share).sum())


def _look_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0).astype(np.float64)


def byte_ngram(books: list[Book], order: int) -> float:
    """Return the bits per byte of a byte n-gram model."""
    newline = 10
    train = [np.frombuffer(book.train.encode("utf-8"), dtype=np.uint8) for book in books]
    tails = [np.frombuffer(book.held_out.encode("utf-8"), dtype=np.uint8) for book in books]
    model = KneserNey(train, 256, newline, order)
    return sum(model.bits(tail) for tail in tails) / sum(len(tail) for tail in tails)


def token_ngram(
    train: list[list[int]], tails: list[list[int]], size: int, symbols: int, order: int
) -> float:
    """Return the bits per byte of an n-gram model of BPE tokens; `size`: bytes of the tails."""
    model = KneserNey([np.array(ids) for ids in train], symbols, symbols - 1, order)
    return sum(model.bits(np.array(ids)) for ids in tails) / size


def compressors(books: list[Book]) -> tuple[float, float]:
    """Return the bits per byte of gzip -9 and bzip2 -9 for all held-out text as one file."""
    text = "".join(book.held_out for book in books).encode("utf-8")
    return 8 * len(gzip.compress(text, 9)) / len(text), 8 * len(bz2.compress(text, 9)) / len(text)


def overlap(books: list[Book], length: int = 60, stride: int = 4) -> float:
    """Return the share of the held-out text that also occurs in the training part.

    Counts verbatim passages of at least `length` characters (in steps of `stride`): some tales
    are in two books.
    """
    seen = {
        hash(book.train[i : i + length])
        for book in books
        for i in range(0, len(book.train) - length, stride)
    }
    found = total = 0
    for book in books:
        text, end = book.held_out, 0  # `end`: end of the last passage found
        for i in range(len(text) - length + 1):
            if hash(text[i : i + length]) in seen:
                found += i + length - max(end, i)
                end = i + length
        total += len(text)
    return found / total
