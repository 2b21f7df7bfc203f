"""Disposed tensors: errors of later uses, no shared memory, no assumption of zeroed memory."""

from __future__ import annotations

import asyncio
import gc
import warnings
from array import array
from pathlib import Path

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import DisposedTensorError
from gpt2_wgpu.models.decoding import Generation
from gpt2_wgpu.samplers import Greedy
from gpt2_wgpu.webgpu import Recording
from gpt2_wgpu.webgpu.storage import Storage
from tests.memory import tiny

pytestmark = pytest.mark.usefixtures("no_leak")

NAN = 0x7FC00000


def disposed(by=None):
    """A disposed tensor [2, 2] named "logits", freed by a scope of this name or by dispose()."""
    if by is not None:
        with gw.tidy(by):
            return gw.tensor([[1.0, 2.0], [3.0, 4.0]], label="logits")
    tensor = gw.tensor([[1.0, 2.0], [3.0, 4.0]], label="logits")
    tensor.dispose()
    return tensor


USES = {
    "numpy": lambda x, other: x.numpy(),
    "array": lambda x, other: x.__array__(),
    "tolist": lambda x, other: x.tolist(),
    "data": lambda x, other: asyncio.run(x.data()),
    "view": lambda x, other: x.view((4,)),
    "copy": lambda x, other: gw.tensor(x),
    "operator": lambda x, other: x + 1,
    "right operator": lambda x, other: 1 - x,
    "second operand": lambda x, other: other @ x,
    "function": lambda x, other: gw.ops.softmax(x),
    "first of two": lambda x, other: gw.ops.add(x, other),
    "second of two": lambda x, other: gw.ops.add(other, x),
    "in a list": lambda x, other: gw.ops.concat([other, x]),
    "reshape": lambda x, other: gw.ops.reshape(x, (4,)),
    "transpose": lambda x, other: gw.ops.transpose(x),
    "slice": lambda x, other: gw.ops.slice(x, (0, 0), (1, 1)),
    "argmax": lambda x, other: gw.ops.argmax(x),
    "gather": lambda x, other: gw.ops.gather(x, [0]),
    "layer_norm": lambda x, other: gw.ops.layer_norm(x, [1.0, 1.0], [0.0, 0.0], 1e-5),
}


NUMPY = pytest.mark.native("NumPy")


@pytest.mark.parametrize(
    "use",
    [
        pytest.param(use, id=name, marks=NUMPY if name in ("numpy", "array") else ())
        for name, use in USES.items()
    ],
)
def test_every_use_raises_and_leaves_nothing(use):
    before, other = gw.memory().num_tensors, gw.tensor([[1.0, 0.0], [0.0, 1.0]])
    with pytest.raises(DisposedTensorError, match=r"Tensor 'logits' \[2, 2\] float32 was"):
        use(disposed(), other)
    other.dispose()
    gc.collect()
    assert gw.memory().num_tensors == before


def test_shape_type_and_name_can_still_be_read():
    x = disposed()
    assert (x.shape, x.dtype, x.label, x.size, x.disposed) == ((2, 2), "float32", "logits", 4, True)


def test_the_message_names_the_scope_or_the_call_that_freed_it():
    with pytest.raises(DisposedTensorError, match="end of tidy scope 'attention': keep\\(\\) it"):
        disposed(by="attention").tolist()
    with pytest.raises(DisposedTensorError) as error:
        disposed().tolist()
    assert str(error.value).endswith("was freed by dispose(), so it cannot be used any more")


def test_the_message_names_the_scope_of_callbacks():
    gw.start_scope("while loading")
    x = gw.tensor([1.0])
    gw.end_scope()
    with pytest.raises(DisposedTensorError, match="freed by the end of tidy scope 'while loading'"):
        x.tolist()


def test_in_debug_mode_the_message_names_the_place_of_creation():
    with pytest.raises(DisposedTensorError) as without:
        disposed().tolist()
    assert "made at" not in str(without.value)
    gw.set_memory_debug()
    with pytest.raises(DisposedTensorError) as error:
        disposed().tolist()
    assert "it was made at:" in str(error.value)
    assert Path(__file__).name in str(error.value) and "in disposed" in str(error.value)


def test_leaks_lists_what_lives_and_where_it_was_made():
    before = len(gw.leaks())
    gw.set_memory_debug()
    with gw.tidy("outer"):
        gw.tensor([1.0], label="scoped")
        kept = gw.keep(gw.tensor([[2, 3]], "int32", label="kept"))
        scoped, found = gw.leaks()[before:]
    assert (scoped.label, scoped.scope, scoped.kept) == ("scoped", "outer", False)
    assert (found.shape, found.dtype, found.scope, found.kept) == ((1, 2), "int32", None, True)
    assert "test_leaks_lists" in found.created and "test_leaks_lists" in scoped.created
    kept.dispose()
    assert len(gw.leaks()) == before


def test_garbage_is_freed_and_reported_in_debug_mode():
    before = gw.memory()
    gw.set_memory_debug()
    with pytest.warns(ResourceWarning, match=r"Tensor 'lost' \[3\] float32 was never") as caught:
        gw.tensor([1.0, 2.0, 3.0], label="lost")
        gc.collect()
    assert "test_garbage_is_freed" in str(caught[0].message)
    after = gw.memory()
    assert (after.num_tensors, after.num_bytes) == (before.num_tensors, before.num_bytes)


def test_garbage_is_freed_in_silence_otherwise():
    before = gw.memory().num_bytes
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cycle = [gw.tensor([1.0, 2.0])]
        cycle.append(cycle)
        assert gw.memory().num_bytes == before + 8
        del cycle
        gc.collect()
        assert gw.memory().num_bytes == before


def test_the_model_makes_no_garbage(lm, monkeypatch):
    """Nothing of a generation is left to the collector."""
    lost = tiny.record_lost(monkeypatch)
    tiny.text_of(lm)
    list(lm.stream("ab", max_new_tokens=5, stop_token_ids=None))
    gc.collect()
    assert lost == []


def test_views_share_their_buffer_until_the_last_is_gone():
    before = gw.memory()
    x = gw.tensor([1.0, 2.0, 3.0, 4.0])
    views = [x.view((2, 2)), x.view((4, 1)), gw.ops.reshape(x, (1, 4))]
    assert all(view.storage.buffer is x.storage.buffer for view in views)
    x.dispose()
    for view in views:
        assert list(asyncio.run(view.data()).cast("B").cast("f")) == [1.0, 2.0, 3.0, 4.0]
        assert gw.memory().num_bytes == before.num_bytes + 16
        view.dispose()
    assert gw.memory().num_bytes == before.num_bytes


def test_a_view_that_leaves_a_scope_keeps_the_buffer():
    view = gw.tidy(lambda: gw.tensor([1.0, 2.0]).view((2, 1)))
    assert view.tolist() == [[1.0], [2.0]]
    view.dispose()


# --- the pool -------------------------------------------------------------------------------------


@pytest.fixture
def lent(monkeypatch, device):
    """Every storage that is lent while a test runs."""
    found, allocate = [], device.memory.allocate

    def noted(nbytes, kind="workspace"):
        found.append(allocate(nbytes, kind))
        return found[-1]

    monkeypatch.setattr(device.memory, "allocate", noted)
    return found


def test_a_recordings_buffers_are_lent_to_nobody_until_it_closes(device, lent):
    x = gw.tensor([1.0] * 300)
    with Recording(device) as recording, gw.tidy() as scope:
        y = scope.escape(((x + 1) * 2) + x)
    recorded = {id(storage.buffer) for storage in lent}
    x.dispose()
    lent.clear()
    others = [gw.tensor([float(i)] * 300) for i in range(8)]
    assert not recorded & {id(storage.buffer) for storage in lent}
    recording.replay(3)
    assert set(y.tolist()) == {5.0}
    for i, other in enumerate(others):
        assert set(other.tolist()) == {float(i)}
    gw.dispose([y, others])
    recording.close()
    lent.clear()
    again = [gw.tensor([0.0] * 300) for _ in range(4)]
    assert recorded & {id(storage.buffer) for storage in lent}
    gw.dispose(again)


def test_a_generation_is_not_disturbed_by_what_others_take_from_the_pool(lm):
    """Between any two submits of it, the pool is drained into tensors full of NaN."""
    expected = tiny.text_of(lm, [[1, 2, 3]], 20)

    async def disturbed():
        rows = [[1, 2, 3]]
        generation = Generation(lm, rows, [20], Greedy().next_options(), [])
        while not generation.done:
            rows[0] += (await generation.advance())[0]
            others = [gw.tensor([float("nan")] * size) for size in (16, 64, 200, 300, 900) * 3]
            gw.dispose(others)
        generation.close()
        return rows

    assert asyncio.run(disturbed()) == expected


def test_work_of_a_closed_generation_writes_into_nobodys_tensor(lm):
    """Its dispatches may still be pending when its buffers are lent again."""
    generation = Generation(lm, [[1, 2, 3]], [20], Greedy().next_options(), [])
    asyncio.run(generation.advance())
    run = generation._run
    run._recording.replay(5)  # pending, without a waiting caller
    generation.close()
    others = [gw.tensor([7.0] * size) for size in (1, 16, 64, 200, 300, 900) * 4]
    for other in others:
        assert set(other.tolist()) == {7.0}
    gw.dispose(others)


@pytest.mark.parametrize("prompts", [[[1, 2, 3]], [[5], [1, 2, 3, 4], [9, 9]]])
def test_a_pool_full_of_nan_changes_nothing(lm, device, monkeypatch, prompts):
    """Memory that was used before is never taken for zero."""
    expected = tiny.text_of(lm, prompts, 24)
    lm.compile("greedy")  # else what the first text has recorded, and its buffers, serve again
    reused = fill_with_nan(device, monkeypatch)
    assert tiny.text_of(lm, prompts, 24) == expected
    assert len(reused) > 20


def test_a_model_loaded_into_nan_is_the_same(device, monkeypatch):
    first = tiny.model(seed=4)
    expected = tiny.text_of(first)
    first.dispose()
    fill_with_nan(device, monkeypatch)
    second = tiny.model(seed=4)
    assert tiny.text_of(second) == expected
    second.dispose()


def fill_with_nan(device, monkeypatch):
    """From here on every buffer that is lent holds NaN; a list of them."""
    allocate, filled = device.memory.allocate, []

    def dirty(nbytes, kind="workspace"):
        storage = allocate(nbytes, kind)
        assert isinstance(storage, Storage)
        if kind not in ("staging", "parameters"):
            pattern = array("I", [NAN]) * (storage.size // 4)
            device.queue.upload(storage, 0, pattern)
            filled.append(storage.size)
        return storage

    monkeypatch.setattr(device.memory, "allocate", dirty)
    return filled
