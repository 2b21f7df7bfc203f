"""Errors for arguments that a generating function lacks: which function has them, or other names.

``lm.stream(prompt, callback=...)`` would otherwise be a ``TypeError`` that names an inner class.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Collection, Iterable
from functools import wraps
from typing import Any, TypeVar, cast

from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.samplers.rule_arguments import RULE_ARGUMENTS
from gpt2_wgpu.sampling_parameters import SAMPLER_PARAMETERS, SEARCH_SETTINGS, SEED

F = TypeVar("F", bound=Callable[..., Any])

_functions: dict[str, set[str]] = {}  # names of the arguments, by the function's name for messages
_STREAMS = ("lm.stream", "session.stream")
_SESSIONS = ("session.generate", "session.stream")
# What serves the purpose of an argument elsewhere.
_INSTEAD = {
    **dict.fromkeys(
        ((name, "callback") for name in _STREAMS), "its loop has each piece, and break ends it"
    ),
    **dict.fromkeys(
        ((name, "return_details") for name in _STREAMS), "stream.details() after its end has them"
    ),
    **dict.fromkeys(
        ((name, "strip_prompt") for name in (*_STREAMS, "session.generate")),
        "its text is always without the prompt",
    ),
    **dict.fromkeys(
        ((name, "num_return_sequences") for name in _SESSIONS),
        "a session has one text; lm.generate and lm.stream have it, or fork the session",
    ),
    **dict.fromkeys(
        ((name, "max_length") for name in _SESSIONS), "give max_new_tokens, or lm.session has it"
    ),
    **dict.fromkeys(
        (("gw.generate_batches", name) for name in ("return_details", "top_logprobs")),
        "it yields texts; lm.generate has it",
    ),
}
# Names of transformers and of OpenAI's API.
_OTHER_NAMES = {
    "assistant_model": "sampler=gw.samplers.SpeculativeSampler(draft_model=...)",
    "logits_processor": "lm.compile(logits_processors=...)",
    "logits_processors": "lm.compile(logits_processors=...)",
    "do_sample": 'sampler="greedy", or one of gw.samplers',
    "eos_token_id": "stop_token_ids",
    "max_time": "time_limit",
    "max_tokens": "max_new_tokens",
    "n": "num_return_sequences",
    "num_samples": "num_return_sequences",
    "prompt_lookup_num_tokens": "lm.compile(prompt_lookup_num_tokens=...)",
    "output_scores": "return_details=True",
    "stop": "stop_texts",
    "stop_strings": "stop_texts",
    "streamer": "lm.stream",
}
_OF_SAMPLERS = {
    *(each.name for each in SAMPLER_PARAMETERS if each is not SEED),
    *SEARCH_SETTINGS,
    *RULE_ARGUMENTS,
}


def named(name: str) -> Callable[[F], F]:
    """Let other arguments of a function be an InvalidArgumentError. A decorator.

    ``name``: of the function in messages; its async counterpart has the same.
    """

    def decorate(function: F) -> F:
        kinds = inspect.signature(function).parameters.values()
        own = {each.name for each in kinds if each.kind != each.VAR_KEYWORD} - {"self"}
        _functions.setdefault(name, set()).update(own)
        if any(each.kind == each.VAR_KEYWORD for each in kinds):
            return function  # which calls check_arguments itself
        if inspect.iscoroutinefunction(function):

            @wraps(function)
            async def checked_async(*args: Any, **kwargs: Any) -> Any:
                check_arguments(name, kwargs, own)
                return await function(*args, **kwargs)

            return cast(F, checked_async)

        @wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Any:
            check_arguments(name, kwargs, own)
            return function(*args, **kwargs)

        return cast(F, checked)

    return decorate


def check_arguments(function: str, given: Iterable[str], own: Collection[str]) -> None:
    """Raise InvalidArgumentError if ``function`` has not all arguments that are ``given``."""
    for name in given:
        if name not in own:
            raise InvalidArgumentError(
                f"{function} has no argument {name}{_hint(function, name, own)}"
            )


def _hint(function: str, name: str, own: Collection[str]) -> str:
    """Return what to use instead of an argument, behind a colon, or which arguments there are."""
    if instead := _INSTEAD.get((function, name)):
        return f": {instead}"
    if name in _OF_SAMPLERS and "sampler" in own:
        return f": samplers have it, as in sampler=gw.samplers.of_settings({name}=...)"
    if name in _OTHER_NAMES:
        return f": use {_OTHER_NAMES[name]}"
    if having := [each for each, names in _functions.items() if name in names]:
        verb = "has" if len(having) == 1 else "have"
        return f": {', '.join(having[:-1])}{' and ' if having[1:] else ''}{having[-1]} {verb} it"
    close = difflib.get_close_matches(name, sorted(own), 1)
    return f": did you mean {close[0]}?" if close else f"; it has {', '.join(sorted(own))}"
