"""Choice of the kernel of a linear layer, and its results."""

from __future__ import annotations

import numpy as np
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.nn import Norm, fold_norm, linear, linear_choice, linear_layers
from tests.gpu import references
from tests.gpu.matrices import free, kernels_run, matrix_of, without_w8a8
from tests.gpu.quantization import rounded

pytestmark = pytest.mark.native("NumPy")


@pytest.mark.parametrize("dtype", ["float16", "q4"])
@pytest.mark.parametrize("tokens", [1, 3, 4, 8, 9, 31, 70])
@pytest.mark.parametrize("in_features", [8, 16, 56, 264])
@pytest.mark.usefixtures("variant", "guarded")
@pytest.mark.chromium_cases("variant", "dtype")
def test_what_is_chosen_is_right(device, tokens, in_features, dtype):
    x, w = references.random(tokens, in_features), references.random(77, in_features, seed=1)
    matrix = matrix_of(device, w, dtype)
    with gw.tidy():
        found = linear(gw.tensor(x), matrix).numpy()
    free(matrix)
    np.testing.assert_allclose(found, x @ rounded(w, dtype).T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("dtype", "in_features", "step"),
    [
        ("float32", 64, "eight"),
        ("float16", 64, "eight"),
        ("q8", 48, "q8"),
        ("q8", 56, "eight"),
        ("q4", 64, "q4"),
        ("q4", 48, "eight"),
        ("float32", 768, "eight"),
        ("q8", 768, "q8"),
        ("q4", 768, "q4"),
    ],
)
@pytest.mark.usefixtures("guarded")
def test_quantised_lines_of_whole_steps_are_read_by_steps(
    device, monkeypatch, capabilities, dtype, in_features, step
):
    capabilities(prefers_no_barriers=False, prefers_w8a8=False)
    steps = []
    dispatch = linear_layers.dispatch

    def noted(*arguments, variant, constants, **keywords):
        steps.append(variant["step"])
        # Eight lanes at least, beyond that none without a step.
        assert constants["LANES"] <= max(8, in_features // {"eight": 8, "q8": 16, "q4": 32}[step])
        dispatch(*arguments, variant=variant, constants=constants, **keywords)

    monkeypatch.setattr(linear_layers, "dispatch", noted)
    x, w = references.random(2, in_features), references.random(77, in_features, seed=1)
    matrix = matrix_of(device, w, dtype)
    with gw.tidy():
        found = linear(gw.tensor(x), matrix).numpy()
    free(matrix)
    assert steps == [step]
    np.testing.assert_allclose(found, x @ rounded(w, dtype).T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tokens", [1, 3, 8, 9, 70])
@pytest.mark.usefixtures("guarded")
def test_no_thread_loops_more_often_than_the_device_allows(
    device, monkeypatch, capabilities, tokens
):
    capabilities(prefers_no_barriers=True, max_iterations=150)
    names = kernels_run(monkeypatch)
    for in_features in (8 * 8, 8 * 200):
        x, w = references.random(tokens, in_features), references.random(77, in_features, seed=1)
        matrix = matrix_of(device, w, "float32")
        with gw.tidy():
            found = linear(gw.tensor(x), matrix).numpy()
        free(matrix)
        np.testing.assert_allclose(found, x @ w.T, rtol=1e-4, atol=5e-4)
    short, long = names
    shared = tokens > 8 and device.capabilities.shares_loads
    many = "linear_gemm_subgroups_cpu" if shared else "linear_gemm_cpu"
    assert short == ("linear_gemv_cpu" if tokens == 1 else many)
    assert long == "linear_gemv"  # a tile loops more often than a lane


@pytest.mark.parametrize(
    ("kernel_name", "tokens", "splits", "rounds"),
    [
        ("linear_gemv_cpu", 1, 0, 1),
        ("linear_gemv_cpu", 1, 8, 1 + (1 + 2 * 8) / 16),
        ("linear_gemm_cpu", 4, 0, 1 + (1 + 4)),  # with NORM
        ("linear_gemm_cpu", 5, 0, 1 + 2 * (1 + 4)),
        ("linear_gemm_cpu", 4, 3, 1 + (1 + 4 * 2 * 3)),
        ("linear_gemm_cpu", 5, 3, 1 + 2 * (1 + 4 * 2 * 3)),
        ("linear_gemm", 33, 0, (1 + 4) / 2),
        ("linear_gemm", 33, 3, (1 + 4 + 2 * 3) / 2),
    ],
)
def test_loops_inside_of_loops_count(device, capabilities, kernel_name, tokens, splits, rounds):
    """``rounds``: of all loops of a thread, for each group of eight weights of a column."""
    in_features8 = 500
    for most, may in ((rounds * in_features8, False), (3 * rounds * in_features8, True)):
        capabilities(prefers_no_barriers=kernel_name != "linear_gemm", max_iterations=most)
        chosen, _, _ = linear_choice.choose_kernel(
            device, tokens, 64, in_features8, in_features8, splits, False
        )
        assert (chosen == kernel_name) == may


@pytest.mark.parametrize("width", [4032, 4033])
def test_a_norm_before_more_than_workgroup_memory_holds(device, monkeypatch, capabilities, width):
    """A row is made ready in workgroup memory as long as it fits, and right beyond that, too."""
    without_w8a8(capabilities)
    capabilities(prefers_no_barriers=True)
    run = kernels_run(monkeypatch)
    in_features = -(-width // 8) * 8
    x, w = references.random(1, in_features), references.random(5, in_features, seed=1)
    gain, shift = references.random(in_features, seed=2), references.random(in_features, seed=3)
    x[:, width:] = gain[width:] = shift[width:] = w[:, width:] = 0
    matrix = matrix_of(device, w, "float32")
    with gw.tidy():
        there = gw.tensor(gain), gw.tensor(shift)
        norm = Norm(*there, fold_norm(*there, matrix), width, 1e-5)
        run.clear()
        found = linear(gw.tensor(x), matrix, norm=norm).numpy()
    free(matrix)
    assert run == ["linear_gemv_cpu" if width == 4032 else "linear_gemm_cpu"]
    expected = references.layer_norm(x[:, :width], gain[:width], shift[:width])
    np.testing.assert_allclose(found, expected @ w[:, :width].T, rtol=1e-4, atol=2e-3)


@pytest.mark.parametrize("tokens", [1, 2, 9])
def test_a_depth_beyond_what_llvmpipe_loops(device, tokens):
    """65,536 rounds of eight: where a loop ends after 65,535, the sum would lack the last."""
    in_features = 8 * 65_536
    matrix = matrix_of(device, np.ones((2, in_features)), "float32")
    with gw.tidy():
        found = linear(gw.tensor(np.ones((tokens, in_features), np.float32)), matrix).tolist()
    free(matrix)
    assert found == [[in_features, in_features]] * tokens
