"""The output of `generate`: text or JSON objects as they are computed, then statistics."""

from __future__ import annotations

import contextlib
import json
import math
from itertools import chain
from typing import TYPE_CHECKING, Any

from gpt2_wgpu.cli.terminal import OutputError, Terminal, interrupt_at_once, noting_interrupts

if TYPE_CHECKING:
    import gpt2_wgpu as gw

_REASONS = {
    "stop": "end of text",
    "length": "token limit",
    "stop_text": "stop text",
    "interrupted": "Ctrl-C",
}


class Story:
    """A stream on its way to the terminal.

    Args:
        stream: gives the pieces of text.
        prompt: what the text continues.
        terminal: where it is printed.
        json: print objects, one a line, and not text.
        echo: print the prompt before the text.
    """

    def __init__(
        self, stream: gw.TextStream, prompt: str, terminal: Terminal, *, json: bool, echo: bool
    ) -> None:
        self.text = ""
        self.interrupted = False
        self._stream = stream
        self._prompt = prompt
        self._terminal = terminal
        self._json = json
        self._echo = echo and not json
        self._at_once = False
        self._printed_tokens = 0

    def tell(self, *, at_once: bool) -> None:
        """Prints each piece as it comes, or with `at_once` when all is computed.

        Ctrl-C ends it in good order: what was computed by then is the story. Raises OutputError
        if stdout cannot be written.
        """
        self._at_once = at_once
        try:
            if not at_once:
                self._begin()
            with noting_interrupts() as interrupted:
                for piece in chain(self._stream, [""]):  # the last tokens may come without text
                    self.text += piece
                    if not at_once:
                        self._write_piece(piece)
                    if interrupted() and self._stream.stats.finish_reason is None:
                        self.interrupted = True
                        break
        except KeyboardInterrupt:
            interrupt_at_once()
            self.interrupted = True

    def report(self, circumstances: dict[str, Any]) -> None:
        """Ends the output: the figures of the run, and its `circumstances` (model, seed, ...).

        Raises OutputError if stdout cannot be written, unless Ctrl-C ended the story.
        """
        figures = self._figures() | circumstances
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
        self._terminal.note(_summary(figures))

    def _begin(self) -> None:
        if self._echo:
            self._terminal.write(self._prompt, bold=True)

    def _write_piece(self, piece: str) -> None:
        """Prints a piece; as objects, one for each token that is new.

        Tokens that end inside a character have the text ""; the one that completes it has it all.
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
        """What is reported of a run; a figure that could not be measured is None."""
        stats = self._stream.stats
        return {
            "done": True,
            "reason": "interrupted" if self.interrupted else stats.finish_reason,
            "prompt_tokens": stats.prompt_tokens,
            "tokens": stats.new_tokens,
            "seconds_to_first_token": _measured(stats.seconds_to_first_token, 4),
            "tokens_per_second": _measured(stats.tokens_per_second, 2),
        }


def _measured(value: float | None, digits: int) -> float | None:
    return round(value, digits) if value is not None and math.isfinite(value) else None


def _summary(figures: dict[str, Any]) -> str:
    """The figures of a run in one line."""
    parts = [
        f"{figures['model']} on {figures['adapter']}",
        f"{figures['prompt_tokens']} + {figures['tokens']} tokens",
    ]
    if (seconds := figures["seconds_to_first_token"]) is not None:
        parts.append(f"first token {seconds:.2f} s (compiling included)")
    if (rate := figures["tokens_per_second"]) is not None:
        parts.append(f"{rate:.1f} tokens/s")
    parts.append(f"stopped: {_REASONS.get(figures['reason'], figures['reason'])}")
    if figures["seed"] is not None:
        parts.append(f"seed {figures['seed']}")
    return " · ".join(parts)
