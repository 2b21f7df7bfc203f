"""Tensors freed by the garbage collector, in constant stack depth."""

from __future__ import annotations

import gc
import sys
from contextlib import contextmanager
from types import FrameType

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.webgpu import Readback, Recording
from tests.memory import tiny

pytestmark = pytest.mark.usefixtures("no_leak")

MANY = 3000


@contextmanager
def shallow_stack(frames=60):
    """A recursion limit that leaves room for so many frames."""
    depth = 0
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        depth, frame = depth + 1, frame.f_back
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(depth + frames)
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


def dropped(device, count, kind):
    """Make so many tensors and lose them all at once."""
    tensors = [gw.tensors.empty(device, (4,), kind=kind) for _ in range(count)]
    tensors.clear()
    gc.collect()


SAFE_MOMENTS = {
    "an allocation": lambda device: gw.tensors.empty(device, (4,)).dispose(),
    "memory()": gw.memory,
    "a flush": lambda device: device.queue.flush(),
    "trim()": lambda device: (device.memory.drain(), gw.trim(device)),
    "a read": lambda device: [x := gw.tensor([1.0], device=device), x.tolist(), x.dispose()],
}


@pytest.mark.parametrize("kind", ["weights", "workspace", "cache", "parameters"])
@pytest.mark.parametrize("moment", SAFE_MOMENTS.values(), ids=SAFE_MOMENTS)
def test_thousands_of_dropped_tensors_are_freed_at_the_next_call(device, moment, kind):
    before = tiny.counters(device)
    dropped(device, MANY if moment is gw.memory else 300, kind)
    with shallow_stack():
        moment(device)
    assert tiny.counters(device, collect=False) == before


def test_dropped_weights_are_freed_while_work_is_pending(device):
    x = gw.tensor([1.0, 2.0])
    with gw.tidy() as scope:
        weights = [gw.keep(gw.tensors.empty(device, (4,), kind="weights")) for _ in range(300)]
        y = x + 1  # pending when the weights are destroyed
        weights.clear()
        gc.collect()
        with shallow_stack():
            z = scope.escape(y * 2)
            assert z.tolist() == [4.0, 6.0]
    gw.dispose([x, z])


def test_two_models_dropped_together_are_freed_at_the_next_call(device):
    before = tiny.counters(device)
    models = [
        gw.GPT2Backbone(8, 12, 1, 8, 8, max_sequence_length=8, device=device) for _ in range(2)
    ]
    assert gw.memory(device).num_tensors - before[0] > 200
    models.clear()
    gc.collect()
    with shallow_stack():
        assert gw.tidy(lambda: (gw.tensor([1.0]) + 1).tolist()) == [2.0]
    assert tiny.counters(device, collect=False) == before


def test_a_dropped_tensor_may_own_the_last_reference_to_others(device):
    """A finaliser that runs while others are run adds to the same queue."""

    class Chain:
        def __init__(self, rest):
            self.tensor = gw.tensors.empty(device, (4,), kind="weights")
            self.rest = rest

    before = tiny.counters(device)
    chain = None
    for _ in range(300):
        chain = Chain(chain)
    manager = device.memory
    manager.defer(chain.__dict__.clear)  # drops the next link, whose finalisers defer in turn
    del chain
    with shallow_stack(120):
        manager.drain()
    assert tiny.counters(device, collect=False) == before


def test_scopes_may_be_nested_deeper_than_the_stack(device):
    before = gw.memory(device).num_scopes
    for _ in range(MANY):
        gw.start_scope()
    try:
        x = gw.tensor([1.0])
        assert gw.memory(device).num_scopes == before + MANY
    finally:
        for _ in range(MANY):
            gw.end_scope()
    assert x.disposed


def test_a_recording_and_a_readback_that_nobody_closed_are_freed(device):
    x = gw.tensor([1.0, 2.0], device=device)
    before = tiny.counters(device)
    with Recording(device) as recording, gw.tidy():
        _ = x + 1
    readback = Readback(device, [(x.storage, 0, 8)])
    assert tiny.counters(device) != before
    del recording, readback, _
    assert tiny.counters(device) == before
    x.dispose()
