"""Options of sampling: temperature, cuts, penalties and rules."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from gpt2_wgpu.nn.token_rules import NO_RULES, TokenRules

_ALL_LOGITS = 3.4e38  # larger than a difference of logits


@dataclass(frozen=True)
class Penalties:
    """Penalties of the logits of previous tokens; the defaults have no effect.

    ``repetition``: divisor of positive logits and factor of negative ones, for tokens in the prompt
    or the new text (Keskar et al. 2019; transformers' ``repetition_penalty``). ``presence``,
    ``frequency``: subtracted once, and once per occurrence, for tokens in the new text (OpenAI's
    names and formula).
    """

    repetition: float = 1.0
    presence: float = 0.0
    frequency: float = 0.0

    @property
    def any(self) -> bool:
        """Return whether a penalty has an effect."""
        return self != Penalties()


@dataclass(frozen=True)
class SamplingOptions:
    """Sampling options.

    ``temperature`` 0: greedy; ``top_k`` 0, ``top_p`` 1, ``min_p`` 0 and ``typical_p`` 1: all
    tokens.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0  # 64 bits
    penalties: Penalties = Penalties()
    min_p: float = 0.0
    typical_p: float = 1.0
    rules: TokenRules = NO_RULES

    def pack(self, stop_token_ids: Sequence[int], candidates: int) -> memoryview:
        """Return the bytes of ``Options`` in shaders/include/advance_row.wgsl.

        ``candidates``: ids below this may be chosen.
        """
        greedy = self.temperature < 1e-30  # not representable in f32
        reach = -self.temperature * math.log(self.min_p) if self.min_p else _ALL_LOGITS
        stops = list(stop_token_ids) or [0]  # arrays in WGSL cannot be empty
        return memoryview(
            struct.pack(
                f"<ffffIIII{len(stops)}I",
                1.0 if greedy else self.temperature,
                self.top_p,
                reach,
                self.typical_p,
                self.top_k,
                greedy,
                candidates,
                len(stop_token_ids),
                *stops,
            )
        ).cast("I")
