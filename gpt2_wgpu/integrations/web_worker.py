"""What a web page's worker (``web/worker.js``) asks of Python: plain data in, plain data out.

Everything may come from JavaScript: lists of pairs for mappings, functions to call back. What goes
back are dictionaries of numbers and strings, with the names that JavaScript uses.
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
from gpt2_wgpu.sampling_parameters import PARAMETERS, SAMPLER_PARAMETERS, with_defaults
from gpt2_wgpu.shown import shown

DEFAULTS: dict[str, Any] = {each.javascript: each.default for each in PARAMETERS}
_CONSOLE = "<console>"


async def open_device() -> None:
    """Open the default device and check that it computes right; the formats of a model that is
    loaded later are checked before its first text.

    Raises ``NoAdapterError``, or ``DeviceError`` naming what it computes wrongly.
    """
    await require_right_results(await gw.webgpu.default_device_async(), "float16")


async def load(
    name: str,
    files: Iterable[tuple[str, Any]],
    dtype: str | None,
    on_progress: Callable[[int, int], object],
) -> Model:
    """Load a model from pairs of a file's name and its ``Blob``; see ``from_blobs``."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        lm = await gw.GPT2CausalLM.from_blobs(
            {file_name: blob for file_name, blob in files},
            dtype,
            on_progress=on_progress,  # type: ignore[arg-type]
            name=name,
        )
    return Model(name, lm, [str(warning.message) for warning in caught])


def memory(device: gw.Device | None = None) -> dict[str, Any]:
    """``gw.memory()``."""
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
    """A loaded model, as the worker knows it."""

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
        """Compile every kernel of a prompt and of a step, by running each once."""
        async with self.stream("Once upon", maxTokens=2) as text:  # penalties have kernels, too
            while await text.next() is not None:
                pass

    def info(self) -> dict[str, Any]:
        """What the model is."""
        lm, config = self._lm, self._lm.backbone.config
        return {
            "model": self._name,
            "dtype": lm.backbone.dtype,
            "parameters": config.parameter_count(),
            "contextLength": config.n_positions,
            "vocabularySize": config.vocab_size,
            "storedBytes": stored_bytes(
                config, lm.backbone.dtype, lm.device.capabilities.max_binding
            ),
            "defaults": dict(DEFAULTS),
            "warnings": list(self._warned),
        }

    def stream(self, prompt: str, **settings: Any) -> Text:
        """Begin a text. ``settings``: those of `DEFAULTS`, ``stop`` (a text, or texts, to stop
        before) and ``allowedSpecial`` (special tokens that the prompt may spell out, or "all").

        Raises ``InvalidArgumentError`` for a setting out of range, ``ContextLengthError``.
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
        chosen = with_defaults({each.name: given.get(each.javascript) for each in PARAMETERS})
        if chosen["seed"] is None:
            chosen["seed"] = secrets.randbelow(2**53)
        self._lm.compile(
            samplers.of_settings(**{each.name: chosen[each.name] for each in SAMPLER_PARAMETERS})
        )
        stream = self._lm.stream(
            prompt, chosen["max_new_tokens"], stop_texts=stop_texts, allowed_special=allowed
        )
        seed = None if chosen["temperature"] == 0 else chosen["seed"]
        return Text(self, stream, seed)

    def memory(self) -> dict[str, Any]:
        """`memory` of the model's device."""
        return memory(self._lm.device)

    async def python(self, code: str) -> dict[str, Any]:
        """Run code with ``gw`` and ``lm`` at hand; names stay for the next time.

        → ``output`` (what it printed) and ``result`` (the last expression's, as text), or
        ``error`` with ``name`` and ``message``, a traceback.
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
        """Cancel what `python` runs, where it next waits."""
        if self._console is not None:
            self._console.cancel()

    def watch(self, on_lost: Callable[[str], object], on_recovered: Callable[[], object]) -> None:
        """Call back when the device is lost, and when the model has another one."""
        self._on_lost, self._on_recovered = on_lost, on_recovered
        self._watching = asyncio.ensure_future(self._wait_for_loss())

    async def _wait_for_loss(self) -> None:
        device = self._device
        reason = await device.lost()
        if not device.is_closed:
            self._on_lost(f"the device {device.info.name} is gone: {reason}")

    def note_recovery(self) -> None:
        """Tell whether the model has replaced a lost device since the last time."""
        if self._lm.device is not self._device:
            self._device = self._lm.device
            self._on_recovered()
            self.watch(self._on_lost, self._on_recovered)

    def dispose(self) -> None:
        """Free the weights, and the tensors that the console's names hold. Idempotent."""
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
        """The next piece; None at the end."""
        try:
            return await self._stream.__anext__()
        except StopAsyncIteration:
            return None
        finally:
            self._model.note_recovery()

    def stats(self) -> dict[str, Any]:
        """Figures so far."""
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
        """Stop; what is under way ends with its submit. Idempotent."""
        self._stream.close()

    async def __aenter__(self) -> Text:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


class _NotHereError(Exception):
    """What other consoles do and this one cannot, in one line."""


async def _without_exit(running: Awaitable[Any]) -> Any:
    try:
        return await running
    except SystemExit:  # which would go through the event loop, past everyone who waits
        raise _NotHereError("there is nothing to exit here: unloading the model ends it") from None


def _no_input(prompt: object = "") -> str:
    raise _NotHereError("input() has no one to ask here: write the value into the code")


def _traceback(error: BaseException) -> str:
    """A traceback as a console shows it, from the user's code on."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename != _CONSOLE:
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames))
