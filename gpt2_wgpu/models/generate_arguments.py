"""Types of the arguments of ``generate`` and ``stream``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from gpt2_wgpu import samplers
from gpt2_wgpu.models.control import Cancellation
from gpt2_wgpu.text.preprocessor import AllowedSpecial

StopTokens = Sequence[int] | str | None
Seeds = int | list[int] | tuple[int, ...] | range  # of a call, or of each row
SamplerLike = str | dict[str, Any] | samplers.Sampler
# (row of the result, new id, text that it completes); False ends the call
Callback = Callable[[int, int, str], object]


class _CallOptions(TypedDict, total=False):
    """Keyword arguments of ``generate`` and ``stream``."""

    max_new_tokens: int | None
    stop_texts: Sequence[str] | None
    sampler: SamplerLike | None
    seed: Seeds | None
    add_start_token: bool | None
    allowed_special: AllowedSpecial | None
    time_limit: float | None
    cancellation: Cancellation | None
    wait: bool


class StreamOptions(_CallOptions, total=False):
    """Keyword arguments of ``stream``."""

    top_logprobs: int | None


class GenerateOptions(_CallOptions, total=False):
    """Keyword arguments of ``generate`` that do not change the type of its result."""

    callback: Callback | None
    top_logprobs: int | None


class SessionOptions(TypedDict, total=False):
    """Keyword arguments of a session's ``generate`` that do not change the type of its result."""

    stop_token_ids: StopTokens
    stop_texts: Sequence[str] | None
    sampler: SamplerLike | None
    seed: int | None
    top_logprobs: int | None
    callback: Callback | None
    time_limit: float | None
    cancellation: Cancellation | None
    wait: bool


@dataclass(frozen=True)
class GenerateRequest:
    """Arguments of one call of ``generate``."""

    inputs: Any
    max_length: int | None
    stop_token_ids: StopTokens
    strip_prompt: bool
    max_new_tokens: int | None
    stop_texts: Sequence[str] | None
    sampler: SamplerLike | None
    seed: Seeds | None
    num_return_sequences: int
    add_start_token: bool | None
    allowed_special: AllowedSpecial | None
    return_details: bool
    top_logprobs: int | None
    callback: Callback | None
    time_limit: float | None
    cancellation: Cancellation | None
    wait: bool
