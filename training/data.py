"""Training data: reading of the tales, split into training and held-out parts, windows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

END_OF_TEXT = "<|endoftext|>"
HELD_OUT_SHARE = 0.02
SNAP_SHARE = 0.12  # share of the windows that begin with <|endoftext|> and a paragraph

# A heading is short, has no final full stop, and its longer words are capitalised.
_CHAPTER = re.compile(r"^(chapter\b|[ivxlc]+[.:]|\d+[.:])", re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z][A-Za-z'-]*")


@dataclass(frozen=True)
class Book:
    """One book: its file name without the suffix, and its two parts."""

    name: str
    train: str
    held_out: str


def read_books(corpus: Path) -> list[Book]:
    """Read all books; the last 2 % of the characters of each are held out."""
    books = []
    for path in sorted(corpus.glob("*.txt")):
        text = path.read_text(encoding="utf-8")
        cut = int(len(text) * (1 - HELD_OUT_SHARE))
        books.append(Book(path.stem, text[:cut], text[cut:]))
    if not books:
        raise SystemExit(f"no .txt file in {corpus}")
    return books


def is_title(paragraph: str, following: str) -> bool:
    """Guess whether a paragraph is the title of a tale; a wrong guess does little harm."""
    if not 3 <= len(paragraph) <= 70 or paragraph[-1] in ".,;:!?\"'-*" or len(following) < 120:
        return False
    if paragraph[0] in "\"'(*[" or _CHAPTER.match(paragraph):
        return False
    words = [word for word in _WORD.findall(paragraph) if len(word) > 4]
    return bool(words) and all(word[0].isupper() for word in words)


def mark_tales(text: str) -> str:
    """Insert <|endoftext|> before the book and before each title found in it."""
    parts = text.split("\n\n")
    for i in range(1, len(parts) - 1):
        if is_title(parts[i].strip(), parts[i + 1]):
            parts[i] = END_OF_TEXT + parts[i]
    return END_OF_TEXT + "\n\n".join(parts)


class Windows:
    """Endless batches of shuffled windows of one long row of tokens.

    Each pass starts at a new random offset, so that every token is used once per pass and window
    boundaries vary. Some windows are moved to the next paragraph and begin with <|endoftext|>
    there, because generation always begins with that token.
    """

    def __init__(self, tokens: np.ndarray, starts: np.ndarray, eot: int, seed: int) -> None:
        self.tokens = tokens
        self.starts = starts  # places where a paragraph begins
        self.eot = eot
        self.rng = np.random.default_rng(seed)
        self.queue = np.zeros(0, dtype=np.int64)
        self.length = 0

    def _refill(self, length: int) -> None:
        last = len(self.tokens) - length - 1
        offset = int(self.rng.integers(0, length))
        self.queue = self.rng.permutation(np.arange(offset, last, length))
        self.length = length

    def batch(self, rows: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Return inputs and targets, both [rows, length]."""
        if length != self.length or len(self.queue) < rows:
            self._refill(length)
        picked, self.queue = self.queue[:rows], self.queue[rows:]
        out = np.empty((rows, length + 1), dtype=np.int64)
        for row, at in enumerate(picked):
            if self.rng.random() < SNAP_SHARE:
                nearest = min(np.searchsorted(self.starts, at), len(self.starts) - 1)
                at = min(int(self.starts[nearest]), len(self.tokens) - length)
                out[row, 0] = self.eot
                out[row, 1:] = self.tokens[at : at + length]
            else:
                out[row] = self.tokens[at : at + length + 1]
        return out[:, :-1], out[:, 1:]


def paragraph_starts(tokens: np.ndarray, newline: int, eot: int) -> np.ndarray:
    """Return the indices of tokens after two line breaks, except <|endoftext|>."""
    after = (tokens[:-2] == newline) & (tokens[1:-1] == newline) & (tokens[2:] != eot)
    return np.nonzero(after)[0] + 2
