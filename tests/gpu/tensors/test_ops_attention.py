"""The composed attention against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import ShapeError
from gpt2_wgpu.tensors import ops
from tests.gpu import references

pytestmark = [pytest.mark.usefixtures("guarded"), pytest.mark.native("NumPy")]


def inputs(batch, queries, keys, heads, size, value_size=None):
    return (
        references.random(batch, queries, heads, size, seed=1),
        references.random(batch, keys, heads, size, seed=2),
        references.random(batch, keys, heads, value_size or size, seed=3),
    )


def compare(parts, mask=None, reference_mask=None, **options):
    q, k, v = map(gw.tensor, parts)
    result = ops.attention(q, k, v, mask=mask, **options)
    q, k, v = parts
    expected = references.attention(q, k, v, mask=reference_mask, **options)
    assert result.shape == expected.shape
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("variant")
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    "sizes",
    [(1, 1, 1, 1, 1), (2, 5, 5, 3, 4), (1, 3, 17, 2, 5), (3, 1, 9, 1, 33), (2, 17, 20, 2, 7, 3)],
    ids=str,
)
def test_attention(sizes, causal):
    compare(inputs(*sizes), causal=causal)


def test_scale():
    compare(inputs(2, 3, 4, 2, 5), scale=0.1)


@pytest.mark.usefixtures("narrow_grid")
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", [(2, 6), (2, 4, 6), (2, 1, 6), (2, 3, 4, 6), (1, 3, 1, 6)])
def test_masks_broadcast(shape, causal):
    mask = np.random.default_rng(0).random(shape) < 0.6
    full = {2: (shape[0], 1, 1, 6), 3: (shape[0], 1, *shape[1:])}.get(len(shape), shape)
    expected = mask.reshape(full)
    parts = inputs(2, 4, 6, 3, 5)
    compare(parts, mask, expected, causal=causal)
    for dtype in ("int32", "uint32", "float32"):
        compare(parts, gw.tensor(mask.astype(dtype), dtype), expected, causal=causal)


def test_padding_as_a_list():
    parts = inputs(2, 3, 3, 1, 2)
    mask = [[1, 1, 0], [0, 1, 1]]
    compare(parts, mask, np.array(mask).reshape(2, 1, 1, 3), causal=True)


def test_a_query_that_sees_nothing_gets_the_mean():
    parts = inputs(1, 2, 4, 1, 3)
    q, k, v = parts
    result = ops.attention(q, k, v, mask=np.zeros((1, 4), int)).numpy()
    mean = parts[2].mean(1, keepdims=True)
    np.testing.assert_allclose(result, np.broadcast_to(mean, result.shape), rtol=1e-5, atol=1e-6)


def test_the_future_weighs_nothing_even_where_all_else_is_masked():
    query, key, value = inputs(1, 4, 4, 1, 3)
    value[0, 1:] = 1e6
    result = ops.attention(query, key, value, mask=[[0, 0, 0, 0]], causal=True).numpy()
    np.testing.assert_allclose(result[0, 0], value[0, 0], rtol=1e-6)


@pytest.mark.parametrize(
    ("query", "key", "value"),
    [
        ((2, 3, 4), (2, 3, 4), (2, 3, 4)),
        ((2, 3, 1, 4), (1, 3, 1, 4), (1, 3, 1, 4)),
        ((2, 3, 1, 4), (2, 5, 1, 3), (2, 5, 1, 4)),
        ((2, 3, 1, 4), (2, 5, 1, 4), (2, 6, 1, 4)),
        ((2, 3, 2, 4), (2, 5, 1, 4), (2, 5, 1, 4)),
    ],
)
def test_shapes_that_do_not_fit_are_all_named(query, key, value):
    with pytest.raises(ShapeError) as raised:
        ops.attention(*[np.zeros(shape, np.float32) for shape in (query, key, value)])
    assert all(str(shape) in str(raised.value) for shape in (query, key, value))


def test_other_bad_arguments_are_refused():
    q, k, v = inputs(1, 3, 2, 1, 4)
    with pytest.raises(ShapeError, match="causal queries"):
        ops.attention(q, k, v, causal=True)
    for shape in [(2,), (3, 2), (1, 2, 2), (1, 1, 1, 1, 2)]:
        with pytest.raises(ShapeError, match=r"mask .* is none of \(1, 2\), \(1, 3, 2\)"):
            ops.attention(q, k, v, mask=np.ones(shape, int))
