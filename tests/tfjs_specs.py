"""Checks by the names of TensorFlow.js's specs (tfjs-layers/src/layers/nlp)."""

from __future__ import annotations

from collections.abc import Callable

Check = Callable[[], None]


class Specs(dict[str, Check]):
    """A file's checks; called with a name it gives the decorator that adds one."""

    def __call__(self, name: str) -> Callable[[Check], Check]:
        def add(check: Check) -> Check:
            assert name not in self
            self[name] = check
            return check

        return add
