"""Ends of rows by ``max_new_tokens``, ``stop_texts`` and ``callback`` of ``generate``."""

from __future__ import annotations

import inspect
import time
from collections.abc import Sequence
from copy import copy
from typing import Any

from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.models.call_settings import Watch
from gpt2_wgpu.models.control import ABORTED
from gpt2_wgpu.models.generate_arguments import Callback
from gpt2_wgpu.models.packed_ids import for_each_row
from gpt2_wgpu.shown import shown
from gpt2_wgpu.text import GPT2CausalLMPreprocessor, StopTextMatcher, TokenReader
from gpt2_wgpu.text.token_arrays import rows_of_ids, rows_of_mask


class RowEnds:
    """Limits of the new tokens of each row of a call.

    InvalidArgumentError for invalid ``stop_texts`` or ``callback``, or stop texts without a
    preprocessor.
    """

    def __init__(
        self,
        preprocessor: GPT2CausalLMPreprocessor | None,
        max_new_tokens: int | None,
        stop_texts: Sequence[str],
        callback: Callback | None = None,
        details: bool = False,
    ) -> None:
        self._max_new_tokens = max_new_tokens
        self._stop_texts = StopTextMatcher(stop_texts).stops
        if self._stop_texts and preprocessor is None:
            raise InvalidArgumentError(
                "stop_texts need a tokenizer, but this model has no preprocessor: use "
                "stop_token_ids"
            )
        self._preprocessor = preprocessor
        _check_callback(callback)
        self._callback, self._details = callback, details
        self._begun = time.perf_counter()
        self.first_token_after: dict[int, float] = {}  # by row, in seconds
        self.ended_by: str | None = None  # finish reason of a call ended by callback or control

    @property
    def seconds(self) -> float:
        """Time since the call began."""
        return time.perf_counter() - self._begun

    @property
    def any(self) -> bool:
        """Return whether new ids have to be looked at."""
        watched = self._stop_texts or self._callback or self._details
        return bool(watched) or self._max_new_tokens is not None

    def watch(self) -> Watch | None:
        """Return the function that ends rows at stop texts, and calls the callback."""
        if not (self._stop_texts or self._callback or self._details):
            return None
        readers: dict[int, TokenReader | None] = {}

        def watch(row: int, new: Sequence[int]) -> int | None:
            if self.ended_by is not None:
                return 0
            if row not in readers:
                readers[row] = self._reader()
            if new:
                self.first_token_after.setdefault(row, self.seconds)
            reader = readers[row]
            for count, token in enumerate(new, 1):
                text = "" if reader is None else reader.push(token)
                if self._callback is not None and self._callback(row, token, text) is False:
                    self.ended_by = ABORTED
                    return count
                if reader is not None and reader.matched:
                    return count
            return None

        return watch

    def kept(self, _: int, new: Sequence[int]) -> int:
        """Return how many of the new ids of a row it keeps."""
        new = new[: self._max_new_tokens]
        kept = self._matched_at(new)
        return len(new) if kept is None else kept

    def matches(self, new: Sequence[int]) -> bool:
        """Return whether the new ids of a row contain a stop text."""
        return self._matched_at(new) is not None

    def _matched_at(self, new: Sequence[int]) -> int | None:
        """Return the number of ids up to the one that completes a stop text; None without one."""
        reader = self._reader() if self._stop_texts else None
        if reader is not None:
            for count, token in enumerate(new, 1):
                reader.push(token)
                if reader.matched:
                    return count
        return None

    def cut_text(self, text: Any, prompts: Any) -> Any:
        """Return the text or texts of ``generate_postprocess`` without stop texts and the rest.

        ``prompts``: packed prompts with which the texts begin, if they do.
        """
        if not self._stop_texts:
            return text
        if isinstance(text, str):
            return self._cut(text, self._prompts(prompts)[0] if prompts else "")
        if not isinstance(text, list | tuple):
            return text  # of a replaced method
        beginnings = for_each_row(self._prompts(prompts) if prompts else [""], len(text))
        return [self._cut(*row) for row in zip(text, beginnings, strict=True)]

    def _cut(self, text: Any, prompt: str) -> Any:
        if not isinstance(text, str):
            return text
        pairs = zip(text, prompt, strict=False)
        begin = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(text), len(prompt)))
        matcher = StopTextMatcher(self._stop_texts)
        piece, _ = matcher.push(text[begin:])
        return text[:begin] + piece + matcher.flush()

    def _prompts(self, packed: Any) -> list[str]:
        """Return the texts of packed prompts, without special tokens."""
        assert self._preprocessor is not None
        tokenizer = self._preprocessor.tokenizer
        special = {*tokenizer.special_token_ids}
        rows = zip(
            rows_of_ids(packed["token_ids"]), rows_of_mask(packed["padding_mask"]), strict=True
        )
        return [
            tokenizer.decode([i for i, real in zip(*row, strict=True) if real and i not in special])
            for row in rows
        ]

    def _reader(self) -> TokenReader | None:
        if self._preprocessor is None:
            return None
        return TokenReader(self._preprocessor.tokenizer, self._stop_texts)


def _check_callback(callback: Any) -> None:
    """Raise InvalidArgumentError unless ``callback`` is None or a function, not a coroutine's."""
    if callback is not None and not callable(callback):
        raise InvalidArgumentError(
            f"callback must be a function (row, token, text), not {shown(callback)}"
        )
    methods = (callback, getattr(callback, "__call__", None))  # noqa: B004
    if any(inspect.iscoroutinefunction(each) for each in methods):
        raise InvalidArgumentError(
            "callback is a coroutine function, which generate does not await: use a plain function"
        )


def limit_reached(tokens: int, context: int) -> str:
    """Return the finish reason of a row of ``tokens``, with its prompt, that ended at a limit."""
    return "context" if tokens >= context else "length"


def with_start_token(
    preprocessor: GPT2CausalLMPreprocessor, add_start_token: bool | None
) -> GPT2CausalLMPreprocessor:
    """Return the preprocessor of a call with ``add_start_token``; None: unchanged."""
    if add_start_token is None or add_start_token == preprocessor.add_start_token:
        return preprocessor
    changed = copy(preprocessor)
    changed.add_start_token = add_start_token
    return changed
