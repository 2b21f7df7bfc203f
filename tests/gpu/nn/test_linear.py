"""Linear layers, every kernel in every variant, against NumPy."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import InvalidArgumentError, ShapeError
from gpt2_wgpu.nn import (
    AttentionPartials,
    KVCache,
    Norm,
    choose_kernels,
    fold_norm,
    linear,
    linear_choice,
    project_qkv,
)
from tests.gpu import references
from tests.gpu.matrices import DTYPES, free, matrix_of, without_w8a8
from tests.gpu.quantization import rounded

pytestmark = pytest.mark.native("NumPy")

GEMV = [
    "linear_gemv 1 16",
    "linear_gemv 3 8",
    "linear_gemv 8 128",
    "linear_gemv 8 12",
]  # tokens, lanes
GEMM_CPU = ["linear_gemm_cpu 1", "linear_gemm_cpu 2"]  # quads of tokens
FUSING = ["linear_gemv_cpu", *GEMM_CPU, *GEMV]
SUBGROUPS = "linear_gemm_subgroups_cpu"
GEMM = ["linear_gemm 16", "linear_gemm 32", "linear_gemm 64"]  # rows of a tile
KERNELS = [*FUSING, *GEMM, SUBGROUPS]


def grid_of(kernel, tokens, out_features):
    """The grid and constants of ``kernel`` by its header, independent of the choice."""
    name, *given = kernel.split()
    if name == "linear_gemv_cpu":
        return name, (-(-out_features // 64), tokens, 1), {"STAGED": 1008}
    if name == "linear_gemm_cpu":
        quads = int(given[0])
        return name, (-(-out_features // 64), -(-tokens // (4 * quads)), 1), {"QUADS": quads}
    if name == "linear_gemv":
        (shared, lanes), wide = map(int, given), 3  # a grid folded after 3 workgroups of a token
        threads = max(36 if lanes % 3 == 0 else 32, lanes)
        groups = -(-out_features // (4 * threads // lanes))
        grid = (wide * -(-tokens // shared), 1, -(-groups // wide))
        return name, grid, {"TOKENS": shared, "LANES": lanes, "WORKGROUP": threads}
    if name == SUBGROUPS:
        return name, (-(-out_features // 32), -(-tokens // 16), 1), {}
    rows = int(given[0])
    return name, (-(-out_features // 64), -(-tokens // rows), 1), {"ROWS": rows}


@pytest.fixture(params=KERNELS)
def kernel(request, device, capabilities):
    without_w8a8(capabilities)
    if request.param == SUBGROUPS and "subgroup" not in device.features:
        pytest.skip("no subgroups")
    with choose_kernels("linear", partial(grid_of, request.param)):
        yield request.param


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("tokens", "out_features", "in_features"),
    [
        (1, 1, 8),
        (1, 65, 24),
        (2, 63, 136),
        (3, 64, 128),
        (4, 5, 264),
        (5, 129, 8),
        (7, 6, 1056),
        (63, 65, 40),
        (64, 64, 16),
        (65, 130, 72),
    ],
    ids=str,
)
@pytest.mark.usefixtures("guarded")
@pytest.mark.chromium_cases("kernel", "dtype")
def test_against_numpy(device, kernel, tokens, out_features, in_features, dtype):
    x, w = (
        references.random(tokens, in_features),
        references.random(out_features, in_features, seed=1),
    )
    b, r = references.random(out_features, seed=2), references.random(tokens, out_features, seed=3)
    matrix = matrix_of(device, w, dtype)
    inputs = gw.tensor(x), gw.tensor(b), gw.tensor(r)
    result = linear(inputs[0], matrix, inputs[1], activation="gelu_tanh", residual=inputs[2])
    expected = x.astype(float) @ rounded(w, dtype).astype(float).T + b
    expected = references.activation("gelu_tanh", expected) + r
    np.testing.assert_allclose(result.numpy(), expected, rtol=2e-5, atol=2e-4)
    free(matrix)
    gw.dispose([inputs, result])


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.usefixtures("guarded")
def test_unrolled_rounds_give_the_same_bits(device, dtype):
    x, matrix = references.random(1, 768), matrix_of(device, references.random(33, 768), dtype)
    found = []
    with gw.tidy():
        given = gw.tensor(x)
        for lanes, rounds in ((32, 3), (96, 1), (24, 4)):
            for steps in (0, 96):
                choice = linear_choice.gemv(1, 33, lanes, steps)
                assert choice[2].get("ROUNDS") == (rounds if steps else None)
                with choose_kernels("linear", lambda tokens, n, choice=choice: choice):
                    found.append(linear(given, matrix).numpy().tobytes())
    free(matrix)
    assert found[::2] == found[1::2]
    assert len({*found}) > 1  # other lanes, another order


@pytest.mark.usefixtures("guarded")
def test_without_bias_and_residual_and_in_parts(device, kernel, capabilities):
    capabilities(max_binding=50 * 4 * 40)
    x, w = references.random(3, 2, 40), references.random(130, 40, seed=1)
    matrix = matrix_of(device, w, "float32")
    assert len(matrix.parts) == 3
    with gw.tidy():
        found = linear(gw.tensor(x), matrix).numpy()
    np.testing.assert_allclose(found, x @ w.T, rtol=1e-4, atol=1e-4)
    free(matrix)


@pytest.fixture(params=FUSING)
def fusing(request, device, capabilities):
    """The kernels that take a LayerNorm with them."""
    without_w8a8(capabilities)
    with choose_kernels("linear", partial(grid_of, request.param)):
        yield


@pytest.mark.parametrize(
    ("tokens", "out_features", "width"),
    [(1, 1, 1), (1, 65, 20), (2, 6, 8), (3, 64, 121), (5, 7, 264), (8, 130, 33)],
    ids=str,
)
@pytest.mark.usefixtures("guarded", "fusing")
@pytest.mark.chromium_cases("fusing")
def test_a_norm_in_front(device, tokens, out_features, width):
    """Rows far from zero, one with an outlier where the shift is taken from, a constant one."""
    in_features = -(-width // 8) * 8
    x = references.random(tokens, in_features) + 1000 * np.arange(tokens, dtype=np.float32)[:, None]
    x[-1] = x[-1, -1]
    x[0, 0] = 300
    x[:, width:] = 0
    gain, shift = references.random(in_features, seed=1), references.random(in_features, seed=2)
    w, b = (
        references.random(out_features, in_features, seed=3),
        references.random(out_features, seed=4),
    )
    gain[width:] = shift[width:] = w[:, width:] = 0
    matrix = matrix_of(device, w, "float16")
    with gw.tidy():
        gain_there, shift_there = gw.tensor(gain), gw.tensor(shift)
        folded = fold_norm(gain_there, shift_there, matrix, gw.tensor(b))
        norm = Norm(gain_there, shift_there, folded, width, 1e-5)
        with_bias = linear(gw.tensor(x), matrix, norm=norm, activation="gelu_tanh").numpy()
        gw.dispose(folded)
    free(matrix)
    normal = references.layer_norm(x[:, :width], gain[:width], shift[:width])
    expected = normal @ rounded(w, "float16")[:, :width].astype(float).T + b
    expected = references.activation("gelu_tanh", expected)
    # What x itself has lost by lying far from zero is not the kernel's.
    atol = 2e-4 + 1e-3 * (tokens > 1)
    np.testing.assert_allclose(with_bias, expected, rtol=1e-3, atol=atol * max(1, width / 8))


@pytest.mark.parametrize("dtype", ["float32", "q8"])
@pytest.mark.parametrize("tokens", [1, 2, 8, 9, 33])
@pytest.mark.usefixtures("guarded")
@pytest.mark.chromium_cases("dtype")
def test_a_norm_in_front_without_bias(device, tokens, dtype, capabilities):
    """As a head is: whether the norm is folded, or goes before, decides nothing but the way."""
    without_w8a8(capabilities)
    x, w = references.random(tokens, 64), references.random(33, 64, seed=3)
    gain, shift = references.random(64, seed=1), references.random(64, seed=2)
    matrix = matrix_of(device, w, dtype)
    with gw.tidy():
        there = gw.tensor(x)
        gain_there, shift_there = gw.tensor(gain), gw.tensor(shift)
        folded = fold_norm(gain_there, shift_there, matrix)
        norm = Norm(gain_there, shift_there, folded, 64, 1e-5)
        found = linear(there, matrix, norm=norm).numpy()
        expected = linear(gw.ops.layer_norm(there, gain_there, shift_there, 1e-5), matrix).numpy()
        gw.dispose(folded)
    free(matrix)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("tokens", "splits"), [(1, 2), (3, 8), (9, 3), (65, 2)])
@pytest.mark.usefixtures("guarded", "kernel")
@pytest.mark.chromium_cases("kernel")
def test_split_k_partials_of_attention_are_combined(device, tokens, splits):
    heads, dim, out_features = 3, 16, 21
    values = references.random(splits, tokens, heads, dim)
    highest = references.random(splits, tokens, heads, seed=1, scale=30)
    totals = np.abs(references.random(splits, tokens, heads, seed=2)) + 0.1
    unseen = np.arange(splits) >= splits - 1
    totals[unseen], highest[unseen] = 0, -3e38
    if tokens > 1:
        totals[0, -1, 0] = np.nan  # in one share of the last row
    weight = np.exp(highest - highest.max(0)).astype(float)
    whole = (weight[..., None] * values).sum(0) / (weight * totals).sum(0)[..., None]
    values[unseen] = np.nan  # never written
    w = references.random(out_features, heads * dim, seed=3)
    matrix = matrix_of(device, w, "float32")
    with gw.tidy():
        x = AttentionPartials(
            gw.tensor(values.reshape(splits, 1, tokens, heads * dim)),
            gw.tensor(np.stack([highest, totals], -1).reshape(splits, 1, tokens, heads, 2)),
        )
        found = linear(x, matrix).numpy()
    free(matrix)
    np.testing.assert_allclose(found[0], whole.reshape(tokens, -1) @ w.T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("cache_dtype", ["float32", "float16"])
@pytest.mark.parametrize("tokens", [1, 3])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.usefixtures("guarded")
@pytest.mark.chromium_cases("kernel", "cache_dtype")
def test_keys_and_values_go_into_the_cache(device, kernel, tokens, dtype, cache_dtype):
    batch, heads, dim, length = 2, 3, 8, 13
    width = heads * dim
    x, w = references.random(batch, tokens, 16), references.random(3 * width, 16, seed=1)
    b = references.random(3 * width, seed=2)
    start = [4, 12 - tokens]
    matrix = matrix_of(device, w, dtype)
    with gw.tidy():
        cache = KVCache(device, batch, 2, length, heads, dim, cache_dtype)
        for layer in range(2):
            part = cache.layer(layer)
            device.queue.upload(part.storage, 0, np.full(part.size, 7.5, cache_dtype))
        queries = project_qkv(
            gw.tensor(x), matrix, gw.tensor(b), cache, 1, gw.tensor(start, "uint32")
        ).numpy()
        found = cache.numpy()
    free(matrix)
    qkv = (x @ rounded(w, dtype).T + b).reshape(batch, tokens, 3, heads, dim)
    expected = np.full((batch, 2, 2, length, heads, dim), 7.5, np.float32)
    for row in range(batch):
        places = slice(start[row], start[row] + tokens)
        expected[row, 1, 0, places] = qkv[row, :, 1]
        expected[row, 1, 1, places] = qkv[row, :, 2]
    np.testing.assert_allclose(queries, qkv[:, :, 0].reshape(batch, tokens, width), atol=1e-4)
    expected = expected.astype(cache_dtype)
    np.testing.assert_allclose(found, expected, rtol=1e-3 * (cache_dtype == "float16"), atol=1e-4)


@pytest.mark.parametrize("cache_dtype", ["float32", "float16"])
@pytest.mark.usefixtures("guarded")
def test_the_cache_keeps_nan_and_bounds_what_f16_cannot_hold(device, cache_dtype):
    heads, dim = 2, 8
    bias = np.zeros((3, heads, dim), np.float32)
    bias[1, 0, 3] = bias[1, 0, 6] = bias[2, 1, 7] = np.nan  # high, low and high half of a word
    bias[1, 1, 0], bias[2, 0, 5] = 1e6, -1e6
    matrix = matrix_of(device, np.zeros((bias.size, 8)), "float32")
    with gw.tidy():
        cache = KVCache(device, 1, 1, 1, heads, dim, cache_dtype)
        x, start = gw.tensor(references.random(1, 1, 8)), gw.tensor([0], "uint32")
        project_qkv(x, matrix, gw.tensor(bias.ravel()), cache, 0, start)
        found = cache.numpy()
    free(matrix)
    most = np.finfo(cache_dtype).max
    np.testing.assert_array_equal(found[0, 0, :, 0], np.clip(bias[1:], -most, most))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rounding", [False, True], ids=["f32", "int8"])
def test_a_row_has_the_same_bits_whether_loads_are_shared(device, capabilities, dtype, rounding):
    """Whether alone, in a block that is not full, or with neighbours that are not numbers."""
    if not device.capabilities.shares_loads:
        pytest.skip("no subgroups")
    capabilities(prefers_w8a8=rounding)
    x, w = references.random(35, 96), references.random(37, 96, seed=1)
    x[3, 7] = x[20, 90] = np.nan
    matrix = matrix_of(device, w, dtype)
    with gw.tidy():
        found = {count: linear(gw.tensor(x[:count]), matrix).numpy() for count in (9, 17, 35)}
        with device.with_capabilities(shares_loads=False):
            expected = linear(gw.tensor(x), matrix).numpy()
    free(matrix)
    assert np.isfinite(expected).sum() == 33 * 37
    for count, rows in found.items():
        np.testing.assert_array_equal(rows, expected[:count])


@pytest.mark.parametrize("width", [96, 128])  # of 128 the rounds of one row are unrolled
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.chromium_cases("dtype")
def test_a_row_has_the_same_bits_in_each_gemv(device, capabilities, dtype, width):
    """Behind a norm; alone, among eight, and among up to 32 in workgroups of five to eight."""
    capabilities(prefers_no_barriers=False, prefers_w8a8=False)
    x, w = references.random(32, width), references.random(37, width, seed=1)
    x[3, 7] = np.nan
    gain, shift = references.random(width, seed=2), references.random(width, seed=3)
    matrix = matrix_of(device, w, dtype)
    with gw.tidy():
        there = gw.tensor(gain), gw.tensor(shift)
        norm = Norm(*there, fold_norm(*there, matrix), width - 5, 1e-5)
        alone = [linear(gw.tensor(row[None]), matrix, norm=norm).numpy() for row in x[:9]]
        for count in (8, 9, 17, 32):
            found = linear(gw.tensor(x[:count]), matrix, norm=norm).numpy()
            np.testing.assert_array_equal(found[:9], np.concatenate(alone)[:count])
        gw.dispose(norm.folded)
    free(matrix)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.chromium_cases("dtype")
def test_a_row_has_the_same_bits_in_each_tile(device, capabilities, dtype):
    without_w8a8(capabilities)
    x, w = references.random(70, 72), references.random(65, 72, seed=1)
    x[3, 7] = np.nan
    matrix = matrix_of(device, w, dtype)
    found = []
    for kernel in GEMM:
        with gw.tidy(), choose_kernels("linear", partial(grid_of, kernel)):
            found.append(linear(gw.tensor(x), matrix).numpy())
    assert np.isfinite(found[0]).sum() == 69 * 65
    for others in found[1:]:
        np.testing.assert_array_equal(others, found[0])
    free(matrix)


def test_shapes_that_do_not_fit_are_named(device):
    matrix = matrix_of(device, references.random(6, 16), "float32")
    with gw.tidy():
        x = gw.tensor(references.random(2, 8))
        with pytest.raises(ShapeError, match=r"x \(2, 8\) does not fit weight \(6, 16\)"):
            linear(x, matrix)
        x = gw.tensor(references.random(2, 16))
        with pytest.raises(ShapeError, match=r"residual \(2, 8\) for a result \(2, 6\)"):
            linear(x, matrix, residual=gw.tensor(references.random(2, 8)))
        with pytest.raises(ShapeError, match=r"bias \(5,\)"):
            linear(x, matrix, gw.tensor(references.random(5)))
        cache = KVCache(device, 1, 1, 8, 1, 8)
        with pytest.raises(ShapeError, match="for a cache of shape"):
            project_qkv(x, matrix, x, cache, 0, x)
    free(matrix)


def test_only_layers_with_a_choice_take_one():
    with (
        pytest.raises(InvalidArgumentError, match="no layer is called 'matmul'"),
        choose_kernels("matmul", grid_of),
    ):
        pass
