"""Choice of a linear layer's kernel, by device and size."""

from __future__ import annotations

import math

from gpt2_wgpu.nn.kernel_choice import choice_for
from gpt2_wgpu.nn.matrix import Matrix
from gpt2_wgpu.webgpu.device import Device
from gpt2_wgpu.webgpu.queue import Grid
from gpt2_wgpu.weight_formats import WEIGHT_FORMATS

_MAX_STAGED = 1008  # vec4s of a token that linear_gemv_cpu.wgsl can stage: 16 KiB with the moments
_GEMV_TOKENS = 8  # most tokens that share a reading of the weights in linear_gemv.wgsl
TILE_ROWS = (64, 32, 16)  # tokens of a tile of linear_gemm.wgsl, most first
_UNROLLED = 4  # most rounds of a loop to unroll
# Lanes of all outputs that keep a large GPU's memory busy, to the nearest power of two or less.
_GPU_LANES = 225_000


def fuses_norm(device: Device, tokens: int) -> bool:
    """Return whether the product's kernel computes a LayerNorm before it.

    A tile would normalise each token once per tile of outputs.
    """
    capabilities = device.capabilities
    return tokens <= (8 if capabilities.prefers_no_barriers else capabilities.gemv_tokens)


def choose_kernel(
    device: Device,
    tokens: int,
    out_features: int,
    in_features8: int,
    steps: int,
    splits: int,
    has_norm: bool,
) -> tuple[str, Grid, dict[str, int]]:
    """Kernel, grid and constants for a product of this size.

    ``steps``: loads of a weight row in the GEMV; ``splits``: split-K partials of x, 0 if it is
    whole; ``has_norm``: a LayerNorm comes first.

    On CPU adapters: GEMV for one token, tiles of 4 or 8 tokens, and of 16 from nine tokens on if
    threads share loads. On GPUs: GEMV for up to 32 tokens (64 on discrete GPUs), at most eight in a
    workgroup, as tiles would be mostly empty and fewer than a GPU's cores (12 for 768 outputs of up
    to 64 tokens); then tiles of 64 outputs by 16, 32 or 64 tokens. All weight formats have these
    limits: fewer bytes to read favour the GEMV, but it converts them once for each eight tokens.
    Within the GEMV, and within the tiles, a token's sum has the same order for any number of
    tokens; splitting K where tiles are few would end that.

    Besides the device, the number of iterations of one thread decides, summed over all its loops:
    estimated here for each group of eight weights; a thread of the GEMV has a LANES-th of them.
    """
    if (choose := choice_for("linear")) is not None:
        kernel, grid, constants = choose(tokens, out_features)
        return str(kernel), grid, constants
    capabilities = device.capabilities
    groups = -(-out_features // 64)
    staged = 2 * in_features8 if has_norm or splits else 1
    if capabilities.prefers_no_barriers and tokens == 1 and staged <= _MAX_STAGED:
        # A thread stages a 16th of the token, and reads each partial of it twice.
        rounds = in_features8 + (in_features8 // 16 + 1) * (1 + 2 * splits) + 16
        if rounds < capabilities.max_iterations:
            return "linear_gemv_cpu", (groups, 1, 1), {"STAGED": staged}
    if capabilities.shares_loads and capabilities.prefers_no_barriers and tokens > 8:
        rounds = (1 + 8 * splits) * in_features8 + 32  # four tokens of a thread read partials twice
        if rounds < capabilities.max_iterations:
            grid = (-(-out_features // 32), -(-tokens // 16), 1)
            return "linear_gemm_subgroups_cpu", grid, {}
    quads = 1 if tokens <= 4 else 2
    inner = max(1, 2 * splits)  # the moments of a token, or its partials twice
    rounds = 1 + quads * (1 + 4 * inner)
    if (
        capabilities.prefers_no_barriers
        and rounds * (in_features8 + 3) < capabilities.max_iterations
    ):
        return "linear_gemm_cpu", (groups, -(-tokens // (4 * quads)), 1), {"QUADS": quads}
    rounds = (3 + splits) * (in_features8 + 5)
    if tokens > capabilities.gemv_tokens and rounds < capabilities.max_iterations:
        return gemm(tokens, out_features, tile_rows(capabilities.tiles, tokens, groups))
    # Every lane gets a step, and there are about as many lanes as keep a large GPU's memory busy.
    # The number of tokens does not count: it would change the order of sums.
    most = max(8, min(in_features8 // 2, steps, 128))
    wanted = round(math.log2(_GPU_LANES / out_features))
    lanes = 1 << max(3, min(most.bit_length() - 1, wanted))
    fewer = lanes * 3 // 4
    groups = -(-out_features // (4 * _threads(fewer) // fewer))
    if lanes > 8 and -(-steps // fewer) == -(-steps // lanes) and groups >= capabilities.tiles:
        lanes = fewer  # as many rounds, and fewer lanes without a step in the last
    # One group of eight a step (f32, f16): compilers do not unroll the longer steps of q8 and q4.
    return gemv(tokens, out_features, lanes, steps if steps == in_features8 else 0)


def tile_rows(wanted: int, tokens: int, groups: int) -> int:
    """Return the tokens of a tile: as many as leave ``wanted`` tiles.

    ``groups``: of outputs. A tile of fewer tokens reads more workgroup memory per product, and each
    tile reads its weights again.
    """
    few_enough = (rows for rows in TILE_ROWS if groups * -(-tokens // rows) >= wanted)
    return next(few_enough, TILE_ROWS[-1])


def gemm(tokens: int, out_features: int, rows: int) -> tuple[str, Grid, dict[str, int]]:
    """Kernel, grid and constants of tiles of 64 outputs by ``rows`` tokens: 16, 32 or 64."""
    return "linear_gemm", (-(-out_features // 64), -(-tokens // rows), 1), {"ROWS": rows}


def gemv(
    tokens: int, out_features: int, lanes: int, steps: int = 0
) -> tuple[str, Grid, dict[str, int]]:
    """Kernel, grid and constants of the GEMV with ``lanes`` for four outputs.

    ``lanes``: 8 to 128, 2^n or 3 * 2^n; a workgroup has 64, 96 or 128 threads. ``steps``: loads of
    a weight row, to unroll the loop over them for one token; 0 keeps the loop.
    """
    threads = _threads(lanes)
    groups = -(-out_features // (4 * threads // lanes))
    sharing = -(-tokens // _GEMV_TOKENS)  # workgroups of the same outputs, with about equally many
    shared = -(-tokens // sharing)
    wide = max(1, min(groups, 65535 // sharing))
    grid = (wide * sharing, 1, -(-groups // wide))
    constants = {"TOKENS": shared, "LANES": lanes, "WORKGROUP": threads}
    rounds, rest = divmod(steps, lanes)
    if tokens == 1 and not rest and 1 <= rounds <= _UNROLLED:
        constants["ROUNDS"] = rounds
    return "linear_gemv", grid, constants


def _threads(lanes: int) -> int:
    return max(96 if lanes % 3 == 0 else 64, lanes)


def gemv_step(weight: Matrix) -> tuple[str, int]:
    """Return the variant of linear_gemv's loads, and the number of loads per weight row.

    Loads of 16 bytes if a row is a multiple of that, else of groups of eight elements.
    """
    step = WEIGHT_FORMATS[weight.dtype].gemv_step
    if step and weight.in_features % step == 0:
        return weight.variant, weight.in_features // step
    return "eight", weight.in_features // 8
