"""Reference of the sampling kernel for the self-test: shaders/sample.wgsl in Python.

Logits are exact in f32 (a head with such numbers times a one-hot row), and no random number is
close to a boundary between tokens (tests/models/test_self_test.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate, pairwise

from gpt2_wgpu.nn import FULL, LIVE, STOPPED, History, Penalties, SamplingOptions, TokenRules
from gpt2_wgpu.samplers.drawing import ONE, kept_tokens, pcg4d, ranked

ROWS = 8
LINES = 600  # rows of the head
CANDIDATES = 590  # the others may not be chosen
SEED = 0xC981DA2A6B19C93A
STOP = 517  # the largest logit of the second row
STEPS = 2
_LOWEST = -3.4e38  # logit of an excluded token

RULES = TokenRules(
    suppress_tokens=(589,),
    forced_eos_token_id=(7, 299),
    no_repeat_ngram_size=2,
    min_new_tokens=6,  # of 5 to 7
)
OPTIONS = {
    "greedy": SamplingOptions(temperature=0.0),
    "temperature": SamplingOptions(temperature=0.75, seed=SEED),
    "top-k of a list, top-p": SamplingOptions(temperature=1.5, top_k=3, top_p=0.5, seed=SEED),
    "top-p": SamplingOptions(temperature=0.75, top_p=0.5, seed=SEED),
    "top-k, top-p": SamplingOptions(temperature=1.5, top_k=40, top_p=0.5, seed=SEED),
    "greedy with penalties": SamplingOptions(
        temperature=0.0, penalties=Penalties(1.0625, 0.5, 0.25)
    ),
    "penalties": SamplingOptions(
        temperature=1.0, top_k=12, seed=SEED, penalties=Penalties(1.25, 0.5, 0.25)
    ),
    "min-p": SamplingOptions(temperature=0.75, min_p=0.5, seed=SEED),
    "typical": SamplingOptions(temperature=0.75, top_k=20, typical_p=0.7, seed=SEED),
    "token rules": SamplingOptions(temperature=1.0, top_k=3, seed=SEED, rules=RULES),
}


def logit(row: int, v: int) -> float:
    """Return the logit of candidate ``v`` in ``row``, a multiple of 1/8."""
    if v >= CANDIDATES:
        return 100.0
    if row == 0:  # two probabilities of 1/2: at top_p = 0.5 the second is kept, too
        return 60.0 if v in (299, 589) else -60.0 - v % 31
    if row == 1:
        return 60.0 if v == STOP else -60.0 - v % 7
    if row == 2:  # all negative, the largest is the last
        return -1.0 if v == CANDIDATES - 1 else -20.0 - (v * 7919 % 601) / 8 * 0.25
    return ((v * 2654435761 + row * 40503 * v) >> 9) % 97 / 8 - 6.0


def histories() -> list[History]:
    """Return rows of different lengths.

    Of the most likely tokens of a row the first is in the prompt, the second once in the new text,
    the third three times, and the fourth in both.
    """
    rows = []
    for row in range(ROWS):
        best = _most_likely(row)
        prompt = [best[0], best[3], *range(300, 300 + row)]
        rows.append(History([*prompt, best[1], best[3], *[best[2]] * 3], len(prompt)))
    return rows


@lru_cache(maxsize=ROWS)
def _most_likely(row: int) -> list[int]:
    """Return the four most likely candidates."""
    return sorted(range(CANDIDATES), key=lambda v: (-logit(row, v), v))[:4]


def limits() -> list[int]:
    """Return total lengths; the last row is full after one token."""
    return [100] * (ROWS - 1) + [len(histories()[-1].ids) + 1]


@dataclass
class KnownDraws:
    """Expected rows and their newest tokens.

    ``margin``: smallest distance, in probability, of a draw from another outcome.
    """

    rows: list[list[int]] = field(default_factory=list)
    logits: list[list[float]] = field(default_factory=list)  # of the last step, penalised
    tokens: list[int] = field(default_factory=list)
    finished: list[int] = field(default_factory=list)
    margin: float = 1.0

    def counts(self) -> list[list[int]]:
        """Return each row's counts of candidates in the new text, with a flag for the prompt's."""
        counts = []
        for ids, history in zip(self.rows, histories(), strict=True):
            row = [0] * CANDIDATES
            for place, token in enumerate(ids):
                row[token] = row[token] | 1 << 31 if place < history.prompt else row[token] + 1
            counts.append(row)
        return counts


def known_draws(options: SamplingOptions) -> KnownDraws:
    """Return the expected rows after ``STEPS`` steps."""
    result = KnownDraws()
    for row, (history, limit) in enumerate(zip(histories(), limits(), strict=True)):
        ids, finished, logits = list(history.ids), LIVE, list[float]()
        for _ in range(STEPS):
            logits = [logit(row, v) for v in range(CANDIDATES)]
            logits = _penalised(logits, ids, history.prompt, options.penalties)
            if options.rules.any:
                logits = _allowed(logits, ids, len(ids) - history.prompt, len(ids) + 1 == limit)
            if finished != LIVE:
                continue
            ids.append(_draw(logits, options, row, len(ids) - 1, result))
            finished = FULL if len(ids) >= limit else LIVE
            finished = STOPPED if ids[-1] == STOP else finished
        result.rows.append(ids)
        result.logits.append(logits)
        result.tokens.append(ids[-1])
        result.finished.append(finished)
    return result


def _penalised(
    logits: list[float], ids: Sequence[int], prompt: int, penalties: Penalties
) -> list[float]:
    logits = list(logits)
    for token in set(ids):
        value, times = logits[token], ids[prompt:].count(token)
        value = value * penalties.repetition if value < 0 else value / penalties.repetition
        logits[token] = value - penalties.frequency * times - penalties.presence * (times > 0)
    return logits


def _allowed(logits: list[float], ids: Sequence[int], new: int, is_last: bool) -> list[float]:
    """Return the logits after `RULES`."""
    pairs = pairwise(ids)
    banned = {second for first, second in pairs if first == ids[-1]}
    banned |= {*RULES.suppress_tokens} | ({STOP} if new < RULES.min_new_tokens else set())
    forced = {*RULES.forced_eos_token_id} if is_last else set()
    if is_last:
        banned = {*range(CANDIDATES)} - forced
    return [_LOWEST if v in banned else 0.0 if v in forced else x for v, x in enumerate(logits)]


def _draw(
    logits: list[float], options: SamplingOptions, row: int, position: int, result: KnownDraws
) -> int:
    order = ranked(logits)
    if options.temperature == 0:
        return order[0]
    powers = [math.exp((x - logits[order[0]]) / options.temperature) for x in logits]
    total = sum(powers)
    masses = [int(p / total * ONE + 0.5) for p in powers]
    kept = kept_tokens(masses, order, options)
    if options.top_p < 1:
        budget = int(options.top_p * ONE)
        sums = accumulate((masses[v] for v in order[: options.top_k or None]), initial=0)
        gaps = [abs(before - budget) / ONE for before in sums if before != budget]
        result.margin = min(result.margin, *gaps)
    key = (options.seed & 0xFFFFFFFF, options.seed >> 32, row, position)
    goal = pcg4d(key)[0] * sum(masses[v] for v in kept) >> 32
    running = 0
    for v in kept:
        result.margin = min(result.margin, max(abs(goal - running), 1) / ONE)
        running += masses[v]
        if goal < running:
            result.margin = min(result.margin, (running - goal) / ONE)
            return v
    raise AssertionError("no token was drawn")
