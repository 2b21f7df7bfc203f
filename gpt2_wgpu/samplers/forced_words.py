"""Words that a text must contain: the state of a constrained beam search.

The search is that of transformers' ``force_words_ids``, dynamic beam allocation (Post & Vilar
2018): beams are shared between groups of continuations that have come equally far with the words,
so that those with a part of them are not lost to likelier ones without.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.samplers.beams import Beams, Continuations, Found, is_excluded
from gpt2_wgpu.samplers.rule_arguments import words_of
from gpt2_wgpu.shown import shown

NAME = "force_words_ids"
Word = tuple[int, ...]


@dataclass(frozen=True)
class ForcedWords:
    """Words as token ids: a text contains one of each of ``choices``, among its new tokens.

    Equal choices have to occur one after another. Words may overlap, but room is kept for them one
    after the other.
    """

    choices: tuple[tuple[Word, ...], ...] = ()

    @classmethod
    def of(cls, value: Any) -> ForcedWords:
        """Return the words of a list of words, or of lists of words to choose from.

        Raises:
            InvalidArgumentError: it is neither, or a word is empty.
        """
        if value is None:
            return cls()
        given = [value] if not isinstance(value, list | tuple) else value
        if not all(isinstance(each, list | tuple) and each for each in given):
            raise InvalidArgumentError(
                f"{NAME} must be a list of words, lists of token ids, or of lists of words to "
                f"choose from, not {shown(value)}"
            )
        has_choices = [isinstance(each[0], list | tuple) for each in given]
        pairs = zip(given, has_choices, strict=True)
        return cls(tuple(words_of(NAME, each if many else [each]) for each, many in pairs))

    @property
    def tokens(self) -> list[int]:
        """All tokens of the words, in order of their ids."""
        return sorted({token for choice in self.choices for word in choice for token in word})

    def check(self, stops: Collection[int], excluded: Collection[int], candidates: int) -> None:
        """Raise InvalidArgumentError for a token that cannot be chosen, or ends a text."""
        for token in self.tokens:
            if not 0 <= token < candidates or token in excluded:
                raise InvalidArgumentError(f"token {token} of {NAME} is not in the vocabulary")
            if token in stops:
                raise InvalidArgumentError(
                    f"token {token} of {NAME} is a stop token, which ends a text: leave it out, or "
                    "give other stop_token_ids"
                )

    def after(self, missing: Sequence[int], text: Word) -> tuple[int, ...]:
        """Return which choices are missing after the last token of ``text``, of those before."""
        found = set()
        left = []
        for which in missing:
            choice = self.choices[which]
            if choice not in found and any(text[-len(word) :] == word for word in choice):
                found.add(choice)
            else:
                left.append(which)
        return tuple(left)

    def needed(self, missing: Sequence[int], text: Word) -> int:
        """Return a number of tokens after ``text`` that suffices for the missing choices."""
        shortest = {which: min(map(len, self.choices[which])) for which in missing}
        begun = (
            shortest[which] - (len(word) - size) for which, word, size in self._begun(missing, text)
        )
        return sum(shortest.values()) - max(begun, default=0)

    def next_tokens(self, missing: Sequence[int], text: Word) -> set[int]:
        """Return the tokens that begin a missing word, or go on with one."""
        return {word[size] for _, word, size in self._begun(missing, text)}

    def _begun(self, missing: Sequence[int], text: Word) -> Iterator[tuple[int, Word, int]]:
        """Yield choices, words, and numbers of tokens of the word that end the text; also 0."""
        for which in missing:
            for word in self.choices[which]:
                for size in range(len(word)):
                    if size <= len(text) and text[len(text) - size :] == word[:size]:
                        yield which, word, size


class ForcedBeams(Beams):
    """Beams of one prompt that end with all ``words``; see ``Beams`` for the other arguments.

    InvalidArgumentError if the words are longer than ``room``.
    """

    def __init__(self, words: ForcedWords, count: int, room: int, *options: Any) -> None:
        super().__init__(count, room, *options)
        self._words = words
        everything = tuple(range(len(words.choices)))
        self._missing = [everything]  # of each running beam
        self._total = words.needed(everything, ())
        if self._total > room:
            raise InvalidArgumentError(
                f"{NAME} have {self._total} tokens, but only {room} can follow the prompt: raise "
                "max_length or max_new_tokens"
            )

    def advance(self, continuations: Sequence[Continuations]) -> list[int]:
        """See ``Beams.advance``; the last items of each row are ``words.tokens``."""
        before = self._missing
        parents = super().advance(continuations)
        self._missing = [
            self._words.after(before[parent], beam.tokens)
            for parent, beam in zip(parents, self.running, strict=True)
        ]
        return parents

    def _ranked(self, continuations: Sequence[Continuations]) -> tuple[list[Found], list[Found]]:
        """Return the continuations that leave room for the words, of all groups in turn.

        Those with all words may end.
        """
        groups: dict[int, list[Found]] = {}
        for parent, (beam, row) in enumerate(zip(self.running, continuations, strict=False)):
            missing = self._missing[parent]
            wanted = self._words.next_tokens(missing, beam.tokens)
            first_word = len(row) - len(self._words.tokens)
            seen = set()
            for place, (token, log_probability) in enumerate(row):
                if token in seen or (place >= first_word and token not in wanted):
                    continue
                if is_excluded(log_probability):
                    continue
                seen.add(token)
                text = (*beam.tokens, token)
                needed = self._words.needed(self._words.after(missing, text), text)
                if needed <= (0 if token in self._stops else self._room - len(text)):
                    found = (-(beam.score + log_probability), parent, token)
                    groups.setdefault(needed, []).append(found)
        ranked = [
            (turn, needed, found)
            for needed, group in groups.items()
            for turn, found in enumerate(sorted(group))
        ]
        return [found for _, _, found in sorted(ranked)], sorted(groups.get(0, []))
