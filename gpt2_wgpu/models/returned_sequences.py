"""``num_return_sequences``: several texts of one prompt, by repeated rows or by the best beams."""

from __future__ import annotations

from gpt2_wgpu import samplers
from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.models.overrides import chosen, is_default
from gpt2_wgpu.models.search import is_search
from gpt2_wgpu.samplers import runs_in_python, runs_its_own_loop
from gpt2_wgpu.validation import integer

MAX_SEQUENCES = 1 << 16


def best_beams_of(task: object, sampler: samplers.Sampler, num_return_sequences: int) -> int:
    """Return the number of beams that are the texts of a prompt; 1 where the prompt is repeated.

    Raises:
        InvalidArgumentError: ``num_return_sequences`` is out of range, exceeds the beams, or would
            give equal texts.
    """
    count = integer("num_return_sequences", num_return_sequences, 1, MAX_SEQUENCES)
    steps = chosen(task, "make_generate_function"), chosen(task, "generate_step")
    if count == 1 or not all(map(is_default, steps)):
        return 1
    if _is_deterministic(sampler):
        raise InvalidArgumentError(
            f"num_return_sequences {count} with {type(sampler).__name__} gives {count} equal "
            "texts, since it draws no random numbers: give a random sampler, or BeamSampler for "
            "its best beams"
        )
    if not (is_search(sampler) and isinstance(sampler, samplers.BeamSampler)):
        return 1
    if sampler.return_all_beams:
        raise InvalidArgumentError(
            f"return_all_beams returns num_beams {sampler.num_beams} texts for each prompt: "
            f"omit it, or num_return_sequences {count}"
        )
    if count > sampler.num_beams:
        raise InvalidArgumentError(
            f"num_return_sequences {count} exceeds num_beams {sampler.num_beams}, of which "
            "they are the best: raise num_beams"
        )
    return count


def _is_deterministic(sampler: samplers.Sampler) -> bool:
    """Return whether ``sampler`` is greedy or contrastive search, also with a draft model."""
    if isinstance(sampler, samplers.SpeculativeSampler):
        base = sampler.base_sampler
        return base is None or _is_deterministic(base)
    if is_search(sampler):
        return isinstance(sampler, samplers.ContrastiveSampler)
    is_greedy = type(sampler).next_options is samplers.GreedySampler.next_options
    return is_greedy and not (runs_in_python(sampler) or runs_its_own_loop(sampler))
