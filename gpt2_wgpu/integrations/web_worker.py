"""Python side of a web page's worker (``web/worker.js``).

Arguments come from JavaScript: mappings as lists of pairs, and callbacks. Results are dictionaries
of numbers and strings, with JavaScript's names.
"""

from __future__ import annotations

import asyncio
import io
import secrets
import traceback
import warnings
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import gpt2_wgpu as gw
from gpt2_wgpu import samplers
from gpt2_wgpu.models.self_test import require_right_results
from gpt2_wgpu.models.weight_sizes import stored_bytes
from gpt2_wgpu.sampling_parameters import (
    PARAMETERS,
    RULE_PARAMETERS,
    SAMPLER_PARAMETERS,
    with_defaults,
)
from gpt2_wgpu.shown import shown

DEFAULTS: dict[str, Any] = {each.javascript: each.default for each in PARAMETERS}
_CONSOLE = "<console>"


async def open_device() -> None:
    """Open the default device and run the self-test.

    A model's other weight formats are checked before its first text.

    Raises:
        NoAdapterError: no adapter was found.
        DeviceError: the self-test failed; the message names the operation.
    """
    await require_right_results(await gw.webgpu.default_device_async(), "float16")


async def load(
    name: str,
    files: Iterable[tuple[str, Any]],
    dtype: str | None,
    on_progress: Callable[[int, int], object],
) -> Model:
    """Load a model from pairs of file name and ``Blob``; see ``from_blobs``."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        lm = await gw.GPT2CausalLM.from_blobs(
            dict(files),
            dtype,
            on_progress=on_progress,  # type: ignore[arg-type]
            name=name,
        )
    return Model(name, lm, [str(warning.message) for warning in caught])


def memory(device: gw.Device | None = None) -> dict[str, Any]:
    """Return ``gw.memory()`` with JavaScript's names."""
    info = gw.memory(device)
    return {
        "numTensors": info.num_tensors,
        "numBuffers": info.num_buffers,
        "numBytes": info.num_bytes,
        "numBytesInGpu": info.num_bytes_in_gpu,
        "numBytesAllocatedInGpu": info.num_bytes_allocated_in_gpu,
        "peakBytes": info.peak_bytes_in_gpu,
        "numScopes": info.num_scopes,
        "byKind": dict(info.by_kind),
    }


class Model:
    """A loaded model, as used by the worker."""

    def __init__(self, name: str, lm: gw.GPT2CausalLM, warned: Sequence[str] = ()) -> None:
        self._name = name
        self._lm = lm
        self._warned = list(warned)
        self._names: dict[str, Any] = {
            "__name__": "__main__",
            "gw": gw,
            "lm": lm,
            "input": _no_input,
        }
        self._device = lm.device
        self._on_lost: Callable[[str], object] = lambda reason: None
        self._on_recovered: Callable[[], object] = lambda: None
        self._watching: asyncio.Future[None] | None = None
        self._console: asyncio.Task[Any] | None = None

    async def warm_up(self) -> None:
        """Compile all kernels of prefill and decode step, by running each once."""
        async with self.stream(
            "Once upon", maxTokens=2
        ) as text:  # with penalties, whose kernels are included
            while await text.next() is not None:
                pass

    def info(self) -> dict[str, Any]:
        """Return name, sizes and formats of the model."""
        lm, config = self._lm, self._lm.backbone.config
        defaults = with_defaults({}, lm.generation_defaults | lm.generation_limits)
        defaults |= {each.name: getattr(lm.token_rules, each.name) for each in RULE_PARAMETERS}
        if defaults["max_new_tokens"] is None:
            defaults["max_new_tokens"] = lm.generation_limits["max_length"]
        return {
            "model": self._name,
            "dtype": lm.backbone.dtype,
            "parameters": config.parameter_count(),
            "contextLength": config.n_positions,
            "vocabularySize": config.vocab_size,
            "storedBytes": stored_bytes(
                config, lm.backbone.dtype, lm.device.capabilities.max_binding
            ),
            "defaults": {each.javascript: defaults[each.name] for each in PARAMETERS},
            "warnings": list(self._warned),
        }

    def stream(self, prompt: str, **settings: Any) -> Text:
        """Start a text.

        Args:
            prompt: the prompt.
            **settings: keys of `DEFAULTS`, ``stop`` (stop texts) and ``allowedSpecial`` (special
                tokens to recognise in the prompt, or "all").

        Raises:
            InvalidArgumentError: a setting is unknown or out of range.
            ContextLengthError: the prompt is too long.
        """
        given = {key: value for key, value in settings.items() if value is not None}
        stop = given.pop("stop", ())
        stop_texts = [stop] if isinstance(stop, str) else list(stop)
        special = given.pop("allowedSpecial", ())
        allowed = special if isinstance(special, str) else list(special)
        if unknown := sorted(given.keys() - DEFAULTS.keys()):
            known = ", ".join([*DEFAULTS, "stop", "allowedSpecial", "signal"])
            raise gw.errors.InvalidArgumentError(
                f"no setting {shown(unknown[0])}; there are {known}"
            )
        chosen = with_defaults(
            {each.name: given.get(each.javascript) for each in PARAMETERS},
            self._lm.generation_defaults | self._lm.generation_limits,
        )
        if chosen["seed"] is None:
            chosen["seed"] = secrets.randbelow(2**53)
        self._lm.compile(
            samplers.of_settings(**{each.name: chosen[each.name] for each in SAMPLER_PARAMETERS})
        )
        stream = self._lm.stream(
            prompt,
            max_new_tokens=chosen["max_new_tokens"],
            stop_texts=stop_texts,
            allowed_special=allowed,
        )
        seed = None if chosen["temperature"] == 0 else chosen["seed"]
        return Text(self, stream, seed)

    def memory(self) -> dict[str, Any]:
        """Return `memory` of the model's device."""
        return memory(self._lm.device)

    async def python(self, code: str) -> dict[str, Any]:
        """Run code of the console in a namespace with ``gw`` and ``lm``, kept between calls.

        Returns ``output`` (printed text) and ``result`` (repr of the last expression), or
        ``error`` with ``name`` and ``message`` (a traceback).
        """
        from pyodide.code import eval_code_async

        output = io.StringIO()
        with redirect_stdout(output), redirect_stderr(output):
            running = eval_code_async(code, self._names, filename=_CONSOLE)
            self._console = asyncio.ensure_future(_without_exit(running))
            try:
                result = await self._console
            except _NotHereError as error:
                return {"error": {"name": "RuntimeError", "message": f"{output.getvalue()}{error}"}}
            except (Exception, asyncio.CancelledError) as error:
                message = output.getvalue() + _traceback(error)
                return {"error": {"name": type(error).__name__, "message": message}}
            finally:
                self._console = None
                self.note_recovery()
        self._names["_"] = result
        return {"output": output.getvalue(), "result": None if result is None else repr(result)}

    def stop_python(self) -> None:
        """Cancel the code run by `python` at its next await."""
        if self._console is not None:
            self._console.cancel()

    def watch(self, on_lost: Callable[[str], object], on_recovered: Callable[[], object]) -> None:
        """Set the callbacks of device loss and of recovery on another device."""
        self._on_lost, self._on_recovered = on_lost, on_recovered
        self._watching = asyncio.ensure_future(self._wait_for_loss())

    async def _wait_for_loss(self) -> None:
        device = self._device
        reason = await device.lost()
        if not device.is_closed:
            self._on_lost(f"the device {device.info.name} is gone: {reason}")

    def note_recovery(self) -> None:
        """Call ``on_recovered`` if the model has replaced a lost device since the last call."""
        if self._lm.device is not self._device:
            self._device = self._lm.device
            self._on_recovered()
            self.watch(self._on_lost, self._on_recovered)

    def dispose(self) -> None:
        """Free the weights and the tensors of the console's namespace. Idempotent."""
        if self._watching is not None:
            self._watching.cancel()
        self._names.clear()
        self._lm.dispose()


class Text:
    """A text being generated."""

    def __init__(self, model: Model, stream: gw.TextStream, seed: int | None) -> None:
        self._model = model
        self._stream = stream
        self._seed = seed

    async def next(self) -> str | None:
        """Return the next piece of text; None at the end."""
        try:
            return await self._stream.__anext__()
        except StopAsyncIteration:
            return None
        finally:
            self._model.note_recovery()

    def stats(self) -> dict[str, Any]:
        """Return the current figures."""
        stats = self._stream.stats
        return {
            "promptTokens": stats.prompt_tokens,
            "tokens": stats.new_tokens,
            "tokensPerSecond": stats.tokens_per_second,
            "secondsToFirstToken": stats.seconds_to_first_token,
            "seed": self._seed,
            "finishReason": stats.finish_reason,
        }

    def close(self) -> None:
        """Stop generation; the submit in flight completes. Idempotent."""
        self._stream.close()

    async def __aenter__(self) -> Text:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


class _NotHereError(Exception):
    """A feature of consoles that is not available here."""


async def _without_exit(running: Awaitable[Any]) -> Any:
    try:
        return await running
    except SystemExit:  # which would propagate through the event loop
        raise _NotHereError("exit is not available here: unload the model instead") from None


def _no_input(prompt: object = "") -> str:
    raise _NotHereError("input() is not available here: write the value into the code")


def _traceback(error: BaseException) -> str:
    """Return the traceback from the user's code on."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename != _CONSOLE:
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames))
