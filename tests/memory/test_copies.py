"""copy.copy, copy.deepcopy and pickle of everything that holds GPU memory."""

from __future__ import annotations

import asyncio
import copy
import gc
import pickle

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import CopyError, DeviceError, DisposedTensorError
from gpt2_wgpu.models.decoding import Generation
from gpt2_wgpu.samplers import GreedySampler
from gpt2_wgpu.webgpu import Readback, Recording
from tests.memory import tiny

pytestmark = pytest.mark.usefixtures("no_leak")


def test_a_copy_is_a_counted_view():
    before = gw.memory()
    a = gw.tensor([1.0, 2.0, 3.0])
    b = copy.copy(a)
    assert (b.shape, b.dtype, b.storage) == (a.shape, a.dtype, a.storage)
    assert gw.memory().num_tensors == before.num_tensors + 2
    assert gw.memory().num_bytes == before.num_bytes + 12
    a.dispose()
    other = gw.tensor([9.0, 9.0, 9.0])  # would take the buffer if it were free
    assert b.tolist() == [1.0, 2.0, 3.0]
    gw.dispose([b, other])


def test_a_dropped_copy_leaves_the_original_its_buffer():
    a = gw.tensor([1.0, 2.0, 3.0])
    for _ in range(2):
        copy.copy(a)
    gc.collect()
    other = gw.tensor([9.0, 9.0, 9.0])
    assert a.tolist() == [1.0, 2.0, 3.0]
    gw.dispose([a, other])


@pytest.mark.parametrize("values", [[1.5, 2.5], [[1.0, 2.0, 3.0]], 4.0, []], ids=repr)
@pytest.mark.parametrize("dtype", ["float32", "int32", "uint32"])
def test_a_deep_copy_has_a_buffer_of_its_own(values, dtype):
    with gw.tidy():
        a = gw.tensor(values, "float32") if dtype == "float32" else gw.tensor([[7, 8]], dtype)
        expected = a.tolist()
        b = copy.deepcopy(a)
        assert (b.shape, b.dtype) == (a.shape, a.dtype)
        assert b.storage is not a.storage
        a.dispose()
        gw.tensor([9.0, 9.0])
        assert b.tolist() == expected


def test_a_deep_copy_comes_after_what_is_pending():
    with gw.tidy():
        a = gw.tensor([1.0, 2.0])
        assert copy.deepcopy(a * 2 + 1).tolist() == [3.0, 5.0]


def test_one_tensor_twice_in_a_container_is_copied_once():
    with gw.tidy():
        a = gw.tensor([1.0])
        first, second = copy.deepcopy([a, a])
        assert first is second is not a


def test_copies_belong_to_the_open_scope():
    a = gw.tensor([1.0])
    with gw.tidy():
        copies = [copy.copy(a), copy.deepcopy(a)]
    assert all(tensor.disposed for tensor in copies)
    assert a.tolist() == [1.0]
    a.dispose()


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy])
def test_a_disposed_tensor_is_not_copied(how):
    a = gw.tensor([1.0])
    a.dispose()
    with pytest.raises(DisposedTensorError):
        how(a)


def test_a_deep_copy_inside_a_recording_is_refused_and_leaves_nothing(device):
    a = gw.tensor([1.0])
    before = tiny.counters(device)
    with Recording(device), pytest.raises(DeviceError, match="cannot copy while recording"):
        copy.deepcopy(a)
    assert tiny.counters(device) == before
    a.dispose()


@pytest.mark.parametrize("cache_dtype", ["float32", "float16"])
def test_a_cache_is_copied_with_all_its_layers(lm, cache_dtype):
    model = tiny.model(lm.device)
    model.backbone.cache_dtype = cache_dtype
    with gw.tidy():
        _, cache = model.build_cache([[1, 2, 3]])
        longer = model.backbone.new_cache(1, 8)
        model.call_with_cache([[1, 2, 3]], longer, 0)
        shared, own = copy.copy(longer), copy.deepcopy(longer)
        assert type(shared) is type(own) is type(longer)
        expected = own.tolist()
        logits, _, _ = model.call_with_cache([[4]], longer, 3)  # written into `shared` too
        assert shared.tolist() == longer.tolist() != expected
        again, _, _ = model.call_with_cache([[4]], own, 3)
        assert again.tolist() == logits.tolist()
        longer.dispose()
        assert all(not layer.disposed for layer in shared.children)
        cache.dispose()
    model.dispose()


def test_a_deep_copied_model_writes_the_same_and_lives_by_itself(lm):
    held, function = gw.memory(lm.device), lm.make_generate_function()
    with gw.tidy():
        other = copy.deepcopy(lm)  # its weights outlive the scope, as those of a loaded model do
    assert other.device is lm.device
    assert other.generate_function is None
    assert other.make_generate_function() is not function is lm.generate_function
    assert other.generate_function.model is other
    expected = tiny.text_of(lm)
    assert tiny.text_of(other) == expected
    other.dispose()
    with pytest.raises(DisposedTensorError):
        copy.deepcopy(other)
    assert tiny.text_of(lm) == expected
    assert gw.memory(lm.device).num_bytes == held.num_bytes


def test_a_deep_copy_without_room_leaves_nothing(lm):
    before = tiny.counters(lm.device)
    gw.set_memory_budget(gw.memory(lm.device).num_bytes_in_gpu + 2048)
    with pytest.raises(MemoryError):
        copy.deepcopy(lm.backbone)
    assert tiny.counters(lm.device) == before


def test_a_copied_model_shares_the_weights_and_has_its_own_sampler(lm):
    lm.make_generate_function()
    other = copy.copy(lm)
    other.compile(sampler="random")
    assert other.backbone is lm.backbone
    assert lm.generate_function.model is lm
    assert copy.copy(lm).make_generate_function().model is not lm
    assert isinstance(lm.sampler, GreedySampler)


def test_a_copy_of_a_device_is_the_device(device):
    assert copy.copy(device) is device
    assert copy.deepcopy({"device": device})["device"] is device


# --- rejected -------------------------------------------------------------------------------------


@pytest.fixture
def held(lm):
    """One of each kind that holds GPU memory."""
    x = gw.tensor([1.0])
    with Recording(lm.device) as recording, gw.tidy():
        _ = x + 1
    scope = gw.start_scope("a scope")
    gw.end_scope()
    found = {
        "tensor": x,
        "cache": lm.backbone.new_cache(1, 8),
        "model": lm,
        "backbone": lm.backbone,
        "weights": lm.backbone.weights,
        "device": lm.device,
        "storage": x.storage,
        "memory": lm.device.memory,
        "queue": lm.device.queue,
        "kernels": lm.device.pipelines,
        "recording": recording,
        "readback": Readback(lm.device, [(x.storage, 0, 4)]),
        "generation": Generation(lm, [[1]], [4], GreedySampler().next_options(), []),
        "stream": lm.stream("ab", max_new_tokens=4),
        "scope": scope,
    }
    asyncio.run(found["generation"].advance())
    found["run"] = found["generation"]._run
    yield found
    for name in ("recording", "readback", "generation", "stream"):
        found[name].close()
    gw.dispose([x, found["cache"], _])


def test_pickling_is_refused_in_words(held):
    for name, value in held.items():
        for protocol in (0, 2, pickle.HIGHEST_PROTOCOL):
            with pytest.raises(CopyError, match=r"cannot be pickled: .* of this process; ") as seen:
                pickle.dumps([value], protocol)
            assert " object at 0x" not in str(seen.value), name
            assert isinstance(seen.value, TypeError)


def test_what_owns_memory_is_not_copied(held):
    copied = {"tensor", "cache", "model", "backbone", "weights", "device"}
    before = tiny.counters(held["device"])
    for name in held.keys() - copied:
        for how in (copy.copy, copy.deepcopy):
            with pytest.raises(CopyError, match="cannot be copied"):
                how(held[name])
    assert tiny.counters(held["device"]) == before


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_what_holds_no_memory_is_copied_and_pickled(lm, how):
    tokenizer = how(lm.preprocessor.tokenizer)
    assert tokenizer.encode("abc") == lm.preprocessor.tokenizer.encode("abc")
    assert how(lm.preprocessor).encode_prompts(["ab"]) == lm.preprocessor.encode_prompts(["ab"])
    for value in (lm.sampler, lm.backbone.config, lm.device.info, gw.memory(lm.device)):
        assert repr(how(value)) == repr(value)
    assert how(gw.profile(lambda: 7)).result == 7
