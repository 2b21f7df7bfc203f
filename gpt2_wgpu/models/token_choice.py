"""Logits processors and Python samplers of a decode step."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from gpt2_wgpu.errors import InvalidArgumentError, NotRecordableError, ShapeError
from gpt2_wgpu.nn import NO_RULES, SamplingOptions, TokenRules
from gpt2_wgpu.samplers import Sampler, runs_in_python, runs_its_own_loop
from gpt2_wgpu.samplers.python_sampling import awaited
from gpt2_wgpu.shown import shown
from gpt2_wgpu.tensors import Tensor, tensor

LogitsProcessor = Callable[[Any, Tensor], Any]
"""``(token_ids, logits) -> logits``: token history of each row, and logits [B, V] on the GPU."""


@dataclass(frozen=True)
class TokenChoice:
    """Logits processors, applied in order, and an optional Python sampler."""

    processors: tuple[LogitsProcessor, ...] = ()
    sampler: Sampler | None = None  # None: the GPU's

    @classmethod
    def of(cls, sampler: Sampler, processors: Iterable[LogitsProcessor]) -> TokenChoice:
        """Return the choice of one generation of a task compiled with these."""
        started = tuple(
            each.for_generation() if hasattr(each, "for_generation") else each
            for each in processors
        )
        return cls(started, sampler if runs_in_python(sampler) else None)

    def options(self, sampler: Sampler) -> SamplingOptions:
        """Return the options of one generation with ``sampler`` for the GPU."""
        if self.sampler is None:
            return sampler.next_options()
        return SamplingOptions(
            temperature=0.0, penalties=sampler.penalties(), rules=sampler.rules()
        )

    async def processed(self, token_ids: Any, logits: Tensor) -> Tensor:
        """Return ``logits`` [B, V] after all processors.

        ShapeError for a result of another shape, InvalidArgumentError for one that is not numeric.
        """
        for processor in self.processors:
            result = await awaited(processor(token_ids, logits))
            if result is None:
                raise InvalidArgumentError(
                    f"logits processor {_name(processor)} must return logits, not None"
                )
            if not isinstance(result, Tensor):
                result = tensor(result, "float32", device=logits.device)
            if result.shape != logits.shape:
                raise ShapeError(
                    f"logits processor {_name(processor)} must return logits of shape "
                    f"{logits.shape}, not {result.shape}"
                )
            logits = result
        return logits


def with_rules(options: SamplingOptions, sampler: Sampler, defaults: TokenRules) -> SamplingOptions:
    """Return ``options`` with ``defaults``, the rules of the checkpoint.

    Those that ``sampler`` is given win, also where they have no effect.
    """
    return replace(options, rules=options.rules.over(defaults, sampler.given_rules()))


class UnreadableIds:
    """Placeholder of token ids while a step is recorded; reading them aborts the recording."""

    def __init__(self) -> None:
        self.were_read = False  # also where the reader catches the error

    def _refuse(self, *_: Any) -> NoReturn:
        self.were_read = True
        raise NotRecordableError("a recorded step has no token ids to read")

    __array__ = __bool__ = __contains__ = __getitem__ = __iter__ = __len__ = _refuse
    __eq__ = __ne__ = __format__ = __repr__ = __str__ = _refuse
    __hash__ = None  # type: ignore[assignment]

    def __getattr__(self, name: str) -> NoReturn:
        self._refuse()


def check_processors(
    processors: Sequence[LogitsProcessor] | None, sampler: Sampler, rules: TokenRules = NO_RULES
) -> tuple[LogitsProcessor, ...]:
    """Return ``processors`` as a tuple.

    InvalidArgumentError for one that cannot be called with (token_ids, logits), and for any, or
    ``rules`` of the checkpoint, in combination with a sampler that runs its own loop.
    """
    if not isinstance(processors, Iterable | None) or isinstance(processors, str | bytes):
        raise InvalidArgumentError(
            f"logits_processors must be a list of functions, not {shown(processors)}"
        )
    checked = tuple(processors or ())
    for processor in checked:
        try:
            inspect.signature(processor).bind(None, None)
        except (TypeError, ValueError):
            raise InvalidArgumentError(
                f"a logits processor is called as processor(token_ids, logits): "
                f"{shown(processor)} cannot be"
            ) from None
    if rules.any and runs_its_own_loop(sampler):
        raise InvalidArgumentError(
            f"{type(sampler).__name__} cannot be combined with the rules of generation_config.json "
            "that exclude tokens: to ignore them, set token_rules of the model to "
            "gpt2_wgpu.nn.TokenRules()"
        )
    if checked and runs_its_own_loop(sampler):
        raise InvalidArgumentError(
            f"{type(sampler).__name__} replaces the sampling loop, which logits_processors are "
            "part of: apply them in its next function, or replace get_next_token only"
        )
    return checked


def _name(processor: LogitsProcessor) -> str:
    return getattr(processor, "__name__", type(processor).__name__)
