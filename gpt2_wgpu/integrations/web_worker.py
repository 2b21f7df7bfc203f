"""Python side of a web page's worker (``web/worker.js``).

Arguments come from JavaScript: mappings as lists of pairs, and callbacks. Results are dictionaries
of numbers and strings, with JavaScript's names.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from copy import copy
from typing import Any, TypeVar

import gpt2_wgpu as gw
from gpt2_wgpu import samplers
from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.integrations.web_console import Console
from gpt2_wgpu.integrations.web_inspection import inspection
from gpt2_wgpu.integrations.web_kernels import FIRST_PROMPT, FIRST_TOKENS, prepare_first_text
from gpt2_wgpu.integrations.web_sessions import Session, session_arguments
from gpt2_wgpu.integrations.web_settings import Settings, javascript_names, search_warnings
from gpt2_wgpu.integrations.web_texts import Text, details_of, pieces
from gpt2_wgpu.integrations.web_tokens import TokenText, without_tokens
from gpt2_wgpu.models.default_dtype import likely_dtype
from gpt2_wgpu.models.loading import open_blobs
from gpt2_wgpu.models.self_test import require_right_results
from gpt2_wgpu.models.weight_sizes import stored_bytes
from gpt2_wgpu.sampling_parameters import (
    PARAMETERS,
    RULE_PARAMETERS,
    SEARCH_SETTINGS,
    with_defaults,
)
from gpt2_wgpu.text import GPT2CausalLMPreprocessor, GPT2Tokenizer
from gpt2_wgpu.weight_formats import WEIGHT_FORMATS

T = TypeVar("T")

_opening = asyncio.Lock()  # loads at the same time share one device and one self-test


async def open_device(dtype: str | None = None) -> None:
    """Open the default device and run the self-test, while the model is downloaded.

    A load that failed leaves this running, for the next load.

    Args:
        dtype: weight format to check; None or an unknown one: the default of most models. A model
            of another format is checked before its first text.

    Raises:
        NoAdapterError: no adapter was found.
        DeviceError: the self-test failed; the message names the operation.
    """
    async with _opening:
        device = await gw.webgpu.default_device_async()
        if dtype not in WEIGHT_FORMATS:
            dtype = await likely_dtype(device)
        await require_right_results(device, dtype)


async def load(
    name: str,
    files: Iterable[tuple[str, Any]],
    dtype: str | None,
    on_progress: Callable[[int, int], object],
    source: str | None = None,
) -> Model:
    """Load a model from pairs of file name and ``Blob``; see ``from_blobs``.

    ``source``: hub id or address that the files come from; default: ``name``. The browser compiles
    the kernels while the weights are uploaded.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        opened = await open_blobs(dict(files), name)
        await prepare_first_text(opened, dtype)
        report: Any = on_progress
        lm = await gw.GPT2CausalLM.from_files(opened, dtype, None, report, None, [])
    return Model(name, lm, [str(warning.message) for warning in caught], source)


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

    def __init__(
        self,
        name: str,
        lm: gw.GPT2CausalLM,
        warned: Sequence[str] = (),
        source: str | None = None,
    ) -> None:
        self._name = name
        self._source = name if source is None else source
        self._lm = lm
        self._warned = list(warned)
        self._console = Console(lm)
        self._device = lm.device
        self._on_lost: Callable[[str], object] = lambda reason: None
        self._on_recovered: Callable[[], object] = lambda: None
        self._watching: asyncio.Future[None] | None = None
        self._task: asyncio.Future[Any] | None = None

    async def warm_up(self) -> None:
        """Compile all kernels of prefill and decode step, by running each once."""
        async with self.stream(FIRST_PROMPT, {"maxTokens": FIRST_TOKENS}) as text:  # with penalties
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
            "stop": list(lm.generation_limits.get("stop_texts", ())),
            "timeLimit": lm.generation_limits.get("time_limit"),
            "warnings": self._warned + search_warnings(lm.generation_defaults),
        }

    def stream(
        self, prompt: Any, given: Mapping[str, Any], rules: Any = None, ended: bool = False
    ) -> Text:
        """Start a text, or several that are generated together.

        Args:
            prompt: a prompt, or its ids; several prompts.
            given: settings, with keys of `web_settings.SETTINGS`, and ``tokens``: whether the text
                comes token by token.
            rules: object with ``allows`` and ``finished``, as for ``TextConstraint``; None: no
                constraint.
            ended: whether the time of the call was up while another was running, which it leaves
                as it is.

        Raises:
            InvalidArgumentError: a setting is unknown or out of range.
            ContextLengthError: the prompt is too long.
        """
        with javascript_names():
            one = isinstance(prompt, str) or (bool(prompt) and isinstance(prompt[0], int))
            settings = self._settings(
                without_tokens(given), rules, 1 if one else len(prompt), ended=ended
            )
            if given.get("returnAllBeams"):
                raise InvalidArgumentError(
                    "a stream has the best text of a beam search, or numReturnSequences of them: "
                    "for returnAllBeams call generate"
                )
            seed = None
            if not one or given.get("numReturnSequences") is not None:
                if given.get("tokens"):
                    raise InvalidArgumentError("a stream of tokens has one text: omit tokens")
                prompt, seed = [prompt] if one else prompt, settings.seeds
            lm = self._without_constraint() if ended else self._lm
            begin: Any = lm.stream  # its overloads are too many for mypy
            stream = begin(
                prompt,
                sampler=settings.sampler,
                seed=seed,
                num_return_sequences=settings.texts_per_prompt,
                top_logprobs=settings.top_logprobs,
                **settings.arguments,
            )
        if given.get("tokens"):
            return TokenText(given, stream, settings, self._tokenizer, self.note_recovery)
        return Text(stream, settings, self._tokenizer, self.note_recovery)

    async def generate(
        self, prompts: list[str], given: Mapping[str, Any], rules: Any = None, ended: bool = False
    ) -> list[dict[str, Any]]:
        """Generate texts together, without their prompts.

        Arguments and errors as in `stream`.

        Returns:
            For each text its details, or ``text`` alone; with ``returnAllBeams`` also ``score``.
        """
        if not prompts:
            return []
        with javascript_names():
            settings = self._settings(given, rules, len(prompts), ended=ended)
            scored = bool(given.get("returnAllBeams"))
            lm = self._without_constraint() if ended else self._lm
            generate: Any = lm.generate_async  # its overloads are too many for mypy
            generating = generate(
                prompts,
                strip_prompt=True,
                sampler=settings.sampler,
                seed=settings.seeds,
                num_return_sequences=settings.texts_per_prompt,
                return_details=scored or settings.top_logprobs is not None,
                top_logprobs=settings.top_logprobs,
                **settings.arguments,
            )
            found = await (generating if ended else self._stoppable(generating))
        if settings.top_logprobs is None:
            if scored:
                return [{"text": each.text, "score": each.score} for each in found]
            return [{"text": text} for text in found]
        return [
            details_of(each, settings.seed_of(row), self._tokenizer)
            for row, each in enumerate(found)
        ]

    def session(self, prompt: str | list[int], options: Mapping[str, Any]) -> Session:
        """Begin a session.

        Args:
            prompt: the beginning of the text, or its ids.
            options: with keys of `web_sessions.OPTIONS`.

        Raises:
            InvalidArgumentError: an option is unknown or out of range.
            ContextLengthError: the prompt is too long.
        """
        with javascript_names():
            session = self._lm.session(prompt, **session_arguments(options))
        return self._wrapped(session)

    async def load_session(self, data: memoryview) -> Session:
        """Load a session of ``Session.to_bytes``; SessionError if it is none of this model."""
        return self._wrapped(await self._lm.load_session_async(bytes(data)))

    def _wrapped(self, session: gw.Session) -> Session:
        others = (
            self._session_settings,
            self.stream,
            self._tokenizer,
            self.note_recovery,
            self._source,
        )
        return Session(session, *others)

    def _session_settings(self, given: Mapping[str, Any], rules: Any) -> Settings:
        """Return the settings of a session's text, which no search can continue."""
        return self._settings(given, rules, searches=False)

    def _settings(
        self,
        given: Mapping[str, Any],
        rules: Any,
        prompts: int = 1,
        searches: bool = True,
        ended: bool = False,
    ) -> Settings:
        """Return the settings of a call, and set its constraint.

        ``searches``: obey a search of the checkpoint. ``ended``: set no constraint.
        """
        lm = self._lm
        own = lm.generation_defaults | lm.generation_limits
        if not searches:
            own = {name: value for name, value in own.items() if name not in SEARCH_SETTINGS}
        settings = Settings.of(given, own, prompts)
        if ended:
            return settings
        constraint = [] if rules is None else [samplers.TextConstraint(self._tokenizer, rules)]
        if constraint or lm.logits_processors or lm.prompt_lookup_num_tokens:
            lm.compile(lm.sampler, logits_processors=constraint)  # what the console has set
        return settings

    def _without_constraint(self) -> gw.GPT2CausalLM:
        """Return the model, with its turns, but without the constraint of a call that runs."""
        copied = copy(self._lm)
        copied.turns = self._lm.turns
        copied.compile(copied.sampler)
        return copied

    @property
    def _preprocessor(self) -> GPT2CausalLMPreprocessor:
        preprocessor = self._lm.preprocessor
        assert preprocessor is not None  # a model of files has one
        return preprocessor

    @property
    def _tokenizer(self) -> GPT2Tokenizer:
        return self._preprocessor.tokenizer

    def encode(self, text: str, allowed_special: Any = ()) -> list[int]:
        """Return the ids of a text, without start token."""
        with javascript_names():
            return self._tokenizer.encode(text, allowed_special)

    def decode(self, token_ids: list[int]) -> str:
        """Return the text of ids."""
        return self._tokenizer.decode(token_ids)

    def pieces(self, text: str | list[int], allowed_special: Any = ()) -> list[str]:
        """Return the text of each token of a text, or of each id."""
        ids = self.encode(text, allowed_special) if isinstance(text, str) else text
        self._tokenizer.decode(ids)  # checks them
        return pieces(self._tokenizer, ids)

    async def logprobs(self, texts: Any, stride: int | None) -> Any:
        """Return ``lm.logprobs``."""
        return await self._stoppable(self._lm.logprobs_async(texts, stride))

    async def perplexity(self, texts: Any, stride: int | None) -> float:
        """Return ``lm.perplexity``."""
        return await self._stoppable(self._lm.perplexity_async(texts, stride))

    async def inspect(self, inputs: str | list[int], given: Mapping[str, Any]) -> dict[str, Any]:
        """Return `web_inspection.inspection`."""
        with javascript_names():
            return await self._stoppable(inspection(self._lm, self._preprocessor, inputs, given))

    async def score(self, token_ids: list[int], target_ids: list[int] | None) -> Any:
        """Return ``lm.score`` of one row, as a flat array: logits, or losses of the targets."""

        async def scored() -> Any:
            mode = "logits" if target_ids is None else "loss"
            targets = None if target_ids is None else [target_ids]
            found = self._lm.score([token_ids], scoring_mode=mode, target_ids=targets)
            flat = found.view((found.size,))
            found.dispose()
            try:
                return await flat.data()
            finally:
                flat.dispose()

        with javascript_names():
            return await self._stoppable(scored())

    async def _stoppable(self, work: Coroutine[Any, Any, T] | Awaitable[T]) -> T:
        """Return the result of ``work``, which `stop` cancels."""
        self._task = task = asyncio.ensure_future(work)
        try:
            return await task
        finally:
            self._task = None
            self.note_recovery()

    def stop(self) -> None:
        """Cancel what runs, except a stream, at its next await."""
        if self._task is not None:
            self._task.cancel()

    def memory(self) -> dict[str, Any]:
        """Return `memory` of the model's device."""
        return memory(self._lm.device)

    async def python(self, code: str) -> dict[str, Any]:
        """Run code of the console; see `web_console.Console.run`."""
        return await self._console.run(code, self._stoppable)

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
        self._console.clear()
        self._lm.dispose()
