"""Kernels at the bounds of comparisons: equal masses, the last position, zero variance."""

from __future__ import annotations

import numpy as np
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.nn import Norm, SamplingOptions, embed, fold_norm, linear
from tests.gpu import references
from tests.gpu.matrices import free, matrix_of
from tests.gpu.nn.test_sampling import sampled, threads

__all__ = ["threads"]  # the fixture: workgroups of 32 and of 256 threads, with the list on GPUs

pytestmark = pytest.mark.native("NumPy")


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("top_k", [0, 2], ids=["all", "listed"])
def test_top_p_keeps_a_token_when_the_mass_before_it_is_exactly_p(device, top_k):
    """Two equal logits have a mass of exactly 1/2 each: at p = 1/2 both stay, just below one."""
    seeds = range(40)
    logits = np.full((len(seeds), 600), -1e30, np.float32)
    logits[:, [5, 300]] = 1.0
    for top_p, allowed in [(0.5, {5, 300}), (np.nextafter(np.float32(0.5), 0), {5})]:
        options = SamplingOptions(top_p=float(top_p), top_k=top_k)
        found = sampled(device, logits, options, seeds=seeds)["token"][:, 0]
        assert {*found.tolist()} == allowed


@pytest.mark.usefixtures("guarded")
@pytest.mark.parametrize("start", [14, 15, 16, 1000])
def test_positions_past_the_table_take_the_last_row(device, start):
    wte, wpe = references.random(9, 16), references.random(16, 16, seed=1)
    table = matrix_of(device, wte, "float32")
    with gw.tidy():
        ids, first = gw.tensor([[3, 4, 5]], "uint32"), gw.tensor([start], "uint32")
        found = embed(ids, first, table, gw.tensor(wpe)).numpy()
    free(table)
    expected = wte[[3, 4, 5]] + wpe[np.minimum(start + np.arange(3), 15)]
    np.testing.assert_allclose(found[0], expected, rtol=1e-6)


@pytest.mark.parametrize("value", [1000.0, 3001.0])
@pytest.mark.parametrize("rows", [1, 8])
def test_a_variance_that_rounds_below_zero_is_zero(device, rows, value):
    """Only the first of 32,768 elements differs: the variance is smaller than its rounding."""
    width = 32_768
    x = np.full((rows, width), value, np.float32)
    x[:, 0] = 0
    matrix = matrix_of(device, np.eye(1, width), "float32")
    with gw.tidy():
        ones, zeros = gw.tensor(np.ones(width)), gw.tensor(np.zeros(width))
        folded = fold_norm(ones, zeros, matrix)
        found = linear(gw.tensor(x), matrix, norm=Norm(ones, zeros, folded, width, 1e-5)).numpy()
        gw.dispose(folded)
    free(matrix)
    assert np.isfinite(found).all() and (found < 0).all()
