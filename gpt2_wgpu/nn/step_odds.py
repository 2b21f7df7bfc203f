"""Odds of the tokens that decode steps choose, kept in the sampling state until they are read."""

from __future__ import annotations

from dataclasses import replace

from gpt2_wgpu.errors import ShapeError
from gpt2_wgpu.nn.choice_options import Penalties
from gpt2_wgpu.nn.losses import token_odds
from gpt2_wgpu.nn.sampling import CHUNK, RECENT, SamplingState
from gpt2_wgpu.tensors import ops
from gpt2_wgpu.tensors.dispatch import dispatch
from gpt2_wgpu.tensors.ops.launch import groups_for
from gpt2_wgpu.tensors.tensor import Tensor, empty

_COLUMNS = 4  # of token_odds


def odds_width(top: int) -> int:
    """Return the words of a row of ``SamplingState.odds`` with ``top`` alternatives of a token."""
    return 1 + RECENT * (_COLUMNS + 2 * top)


def record_odds(logits: Tensor, state: SamplingState) -> None:
    """Store in ``state`` how ``logits`` [B, V] predict the newest token of each row.

    After the step has chosen it. Finished rows do not change. ShapeError for incompatible shapes
    or a state without odds.
    """
    rows, odds = state.position.size, state.odds
    if odds is None or logits.ndim != 2 or logits.shape[0] != rows:
        raise ShapeError(f"record_odds: logits {logits.shape}, odds {odds} of {rows} rows")
    top = ((odds.shape[1] - 1) // RECENT - _COLUMNS) // 2
    found = token_odds(logits, state.token.view((rows,)))
    values, indices = ops.top_k(logits, top) if top else (found, found)
    dispatch(
        logits.device,
        "record_odds",
        groups_for(rows, 64),
        {
            "found": found,
            "values": values,
            "indices": indices,
            "position": state.position,
            "odds": odds,
        },
        {"rows": rows, "k": top},
    )


def without_penalties(state: SamplingState) -> SamplingState:
    """Return ``state`` for a head that computes plain logits; their maxima are not kept."""
    chunks = -(-state.candidates // CHUNK)
    maxima = empty(state.position.device, (state.position.size, chunks), "uint32")
    return replace(state, counted=False, penalties=Penalties(), maxima_and_counts=maxima)


def odds_of(
    odds: memoryview, place: int, position: int, top: int
) -> tuple[memoryview[float], memoryview[int]]:
    """Return what ``record_odds`` stored for the token at ``position`` of the row at ``place``.

    ``odds``: the bytes of ``SamplingState.odds``. Loss, entropy, rank, log of the normaliser and
    the logits of the ``top`` most likely ids, as f32; and these ids.
    """
    words = _COLUMNS + 2 * top
    first = place * odds_width(top) + 1 + position % RECENT * words
    slot = odds[4 * first : 4 * (first + words)]
    numbers, ids = slot[: 4 * (_COLUMNS + top)], slot[4 * (_COLUMNS + top) :]
    return numbers.cast("f"), ids.cast("I")
