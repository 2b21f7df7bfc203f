"""Settings of one call of ``generate`` or ``stream``, for methods whose arguments lack them.

Steps of the pipeline have KerasHub's arguments, also where they are replaced. The settings of a
call are therefore in a context variable: each thread and each asyncio task has its own value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from gpt2_wgpu import samplers
from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.models.control import Control
from gpt2_wgpu.models.generate_arguments import SamplerLike, Seeds
from gpt2_wgpu.models.hooks import Hooks, applied, open_hooks
from gpt2_wgpu.models.step_logprobs import StepLogprobs
from gpt2_wgpu.models.token_choice import LogitsProcessor, check_processors
from gpt2_wgpu.samplers.sampler import runs_in_python, runs_its_own_loop
from gpt2_wgpu.samplers.seeded_sampler import SeededSampler
from gpt2_wgpu.sampling_parameters import SEED

# Takes a row's index and its new ids; returns how many of them the row keeps, None for all.
Watch = Callable[[int, Sequence[int]], int | None]


@dataclass(frozen=True)
class CallSettings:
    """Sampler and ends of one call on ``task``."""

    task: object
    sampler: samplers.Sampler
    max_new_tokens: int | None = None
    seeds: Sequence[int] | None = None  # of the random numbers of each row
    control: Control | None = None
    best_beams: int = 1  # returned for each prompt by a ``BeamSampler``
    watch: Watch | None = None  # of the default ``generate_step``: sees new ids as they come
    logprobs: StepLogprobs | None = None  # of the new tokens, by steps of the default methods
    hooks: tuple[Hooks, ...] = field(default_factory=open_hooks)  # where the call was made

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Apply the settings to the calls of this thread or asyncio task."""
        before = _current.get()
        _current.set(self)
        try:
            with applied(self.hooks):
                yield
        finally:
            _current.set(before)


_current: ContextVar[CallSettings | None] = ContextVar("settings of a call", default=None)


def settings_of(task: object) -> CallSettings | None:
    """Return the settings of the running call, if it is one on ``task``."""
    found = _current.get()
    return found if found is not None and found.task is task else None


def seeds_of_call(task: object, rows: int) -> Sequence[int] | None:
    """Return the seeds of ``rows`` rows; InvalidArgumentError for another number of seeds."""
    settings = settings_of(task)
    seeds = None if settings is None else settings.seeds
    if seeds is not None and len(seeds) != rows:
        raise InvalidArgumentError(
            f"seed has {len(seeds)} entries for {rows} rows: give one for each row"
        )
    return seeds


def sampler_of_call(
    compiled: samplers.Sampler,
    processors: Sequence[LogitsProcessor],
    sampler: SamplerLike | None,
    seed: Seeds | None,
) -> tuple[samplers.Sampler, list[int] | None]:
    """Return the sampler of a call, ``sampler`` or else ``compiled``, and the seeds of its rows.

    It has the ``seed`` if this is one.

    Raises:
        InvalidArgumentError: an unusable sampler, or a seed for one that takes none.
    """
    chosen = compiled if sampler is None else samplers.check_usable(samplers.get(sampler))
    check_processors(processors, chosen)
    if seed is None:
        return chosen, None
    if hasattr(seed, "tolist"):  # an array, such as NumPy's
        seed = seed.tolist()
    for each in seed if isinstance(seed, list | tuple | range) else [seed]:
        SEED.range.check("seed", each)  # greedy search ignores a seed, but not a wrong one
    if isinstance(seed, list | tuple | range):
        return chosen, _seeds_of_rows(chosen, seed)
    if isinstance(chosen, SeededSampler):
        return chosen.reseeded(seed), None
    if type(chosen).next_options is samplers.GreedySampler.next_options:
        return chosen, None  # no random numbers
    raise InvalidArgumentError(
        f"{type(chosen).__name__} takes no seed: it is not a SeededSampler; if it draws at random, "
        "seed it by its own arguments"
    )


def _seeds_of_rows(sampler: samplers.Sampler, seeds: Sequence[int]) -> list[int] | None:
    """Return the seed of each row's random numbers: those of ``sampler`` with one of ``seeds``.

    Returns:
        The seeds of the GPU; None for greedy search, which has no random numbers.

    Raises:
        InvalidArgumentError: the sampler does not choose on the GPU, takes no seed, or a seed is
            out of range.
    """
    if runs_in_python(sampler) or runs_its_own_loop(sampler):
        raise InvalidArgumentError(
            f"{type(sampler).__name__} takes no seeds of rows, since it does not choose on the GPU "
            "row by row: give one seed"
        )
    if type(sampler).next_options is samplers.GreedySampler.next_options:
        return None
    if not isinstance(sampler, SeededSampler):
        raise InvalidArgumentError(
            f"{type(sampler).__name__} takes no seed: it is not a SeededSampler"
        )
    return [sampler.reseeded(seed).next_seed() for seed in seeds]
