"""Rows of a KV cache and of a sampling state that change their places."""

from __future__ import annotations

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.nn import History, KVCache, SamplingOptions, SamplingState, move_rows

MOVES = [(5, 1), (4, 0)]
ROWS = 6


def values_of(owner):
    """The words of each array of rows."""
    found = []
    for tensor, first, nbytes in owner.row_slices():
        words = gw.webgpu.sync(
            tensor.device.queue.read([(tensor.storage, first, nbytes * ROWS)]), ""
        )
        found.append([words[0][row * nbytes : (row + 1) * nbytes].tolist() for row in range(ROWS)])
    return found


@pytest.mark.parametrize("cache_dtype", ["float32", "float16"])
@pytest.mark.parametrize(("heads", "dim", "length"), [(1, 8, 16), (3, 20, 17)])
def test_rows_of_a_cache(device, cache_dtype, heads, dim, length):
    with gw.tidy():
        cache = KVCache(device, ROWS, 2, length, heads, dim, cache_dtype)
        check(cache)
        assert len(cache.row_slices()) == 4
        front = cache.first_rows(3)
        assert front.shape == (3, 2, 2, length, heads, dim)
        if cache_dtype == "float32":
            assert front.tolist() == cache.tolist()[:3]


def test_rows_of_a_state(device):
    rows = [History([row, row + 1], 2) for row in range(ROWS)]
    limits = [10 + row for row in range(ROWS)]
    options = SamplingOptions(penalties=gw.nn.Penalties(repetition=1.5))
    with gw.tidy():
        state = SamplingState.create(device, rows, limits, options, [], 300)
        check(state)
        moved = [4, 5, 2]
        front = state.first_rows(3)
        assert front.token.tolist() == [[row + 1] for row in moved]
        assert [limit for limit, *_ in front.row_params.tolist()] == [10 + row for row in moved]
        assert [stream for _, stream, *_ in front.row_params.tolist()] == moved
        assert front.options.shape == state.options.shape


def test_rows_with_options_of_their_own(device):
    with gw.tidy():
        state = SamplingState.create(
            device, [History([1], 1)] * ROWS, [1] * ROWS, SamplingOptions(), [], 300,
            own_options=True,
        )  # fmt: skip
        words = state.options.tolist()
        assert words == [words[0]] * ROWS
        before = values_of(state)
        options = SamplingOptions(temperature=0.5, top_k=7, seed=2**33 + 5)
        state.write_row(3, History([8, 9, 4], 2), 12, options)
        for old, new in zip(before, values_of(state), strict=True):
            assert [old[i] for i in range(ROWS) if i != 3] == [
                new[i] for i in range(ROWS) if i != 3
            ]
        assert state.options.tolist()[3] == options.pack([], 300).tolist()
        assert state.token.tolist()[3] == [4] and state.position.tolist()[3] == 2
        assert state.row_params.tolist()[3] == [12, 0, 5, 2]
        assert state.finished.tolist() == [gw.nn.FULL] * 3 + [gw.nn.LIVE] + [gw.nn.FULL] * 2
        check(state)
        assert state.first_rows(2).options.shape == (2, len(words[0]))


def check(owner):
    for part, (tensor, first, nbytes) in enumerate(owner.row_slices()):
        if isinstance(owner, KVCache):
            words = [part * 10_000 + i for i in range(ROWS * nbytes // 4)]
            x = gw.tensor(words, "uint32")
            tensor.device.queue.flush(
                [(x.storage.buffer, 0, tensor.storage.buffer, first, ROWS * nbytes)]
            )
    before = values_of(owner)
    move_rows(owner, MOVES)
    move_rows(owner, [])
    for old, new in zip(before, values_of(owner), strict=True):
        assert new == [old[4], old[5], *old[2:]]
        assert isinstance(owner, SamplingState) or old[4] != old[0]
