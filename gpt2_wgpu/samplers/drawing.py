"""The choice of shaders/sample.wgsl in Python: which tokens are kept, and which one is drawn.

Probabilities are integer masses, multiples of 2^-30, so that their sums are exact. Tokens are
ranked by probability, where the GPU ranks them by logit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from gpt2_wgpu.errors import NumericalError
from gpt2_wgpu.nn import SamplingOptions

ONE = 1 << 30  # probability 1 as a mass


def ranked(values: Sequence[float]) -> list[int]:
    """Return the indices of ``values``, largest value first, equal ones by index."""
    return sorted(range(len(values)), key=lambda i: (-values[i], i))


def kept_tokens(masses: Sequence[int], order: Sequence[int], options: SamplingOptions) -> list[int]:
    """Return the tokens that ``options`` keep of those in ``order``, by index."""
    kept, before, budget = [], 0, int(options.top_p * ONE)
    least = options.min_p * masses[order[0]]
    for token in order[: options.top_k or None]:
        if masses[token] < least or (options.top_p < 1 and before > budget):
            break
        kept.append(token)
        before += masses[token]
    return sorted(kept if options.typical_p >= 1 else typical_tokens(masses, kept, options))


def typical_tokens(
    masses: Sequence[int], kept: Sequence[int], options: SamplingOptions
) -> list[int]:
    """Return the locally typical ones of ``kept`` (shaders/include/sample_typical.wgsl)."""
    logs = {token: math.log(masses[token]) for token in kept if masses[token]}
    total = sum(masses[token] for token in logs)
    if not total:
        return list(kept)
    expected = sum(masses[token] * log for token, log in logs.items()) / total
    deviations = {token: abs(log - expected) for token, log in logs.items()}
    mass, most = 0, 0.0
    for token in sorted(deviations, key=lambda token: deviations[token]):
        if mass >= options.typical_p * total:
            break
        mass, most = mass + masses[token], deviations[token]
    return [token for token in logs if deviations[token] <= most]


def draw_token(
    probabilities: Sequence[float], options: SamplingOptions, stream: int, position: int
) -> int:
    """Return the token of ``probabilities`` that ``options`` choose (whose temperature is applied).

    ``stream`` and ``position`` are, with the seed, the key of the random number.
    """
    if not all(map(math.isfinite, probabilities)):
        raise NumericalError(f"probabilities of row {stream} are not finite: the logits were not")
    order = ranked(probabilities)
    if options.temperature < 1e-30:
        return order[0]
    masses = [int(p * ONE + 0.5) for p in probabilities]
    kept = kept_tokens(masses, order, options)
    key = (options.seed & 0xFFFFFFFF, options.seed >> 32, stream, position)
    goal = pcg4d(key)[0] * sum(masses[token] for token in kept) >> 32
    running = 0
    for token in kept:
        running += masses[token]
        if goal < running:
            return token
    return order[0]  # all masses are 0: a probability of less than 2^-31 each


def pcg4d(key: Sequence[int]) -> list[int]:
    """Return four random words for four words (shaders/include/random.wgsl)."""
    x, y, z, w = ((k * 1664525 + 1013904223) & 0xFFFFFFFF for k in key)
    for last in (False, True):
        x = (x + y * w) & 0xFFFFFFFF
        y = (y + z * x) & 0xFFFFFFFF
        z = (z + x * y) & 0xFFFFFFFF
        w = (w + y * z) & 0xFFFFFFFF
        if not last:
            x, y, z, w = (v ^ v >> 16 for v in (x, y, z, w))
    return [x, y, z, w]
