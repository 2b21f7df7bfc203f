"""Self-test: a small model is loaded, run and compared with known results.

Some drivers return wrong numbers without an error, and no feature flag identifies them. Therefore a
model of one block (known_block.py) runs before the first text, through the same functions and
kernels: its checkpoint is loaded, a prompt is prefilled in chunks of many and of few tokens, and
recorded steps follow, for one row over a long cache and for several rows over a short one; then
tokens are sampled from known logits (known_draws.py). Passed tests are cached by adapter, driver,
kernels and formats.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, nullcontext
from functools import lru_cache
from itertools import chain
from typing import Any

from gpt2_wgpu import nn
from gpt2_wgpu._version import __version__
from gpt2_wgpu.diagnostics import Check, CheckReport
from gpt2_wgpu.diagnostics.kernel_checks import check_operations, check_products, compare
from gpt2_wgpu.errors import DeviceError
from gpt2_wgpu.models import remembered
from gpt2_wgpu.models.gpt2_backbone import GPT2Backbone
from gpt2_wgpu.models.known_block import CONFIG, KnownBlock, KnownText
from gpt2_wgpu.models.known_draws import (
    CANDIDATES,
    LINES,
    OPTIONS,
    ROWS,
    STOP,
    KnownDraws,
    histories,
    known_draws,
    limits,
    logit,
)
from gpt2_wgpu.models.known_draws import STEPS as DRAWS
from gpt2_wgpu.tensors import Tensor, keep, ops, tensor, tidy
from gpt2_wgpu.webgpu import Device, Recording, sync
from gpt2_wgpu.webgpu.pipelines import kernels_hash
from gpt2_wgpu.weight_formats import WEIGHT_FORMATS

DTYPES = tuple(WEIGHT_FORMATS)
CHUNKS = (70, 62, 12)  # tokens per chunk of the long prompt: whole tiles, a remainder, few rows
SHORT = (1, 4, 9)  # lengths of the short prompts
STEPS = 3
_FIRST_TOKENS = (76, 204, 172, 248)  # of the long prompt and the short ones: the tokens that follow
# lead by more than errors that are allowed (tests/models/test_self_test.py)
# The largest error of a number, as a share of the spread of those it is compared among.
TOLERANCE = 1e-4
TOLERANCE_F16_CACHE = 1e-3
TOLERANCE_INT8 = 3e-2  # activations rounded to int8
_FILE = "self_test.json"

_passed: set[str] = set()  # keys, see `_key`


def self_check(device: Device, dtypes: Sequence[str] = DTYPES) -> CheckReport:
    """Run all checks, including those that have passed before; blocks.

    Args:
        device: the device.
        dtypes: weight formats to check.

    Returns:
        The report. The async counterpart is ``self_check_async``.
    """
    return sync(self_check_async(device, dtypes), "self_check_async(device)")


async def self_check_async(device: Device, dtypes: Sequence[str] = DTYPES) -> CheckReport:
    """Async counterpart of :func:`self_check`."""
    checks = await check_operations(device) + await _check_draws(device)
    for dtype in dtypes:
        checks += await check_products(device, dtype)
        checks += await _check_model(device, dtype, nn.default_cache_dtype(device))
    return CheckReport(checks)


async def require_right_results(device: Device, dtype: str, cache_dtype: str | None = None) -> None:
    """Raise DeviceError if the self-test fails for these formats.

    Passed tests are cached, in the process and persistently.
    """
    cache_dtype = cache_dtype or nn.default_cache_dtype(device)
    key = _key(device, dtype, cache_dtype)
    if key in _passed:
        return
    if not await remembered.recall(_FILE, key):
        checks = await _check_draws(device) + await check_products(device, dtype)
        if all(check.passed for check in checks):
            checks += await _check_model(device, dtype, cache_dtype)
        if wrong := CheckReport(checks).describe_wrong():
            if sys.platform == "emscripten":
                remedy = "Update the browser or the graphics driver, or try another browser."
            else:
                remedy = "Update its driver or use another adapter (`gpt2-wgpu doctor` shows them)."
            driver = device.info.driver or device.info.backend
            raise DeviceError(
                f"{device.info.name} ({driver}) computes wrong numbers: {wrong}. {remedy}"
            )
        await remembered.remember(_FILE, key, True)
    _passed.add(key)


def _key(device: Device, dtype: str, cache_dtype: str) -> str:
    info = device.info
    parts: list[Any] = [info.name, info.vendor, info.driver, info.backend, __version__]
    parts += [kernels_hash(device.pipelines.directory), device.capabilities, dtype, cache_dtype]
    parts += filter(None, [remembered.user_agent()])
    return " | ".join(map(str, parts))


# --- the model ----------------------------------------------------------------------------------


async def _check_model(device: Device, dtype: str, cache_dtype: str) -> list[Check]:
    """Check the embedding, a long row and several short ones."""
    fetch = _block(dtype).fetch
    backbone = await GPT2Backbone.from_weights(
        CONFIG, lambda device, dtype: nullcontext(fetch), dtype, cache_dtype, device
    )
    try:
        return [
            await _check_embedding(backbone),
            *await _check_long(backbone),
            *await _check_short(backbone),
        ]
    finally:
        backbone.dispose()


def _token(row: int, position: int) -> int:
    return (position * 37 + _FIRST_TOKENS[row]) % CONFIG.vocab_size


def _block(dtype: str) -> KnownBlock:
    return _block_of(WEIGHT_FORMATS[dtype].levels)


@lru_cache(maxsize=2)
def _block_of(levels: tuple[int, int]) -> KnownBlock:
    return KnownBlock(levels)


def _known(dtype: str, row: int, length: int) -> _Known:
    return _known_of(WEIGHT_FORMATS[dtype].levels, row, length)


@lru_cache(maxsize=8)
def _known_of(levels: tuple[int, int], row: int, length: int) -> _Known:
    return _Known(_block_of(levels), [_token(row, t) for t in range(length)])


class _Known:
    """Expected hidden states of a prompt, then logits of each step and greedy tokens."""

    def __init__(self, block: KnownBlock, prompt: Sequence[int]) -> None:
        text = KnownText(block)
        self.hidden = [text.append(token) for token in prompt]
        self.logits: list[list[float]] = []
        self.tokens: list[int] = []
        hidden = self.hidden[-1]
        for step in range(STEPS):
            if step:
                hidden = text.append(self.tokens[-1])
            self.logits.append(text.logits(hidden))
            self.tokens.append(max(range(CONFIG.vocab_size), key=self.logits[-1].__getitem__))


async def _check_embedding(backbone: GPT2Backbone) -> Check:
    """Check all tokens and all positions."""
    weights, size, block = backbone.weights, CONFIG.vocab_size, _block(backbone.dtype)
    expected: list[float] = []
    with tidy("self-test") as scope:
        rows = [(0, 150), (150, 150)]
        ids = backbone.as_uint32([[first + t for t in range(count)] for first, count in rows])
        starts = [0, CONFIG.n_positions - 150]
        x = scope.escape(nn.embed(ids, backbone.as_uint32(starts), weights.wte, weights.wpe))
    for token in range(size):
        place = block.wpe[starts[token // 150] + token % 150]
        expected += [a + b for a, b in zip(block.wte[token], place, strict=True)]
    return await compare(f"{backbone.dtype} embedding", x, expected, _absolute(expected, 1e-6))


async def _check_long(backbone: GPT2Backbone) -> list[Check]:
    """Check one row: a prompt in chunks, then steps."""
    known = _known(backbone.dtype, 0, sum(CHUNKS) + 1)
    prompt = [_token(0, t) for t in range(sum(CHUNKS) + 1)]
    checks = []
    with tidy("self-test"):
        cache = backbone.new_cache(1, len(prompt) + STEPS)
        first = 0
        for count in CHUNKS:
            with tidy("prefill") as scope:
                ids = backbone.as_uint32([prompt[first : first + count]])
                x = scope.escape(backbone.blocks(ids, cache, backbone.as_uint32([first])))
            expected = list(chain.from_iterable(known.hidden[first : first + count]))
            name = f"{backbone.dtype} prompt, {count} tokens"
            checks.append(await compare(name, x, expected, _allowed(backbone, expected)))
            first += count
        checks += await _check_steps(backbone, cache, [prompt], [known], "1 row")
    return checks


async def _check_short(backbone: GPT2Backbone) -> list[Check]:
    """Check a batch of rows of different lengths, with padding."""
    rows = [[_token(row, t) for t in range(length)] for row, length in enumerate(SHORT, 1)]
    known = [_known(backbone.dtype, row, length) for row, length in enumerate(SHORT, 1)]
    longest = max(SHORT) - 1
    with tidy("self-test"):
        cache = backbone.new_cache(len(rows), max(SHORT) + STEPS)
        padded = [[*row[:-1], *[0] * longest][:longest] for row in rows]
        backbone.blocks(backbone.as_uint32(padded), cache, backbone.as_uint32([0] * len(rows)))
        return await _check_steps(backbone, cache, rows, known, f"{len(rows)} rows")


async def _check_steps(
    backbone: GPT2Backbone,
    cache: nn.KVCache,
    rows: Sequence[Sequence[int]],
    known: Sequence[_Known],
    name: str,
) -> list[Check]:
    """Check the recorded step of models/decode_run.py and its logits."""
    state = nn.SamplingState.create(
        backbone.device,
        [nn.History(row, len(row)) for row in rows],
        [CONFIG.n_positions] * len(rows),
        nn.SamplingOptions(temperature=0.0),
        [],
        CONFIG.vocab_size,
    )
    checks = []
    with ExitStack() as freed:  # also after an exception
        with Recording(backbone.device) as recording, tidy("step"):
            x = backbone.blocks(state.token, cache, state.position)
            logits = keep(backbone.head(x, state))
            freed.callback(logits.dispose)
            nn.sample(logits, state)
        freed.callback(recording.close)
        for step in range(STEPS):
            recording.replay(1)
            expected = list(chain.from_iterable(row.logits[step] for row in known))
            label = f"{backbone.dtype} step, {name}"
            allowed = _allowed(backbone, expected)
            checks.append(await compare(label, logits, expected, allowed, dispose_result=False))
            tokens = [float(row.tokens[step]) for row in known]
            label += ", token"
            checks.append(await compare(label, state.token, tokens, 0.0, dispose_result=False))
    return [_worst(checks[::2]), _worst(checks[1::2])]


def _worst(checks: Sequence[Check]) -> Check:
    """Return the first failed check, else the one closest to failing."""
    failed = (check for check in checks if not check.passed)
    return next(failed, max(checks, key=lambda check: check.worst_error))


def _allowed(backbone: GPT2Backbone, expected: Sequence[float]) -> float:
    share = TOLERANCE
    if backbone.cache_dtype == "float16":
        share = TOLERANCE_F16_CACHE
    if nn.rounds_activations(backbone.device, backbone.weights.wte):
        share = TOLERANCE_INT8
    return _absolute(expected, share)


def _absolute(expected: Sequence[float], share: float) -> float:
    return share * (max(expected) - min(expected))


# --- sampling -----------------------------------------------------------------------------------


async def _check_draws(device: Device) -> list[Check]:
    """Check tokens of several rows, sampled from known logits by every algorithm."""
    checks = []
    head = array("f", (logit(row, v) for v in range(LINES) for row in range(ROWS)))
    with tidy("self-test"):
        raw = nn.Raw(memoryview(head).cast("B"), "F32", (LINES, ROWS))
        matrix = await nn.load_matrix(device, raw, "float32")
        rows = tensor([[[float(i == r) for i in range(ROWS)]] for r in range(ROWS)], device=device)
        for name, options in OPTIONS.items():
            state = nn.SamplingState.create(
                device, histories(), limits(), options, [STOP], CANDIDATES
            )
            for _ in range(DRAWS):
                nn.exclude_tokens(state)
                logits = nn.project_logits(rows, matrix, state)
                nn.sample(logits, state)
            checks.append(await _check_draw(f"draw, {name}", logits, state, known_draws(options)))
    return checks


async def _check_draw(
    name: str, logits: Tensor, state: nn.SamplingState, known: KnownDraws
) -> Check:
    """Check tokens and finished flags; with penalties also the logits and counts."""
    pairs: list[tuple[Tensor, Iterable[float], float]] = [
        (state.token, known.tokens, 0.0),
        (state.finished, known.finished, 0.0),
    ]
    if state.penalties.any:
        chunks = state.maxima_and_counts.shape[1] - CANDIDATES
        counts = ops.slice(state.maxima_and_counts, (0, chunks), (ROWS, CANDIDATES))
        pairs.append((counts, chain.from_iterable(known.counts()), 0.0))
        logits = ops.slice(logits, (0, 0), (ROWS, CANDIDATES))
        pairs.append((logits, chain.from_iterable(known.logits), 1e-4))
    return _worst(
        [
            await compare(name, got, list(map(float, expected)), tolerance, dispose_result=False)
            for got, expected, tolerance in pairs
        ]
    )
