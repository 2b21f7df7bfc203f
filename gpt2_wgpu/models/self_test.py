"""Self-test: a small model is loaded, run and compared with known results.

Some drivers return wrong numbers without an error, and no feature flag identifies them. Therefore a
model of one block (known_block.py) runs before the first text, through the same functions and
kernels: its checkpoint is loaded, a prompt is prefilled in chunks of many and of few tokens, and
recorded steps follow, for one row over a long cache and for several rows over a short one; then
tokens are sampled from known logits (known_draws.py). All of it is issued before the one read that
ends it. Passed tests are cached by adapter, driver, kernels and formats.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from functools import lru_cache, partial
from itertools import chain
from typing import Any

from gpt2_wgpu import nn
from gpt2_wgpu._version import __version__
from gpt2_wgpu.diagnostics import CheckReport
from gpt2_wgpu.diagnostics.checks import PendingChecks
from gpt2_wgpu.diagnostics.kernel_checks import add_operations, add_products
from gpt2_wgpu.errors import DeviceError
from gpt2_wgpu.models import remembered
from gpt2_wgpu.models.gpt2_backbone import GPT2Backbone
from gpt2_wgpu.models.gpt2_weights import GPT2Weights, issue_weights
from gpt2_wgpu.models.known_block import CONFIG, KnownBlock, KnownText
from gpt2_wgpu.models.known_draws import (
    CANDIDATES,
    LINES,
    OPTIONS,
    ROWS,
    STOP,
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
    with PendingChecks(device) as checks:
        add_operations(checks)
        await _add_draws(checks)
        for dtype in dtypes:
            await add_products(checks, dtype)
            await _add_model(checks, dtype, nn.default_cache_dtype(device))
        return CheckReport(await checks.finish())


async def require_right_results(device: Device, dtype: str, cache_dtype: str | None = None) -> None:
    """Raise DeviceError if the self-test fails for these formats.

    Passed tests are cached, in the process and persistently.
    """
    cache_dtype = cache_dtype or nn.default_cache_dtype(device)
    key = _key(device, dtype, cache_dtype)
    if key in _passed:
        return
    if not await remembered.recall(_FILE, key):
        with PendingChecks(device) as checks:
            await add_checks(checks, dtype, cache_dtype)
            report = CheckReport(await checks.finish())
        if wrong := report.describe_wrong():
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


async def add_checks(checks: PendingChecks, dtype: str, cache_dtype: str) -> None:
    """Issue the checks of formats, by the kernels that a first text takes."""
    await _add_draws(checks)
    await add_products(checks, dtype)
    await _add_model(checks, dtype, cache_dtype)


def _key(device: Device, dtype: str, cache_dtype: str) -> str:
    info = device.info
    parts: list[Any] = [info.name, info.vendor, info.driver, info.backend, __version__]
    parts += [kernels_hash(device.pipelines.directory), device.capabilities, dtype, cache_dtype]
    parts += filter(None, [remembered.user_agent()])
    return " | ".join(map(str, parts))


# --- the model ----------------------------------------------------------------------------------


class _KnownBackbone(GPT2Backbone):
    """Model of the self-test; its weights are not waited for, the read of all results is."""

    async def load(self, device: Device) -> GPT2Weights:
        """Issue the upload of the weights onto ``device``."""
        with self._open_weights(device, self.dtype) as fetch:
            return await issue_weights(device, self.config, fetch, self.dtype)


async def _add_model(checks: PendingChecks, dtype: str, cache_dtype: str) -> None:
    """Compute the embedding, a long row and several short ones, to be checked."""
    fetch = _block(dtype).fetch
    backbone = await _KnownBackbone.from_weights(
        CONFIG, lambda device, dtype: nullcontext(fetch), dtype, cache_dtype, checks.device
    )
    try:
        _add_embedding(checks, backbone)
        _add_long(checks, backbone)
        _add_short(checks, backbone)
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


_EMBEDDED = (0, 150), (150, 150)  # first token and number of each row: all tokens
_STARTS = (0, CONFIG.n_positions - 150)  # and all positions


def _add_embedding(checks: PendingChecks, backbone: GPT2Backbone) -> None:
    weights = backbone.weights
    with tidy("self-test") as scope:
        ids = backbone.as_uint32([[first + t for t in range(n)] for first, n in _EMBEDDED])
        starts = backbone.as_uint32(_STARTS)
        x = scope.escape(nn.embed(ids, starts, weights.wte, weights.wpe))
    expected = partial(_embedding_expected, backbone.dtype)
    checks.add(f"{backbone.dtype} embedding", x, expected, share=1e-6)


def _embedding_expected(dtype: str) -> list[float]:
    block, expected = _block(dtype), list[float]()
    for (first, count), start in zip(_EMBEDDED, _STARTS, strict=True):
        for t in range(count):
            token, place = block.wte[first + t], block.wpe[start + t]
            expected += [a + b for a, b in zip(token, place, strict=True)]
    return expected


def _add_long(checks: PendingChecks, backbone: GPT2Backbone) -> None:
    """Compute one row: a prompt in chunks, then steps."""
    prompt = [_token(0, t) for t in range(sum(CHUNKS) + 1)]
    with tidy("self-test"):
        cache = backbone.new_cache(1, len(prompt) + STEPS)
        first = 0
        for count in CHUNKS:
            with tidy("prefill") as scope:
                ids = backbone.as_uint32([prompt[first : first + count]])
                x = scope.escape(backbone.blocks(ids, cache, backbone.as_uint32([first])))
            expected = partial(_hidden_expected, backbone.dtype, first, count)
            name = f"{backbone.dtype} prompt, {count} tokens"
            checks.add(name, x, expected, share=_share(backbone))
            first += count
        _add_steps(checks, backbone, cache, [prompt], 0, "1 row")


def _hidden_expected(dtype: str, first: int, count: int) -> list[float]:
    hidden = _known(dtype, 0, sum(CHUNKS) + 1).hidden
    return list(chain.from_iterable(hidden[first : first + count]))


def _add_short(checks: PendingChecks, backbone: GPT2Backbone) -> None:
    """Compute a batch of rows of different lengths, with padding."""
    rows = [[_token(row, t) for t in range(length)] for row, length in enumerate(SHORT, 1)]
    longest = max(SHORT) - 1
    with tidy("self-test"):
        cache = backbone.new_cache(len(rows), max(SHORT) + STEPS)
        padded = [[*row[:-1], *[0] * longest][:longest] for row in rows]
        backbone.blocks(backbone.as_uint32(padded), cache, backbone.as_uint32([0] * len(rows)))
        _add_steps(checks, backbone, cache, rows, 1, f"{len(rows)} rows")


def _add_steps(
    checks: PendingChecks,
    backbone: GPT2Backbone,
    cache: nn.KVCache,
    rows: Sequence[Sequence[int]],
    first_row: int,
    name: str,
) -> None:
    """Compute the recorded step of models/decode_run.py and its logits.

    ``first_row``: index of the first of ``rows`` among the known ones.
    """
    state = nn.SamplingState.create(
        backbone.device,
        [nn.History(row, len(row)) for row in rows],
        [CONFIG.n_positions] * len(rows),
        nn.SamplingOptions(temperature=0.0),
        [],
        CONFIG.vocab_size,
    )
    lengths = [(first_row + i, len(row)) for i, row in enumerate(rows)]
    name = f"{backbone.dtype} step, {name}"
    with ExitStack() as freed:  # also after an exception
        with Recording(backbone.device) as recording, tidy("step"):
            x = backbone.blocks(state.token, cache, state.position)
            logits = keep(backbone.head(x, state))
            freed.callback(logits.dispose)
            nn.sample(logits, state)
        freed.callback(recording.close)
        for step in range(STEPS):
            recording.replay(1)
            expected = partial(_logits_expected, backbone.dtype, lengths, step)
            checks.add(name, logits, expected, share=_share(backbone), copied=True)
            tokens = partial(_tokens_expected, backbone.dtype, lengths, step)
            checks.add(f"{name}, token", state.token, tokens, copied=True)


def _logits_expected(dtype: str, lengths: Sequence[tuple[int, int]], step: int) -> list[float]:
    """Return the logits of a step for rows of such index and length."""
    rows = (_known(dtype, row, length).logits[step] for row, length in lengths)
    return list(chain.from_iterable(rows))


def _tokens_expected(dtype: str, lengths: Sequence[tuple[int, int]], step: int) -> list[float]:
    return [float(_known(dtype, row, length).tokens[step]) for row, length in lengths]


def _share(backbone: GPT2Backbone) -> float:
    """Return the largest error, as a share of the range of the expected numbers."""
    if nn.rounds_activations(backbone.device, backbone.weights.wte):
        return TOLERANCE_INT8
    return TOLERANCE_F16_CACHE if backbone.cache_dtype == "float16" else TOLERANCE


# --- sampling -----------------------------------------------------------------------------------


async def _add_draws(checks: PendingChecks) -> None:
    """Sample tokens of several rows from known logits by every algorithm, to be checked."""
    device = checks.device
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
            _add_draw(checks, f"draw, {name}", logits, state, options)


def _add_draw(
    checks: PendingChecks,
    name: str,
    logits: Tensor,
    state: nn.SamplingState,
    options: nn.SamplingOptions,
) -> None:
    """Check tokens and finished flags; with penalties also the logits and counts."""
    known = lru_cache(maxsize=1)(partial(known_draws, options))
    checks.add(name, state.token, lambda: known().tokens)
    checks.add(name, state.finished, lambda: known().finished)
    if state.penalties.any:
        chunks = state.maxima_and_counts.shape[1] - CANDIDATES
        counts = ops.slice(state.maxima_and_counts, (0, chunks), (ROWS, CANDIDATES))
        checks.add(name, counts, lambda: list(chain.from_iterable(known().counts())))
        logits = ops.slice(logits, (0, 0), (ROWS, CANDIDATES))
        checks.add(name, logits, lambda: list(chain.from_iterable(known().logits)), 1e-4)
