"""Stored weights: conversion, transposition, padding and parts, against NumPy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gpt2_wgpu import nn
from gpt2_wgpu.errors import InvalidArgumentError, LimitError, ShapeError
from gpt2_wgpu.nn import Axis, random_normal
from gpt2_wgpu.webgpu.waiting import sync
from tests.gpu import references
from tests.gpu.matrices import contents, stored

pytestmark = [pytest.mark.usefixtures("guarded", "no_leak"), pytest.mark.native("NumPy")]


def load_matrix(*arguments, **options):
    return sync(nn.load_matrix(*arguments, **options), "load_matrix")


def load_vector(*arguments, **options):
    return sync(nn.load_vector(*arguments, **options), "load_vector")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("source", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (8, 8), (17, 9), (65, 33)], ids=str)
def test_every_source_and_layout(device, shape, transpose, source, dtype):
    raw, values = stored(references.random(*shape), source)
    expected = values.T if transpose else values
    matrix = load_matrix(device, raw, dtype, transpose=transpose)
    assert (matrix.out_features, matrix.in_features) == (
        len(expected),
        -(-expected.shape[1] // 8) * 8,
    )
    found = contents(device, matrix)
    assert not found[:, expected.shape[1] :].any(), "padding is not zero"
    if dtype == "float16":
        expected = expected.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(found[:, : expected.shape[1]], expected)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_groups_are_padded_one_by_one(device, dtype):
    raw, values = stored(references.random(6, 30), "F32")  # 2 groups of 3 in, 3 groups of 10 out
    matrix = load_matrix(
        device, raw, dtype, transpose=True, out_features=Axis(30, 10, 16), in_features=Axis(6, 3, 8)
    )
    expected = np.zeros((3, 16, 2, 8), np.float32)
    expected[:, :10, :, :3] = values.T.reshape(3, 10, 2, 3)
    np.testing.assert_allclose(contents(device, matrix), expected.reshape(48, 16), rtol=1e-3)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_parts_when_a_binding_is_too_small(device, capabilities, dtype):
    line = 24 * {"float32": 4, "float16": 2}[dtype]
    capabilities(max_binding=10 * line)
    raw, values = stored(references.random(37, 20), "F16")
    matrix = load_matrix(device, raw, dtype)
    assert [first for first, _ in matrix.parts] == [0, 10, 20, 30]
    np.testing.assert_array_equal(contents(device, matrix)[:, :20], values)


@pytest.mark.parametrize("source", ["F32", "F16"])
def test_uploads_in_pieces(device, monkeypatch, source):
    monkeypatch.setattr("gpt2_wgpu.nn.matrix.STAGED_BYTES", 500)
    raw, values = stored(references.random(101, 7), source)  # pieces begin inside a word
    matrix = load_matrix(device, raw, "float32")
    np.testing.assert_array_equal(contents(device, matrix)[:, :7], values)


def test_one_row_beyond_the_limit_is_refused(device, capabilities):
    capabilities(max_binding=16)
    raw, _ = stored(references.random(2, 20), "F32")
    with pytest.raises(LimitError, match="one row of 96 bytes exceed"):
        load_matrix(device, raw, "float32")


@pytest.mark.parametrize("source", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("size", [1, 5, 8, 129])
def test_vectors(device, source, size):
    raw, values = stored(references.random(size), source)
    vector = load_vector(device, raw, axis=Axis(size, size, size + 3))
    expected = np.zeros(vector.shape, np.float32)
    expected[:size] = values
    np.testing.assert_array_equal(vector.numpy(), expected)
    assert vector.size in (size + 3, size + 4)
    vector.dispose()


def test_wrong_shapes_and_dtypes(device):
    raw, _ = stored(references.random(4, 6), "F32")
    with pytest.raises(InvalidArgumentError, match="'int8'"):
        load_matrix(device, raw, "int8")
    with pytest.raises(ShapeError, match="axes of 5 x 6 for a matrix 4 x 6"):
        load_matrix(device, raw, "float32", out_features=Axis.plain(5))
    with pytest.raises(ShapeError, match="two axes"):
        load_matrix(device, replace(raw, shape=(24,)), "float32")
    with pytest.raises(ShapeError, match="one axis"):
        load_vector(device, raw)


def pcg4d(key):
    """Jarzynski & Olano 2020, on arrays of uint32 [..., 4]."""
    v = np.asarray(key, np.uint32) * np.uint32(1664525) + np.uint32(1013904223)
    x, y, z, w = np.moveaxis(v, -1, 0)
    for step in range(2):
        x = x + y * w
        y = y + z * x
        z = z + x * y
        w = w + y * z
        if step == 0:
            x, y, z, w = (u ^ (u >> np.uint32(16)) for u in (x, y, z, w))
    return np.stack([x, y, z, w], -1)


def test_random_values_follow_the_formula_and_the_distribution(device):
    first, count, seed, stream = 1000, 20_001, 7, 3
    result = random_normal(device, count, 0.5, seed, stream, first)
    found = result.numpy()
    result.dispose()
    key = np.zeros((count, 4), np.uint32)
    key[:, 0], key[:, 1], key[:, 2] = np.arange(first, first + count), stream, seed
    bits = pcg4d(key) >> np.uint32(8)
    u, v = (bits[:, 0] + 1.0) / 2**24, bits[:, 1] / 2**24
    expected = 0.5 * np.sqrt(-2 * np.log(u)) * np.cos(2 * np.pi * v)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert abs(found.mean()) < 0.015
    assert abs(found.std() - 0.5) < 0.01
