"""Matrices for tests: creation, readback and disposal; and the kernels that multiply them."""

from __future__ import annotations

import numpy as np

from gpt2_wgpu.nn import Raw, linear_layers, load_matrix
from gpt2_wgpu.webgpu.waiting import sync
from gpt2_wgpu.weight_formats import WEIGHT_FORMATS
from tests.gpu import quantization

DTYPES = list(WEIGHT_FORMATS)


def matrix_of(device, values, dtype):
    raw = Raw(memoryview(np.ascontiguousarray(values, np.float32)).cast("B"), "F32", values.shape)
    return sync(load_matrix(device, raw, dtype), "load_matrix")


def free(matrix):
    for _, part in matrix.parts:
        part.dispose()


def stored(values, dtype):
    """``values`` as a checkpoint stores them, and the f32 values that this is exactly."""
    if dtype == "BF16":
        words = (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
        exact = (words.astype(np.uint32) << 16).view(np.float32)
    else:
        words = values.astype({"F32": np.float32, "F16": np.float16}[dtype])
        exact = words.astype(np.float32)
    return Raw(memoryview(words.tobytes()), dtype, values.shape), exact


def contents(device, matrix):
    """What the kernels will read, as f32 [rows, depth]."""
    item = {"float32": np.float32, "float16": np.float16}.get(matrix.dtype)
    parts = []
    for first, part in matrix.parts:
        assert first == sum(map(len, parts))
        (raw,) = sync(device.queue.read([(part.storage, 0, part.nbytes)]), "read")
        if item is None:
            parts.append(quantization.decoded(raw, matrix.dtype, part.shape))
        else:
            parts.append(np.frombuffer(raw, item).astype(np.float32).reshape(part.shape))
        part.dispose()
    return np.concatenate(parts)


def without_w8a8(capabilities):
    capabilities(prefers_w8a8=False)


def kernels_run(monkeypatch):
    """The names of the kernels that linear layers run from here on."""
    names = []
    dispatch = linear_layers.dispatch

    def noted(device, name, *arguments, **keywords):
        names.append(name)
        dispatch(device, name, *arguments, **keywords)

    monkeypatch.setattr(linear_layers, "dispatch", noted)
    return names
