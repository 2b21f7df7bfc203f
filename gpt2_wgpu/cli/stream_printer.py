"""The output of `generate`: text or JSON objects as they are computed, then statistics."""

from __future__ import annotations

import contextlib
import json
import math
from itertools import chain
from typing import TYPE_CHECKING, Any

from gpt2_wgpu.cli.terminal import OutputError, Terminal, interrupt_at_once, recorded_interrupts

if TYPE_CHECKING:
    import gpt2_wgpu as gw

_REASONS = {
    "stop": "end of text",
    "length": "token limit",
    "context": "end of the model's context",
    "stop_text": "stop text",
    "time_limit": "time limit",
    "aborted": "Ctrl-C",
}


class StreamPrinter:
    """Printer of a text stream.

    Args:
        stream: the pieces of text.
        prompt: the prompt.
        terminal: the output.
        json: print JSON objects, one per line, instead of text.
        echo: print the prompt before the text.
        cancellation: that of the stream, for Ctrl-C.
    """

    def __init__(
        self,
        stream: gw.TextStream,
        prompt: str,
        terminal: Terminal,
        *,
        json: bool,
        echo: bool,
        cancellation: gw.Cancellation | None = None,
    ) -> None:
        self.text = ""
        self.interrupted = False
        self._stream = stream
        self._prompt = prompt
        self._terminal = terminal
        self._json = json
        self._echo = echo and not json
        self._cancel = None if cancellation is None else cancellation.cancel
        self._at_once = False
        self._printed_tokens = 0

    def run(self, *, at_once: bool) -> None:
        """Prints each piece as it is computed, or with `at_once` nothing before :meth:`report`.

        Ctrl-C stops cleanly and keeps the text so far. Raises OutputError if stdout cannot be
        written.
        """
        self._at_once = at_once
        try:
            if not at_once:
                self._begin()
            with recorded_interrupts(self._cancel) as interrupted:
                for piece in chain(self._stream, [""]):  # the last tokens may come without text
                    self.text += piece
                    if not at_once:
                        self._write_piece(piece)
                    if interrupted() and self._stream.stats.finish_reason in (None, "aborted"):
                        self.interrupted = True
                        break
        except KeyboardInterrupt:
            interrupt_at_once()
            self.interrupted = True

    def report(self, details: dict[str, Any]) -> None:
        """Prints the statistics of the run, with `details` (model, seed, ...).

        Raises OutputError if stdout cannot be written, unless Ctrl-C stopped the text.
        """
        figures = self._figures() | details
        with contextlib.suppress(*[OutputError] * self.interrupted):
            if self._json:
                ids = list(self._stream.stats.token_ids)
                whole = {"prompt": self._prompt, "text": self.text, "token_ids": ids}
                self._write_object(whole | figures if self._at_once else figures)
            else:
                if self._at_once:
                    self._begin()
                    self._terminal.write(self.text)
                self._terminal.end_line()
        self._terminal.info(_summary(figures))

    def _begin(self) -> None:
        if self._echo:
            self._terminal.write(self._prompt, bold=True)

    def _write_piece(self, piece: str) -> None:
        """Prints a piece; with JSON, one object for each new token.

        Tokens that end inside a character have the text ""; the token that completes it has it all.
        """
        if not self._json:
            self._terminal.write(piece)
            return
        tokens: list[int | None] = [*self._stream.stats.token_ids[self._printed_tokens :]]
        self._printed_tokens += len(tokens)
        if piece and not tokens:  # held back as the possible beginning of a stop text
            tokens = [None]
        for index, token in enumerate(tokens, 1):
            self._write_object({"token": token, "text": piece if index == len(tokens) else ""})

    def _write_object(self, value: dict[str, Any]) -> None:
        self._terminal.write(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")

    def _figures(self) -> dict[str, Any]:
        """The statistics of a run; None for those that could not be measured."""
        stats = self._stream.stats
        drafts = {}
        if stats.drafted_tokens:
            drafts["drafted_tokens"] = stats.drafted_tokens
            drafts["accepted_tokens"] = stats.accepted_tokens
        return {
            "done": True,
            "reason": "aborted" if self.interrupted else stats.finish_reason,
            "prompt_tokens": stats.prompt_tokens,
            "tokens": stats.new_tokens,
            "seconds_to_first_token": _measured(stats.seconds_to_first_token, 4),
            "tokens_per_second": _measured(stats.tokens_per_second, 2),
            **drafts,
        }


def _measured(value: float | None, digits: int) -> float | None:
    return round(value, digits) if value is not None and math.isfinite(value) else None


def _summary(figures: dict[str, Any]) -> str:
    """The statistics of a run in one line."""
    parts = [
        f"{figures['model']} on {figures['adapter']}",
        f"{figures['prompt_tokens']} + {figures['tokens']} tokens",
    ]
    if (seconds := figures["seconds_to_first_token"]) is not None:
        parts.append(f"first token {seconds:.2f} s (compiling included)")
    if (rate := figures["tokens_per_second"]) is not None:
        parts.append(f"{rate:.1f} tokens/s")
    if drafted := figures.get("drafted_tokens"):
        parts.append(f"{figures['accepted_tokens']} of {drafted} drafted tokens accepted")
    parts.append(f"stopped: {_REASONS.get(figures['reason'], figures['reason'])}")
    if figures["seed"] is not None:
        parts.append(f"seed {figures['seed']}")
    return " · ".join(parts)
