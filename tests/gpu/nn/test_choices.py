"""Choice of kernels, grids and constants on both sides of each bound. No GPU."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest

from gpt2_wgpu.errors import LimitError
from gpt2_wgpu.nn import attention, linear_choice, w8a8
from gpt2_wgpu.tensors.ops.launch import groups_for, iterations, threads_per_row, use_cpu_kernel
from gpt2_wgpu.webgpu.capabilities import AdapterInfo, Capabilities


def device(
    *,
    cpu: bool,
    most: int = 65_535,
    shares: bool = False,
    emulates: bool = False,
    gemv: int = 32,
    tiles: int = 16,
) -> SimpleNamespace:
    capabilities = SimpleNamespace(
        prefers_no_barriers=cpu,
        max_iterations=most,
        few_queries=64,
        shares_loads=shares,
        emulates_packed_dot=emulates,
        gemv_tokens=gemv,
        tiles=tiles,
    )
    return SimpleNamespace(capabilities=capabilities, info=SimpleNamespace(name="it"))


def linear(
    cpu,
    tokens,
    out_features,
    in_features8,
    *,
    most=65_535,
    steps=96,
    splits=0,
    has_norm=False,
    **capabilities,
):
    there = device(cpu=cpu, most=most, **capabilities)
    return linear_choice.choose_kernel(
        there, tokens, out_features, in_features8, steps, splits, has_norm
    )


def test_linear_layers_on_a_cpu():
    assert linear(True, 1, 3072, 96) == ("linear_gemv_cpu", (48, 1, 1), {"STAGED": 1})
    assert linear(True, 1, 3073, 96) == ("linear_gemv_cpu", (49, 1, 1), {"STAGED": 1})
    assert linear(True, 1, 64, 96, has_norm=True) == ("linear_gemv_cpu", (1, 1, 1), {"STAGED": 192})
    assert linear(True, 1, 64, 96, splits=3) == ("linear_gemv_cpu", (1, 1, 1), {"STAGED": 192})
    assert linear(True, 4, 64, 96) == ("linear_gemm_cpu", (1, 1, 1), {"QUADS": 1})
    assert linear(True, 5, 65, 96) == ("linear_gemm_cpu", (2, 1, 1), {"QUADS": 2})
    assert linear(True, 17, 64, 96) == ("linear_gemm_cpu", (1, 3, 1), {"QUADS": 2})


def test_more_than_eight_tokens_share_loads_where_there_are_subgroups():
    name = "linear_gemm_subgroups_cpu"
    assert linear(True, 8, 64, 96, shares=True)[0] == "linear_gemm_cpu"
    assert linear(True, 9, 64, 96, shares=True) == (name, (2, 1, 1), {})
    assert linear(True, 17, 65, 96, shares=True) == (name, (3, 2, 1), {})
    assert linear(False, 9, 64, 96, shares=True)[0] != name
    loops = (1 + 8 * 3) * 96 + 32
    assert linear(True, 9, 64, 96, splits=3, shares=True, most=loops + 1)[0] == name
    assert linear(True, 9, 64, 96, splits=3, shares=True, most=loops)[0] != name
    shared = device(cpu=True, shares=True)
    assert w8a8.choose(shared, 8, 64, 96)[0] == "linear_w8a8_gemm_cpu"
    expected = "linear_w8a8_gemm_subgroups_cpu", (3, 2, 1), {}
    assert w8a8.choose(shared, 17, 65, 96) == expected


def test_a_staged_token_must_fit():
    assert linear(True, 1, 64, 504, has_norm=True)[0] == "linear_gemv_cpu"
    assert linear(True, 1, 64, 505, has_norm=True)[0] == "linear_gemm_cpu"
    assert linear(True, 1, 64, 505)[0] == "linear_gemv_cpu"


@pytest.mark.parametrize(
    ("arguments", "splits", "most", "kernel", "other"),
    [
        ((1, 64, 96), 0, 96 + 7 + 16, "linear_gemv_cpu", "linear_gemv"),
        ((1, 64, 96), 2, 96 + 7 * 5 + 16, "linear_gemv_cpu", "linear_gemv"),
        ((2, 64, 96), 0, 6 * 99, "linear_gemm_cpu", "linear_gemv"),
        ((2, 64, 96), 1, (1 + 1 * 9) * 99, "linear_gemm_cpu", "linear_gemv"),
        ((6, 64, 96), 2, (1 + 2 * 17) * 99, "linear_gemm_cpu", "linear_gemv"),
        ((33, 64, 96), 1, 4 * 101, "linear_gemm", "linear_gemv"),
    ],
)
def test_loops_of_a_linear_layer_stay_below_what_a_thread_can(
    arguments, splits, most, kernel, other
):
    cpu = kernel != "linear_gemm"
    assert linear(cpu, *arguments, splits=splits, most=most + 1)[0] == kernel
    assert linear(cpu, *arguments, splits=splits, most=most)[0] == other


def gemv(tokens, out_features, in_features8, steps=96, tiles=1 << 20):
    name, grid, constants = linear(
        False, tokens, out_features, in_features8, steps=steps, tiles=tiles
    )
    assert name == "linear_gemv"
    return grid, tuple(constants[key] for key in ("TOKENS", "LANES", "WORKGROUP"))


def test_lanes_without_a_step_are_left_out_where_workgroups_are_enough():
    """Quantised rows of 768 are 48 steps (q8) and 24 (q4): one and a half rounds of 32 and 16."""
    assert gemv(1, 2304, 96, 48, tiles=128) == ((144, 1, 1), (1, 24, 96))
    assert gemv(8, 3072, 96, 24, tiles=96) == ((96, 1, 1), (8, 12, 96))
    assert gemv(1, 2304, 96, 48, tiles=145) == ((288, 1, 1), (1, 32, 64))
    assert gemv(1, 768, 384, 192, tiles=16) == ((192, 1, 1), (1, 96, 96))
    assert gemv(1, 2304, 96, 49, tiles=16) == ((288, 1, 1), (1, 32, 64))  # three rounds of 24
    assert gemv(1, 2304, 96, 64, tiles=16) == ((288, 1, 1), (1, 32, 64))  # two full rounds
    assert gemv(1, 50_257, 96, 6, tiles=16) == ((1571, 1, 1), (1, 8, 64))  # none has fewer than 8


def test_rounds_of_one_token_are_unrolled_if_they_are_whole_and_few():
    def rounds(*arguments, steps):
        return linear(False, *arguments, steps=steps)[2].get("ROUNDS")

    assert rounds(1, 2304, 96, steps=96) == 3  # by 32 lanes
    assert rounds(1, 768, 384, steps=384) == 3  # by 128
    assert rounds(1, 6400, 128, steps=128) == 4
    assert rounds(1, 6400, 160, steps=160) is None  # five
    assert rounds(1, 4800, 200, steps=200) is None  # 3.125 by 64
    assert rounds(2, 2304, 96, steps=96) is None
    assert rounds(1, 2304, 96, steps=48) is None  # q8


def test_linear_layers_on_a_gpu():
    assert linear(False, 33, 64, 96) == ("linear_gemm", (1, 3, 1), {"ROWS": 16})
    assert linear(False, 65, 65, 96) == ("linear_gemm", (2, 5, 1), {"ROWS": 16})

    assert gemv(1, 50_257, 96) == ((1571, 1, 1), (1, 8, 64))  # wide enough without more lanes
    assert gemv(1, 2304, 96) == ((288, 1, 1), (1, 32, 64))  # each with two groups of eight
    # XL: as close to 225,000 lanes as powers of two come
    assert gemv(1, 6400, 200, 200) == ((800, 1, 1), (1, 32, 64))
    assert gemv(1, 4800, 200, 200) == ((1200, 1, 1), (1, 64, 64))
    assert gemv(1, 1600, 800, 800) == ((400, 1, 1), (1, 128, 128))
    assert gemv(8, 768, 384, 384) == ((192, 1, 1), (8, 128, 128))  # no more than 128
    assert gemv(3, 768, 384, 24) == ((48, 1, 1), (3, 16, 64))  # each with a step
    assert gemv(1, 768, 40) == ((48, 1, 1), (1, 16, 64))  # each with two groups of eight
    assert gemv(1, 3_000_000, 96) == ((65_535, 1, 2), (1, 8, 64))
    # More than eight tokens: about equally many in each of the workgroups with the same outputs.
    assert gemv(9, 2304, 96) == ((2 * 288, 1, 1), (5, 32, 64))
    assert gemv(16, 2304, 96) == ((2 * 288, 1, 1), (8, 32, 64))
    assert gemv(17, 768, 384, 384) == ((3 * 192, 1, 1), (6, 128, 128))
    assert gemv(32, 50_257, 96) == ((4 * 1571, 1, 1), (8, 8, 64))
    assert gemv(32, 3_000_000, 96) == ((65_532, 1, 6), (8, 8, 64))
    assert linear(False, 64, 64, 96, gemv=64)[0] == "linear_gemv"
    assert linear(False, 65, 64, 96, gemv=64)[0] == "linear_gemm"


def test_tiles_have_fewer_rows_where_there_would_be_too_few():
    def tile(tokens, out_features, tiles):
        _, (x, y, _), constants = linear(False, tokens, out_features, 96, tiles=tiles)
        return x * y, constants["ROWS"]

    assert tile(33, 768, tiles=16) == (24, 32)
    assert tile(64, 768, tiles=16) == (24, 32)
    assert tile(65, 768, tiles=16) == (24, 64)
    assert tile(33, 1024, tiles=16) == (16, 64)
    assert tile(33, 1023, tiles=17) == (32, 32)
    assert tile(128, 768, tiles=128) == (96, 16)
    assert tile(128, 2304, tiles=128) == (144, 32)
    assert tile(512, 768, tiles=128) == (192, 32)
    assert tile(512, 2304, tiles=128) == (288, 64)


@pytest.mark.parametrize(
    ("adapter_type", "tokens", "tiles"),
    [("DiscreteGPU", 64, 128), ("IntegratedGPU", 32, 16), ("unknown", 32, 16)],
)
def test_a_discrete_gpu_multiplies_more_tokens_by_gemv(adapter_type, tokens, tiles):
    info = AdapterInfo("a GPU", "", "", "", adapter_type)
    found = Capabilities.of(info, {"max-storage-buffer-binding-size": 1 << 30})
    assert (found.gemv_tokens, found.tiles) == (tokens, tiles)


def test_w8a8_products():
    choose = partial(w8a8.choose, device(cpu=True))
    outputs = w8a8._GROUP_OUTPUTS
    assert choose(1, outputs, 96) == ("linear_w8a8_gemv_cpu", (1, 1, 1), {"BLOCKS": 3})
    assert choose(1, outputs + 1, 96)[1] == (2, 1, 1)
    emulated = w8a8.choose(device(cpu=True, emulates=True), 1, outputs, 96)
    assert emulated == ("linear_w8a8_gemv_masked_cpu", (1, 1, 1), {"BLOCKS": 3})
    assert choose(4, outputs, 96) == ("linear_w8a8_gemm_cpu", (1, 1, 1), {"QUADS": 1})
    assert choose(5, outputs, 96) == ("linear_w8a8_gemm_cpu", (1, 1, 1), {"QUADS": 2})
    assert choose(9, outputs + 1, 96) == ("linear_w8a8_gemm_cpu", (2, 2, 1), {"QUADS": 2})


def cached(cpu, tokens, *, batch=1, heads=12, dim=64, length=1024, most=65_535, one_order=False):
    cache = SimpleNamespace(padded_dim=dim, length=length, batch_size=batch, num_heads=heads)
    return attention._choose(device(cpu=cpu, most=most), cache, tokens, one_order)


def test_attention_on_a_cpu():
    assert cached(True, 1) == ("attention_lanes_cpu", 1024)
    assert cached(True, 5) == ("attention_lanes_cpu", 1024)  # 60 queries
    assert cached(True, 6) == ("attention_cpu", 1024)
    assert cached(True, 1, batch=6) == ("attention_cpu", 1024)
    assert cached(True, 6, one_order=True) == ("attention_lanes_cpu", 1024)
    loops = (256 + 2) * (16 + 1)
    assert cached(True, 1, most=loops + 1)[0] == "attention_lanes_cpu"
    assert cached(True, 1, most=loops)[0] == "attention"


def test_attention_on_a_gpu():
    tile = attention._TILE
    assert cached(False, tile) == ("attention_flash", 1024)
    assert cached(False, tile - 1) == ("attention", 1024)
    assert cached(False, tile, one_order=True) == ("attention", 1024)
    loops = 17 * (32 + 80)
    assert cached(False, tile, most=loops + 1)[0] == "attention_flash"
    assert cached(False, tile, most=loops)[0] == "attention"
    width = attention._MAX_REGISTER_HEAD_DIM
    assert cached(False, tile, dim=width)[0] == "attention_flash"
    assert cached(False, tile, dim=width + 8)[0] == "attention"


def test_few_rows_split_a_long_cache():
    def split_length(batch, length=1024, tokens=1, **keywords):
        return cached(False, tokens, batch=batch, length=length, **keywords)[1]

    chunk, enough = attention._CHUNK, attention._ENOUGH
    most = attention._MAX_SPLITS
    assert split_length(1, length=most * chunk * 10, heads=1) == chunk * 10
    assert split_length(1, length=most * chunk * 10 + 1, heads=1) == chunk * 11
    assert split_length(1, length=chunk * 4, heads=enough) == chunk * 4
    assert split_length(1, length=chunk * 4, heads=enough - 1) == chunk * 2
    assert split_length(1, tokens=2) == split_length(1, one_order=True) == 1024


def test_a_row_too_long_for_attention_is_refused():
    loops = 8 * (64 // 4 + 50)
    assert cached(False, 2, most=loops)[0] == "attention"
    with pytest.raises(LimitError, match="cannot loop over 1,024"):
        cached(False, 2, most=loops - 1)


def test_rows_of_an_array():
    assert iterations(300, False) == 301
    assert iterations(300, True) == 3 + 23 + 1
    assert iterations(128, True) == 1 + 23 + 1
    assert use_cpu_kernel(device(cpu=True, most=602), "f", 300, 2)
    assert not use_cpu_kernel(device(cpu=True, most=601), "f", 300, 2)
    assert not use_cpu_kernel(device(cpu=False), "f", 300, 2)
    assert not use_cpu_kernel(device(cpu=False, most=54), "f", 300, 2)
    with pytest.raises(LimitError, match="rows of 300 are too long for it"):
        use_cpu_kernel(device(cpu=False, most=53), "f", 300, 2)


def test_threads_per_row():
    loops = 2 * (-(-1000 // 32) + 32)
    assert threads_per_row(device(cpu=True, most=loops), "f", 1000, 2) == 32
    assert threads_per_row(device(cpu=True, most=loops - 1), "f", 1000, 2) == 256
    assert threads_per_row(device(cpu=False, most=loops), "f", 1000, 2) == 256
    assert threads_per_row(device(cpu=False, most=2 * (4 + 32)), "f", 1000, 2) == 256
    with pytest.raises(LimitError, match="rows of 1,000 are too long for it"):
        threads_per_row(device(cpu=False, most=2 * (4 + 32) - 1), "f", 1000, 2)


def test_a_long_list_of_workgroups_becomes_a_rectangle():
    assert groups_for(0) == (0, 0, 1)
    assert groups_for(64, 64) == (1, 1, 1)
    assert groups_for(65, 64) == (2, 1, 1)
    assert groups_for(65_535) == (65_535, 1, 1)
    assert groups_for(65_536) == (65_535, 2, 1)
