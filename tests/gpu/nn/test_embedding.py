"""Token and position embeddings against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import ShapeError
from gpt2_wgpu.nn import embed
from gpt2_wgpu.tensors.tensor import bytes_of
from tests.gpu import references
from tests.gpu.matrices import DTYPES, free, matrix_of
from tests.gpu.quantization import rounded

pytestmark = pytest.mark.native("NumPy")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tokens", [1, 2, 7])
@pytest.mark.parametrize("width", [8, 24, 72])
@pytest.mark.parametrize("split", [False, True])
@pytest.mark.usefixtures("guarded")
def test_against_numpy(device, capabilities, tokens, width, dtype, split):
    if split:  # the table in parts, as when it exceeds a binding
        capabilities(max_binding=bytes_of(34 * width, dtype))
    wte, wpe = references.random(99, width), references.random(16, width, seed=1)
    ids = np.random.default_rng(2).integers(0, 99, (3, tokens))
    start = np.array([0, 5, 9])
    table = matrix_of(device, wte, dtype)
    assert (len(table.parts) > 1) == split
    if split:
        capabilities(max_binding=4 * 5 * width)
    places = matrix_of(device, wpe, "float32")
    assert (len(places.parts) == 4) == split
    with gw.tidy():
        found = embed(
            gw.tensor(ids.astype(np.uint32), "uint32"), gw.tensor(start, "uint32"), table, places
        ).numpy()  # fmt: skip
    free(table)
    free(places)
    expected = rounded(wte, dtype)[ids] + wpe[start[:, None] + np.arange(tokens)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_shapes_are_named(device):
    table = matrix_of(device, references.random(4, 8), "float32")
    ids, start = gw.tensor([[1]], "uint32"), gw.tensor([0, 0], "uint32")
    with pytest.raises(ShapeError, match=r"ids \(1, 1\), start \(2,\), wte \(4, 8\)"):
        embed(ids, start, table, gw.tensor(references.random(2, 8)))
    free(table)
    gw.dispose([ids, start])
