"""Samplers that choose in Python: KerasHub's extension points of ``Sampler``.

A subclass that replaces ``get_next_token`` or ``compute_probabilities`` runs token by token: the
step's logits are read back, or used by functions of ``gpt2_wgpu.ops``, before the next step begins.
One that replaces ``__call__`` (or ``call_async``) runs the whole loop itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from gpt2_wgpu.errors import InvalidArgumentError, ShapeError
from gpt2_wgpu.shown import shown
from gpt2_wgpu.tensors import Tensor, tidy
from gpt2_wgpu.text.token_arrays import as_array, rows_of_ids, rows_of_mask

if TYPE_CHECKING:
    from typing import Protocol

    class PythonSampler(Protocol):
        """Protocol of a ``Sampler`` that chooses in Python."""

        def compute_probabilities(self, logits: Any) -> Any:
            """See `Sampler.compute_probabilities`."""

        def get_next_token(self, probabilities: Any) -> Any:
            """See `Sampler.get_next_token`."""


async def next_tokens(sampler: PythonSampler, logits: Any, batch: int) -> list[int]:
    """Return the token that ``sampler`` chooses for each row of ``logits`` [``batch``, V].

    Raises:
        InvalidArgumentError: ``get_next_token`` returned something other than integers.
        ShapeError: it returned another number of them than there are rows.
    """
    probabilities = await awaited(sampler.compute_probabilities(logits))
    found = await awaited(sampler.get_next_token(probabilities))
    if isinstance(found, Tensor):
        found = (await found.data()).tolist()
    elif hasattr(found, "tolist"):
        found = found.tolist()
    if not isinstance(found, list | tuple):
        raise InvalidArgumentError(
            f"get_next_token must return one token id a row, not {shown(found)}"
        )
    rows = rows_of_ids([_only(token) for token in found], None, "the result of get_next_token")
    if len(rows) != 1:
        raise ShapeError("get_next_token must return one token id a row, [B] or [B, 1]")
    (tokens,) = rows
    if len(tokens) != batch:
        raise ShapeError(f"get_next_token returned {len(tokens)} tokens for {batch} rows")
    return tokens


def _only(token: Any) -> Any:
    """Return the token of [1], as samplers give that keep the axis of the vocabulary."""
    return token[0] if isinstance(token, list | tuple) and len(token) == 1 else token


def rows_of_prompt(prompt: Any) -> list[list[int]]:
    """Return a sampler's prompt [B, T] as rows of ids.

    Arrays of whole floats are accepted: Keras' ``ops.full`` makes floats of integers.

    Raises:
        InvalidArgumentError, ShapeError: as in ``rows_of_ids``.
    """
    if "float" in str(getattr(prompt, "dtype", "")):
        prompt = _whole(prompt.tolist())
    return rows_of_ids(prompt, ragged=False, name="prompt")


def _whole(value: Any) -> Any:
    if isinstance(value, list):
        return [_whole(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


async def run_loop(
    sampler: PythonSampler,
    next: Callable[[Any, Any, int], Any],
    prompt: Any,
    cache: Any,
    index: int,
    mask: Any,
    stop_token_ids: Sequence[int] | None,
) -> Any:
    """Return ``prompt`` [B, T] with the tokens from ``index`` on chosen; see ``Sampler``."""
    if not callable(next):
        raise InvalidArgumentError(f"next must be a function, not {shown(next)}")
    rows = rows_of_prompt(prompt)
    given = [[False] * len(row) for row in rows] if mask is None else rows_of_mask(mask)
    if [len(row) for row in given] != [len(row) for row in rows]:
        raise ShapeError(f"mask and prompt [{len(rows)}, {len(rows[0])}] differ in shape")
    stops = set(stop_token_ids or ())
    stopped = [False] * len(rows)
    for place in range(index, len(rows[0]) if rows else 0):
        if all(stopped):
            break
        with tidy("sampler step") as scope:
            found = await awaited(next(as_array(rows, "int32"), cache, place))
            logits, cache = _logits_and_cache(found, len(rows))
            tokens = await next_tokens(sampler, logits, len(rows))
            scope.escape(cache)
        for which, token in enumerate(tokens):
            if not given[which][place]:
                rows[which][place] = token
                stopped[which] = stopped[which] or token in stops
    return as_array(rows, "int32")


def _logits_and_cache(found: Any, batch: int) -> tuple[Any, Any]:
    """Return logits and cache of what ``next`` returned.

    Raises:
        InvalidArgumentError: it is not (logits, hidden states, cache).
        ShapeError: the logits are not [``batch``, V].
    """
    if not isinstance(found, list | tuple) or len(found) != 3:
        raise InvalidArgumentError(
            f"next must return (logits, hidden states, cache), not {shown(found)}"
        )
    logits, _, cache = found
    shape, part = [], logits
    if hasattr(logits, "shape"):
        shape = list(logits.shape)
    while not hasattr(logits, "shape") and isinstance(part, list | tuple):
        shape.append(len(part))
        part = part[0] if part else None
    if len(shape) != 2 or shape[0] != batch:
        raise ShapeError(f"next must return logits of shape [{batch}, V], not {shape}")
    return logits, cache


async def awaited(value: Any) -> Any:
    """Return ``value``, awaited if it is awaitable."""
    return await value if inspect.isawaitable(value) else value
