"""Operations leave only their results on the device."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import GPT2WGPUError
from gpt2_wgpu.nn.kv_cache import KVCache
from gpt2_wgpu.tensors import ops
from gpt2_wgpu.webgpu.recording import Recording

pytestmark = pytest.mark.native("NumPy")

PLAIN = np.linspace(-1, 1, 24, dtype=np.float32).reshape(4, 6)
HEADS = PLAIN.reshape(1, 4, 2, 3)
MASK = [[1, 1, 0, 1]]

# name -> (arrays, call on them)
CALLS: dict[str, Any] = {
    "add": ((PLAIN, PLAIN), ops.add),
    "add a number": ((PLAIN,), lambda x: ops.add(x, 2)),
    "sub": ((PLAIN, PLAIN[0]), ops.sub),
    "mul": ((PLAIN, PLAIN), ops.mul),
    "div": ((PLAIN, PLAIN), ops.div),
    "gelu": ((PLAIN,), ops.gelu),
    "relu": ((PLAIN,), ops.relu),
    "silu": ((PLAIN,), ops.silu),
    "sigmoid": ((PLAIN,), ops.sigmoid),
    "tanh": ((PLAIN,), ops.tanh),
    "sqrt": ((PLAIN,), ops.sqrt),
    "matmul": ((PLAIN, PLAIN.T.copy()), ops.matmul),
    "matmul, repeated": ((PLAIN.reshape(2, 1, 2, 6), PLAIN.reshape(1, 2, 6, 2)), ops.matmul),
    "reshape": ((PLAIN,), lambda x: ops.reshape(x, (-1, 2))),
    "slice": ((PLAIN,), lambda x: ops.slice(x, (1, 1), (2, -1))),
    "slice_update": ((PLAIN, PLAIN[:2]), lambda x, y: ops.slice_update(x, (1, 0), y)),
    "concat": ((PLAIN, PLAIN), lambda x, y: ops.concat([x, y, [[1, 2, 3, 4, 5, 6]]])),
    "transpose": ((PLAIN,), ops.transpose),
    "gather": ((PLAIN,), lambda x: ops.gather(x, [1, 1, 3])),
    "ones_like": ((PLAIN,), ops.ones_like),
    "broadcast_to": ((PLAIN,), lambda x: ops.broadcast_to(x, (3, 4, 6))),
    "expand_dims": ((PLAIN,), lambda x: ops.expand_dims(x, 1)),
    "softmax": ((PLAIN,), ops.softmax),
    "log_softmax": ((PLAIN,), ops.log_softmax),
    "layer_norm": ((PLAIN, PLAIN[0], PLAIN[1]), ops.layer_norm),
    "argmax": ((PLAIN,), ops.argmax),
    "top_k": ((PLAIN,), lambda x: ops.top_k(x, 2)),
    "sum": ((PLAIN,), ops.sum),
    "mean": ((PLAIN,), lambda x: ops.mean(x, (0, 1), True)),
    "max": ((HEADS,), lambda x: ops.max(x, (1, 3))),
    "min": ((PLAIN,), ops.min),
    "equal": ((PLAIN, PLAIN[1]), ops.equal),
    "not_equal": ((PLAIN,), lambda x: ops.not_equal(x, 1)),
    "less": ((PLAIN, PLAIN[1]), ops.less),
    "less_equal": ((PLAIN, PLAIN[1]), ops.less_equal),
    "greater": ((PLAIN, PLAIN[1]), ops.greater),
    "greater_equal": ((PLAIN, PLAIN[1]), ops.greater_equal),
    "logical_and": ((PLAIN,), lambda x: ops.logical_and(ops.less(x, 0), ops.greater(x, -0.5))),
    "where": ((PLAIN, PLAIN[0]), lambda x, y: ops.where(ops.less(x, 0), x, y)),
    "logical_or": ((PLAIN,), lambda x: ops.logical_or(ops.less(x, 0), ops.greater(x, 0.5))),
    "logical_not": ((PLAIN,), lambda x: ops.logical_not(ops.less(x, 0))),
    "cast": ((PLAIN,), lambda x: ops.cast(x, "int32")),
    "attention": ((HEADS, HEADS, HEADS), lambda q, k, v: ops.attention(q, k, v, MASK, True)),
}


def on_gpu(arrays):
    return [gw.tensor(array) for array in arrays]


def flat(result):
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("convert", [on_gpu, list], ids=["tensors", "arrays"])
def test_only_results_stay(device, name, convert):
    arrays, call = CALLS[name]
    arguments = convert(arrays)
    before = device.memory.info()
    results = flat(call(*arguments))
    after = device.memory.info()
    shared = name in ("reshape", "expand_dims")
    new_bytes = 0 if shared and convert is on_gpu else sum(r.nbytes for r in results)
    assert after.num_tensors == before.num_tensors + len(results)
    assert after.num_bytes == before.num_bytes + new_bytes
    gw.dispose(results)
    assert device.memory.info().num_bytes == before.num_bytes
    assert device.memory.info().num_buffers == before.num_buffers


@pytest.mark.parametrize("name", CALLS)
def test_results_belong_to_the_open_scope(device, name):
    arrays, call = CALLS[name]
    before = device.memory.info()
    with gw.tidy():
        call(*on_gpu(arrays))
    after = device.memory.info()
    assert (after.num_tensors, after.num_bytes) == (before.num_tensors, before.num_bytes)


@pytest.mark.parametrize("name", CALLS)
def test_recorded_is_the_same_as_eager(device, name):
    arrays, call = CALLS[name]
    arguments = on_gpu(arrays)
    eager = flat(call(*arguments))
    with Recording(device) as recording:
        recorded = flat(call(*arguments))
    recording.replay()
    for one, other in zip(eager, recorded, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    recording.close()


@pytest.mark.parametrize(
    "call",
    [
        lambda: ops.add(PLAIN, [1, 2]),
        lambda: ops.matmul(PLAIN, PLAIN),
        lambda: ops.concat([PLAIN, HEADS]),
        lambda: ops.slice_update(PLAIN, (9, 9), PLAIN),
        lambda: ops.gather(PLAIN, [4]),
        lambda: ops.top_k(PLAIN, 7),
        lambda: ops.attention(HEADS, HEADS, HEADS, mask=[[1]*5]),
    ],
)  # fmt: skip
def test_a_refused_call_leaves_nothing(device, call):
    before = device.memory.info()
    with pytest.raises(GPT2WGPUError):
        call()
    after = device.memory.info()
    assert (after.num_tensors, after.num_bytes) == (before.num_tensors, before.num_bytes)


def test_every_public_function_is_tried_here():
    assert {name.split()[0].strip(",") for name in CALLS} == set(ops.__all__)
    assert all(callable(getattr(ops, name)) for name in ops.__all__)  # no module in its place


def test_a_cache_is_no_plain_array(device):
    cache = KVCache(device, 1, 1, 8, 1, 8)
    with pytest.raises(GPT2WGPUError, match="special memory layout"):
        ops.reshape(cache, -1)
    cache.dispose()
