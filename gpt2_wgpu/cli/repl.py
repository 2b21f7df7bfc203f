"""The turns and commands of `gpt2-wgpu run`."""

from __future__ import annotations

import argparse
import contextlib
import secrets
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2_wgpu.cli.conversation import Conversation
from gpt2_wgpu.cli.line_readers import LineReader, read_turn
from gpt2_wgpu.cli.options import suggestion
from gpt2_wgpu.cli.parameters import Parameters
from gpt2_wgpu.cli.sampling_options import (
    allowed_special,
    compile_model,
    note_what_is_ignored,
    settings_of,
    stop_texts,
)
from gpt2_wgpu.cli.stream_printer import StreamPrinter
from gpt2_wgpu.cli.terminal import INTERRUPTED, OutputError, Terminal
from gpt2_wgpu.errors import ContextLengthError, GPT2WGPUError, InvalidArgumentError
from gpt2_wgpu.sampling_parameters import SEED, TIME_LIMIT_SECONDS
from gpt2_wgpu.shown import shown

if TYPE_CHECKING:
    import gpt2_wgpu as gw

COMMANDS = {
    "/set": "/set NAME VALUE   set a parameter; 'default': as at the start, 'none': unset",
    "/show": "/show [parameters|model|memory|text]",
    "/retry": "/retry            let the model write its last part again, with the next seed",
    "/undo": "/undo             remove the last turn, what you typed included",
    "/clear": "/clear            begin a new text",
    "/save": "/save FILE        save the text with its turns",
    "/load": "/load FILE        go on with a saved text",
    "/help": "/help             this list",
    "/bye": "/bye              end (also Ctrl-D)",
}
_HELP = """
Anything else is text that the model continues; an empty line lets it go on.
Several lines: begin and end with \"\"\". A text that begins with '/': put a space
before it. Ctrl-C stops the model and keeps what it has written.
"""


class _EndError(Exception):
    """The user ends the program."""


class Repl:
    """Turns of one text with a model.

    Args:
        lm: the model.
        args: the options of the command, which ``/set`` changes.
        terminal: the output.
        draft: the draft model, if there is one.
    """

    def __init__(
        self,
        lm: gw.GPT2CausalLM,
        args: argparse.Namespace,
        terminal: Terminal,
        draft: gw.GPT2CausalLM | None = None,
    ) -> None:
        self._lm, self._draft = lm, draft
        self._args = args
        self._terminal = terminal
        self._parameters = Parameters(args)
        self._seed: int | None = args.seed  # as it was set for the last turn
        self._retries = 0  # with this seed, each of which takes the next one
        special = allowed_special(args.allowed_special).get("allowed_special", ())
        self._text = Conversation(lm, special)

    def close(self) -> None:
        """Free the GPU memory of the text. Idempotent."""
        self._text.close()

    def run(self, lines: LineReader) -> int:
        """Run turns and commands until the input ends; return the exit status."""
        while True:
            try:
                line = read_turn(lines)
            except EOFError:
                return 0
            except KeyboardInterrupt:
                self._terminal.info("Ctrl-D or /bye ends the program")
                continue
            try:
                with self._errors_shown():
                    self._do(line)
            except _EndError:
                return 0

    def continue_once(self, prompt: str) -> int:
        """Print a prompt and its continuation; return the exit status."""
        return INTERRUPTED if self._turn(prompt) else 0

    @contextlib.contextmanager
    def _errors_shown(self) -> Iterator[None]:
        """Print the error of a turn, which does not end the program, and allow Ctrl-C again."""
        try:
            yield
        except (_EndError, OutputError):
            raise
        except KeyboardInterrupt:
            self._terminal.end_line()
            self._terminal.info("interrupted")
        except Exception as error:
            if self._args.debug:
                traceback.print_exception(error)
            known = isinstance(error, GPT2WGPUError)
            name = "" if known else f"unexpected {type(error).__name__}: "
            self._terminal.error(f"{name}{error}")
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, signal.default_int_handler)

    def _do(self, line: str) -> None:
        if not line.startswith("/"):
            self._seed, self._retries = self._args.seed, 0
            self._turn(line)
            return
        word, _, rest = line.strip().partition(" ")
        commands: dict[str, Callable[[str], object]] = {
            "/set": self._parameters.set,
            "/show": self._show,
            "/retry": self._retry,
            "/undo": self._undo,
            "/clear": self._clear,
            "/save": self._save,
            "/load": self._load,
            "/help": self._help,
            "/?": self._help,
            "/bye": self._bye,
        }
        if word not in commands:
            hint = suggestion(word, COMMANDS)
            raise InvalidArgumentError(f"no command {shown(word)}{hint}; /help lists them")
        if rest and word in ("/retry", "/undo", "/clear", "/bye"):
            raise InvalidArgumentError(f"{word} takes no argument, not {shown(rest)}")
        commands[word](rest.strip())

    def _turn(self, prompt: str) -> bool:
        """Print what the model writes after a prompt; return whether Ctrl-C stopped it.

        If it fails before it has written anything, the text stays as it was; after Ctrl-C it has
        the prompt.
        """
        import gpt2_wgpu as gw

        args, terminal = self._args, self._terminal
        settings = settings_of(args, self._lm)
        if settings["seed"] is None:
            settings["seed"] = secrets.randbelow(2**31)
        settings["seed"] = (settings["seed"] + self._retries) % (int(SEED.range.high) + 1)
        is_random = self._compile(settings)
        before = self._text.copied()
        printer: StreamPrinter | None = None
        cancellation = gw.Cancellation()
        try:
            self._text.begin(prompt)
            limits = settings["max_new_tokens"], stop_texts(args), args.time_limit
            with self._text.stream(*limits, cancellation) as stream:
                printer = StreamPrinter(
                    stream, "", terminal, json=False, echo=False, cancellation=cancellation
                )
                printer.run(at_once=False)
        except BaseException as error:
            tokens = len(self._text.token_ids)
            if printer is not None and printer.text:
                self._text.end(printer.text, stream)
            else:
                self._text.restore(before)
            if isinstance(error, KeyboardInterrupt) and len(self._text.turns) == len(before.turns):
                self._text.begin(prompt)
            if isinstance(error, ContextLengthError):
                raise self._too_long(tokens) from None
            raise
        self._text.end(printer.text, stream)
        terminal.end_line()
        if args.verbose:
            seed = settings["seed"] if is_random else None
            adapter = self._lm.device.info.name
            printer.report({"model": args.model, "adapter": adapter, "seed": seed})
        if stream.stats.finish_reason == "context":
            terminal.info(f"the model's context of {self._context} tokens is full: /undo or /clear")
        return printer.interrupted

    def _too_long(self, tokens: int) -> ContextLengthError:
        """The error of a text after which nothing fits, with the commands that help."""
        remedy = "/undo or /clear" if self._text.turns else "shorten it"
        return ContextLengthError(
            f"the text has {tokens} tokens, so nothing fits behind it in the model's context of "
            f"{self._context}: {remedy}"
        )

    def _compile(self, settings: dict[str, Any]) -> bool:
        """Set the sampler; return whether the text is random. Notes come once for each change."""
        args, quiet = self._args, self._terminal.quiet
        self._terminal.quiet = quiet or not self._parameters.changed
        is_random = note_what_is_ignored(args, settings, self._terminal)
        self._terminal.quiet, self._parameters.changed = quiet, False
        compile_model(self._lm, args, settings, self._draft)
        return is_random

    @property
    def _context(self) -> int:
        return self._lm.backbone.config.n_positions

    def _retry(self, _: str) -> None:
        before = self._text.copied()
        turn = self._text.undo()
        same = self._args.seed == self._seed
        self._seed, self._retries = self._args.seed, self._retries + 1 if same else 0
        interrupted = True
        try:
            interrupted = self._turn(turn.prompt)
        finally:
            turns = self._text.turns
            written = len(turns) == len(before.turns) and turns[-1].answer
            if interrupted and not written:
                self._text.restore(before)

    def _undo(self, _: str) -> None:
        turn = self._text.undo()
        self._terminal.info(f"removed {shown(turn.prompt + turn.answer)}")

    def _clear(self, _: str) -> None:
        self._text.clear()
        self._terminal.info("a new text")

    def _save(self, file: str) -> None:
        path = _file(file, "/save")
        self._text.save(path, self._args.model)
        self._terminal.info(f"wrote {path} ({len(self._text.turns)} turns)")

    def _load(self, file: str) -> None:
        path = _file(file, "/load")
        self._text.load(path)
        self._terminal.info(f"{len(self._text.turns)} turns of {path}; /show text prints them")

    def _show(self, what: str) -> None:
        parts = {
            "parameters": self._parameter_rows,
            "model": self._model_rows,
            "memory": self._memory_rows,
        }
        if what == "text":
            self._terminal.write(self._text.text)
            self._terminal.end_line()
        elif what and what not in parts:
            hint = suggestion(what, [*parts, "text"])
            raise InvalidArgumentError(f"nothing to show named {shown(what)}{hint}")
        else:
            rows = [row for name, part in parts.items() if what in ("", name) for row in part()]
            width = max(len(name) for name, _ in rows)
            self._terminal.write("".join(f"{name:<{width}}  {value}\n" for name, value in rows))

    def _parameter_rows(self) -> list[tuple[str, str]]:
        limits, args = self._lm.generation_limits, self._args
        stops, seconds = stop_texts(args), args.time_limit or limits.get("time_limit")
        ends = {
            "stop": list(limits.get("stop_texts", ())) if stops is None else stops,
            "time_limit": None if seconds == TIME_LIMIT_SECONDS.high else seconds,
        }
        return self._parameters.rows(settings_of(args, self._lm) | ends)

    def _model_rows(self) -> list[tuple[str, str]]:
        config = self._lm.backbone.config
        return [
            ("model", self._args.model),
            ("weights", self._lm.backbone.dtype),
            ("draft model", self._args.draft_model or "none"),
            ("layers", f"{config.n_layer} of {config.n_embd}, {config.n_head} heads"),
            ("adapter", self._lm.device.info.name),
            ("text", f"{len(self._text.token_ids)} of {self._context} tokens"),
        ]

    def _memory_rows(self) -> list[tuple[str, str]]:
        import gpt2_wgpu as gw

        memory = gw.memory(self._lm.device)
        kinds = {kind: nbytes for kind, nbytes in memory.by_kind.items() if nbytes}
        figures = kinds | {"in use": memory.num_bytes_in_gpu, "budget": memory.budget}
        return [
            (f"memory, {kind}", f"{nbytes / 2**20:,.1f} MiB") for kind, nbytes in figures.items()
        ]

    def _help(self, _: str) -> None:
        self._terminal.write("\n".join(COMMANDS.values()) + "\n" + _HELP)

    def _bye(self, _: str) -> None:
        raise _EndError


def _file(name: str, command: str) -> Path:
    if not name:
        raise InvalidArgumentError(f"{command} needs the name of a file")
    return Path(name).expanduser()
