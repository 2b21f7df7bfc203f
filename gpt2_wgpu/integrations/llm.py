"""Plugin for Simon Willison's ``llm``: models that continue text on the GPU of this machine.

    pip install 'gpt2-wgpu[llm]'
    llm -m gpt2-wgpu/fairytales 'Once upon a time' -o max_tokens 60
    llm -c ' The next morning'

A GPT-2 has no roles: the prompt of a conversation's turn is all text so far, prompts and answers,
without separators, and the new prompt.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

import llm
from pydantic import Field, create_model

from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.sampling_parameters import (
    MAX_NEW_TOKENS,
    SAMPLER_PARAMETERS,
    Parameter,
    with_defaults,
)
from gpt2_wgpu.weights.presets import EMBEDDED, hub_id, presets

if TYPE_CHECKING:  # `llm` loads its plugins for each command
    import gpt2_wgpu as gw

DEFAULT = "gpt2-wgpu"  # id of the model that GPT2_WGPU_MODEL names


@llm.hookimpl
def register_models(register: Callable[..., None]) -> None:
    """Register the default model and each preset, as ``gpt2-wgpu/NAME``."""
    register(*_models(DEFAULT, os.environ.get("GPT2_WGPU_MODEL") or EMBEDDED))
    names: dict[str | None, list[str]] = {}
    for name in presets():
        names.setdefault(hub_id(name), []).append(name)
    for name, *short_names in names.values():
        aliases = [f"{DEFAULT}/{short}" for short in short_names]
        register(*_models(f"{DEFAULT}/{name}", name), aliases=aliases)


def _models(model_id: str, preset: str) -> tuple[GPT2Model, AsyncGPT2Model]:
    loaded = _loaded_once(preset)
    return GPT2Model(model_id, loaded), AsyncGPT2Model(model_id, loaded)


class _LoadedOnce:
    """Model that is loaded when it is first used."""

    def __init__(self, preset: str) -> None:
        self._preset = preset
        self._lm: gw.GPT2CausalLM | None = None
        self._lock = threading.Lock()

    def get(self) -> gw.GPT2CausalLM:
        import gpt2_wgpu as gw

        with self._lock:
            if self._lm is None:
                self._lm = gw.GPT2CausalLM.from_preset(self._preset)
            return self._lm

    def close(self) -> None:
        """Free the model's memory; the next use loads it again."""
        with self._lock:
            if self._lm is not None:
                self._lm.dispose()
            self._lm = None


@cache
def _loaded_once(preset: str) -> _LoadedOnce:
    """Return the one object of ``preset``: `llm` makes its models anew for each look-up."""
    return _LoadedOnce(preset)


def _option(parameter: Parameter) -> tuple[Any, Any]:
    """Return type and field of an option, by the table of sampling parameters."""
    allowed = parameter.range
    low = {"gt" if allowed.open_low else "ge": allowed.low}
    kind: Any = int if allowed.whole else float
    text = f"{parameter.metavar}: {parameter.help}"
    return kind | None, Field(default=None, description=text, le=allowed.high, **low)


def _options() -> Any:
    fields: dict[str, Any] = {each.name: _option(each) for each in SAMPLER_PARAMETERS}
    fields["max_tokens"] = _option(MAX_NEW_TOKENS)
    description = "text before which the generated text ends"
    fields["stop"] = (str | list[str] | None, Field(default=None, description=description))
    return create_model("Options", __base__=llm.Options, **fields)


class _ContinuesText:
    """What the blocking and the async model share."""

    can_stream = True
    Options = _options()

    def __init__(self, model_id: str, loaded: _LoadedOnce) -> None:
        self.model_id = model_id
        self._loaded = loaded

    def close(self) -> None:
        """Free the memory on the GPU; the next prompt loads the model again."""
        self._loaded.close()

    def _stream(self, prompt: Any, response: Any) -> gw.TextStream:
        """Return the stream that answers ``prompt``; its seed is in ``response.response_json``."""
        from gpt2_wgpu import samplers

        text = _text_of(prompt)
        lm = self._loaded.get()
        given = {name: value for name, value in prompt.options if value is not None}
        stop = given.pop("stop", None)
        given["max_new_tokens"] = given.pop("max_tokens", None)
        settings = with_defaults(given, lm.generation_defaults | lm.generation_limits)
        if settings["seed"] is None:
            settings["seed"] = secrets.randbelow(2**31)
        most = settings.pop("max_new_tokens")
        response.response_json = {"seed": settings["seed"]}
        return lm.stream(
            text,
            max_new_tokens=most,
            stop_texts=[stop] if isinstance(stop, str) else stop,
            sampler=samplers.of_settings(**settings),
        )


def _text_of(prompt: Any) -> str:
    """Return the text of all turns up to ``prompt``, joined."""
    if any(message.role not in ("user", "assistant") for message in prompt.messages):
        raise InvalidArgumentError(
            "gpt2-wgpu continues text and knows no system prompts or tools: begin the prompt with "
            "their text"
        )
    parts = (part for message in prompt.messages for part in message.parts)
    return "".join(part.text for part in parts)


def _report(response: Any, stream: gw.TextStream) -> None:
    """Give ``llm`` the number of tokens and the finish reason, for its logs."""
    stats = stream.stats
    response.set_usage(input=stats.prompt_tokens, output=stats.new_tokens)
    response.response_json = {**response.response_json, "finish_reason": stats.finish_reason}


class GPT2Model(_ContinuesText, llm.Model):
    """Model of ``llm`` that continues text."""

    def execute(self, prompt: Any, stream: bool, response: Any, conversation: Any) -> Iterator[str]:
        """Yield the pieces of the text, or all of it."""
        with self._stream(prompt, response) as pieces:
            if stream:
                yield from pieces
            else:
                yield "".join(pieces)
            _report(response, pieces)


class AsyncGPT2Model(_ContinuesText, llm.AsyncModel):
    """Async counterpart of :class:`GPT2Model`, with the same model on the GPU."""

    async def execute(
        self, prompt: Any, stream: bool, response: Any, conversation: Any
    ) -> AsyncIterator[str]:
        """Yield the pieces of the text, or all of it."""
        async with self._stream(prompt, response) as pieces:
            if stream:
                async for piece in pieces:
                    yield piece
            else:
                yield "".join([piece async for piece in pieces])
            _report(response, pieces)
