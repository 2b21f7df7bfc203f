"""Samplers, one per file, registered under KerasHub's class names and short names."""

from __future__ import annotations

from typing import Any

from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.samplers.beam_sampler import BeamSampler
from gpt2_wgpu.samplers.constraints import Constraint, GrammarConstraint, TextConstraint
from gpt2_wgpu.samplers.contrastive_sampler import ContrastiveSampler, K
from gpt2_wgpu.samplers.greedy_sampler import GreedySampler
from gpt2_wgpu.samplers.min_p_sampler import MinPSampler
from gpt2_wgpu.samplers.random_sampler import RandomSampler
from gpt2_wgpu.samplers.registry import CLASS_NAMES, SHORT_NAMES, deserialize, get, serialize
from gpt2_wgpu.samplers.sampler import Sampler, check_usable, runs_in_python, runs_its_own_loop
from gpt2_wgpu.samplers.speculative_sampler import SpeculativeSampler
from gpt2_wgpu.samplers.top_k_sampler import TopKSampler
from gpt2_wgpu.samplers.top_p_sampler import TopPSampler
from gpt2_wgpu.samplers.typical_sampler import TypicalSampler
from gpt2_wgpu.sampling_parameters import (
    CONTRASTIVE_K,
    MIN_P,
    SEARCH_SETTINGS,
    TOP_K,
    TOP_P,
    TYPICAL_P,
)
from gpt2_wgpu.shown import shown

Beam = BeamSampler
Contrastive = ContrastiveSampler
Greedy = GreedySampler
MinP = MinPSampler
Random = RandomSampler
Speculative = SpeculativeSampler
TopK = TopKSampler
TopP = TopPSampler
Typical = TypicalSampler

# KerasHub serialises class names; users write the short names.
SHORT_NAMES |= {
    "beam": BeamSampler,
    "contrastive": ContrastiveSampler,
    "greedy": GreedySampler,
    "min_p": MinPSampler,
    "random": RandomSampler,
    "top_k": TopKSampler,
    "top_p": TopPSampler,
    "typical": TypicalSampler,
}
CLASS_NAMES |= {kind.__name__: kind for kind in (*SHORT_NAMES.values(), SpeculativeSampler)}


def of_settings(
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int | None = None,
    **others: Any,
) -> Sampler:
    """Return the sampler for settings as of the CLI, the web page or ``lm.generation_defaults``.

    Args:
        temperature: 0: greedy search.
        top_k: 0: all tokens; of contrastive search, which has no such case, 5.
        top_p: 1: no nucleus.
        seed: as in `SeededSampler`.
        **others: the common parameters, as in `Sampler`. With ``num_beams`` a `BeamSampler`,
            with ``penalty_alpha`` a `ContrastiveSampler` of ``top_k``, for which the other
            sampling values have no effect, as in transformers.

    Raises:
        InvalidArgumentError: a value is out of range.
    """
    if search := {name: others.pop(name) for name in SEARCH_SETTINGS if name in others}:
        return _search(search, top_k, others)
    if temperature == 0:
        return GreedySampler(**others)
    k = int(TOP_K.range.check("top_k", top_k))
    if TOP_P.range.check("top_p", top_p) < 1:
        return TopPSampler(top_p, k or None, seed, temperature, **others)
    if k:
        return TopKSampler(k, seed, temperature, **others)
    return RandomSampler(seed, temperature, **others)


def _search(settings: dict[str, Any], top_k: int, others: dict[str, Any]) -> Sampler:
    """Return the search of ``settings``."""
    rules = {
        name: value for name, value in others.items() if name not in (MIN_P.name, TYPICAL_P.name)
    }
    if "penalty_alpha" in settings:
        alpha = settings.pop("penalty_alpha")
        if not settings:
            if top_k and K.find(top_k) is None:
                raise InvalidArgumentError(
                    f"top_k of contrastive search must be {K}, not {shown(top_k)}"
                )
            return ContrastiveSampler(top_k or CONTRASTIVE_K, alpha, **rules)
        raise InvalidArgumentError(
            f"penalty_alpha is part of contrastive search, {', '.join(settings)} of beam search: "
            "omit one of them"
        )
    if "num_beams" not in settings:
        raise InvalidArgumentError(
            f"{' and '.join(settings)} are part of beam search: give num_beams, too"
        )
    return BeamSampler(**settings, **rules)


__all__ = [
    "Beam",
    "BeamSampler",
    "Constraint",
    "Contrastive",
    "ContrastiveSampler",
    "GrammarConstraint",
    "Greedy",
    "GreedySampler",
    "MinP",
    "MinPSampler",
    "Random",
    "RandomSampler",
    "Sampler",
    "Speculative",
    "SpeculativeSampler",
    "TextConstraint",
    "TopK",
    "TopKSampler",
    "TopP",
    "TopPSampler",
    "Typical",
    "TypicalSampler",
    "check_usable",
    "deserialize",
    "get",
    "of_settings",
    "runs_in_python",
    "runs_its_own_loop",
    "serialize",
]
