"""Body of `POST /v1/completions`: its fields, checked, with defaults."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from gpt2_wgpu import samplers
from gpt2_wgpu.errors import ContextLengthError, InvalidArgumentError
from gpt2_wgpu.models import GPT2CausalLM
from gpt2_wgpu.models.row_ends import with_start_token
from gpt2_wgpu.sampling_parameters import (
    MAX_NEW_TOKENS,
    MAX_TOP_LOGPROBS,
    SAMPLER_PARAMETERS,
    SEARCH_SETTINGS,
    with_defaults,
)
from gpt2_wgpu.server.api_errors import APIError, api_error_of
from gpt2_wgpu.shown import shown
from gpt2_wgpu.text import StopTextMatcher
from gpt2_wgpu.text.token_arrays import rows_of_ids
from gpt2_wgpu.validation import Range

T = TypeVar("T")
MAX_CHOICES = 128  # of n and best_of
MAX_STOPS = 64
MAX_STOP_LENGTH = 1000  # characters
MAX_BIASES = 1024
_COUNT = Range(1, MAX_CHOICES, whole=True)
_LOGPROBS = Range(0, MAX_TOP_LOGPROBS, whole=True)
_BIAS = Range(-100, 100)
_OTHERS = {
    "model",
    "prompt",
    "suffix",
    "max_tokens",
    "n",
    "best_of",
    "stream",
    "stream_options",
    "logprobs",
    "echo",
    "stop",
    "logit_bias",
    "user",
    "stop_token_ids",
    "add_start_token",
    "allowed_special",
}
FIELDS = _OTHERS | {each.name for each in SAMPLER_PARAMETERS}


@dataclass(frozen=True)
class Prompt:
    """Ids of a prompt, and how many of them are a start token without text (0 or 1)."""

    ids: list[int]
    hidden: int


@dataclass(frozen=True)
class CompletionRequest:
    """Checked request.

    Attributes:
        prompts: one or more.
        max_tokens: limit of the new tokens of each row; 0: none.
        sampler: without a seed.
        seed: of the first row; the next rows have the next seeds.
        n: choices of each prompt.
        best_of: rows of each prompt, of which the ``n`` most probable are chosen.
        logprobs: number of alternatives of each token; None: no log-probabilities.
        echo: whether the texts begin with the prompt.
        stop: texts before which a text ends.
        stop_token_ids: ids that end a text.
        stream: whether to send the texts in pieces.
        include_usage: whether a stream ends with the numbers of tokens.
    """

    prompts: list[Prompt]
    max_tokens: int
    sampler: samplers.Sampler
    seed: int
    n: int
    best_of: int
    logprobs: int | None
    echo: bool
    stop: tuple[str, ...]
    stop_token_ids: list[int]
    stream: bool
    include_usage: bool

    @property
    def rows(self) -> int:
        """Number of rows to generate, or of prompts to score."""
        return len(self.prompts) * self.best_of


def parse(body: Any, lm: GPT2CausalLM, model: str, max_rows: int) -> CompletionRequest:
    """Return the request of a JSON value.

    Args:
        body: the value.
        lm: the model.
        model: its name.
        max_rows: limit of the rows; it is checked before any text is encoded.

    Raises:
        APIError: with the name of the field that is at fault.
    """
    if not isinstance(body, dict):
        raise APIError(400, f"the body must be a JSON object, not {shown(body)}")
    for name in body:
        if name not in FIELDS:
            raise APIError(400, f"Unrecognized request argument supplied: {shown(name)}", name)
    given = {name: value for name, value in body.items() if value is not None}
    if given.get("model", model) != model:
        message = f"The model {shown(given['model'])} does not exist: this server has {model!r}"
        raise APIError(404, message, "model", "model_not_found")
    if given.get("suffix", "") != "":
        raise APIError(400, "suffix is not supported: GPT-2 only continues a text", "suffix")
    return _Fields(given, lm).request(max_rows)


class _Fields:
    """Fields of a request that are not null."""

    def __init__(self, given: Mapping[str, Any], lm: GPT2CausalLM) -> None:
        self._given, self._lm = given, lm

    def request(self, max_rows: int) -> CompletionRequest:
        settings = self._settings()
        seed = settings.pop("seed")
        max_tokens = settings.pop(MAX_NEW_TOKENS.name)
        stream, echo = self._flag("stream"), self._flag("echo")
        n = int(self._number("n", _COUNT, 1))
        best_of = int(self._number("best_of", _COUNT, n))
        if best_of < n:
            raise APIError(400, f"best_of must be >= n, and {best_of} < {n}", "best_of")
        if stream and best_of > n:
            raise APIError(400, "best_of must equal n in a stream", "best_of")
        if (rows := self._prompt_count() * best_of) > max_rows:
            message = f"the request has {rows} rows, but this server admits {max_rows} at once"
            raise APIError(400, message, "prompt")
        logprobs = None
        if "logprobs" in self._given:
            logprobs = int(self._number("logprobs", _LOGPROBS, 0))
            logprobs = min(logprobs, self._lm.backbone.config.vocab_size)
        return CompletionRequest(
            prompts=self._checked("prompt", self._prompts),
            max_tokens=max_tokens,
            sampler=self._sampler(settings),
            seed=secrets.randbelow(2**31) if seed is None else seed,
            n=n,
            best_of=best_of,
            logprobs=logprobs,
            echo=echo,
            stop=self._checked("stop", self._stops),
            stop_token_ids=self._checked("stop_token_ids", self._stop_token_ids),
            stream=stream,
            include_usage=self._include_usage(stream),
        )

    def _settings(self) -> dict[str, Any]:
        """Return the sampling parameters and max_new_tokens: given, the checkpoint's, or ours."""
        given = {
            each.name: self._number(each.name, each.range, None)
            for each in SAMPLER_PARAMETERS
            if each.name in self._given
        }
        most = Range(0, MAX_NEW_TOKENS.range.high, whole=True)
        max_tokens = self._number("max_tokens", most, None)
        given[MAX_NEW_TOKENS.name] = None if max_tokens is None else int(max_tokens)
        own = self._lm.generation_defaults | self._lm.generation_limits
        # Rows share a step, which a search does not have.
        return with_defaults(given, {n: v for n, v in own.items() if n not in SEARCH_SETTINGS})

    def _sampler(self, settings: dict[str, Any]) -> samplers.Sampler:
        bias = self._checked("logit_bias", self._logit_bias)
        try:
            return samplers.of_settings(**settings, logit_bias=bias)
        except InvalidArgumentError as error:
            raise api_error_of(error) from None

    def _prompt_count(self) -> int:
        prompt = self._given.get("prompt")
        if not isinstance(prompt, list) or (prompt and _is_id(prompt[0])):
            return 1
        return len(prompt)

    def _prompts(self) -> list[Prompt]:
        prompt = self._given.get("prompt", "")
        if isinstance(prompt, list) and prompt and _is_id(prompt[0]):
            prompt = [prompt]
        prompts = prompt if isinstance(prompt, list) else [prompt]
        if prompts and all(isinstance(each, list) and each for each in prompts):
            found = [Prompt(self._ids(each), 0) for each in prompts]
        elif prompts and all(isinstance(each, str) for each in prompts):
            found = self._encoded(prompts)
        else:
            raise InvalidArgumentError(
                "prompt must be a string, a list of strings, a list of token ids or a list of "
                f"such lists, none of them empty, not {shown(prompt)}"
            )
        room = self._lm.backbone.config.n_positions - (self._given.get("max_tokens") != 0)
        for index, each in enumerate(found):
            if len(each.ids) > room:
                raise ContextLengthError(
                    f"prompt {index} has {len(each.ids)} tokens (start token included), but at "
                    f"most {room} fit: shorten it"
                )
        return found

    def _encoded(self, texts: list[str]) -> list[Prompt]:
        preprocessor = self._lm.preprocessor
        assert preprocessor is not None  # create_app rejects a model without one
        if "add_start_token" in self._given:
            preprocessor = with_start_token(preprocessor, self._flag("add_start_token"))
        start, always = preprocessor.tokenizer.start_token_id, preprocessor.add_start_token
        rows = self._lm.encode_prompts(texts, preprocessor, self._given.get("allowed_special"))
        return [
            Prompt(row, int(start is not None and (always or not text)))
            for row, text in zip(rows, texts, strict=True)
        ]

    def _ids(self, ids: Any) -> list[int]:
        return rows_of_ids([ids], self._lm.backbone.config.vocab_size, "token ids")[0]

    def _stops(self) -> tuple[str, ...]:
        if "stop" not in self._given:
            return tuple(self._lm.generation_limits.get("stop_texts", ()))
        stop = self._given["stop"]
        if not isinstance(stop, str | list):
            raise InvalidArgumentError(f"stop must be a string or a list, not {shown(stop)}")
        stops = [stop] if isinstance(stop, str) else stop
        if len(stops) > MAX_STOPS:
            raise InvalidArgumentError(f"stop has {len(stops)} texts, but at most {MAX_STOPS}")
        found = StopTextMatcher(stops).stops
        if (longest := max(map(len, found), default=0)) > MAX_STOP_LENGTH:
            raise InvalidArgumentError(
                f"stop has a text of {longest} characters, but at most {MAX_STOP_LENGTH}"
            )
        return found

    def _stop_token_ids(self) -> list[int]:
        return self._lm.resolve_stop_tokens(self._given.get("stop_token_ids", "auto"))

    def _logit_bias(self) -> dict[int, float] | None:
        given, biases = self._given.get("logit_bias", {}), {}
        if not isinstance(given, dict):
            raise InvalidArgumentError(f"logit_bias must be an object, not {shown(given)}")
        if len(given) > MAX_BIASES:
            message = f"logit_bias has {len(given)} tokens, but at most {MAX_BIASES}"
            raise InvalidArgumentError(message)
        for key, value in given.items():
            if not re.fullmatch("[0-9]{1,9}", key, re.ASCII):
                raise InvalidArgumentError(f"logit_bias has the key {shown(key)}: use token ids")
            (token,) = self._ids([int(key)])
            biases[token] = _BIAS.check(f"the bias of token {token}", value)
        return biases or None

    def _include_usage(self, stream: bool) -> bool:
        options = self._given.get("stream_options")
        if options is None:
            return False
        if not stream:
            raise APIError(400, "stream_options needs stream: true", "stream_options")
        # include_obfuscation only pads the answers of OpenAI's own servers.
        known = {"include_usage", "include_obfuscation"}
        if not isinstance(options, dict) or not options.keys() <= known:
            message = f"stream_options must be {{'include_usage': bool}}, not {shown(options)}"
            raise APIError(400, message, "stream_options")
        return _flag("stream_options.include_usage", options.get("include_usage"), False)

    def _flag(self, name: str, default: bool = False) -> bool:
        return _flag(name, self._given.get(name), default)

    def _number(self, name: str, allowed: Range, default: Any) -> Any:
        if name not in self._given:
            return default
        return self._checked(name, lambda: allowed.check(name, self._given[name]))

    @staticmethod
    def _checked(name: str, make: Callable[[], T]) -> T:
        """Return ``make()``; its errors get the name of the field."""
        try:
            return make()
        except InvalidArgumentError as error:
            raise api_error_of(error, name) from None


def _flag(name: str, value: Any, default: bool) -> bool:
    if value is None:
        return default
    if not isinstance(value, bool):
        raise APIError(400, f"{name} must be true or false, not {shown(value)}", name)
    return value


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
