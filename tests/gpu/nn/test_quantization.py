"""q8 and q4: rounding at load, and W8A8 products, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import LimitError, ShapeError
from gpt2_wgpu.nn import (
    AttentionPartials,
    Axis,
    KVCache,
    Norm,
    Raw,
    fold_norm,
    linear,
    load_matrix,
    project_qkv,
)
from gpt2_wgpu.nn.matrix import stored_words
from gpt2_wgpu.webgpu.waiting import sync
from gpt2_wgpu.weight_formats import QUANTIZED
from tests.gpu import quantization, references
from tests.gpu.matrices import contents, free, kernels_run, matrix_of, stored

pytestmark = [pytest.mark.usefixtures("guarded", "no_leak"), pytest.mark.native("NumPy")]
BOTH = pytest.mark.parametrize("dtype", QUANTIZED)


def load(device, raw, dtype, **keywords):
    return sync(load_matrix(device, raw, dtype, **keywords), "load_matrix")


def bytes_of(device, matrix):
    """The matrix's units, its parts joined."""
    parts = []
    for _, part in matrix.parts:
        (raw,) = sync(device.queue.read([(part.storage, 0, part.nbytes)]), "read")
        parts.append(bytes(raw))
    return b"".join(parts)


@BOTH
@pytest.mark.parametrize("source", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (8, 32), (33, 24), (70, 65)], ids=str)
def test_rounding_equals_numpy(device, shape, transpose, source, dtype):
    raw, values = stored(references.random(*shape), source)
    matrix = load(device, raw, dtype, transpose=transpose)
    found = quantization.unpacked(bytes_of(device, matrix), dtype)
    free(matrix)
    expected = quantization.levels_of(values.T if transpose else values, dtype)
    np.testing.assert_array_equal(found[0], expected[0])
    # A division that is not rounded exactly may move a value between two levels.
    difference = np.abs(found[1] - expected[1])
    assert difference.max() <= 1
    assert np.count_nonzero(difference) <= found[1].size // 1000


@pytest.mark.parametrize(("dtype", "steps"), [("q8", 127), ("q4", 8)])
@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
def test_the_error_is_half_a_step(device, dtype, steps, size):
    values = references.random(64, 64, scale=size)
    matrix = matrix_of(device, values, dtype)
    blocks = values.reshape(-1, 32)
    error = np.abs(contents(device, matrix).reshape(-1, 32) - blocks)
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(1)[:, None], 1)
    # The opposite of q4's largest value would be level 16: it is up to a whole step away.
    beyond = (dtype == "q4") & (-blocks / largest > 7.5 / 8)
    assert (error <= np.abs(largest) * (np.where(beyond, 1, 0.5) / steps + 1e-3)).all()
    assert error.max() > 0


@BOTH
def test_blocks_of_zeros_and_of_one_value(device, dtype):
    values = np.zeros((3, 32), np.float32)
    values[1], values[2, 5] = -3.0, 2.0**-14
    matrix = matrix_of(device, values, dtype)
    np.testing.assert_allclose(contents(device, matrix), values, rtol=1e-6)


@BOTH
def test_what_is_not_a_number_is_not_lost(device, dtype):
    values = references.random(2, 32)
    values[1, 3] = np.nan
    matrix = matrix_of(device, values, dtype)
    found = contents(device, matrix)
    assert np.isnan(found[1]).any()
    assert not np.isnan(found[0]).any()


@BOTH
def test_groups_are_padded_one_by_one(device, dtype):
    raw, values = stored(references.random(6, 30), "F32")
    matrix = load(
        device, raw, dtype, transpose=True, out_features=Axis(30, 10, 16), in_features=Axis(6, 3, 8)
    )
    expected = np.zeros((3, 16, 2, 8), np.float32)
    expected[:, :10, :, :3] = values.T.reshape(3, 10, 2, 3)
    expected = quantization.rounded(expected.reshape(48, 16), dtype)
    np.testing.assert_allclose(contents(device, matrix), expected, atol=1e-6)


@BOTH
@pytest.mark.parametrize("transpose", [False, True])
def test_where_a_matrix_is_cut_changes_no_bit(device, monkeypatch, capabilities, dtype, transpose):
    """Neither the parts of a small binding nor the pieces of an upload; and stored units load."""
    raw, _ = stored(references.random(*((40, 150) if transpose else (150, 40))), "F16")
    whole = load(device, raw, dtype, transpose=transpose)
    expected = bytes_of(device, whole)
    free(whole)
    words = Raw(memoryview(expected), "U32", stored_words(150, 40, dtype))
    limit = 71 * 40 * quantization.UNIT_BYTES[dtype] // 256
    capabilities(max_binding=limit)
    monkeypatch.setattr("gpt2_wgpu.nn.matrix.STAGED_BYTES", 500)
    axes = {"out_features": Axis.plain(150), "in_features": Axis.plain(40)}
    for source in (raw, words):
        matrix = load(device, source, dtype, transpose=transpose, **axes)
        assert [first for first, _ in matrix.parts] == [0, 64, 128]
        assert bytes_of(device, matrix) == expected
        free(matrix)


@BOTH
def test_units_that_do_not_fit_are_refused(device, dtype):
    raw = Raw(memoryview(bytes(64)), "U32", (1, 16))
    with pytest.raises(ShapeError, match=rf"units of \(1, 16\) for a matrix 3 x 8 in {dtype}"):
        load(device, raw, dtype, out_features=Axis.plain(3), in_features=Axis.plain(8))
    with pytest.raises(ShapeError, match="in float16"):
        load(device, raw, "float16")


@BOTH
def test_32_rows_beyond_the_limit_are_refused(device, capabilities, dtype):
    capabilities(max_binding=512)
    raw, _ = stored(references.random(33, 64), "F32")
    with pytest.raises(LimitError, match="32 rows of"):
        load(device, raw, dtype)


# --- products in integers -----------------------------------------------------------------------


def rounded_rows(x):
    """x [..., K] as shaders/include/quantize_activations.wgsl rounds it."""
    blocks = x.reshape(-1, 32)
    scale = np.abs(blocks).max(1, keepdims=True) / np.float32(127)
    return (np.rint(blocks / np.where(scale == 0, 1, scale)) * scale).reshape(x.shape)


def kernel_of(tokens, device):
    """What multiplies so many tokens."""
    if tokens == 1:
        masked = device.capabilities.emulates_packed_dot
        return "linear_w8a8_gemv_masked_cpu" if masked else "linear_w8a8_gemv_cpu"
    shared = tokens > 8 and device.capabilities.shares_loads
    return "linear_w8a8_gemm_subgroups_cpu" if shared else "linear_w8a8_gemm_cpu"


@pytest.fixture
def w8a8_kernels(monkeypatch, capabilities):
    """W8A8 products on any adapter; the names of the kernels that run."""
    capabilities(prefers_no_barriers=True, prefers_w8a8=True)
    return kernels_run(monkeypatch)


@BOTH
@pytest.mark.parametrize("tokens", [1, 2, 4, 5, 9, 17])
@pytest.mark.parametrize(
    ("out_features", "in_features"),
    [(1, 32), (31, 224), (32, 256), (33, 288), (130, 96), (70, 1600), (5, 12288)],
)
@pytest.mark.chromium_cases("dtype", "tokens")
def test_w8a8_products(device, w8a8_kernels, dtype, tokens, out_features, in_features):
    x, w = (
        references.random(tokens, in_features),
        references.random(out_features, in_features, seed=1),
    )
    x[:, :32] *= 1000  # a block that is much larger than the others
    matrix = matrix_of(device, w, dtype)
    b, r = references.random(out_features, seed=2), references.random(tokens, out_features, seed=3)
    with gw.tidy():
        found = linear(
            gw.tensor(x), matrix, gw.tensor(b), activation="gelu_tanh", residual=gw.tensor(r)
        ).numpy()
    stored_weights = contents(device, matrix).astype(float)
    assert w8a8_kernels == [kernel_of(tokens, device)]
    expected = rounded_rows(x) @ stored_weights.T + b
    expected = references.activation("gelu_tanh", expected) + r
    # A tie in rounding x moves the sum by one step of one weight.
    step = np.abs(x).max() / 127 * np.abs(w).max()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * step * in_features)
    exact = references.activation("gelu_tanh", x @ stored_weights.T + b) + r
    assert np.abs(found - exact).max() <= step * np.sqrt(in_features)


@BOTH
@pytest.mark.parametrize("tokens", [1, 3, 9])
@pytest.mark.parametrize(("out_features", "width"), [(1, 1), (33, 31), (32, 256), (65, 290)])
@pytest.mark.chromium_cases("dtype", "tokens")
def test_w8a8_products_of_normalised_rows(device, w8a8_kernels, dtype, tokens, out_features, width):
    """Far from zero, the first element farthest: what is rounded is the outcome of the norm."""
    in_features = -(-width // 32) * 32
    gain, shift = references.random(in_features, seed=1), references.random(in_features, seed=2)
    w, b = (
        references.random(out_features, in_features, seed=3),
        references.random(out_features, seed=4),
    )
    x = 500 + 3 * references.random(tokens, in_features)
    x[:, 0] = 550
    for values in (x.T, gain, shift, w.T):
        values[width:] = 0
    matrix = matrix_of(device, w, dtype)
    with gw.tidy():
        gain_there, shift_there = gw.tensor(gain), gw.tensor(shift)
        folded = fold_norm(gain_there, shift_there, matrix, gw.tensor(b))
        norm = Norm(gain_there, shift_there, folded, width, 1e-5)
        w8a8_kernels.clear()
        found = linear(gw.tensor(x), matrix, norm=norm).numpy()
        gw.dispose(folded)
    assert w8a8_kernels == [kernel_of(tokens, device)]
    stored_weights = contents(device, matrix).astype(float)
    normal = np.zeros((tokens, in_features), np.float32)
    zeros = np.zeros(width, np.float32)
    normal[:, :width] = references.layer_norm(x[:, :width], gain[:width], zeros)
    expected = rounded_rows(normal) @ stored_weights.T + (stored_weights @ shift + b)
    # x itself has lost some digits by lying far from zero, and ties round either way.
    step = np.abs(normal).max() / 127 * np.abs(w).max()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-3 + 2 * step)


@BOTH
@pytest.mark.parametrize(("out_features", "in_features"), [(1, 32), (33, 288), (70, 1600)])
def test_a_row_gets_the_same_bits_alone_and_among_others(
    device, w8a8_kernels, dtype, out_features, in_features
):
    """With a norm in front, and without; a neighbour that is far larger, or not a number."""
    x, w = references.random(9, in_features), references.random(out_features, in_features, seed=1)
    x[3] *= 1e6
    x[5, 7] = np.nan
    gain, shift = references.random(in_features, seed=2), references.random(in_features, seed=3)
    matrix = matrix_of(device, w, dtype)
    with gw.tidy():
        there = gw.tensor(gain), gw.tensor(shift)
        folded = fold_norm(*there, matrix)
        for norm in (None, Norm(*there, folded, in_features - 5, 1e-5)):
            alone = [linear(gw.tensor(row[None]), matrix, norm=norm).numpy() for row in x]
            for count in (2, 4, 5, 9):
                found = linear(gw.tensor(x[:count]), matrix, norm=norm).numpy()
                np.testing.assert_array_equal(found, np.concatenate(alone[:count]))
        gw.dispose(folded)
    free(matrix)
    assert {kernel_of(count, device) for count in (1, 2, 9)} <= set(w8a8_kernels)


@BOTH
@pytest.mark.parametrize("tokens", [1, 6])
def test_w8a8_products_with_weights_in_parts(device, w8a8_kernels, capabilities, dtype, tokens):
    """Columns are numbered within a part; bias, folded norm and result within all."""
    capabilities(max_binding=2500)
    x, w = references.random(tokens, 64), references.random(90, 64, seed=1)
    gain, shift = references.random(64, seed=2), references.random(64, seed=3)
    b = references.random(90, seed=4)
    matrix = matrix_of(device, w, dtype)
    assert len(matrix.parts) >= 2
    with gw.tidy():
        there = gw.tensor(gain), gw.tensor(shift)
        folded = fold_norm(*there, matrix, gw.tensor(b))
        w8a8_kernels.clear()
        found = linear(gw.tensor(x), matrix, norm=Norm(*there, folded, 64, 1e-5)).numpy()
        gw.dispose(folded)
    assert w8a8_kernels == [kernel_of(tokens, device)] * len(matrix.parts)
    stored_weights = contents(device, matrix).astype(float)
    normal = references.layer_norm(x, gain, np.zeros(64)).astype(np.float32)
    expected = rounded_rows(normal) @ stored_weights.T + (stored_weights @ shift + b)
    step = np.abs(normal).max() / 127 * np.abs(w).max()  # ties round either way
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3 + 2 * step)


@BOTH
def test_what_is_not_a_number_reaches_the_outputs(device, w8a8_kernels, dtype):
    """A rounded NaN is a number: the block's scale must be NaN."""
    matrix = matrix_of(device, references.random(3, 64), dtype)
    for value in (np.nan, np.inf):
        for tokens in (1, 2):
            x = references.random(tokens, 64)
            x[-1, 40] = value
            with gw.tidy():
                found = linear(gw.tensor(x), matrix).numpy()
            assert not np.isfinite(found[-1]).any()
            assert np.isfinite(found[:-1]).all()
    assert w8a8_kernels == [kernel_of(1, device), kernel_of(2, device)] * 2
    free(matrix)


@BOTH
@pytest.mark.parametrize(("batch", "tokens"), [(1, 1), (2, 3)])
def test_w8a8_products_into_the_cache(device, w8a8_kernels, dtype, batch, tokens):
    heads, dim = 3, 8
    x = references.random(batch, tokens, 64)
    w = references.random(3 * heads * dim, 64, seed=1)
    b = references.random(3 * heads * dim, seed=2)
    matrix = matrix_of(device, w, dtype)
    with gw.tidy():
        cache = KVCache(device, batch, 1, 8, heads, dim)
        layer = cache.layer(0)
        device.queue.upload(layer.storage, 0, np.zeros(layer.size, np.float32))
        start = gw.tensor([5 - row for row in range(batch)], "uint32")
        queries = project_qkv(gw.tensor(x), matrix, gw.tensor(b), cache, 0, start).numpy()
        found = cache.numpy()
    expected = rounded_rows(x) @ contents(device, matrix).T + b
    expected = expected.reshape(batch, tokens, 3, heads, dim)
    assert w8a8_kernels == [kernel_of(batch * tokens, device)]
    np.testing.assert_allclose(
        queries.reshape(batch, tokens, heads, dim), expected[:, :, 0], rtol=1e-4, atol=1e-4
    )
    for row in range(batch):
        first = 5 - row
        np.testing.assert_allclose(
            found[row, 0, :, first : first + tokens],
            expected[row, :, 1:].swapaxes(0, 1),
            rtol=1e-4,
            atol=1e-4,
        )
        assert not found[row, 0, :, :first].any()


@BOTH
@pytest.mark.parametrize("splits", [1, 3])
@pytest.mark.parametrize("tokens", [1, 3])
def test_w8a8_products_of_split_k_partials(device, w8a8_kernels, dtype, tokens, splits):
    """Attention that comes in parts is put together before it is rounded."""
    x, w = references.random(1, tokens, 64), references.random(20, 64, seed=1)
    highest = references.random(splits, 1, tokens, 4, seed=2)
    weights = np.abs(references.random(splits, 1, tokens, 4, seed=3)) + 0.1
    shares = np.exp(highest) * weights / (np.exp(highest) * weights).sum(0)
    sums = references.random(splits, 1, tokens, 64, seed=4)
    # What all parts together give shall be x: the last one makes up for the others.
    wide = np.repeat(shares / weights, 16, -1)
    sums[-1] = (x - (wide[:-1] * sums[:-1]).sum(0)) / wide[-1]
    matrix = matrix_of(device, w, dtype)
    with gw.tidy():
        parts = gw.tensor(np.stack([highest, weights], -1).astype(np.float32))
        split = AttentionPartials(gw.tensor(sums.astype(np.float32)), parts)
        found = linear(split, matrix).numpy()
    expected = rounded_rows(x) @ contents(device, matrix).T
    assert w8a8_kernels == [kernel_of(tokens, device)]
    step = np.abs(x).max() / 127 * np.abs(w).max()  # ties round either way
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 + 2 * step)


@BOTH
@pytest.mark.parametrize("tokens", [1, 2])
def test_rows_of_zeros(device, w8a8_kernels, dtype, tokens):
    matrix = matrix_of(device, references.random(5, 32), dtype)
    with gw.tidy():
        found = linear(gw.tensor(np.zeros((tokens, 32), np.float32)), matrix).tolist()
    free(matrix)
    assert found == [[0.0] * 5] * tokens


@BOTH
@pytest.mark.parametrize(
    ("tokens", "in_features"), [(1, 40), (2, 40), (1, 32 * 385), (2, 32 * 385)]
)
def test_where_blocks_do_not_line_up_or_fit_products_are_of_floats(
    device, w8a8_kernels, dtype, tokens, in_features
):
    x, w = references.random(tokens, in_features), references.random(20, in_features, seed=1)
    matrix = matrix_of(device, w, dtype)
    with gw.tidy():
        found = linear(gw.tensor(x), matrix).numpy()
    assert w8a8_kernels == ["linear_gemv_cpu" if tokens == 1 else "linear_gemm_cpu"]
    np.testing.assert_allclose(found, x @ contents(device, matrix).T, rtol=1e-4, atol=1e-3)
