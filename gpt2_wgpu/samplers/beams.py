"""Beams of one prompt: the choice of continuations in a beam search.

The rules are those of transformers' ``generate(num_beams=n)``: of the ``n`` best continuations of
the running beams, those that end are finished; the ``n`` best that do not end run on. The ``n``
best finished beams are kept, by ``log-probability / new tokens ** length_penalty``.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

Continuations = Sequence[tuple[int, float]]  # tokens with log-probabilities
Found = tuple[float, int, int]  # minus the log-probability, index of the beam, next token

_EXCLUDED_BELOW = -1e29  # log-probability


def is_excluded(log_probability: float) -> bool:
    """Return whether a token cannot be chosen."""
    return log_probability < _EXCLUDED_BELOW


@dataclass(frozen=True)
class Beam:
    """New tokens of one beam, with a score: a log-probability, normalised when it is finished."""

    tokens: tuple[int, ...]
    score: float


class Beams:
    """Running and finished beams of one prompt; ``finished`` is sorted, best first.

    Args:
        count: number of beams.
        room: limit of new tokens.
        stops: ids that end a beam.
        length_penalty: exponent of the length.
        early_stopping: True: end with ``count`` finished beams. False: end when the best running
            beam, at its present length, is not better than the worst finished one. "never": the
            same, at the length that gives the best score.
    """

    def __init__(
        self,
        count: int,
        room: int,
        stops: Collection[int],
        length_penalty: float,
        early_stopping: bool | str,
    ) -> None:
        self._count = count
        self._room = room
        self._stops = frozenset(stops)
        self._length_penalty = length_penalty
        self._early_stopping = early_stopping
        self.running = [Beam((), 0.0)]
        self.finished: list[Beam] = [] if room else self.running * count
        self.done = not room

    def advance(self, continuations: Sequence[Continuations]) -> list[int]:
        """Extend the running beams; returns the parent of each new one.

        ``continuations``: the best of each running beam, at least as many as beams that do not
        stop; those that are excluded are not used.
        """
        found, may_end = self._ranked(continuations)
        length = len(self.running[0].tokens) + 1
        full = length == self._room
        old = self.running
        for cost, parent, token in may_end[: self._count]:
            if full or token in self._stops:
                score = -cost / length**self._length_penalty
                self.finished.append(Beam((*old[parent].tokens, token), score))
        self.finished.sort(key=lambda beam: -beam.score)
        del self.finished[self._count :]
        going_on = [] if full else [each for each in found if each[2] not in self._stops]
        del going_on[self._count :]
        self.running = [
            Beam((*old[parent].tokens, token), -cost) for cost, parent, token in going_on
        ]
        self.done = not going_on or self._ends(length)
        if self.done:  # fewer texts than beams may be possible
            self.finished += self.finished[-1:] * (self._count - len(self.finished))
        return [parent for _, parent, _ in going_on]

    def _ranked(self, continuations: Sequence[Continuations]) -> tuple[list[Found], list[Found]]:
        """Return the continuations of all running beams, best first, and those that may end."""
        found = sorted(
            (-(beam.score + log_probability), parent, token)
            for parent, (beam, row) in enumerate(zip(self.running, continuations, strict=False))
            for token, log_probability in row
            if not is_excluded(log_probability)
        )
        return found, found

    def _ends(self, length: int) -> bool:
        """Return whether no running beam can become one of the best any more."""
        if len(self.finished) < self._count:
            return False
        if self._early_stopping is True:
            return True
        if self._early_stopping == "never" and self._length_penalty > 0:
            length = self._room
        highest = max(beam.score for beam in self.running)
        best: float = highest / float(length) ** self._length_penalty
        return best <= self.finished[-1].score

    @property
    def best(self) -> list[Beam]:
        """The best beams; before the end those that run are among them."""
        if self.done:
            return self.finished
        running = [
            Beam(beam.tokens, beam.score / max(1, len(beam.tokens)) ** self._length_penalty)
            for beam in self.running
        ]
        found = sorted(self.finished + running, key=lambda beam: -beam.score)
        return (found * self._count)[: self._count]  # before the first step there is one

    def force(self, token: int) -> None:
        """Extend the running beams by a given token, which neither ends nor scores them."""
        self.running = [Beam((*beam.tokens, token), beam.score) for beam in self.running]
        if len(self.running[0].tokens) == self._room:
            length = self._room**self._length_penalty
            self.finished += [Beam(beam.tokens, beam.score / length) for beam in self.running]
            self.finished.sort(key=lambda beam: -beam.score)
            self.done = True
