"""Tensors that hooks are given, keep, free and return, and models that are disposed."""

from __future__ import annotations

import copy
import re

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import DisposedTensorError, InvalidArgumentError
from tests.memory import tiny
from tests.models import hooked_model
from tests.models.hooked_model import IDS, LAST, close, logits_of

POINTS = [name for name in gw.models.hook_points.point_names(2) if "blocks.1." not in name]
SOME = ("blocks.0.hook_resid_post", "blocks.0.attn.hook_pattern", "ln_final.hook_scale")

pytestmark = pytest.mark.usefixtures("no_leak")


@pytest.fixture(scope="module")
def lm(device):
    lm = hooked_model.model()
    yield lm
    lm.dispose()


def runs(lm):
    """The ways in which hooks are called: a forward pass, and a decode step."""
    return (
        lambda hooks: logits_of(lm, hooks),
        lambda hooks: generated(lm, hooks),
    )


def generated(lm, hooks):
    with lm.hooks(hooks):
        return tiny.text_of(lm, IDS, 8)


@pytest.mark.chromium_cases()
@pytest.mark.parametrize("point", POINTS)
def test_after_its_hook_an_activation_is_named(lm, point):
    for run in runs(lm):
        held = []
        run([(point, lambda tensor, name: held.append(tensor))])  # noqa: B023  (called here)
        freed = [tensor for tensor in held if tensor.disposed]
        assert held[0] in freed
        for tensor in freed:
            with pytest.raises(DisposedTensorError, match="was freed by ") as raised:
                tensor.tolist()
            assert str(raised.value).endswith(
                f": it was the activation of {point}; in the hook read its values or gw.keep(x) "
                "it, or take it from run_with_cache"
            )


@pytest.mark.chromium_cases()
def test_what_takes_the_place_of_an_activation_names_the_point_too(lm):
    made, between = [], "blocks.0.hook_resid_post"

    def replaces(tensor, name):
        made.append(gw.ops.add(tensor, 1.0))
        return made[-1]

    logits_of(lm, [(between, replaces)])
    with pytest.raises(DisposedTensorError, match=f"it was the activation of {between}; "):
        made[0].tolist()


def test_the_remedies_for_an_activation_that_is_used_later(lm):
    read, kept = [], []

    def hook(tensor, name):
        read.append(tensor.tolist())
        kept.append(gw.keep(tensor))

    logits_of(lm, [(LAST, hook)])
    with gw.tidy():
        _, cache = lm.run_with_cache(IDS, LAST, return_type=None)
        assert kept[0].tolist() == cache[LAST].tolist() == read[0]
    gw.dispose(kept)
    with pytest.raises(DisposedTensorError, match=r"was freed by dispose\(\), so it cannot"):
        kept[0].tolist()


@pytest.mark.chromium_cases()
@pytest.mark.parametrize("point", POINTS)
def test_disposing_only_what_is_replaced(lm, point):
    def replaces(tensor, name):
        twice = gw.ops.mul(tensor, 2.0)
        tensor.dispose()
        return twice

    expected = logits_of(lm, [(point, lambda tensor, name: gw.ops.mul(tensor, 2.0))])
    assert close(logits_of(lm, [(point, replaces)]), expected, 0.0)
    message = f"the hook of {point} disposed its activation and returned None"
    for run in runs(lm):
        with pytest.raises(DisposedTensorError, match=message):
            run([(point, lambda tensor, name: tensor.dispose())])


@pytest.mark.parametrize("point", SOME)
def test_a_disposed_result_is_named(lm, point):
    def hook(tensor, name):
        result = gw.ops.mul(tensor, 2.0)
        result.dispose()
        return result

    for run in runs(lm):
        with pytest.raises(
            DisposedTensorError, match=rf"the hook of {point} must return .*: Tensor \[.* freed by"
        ):
            run([(point, hook)])


@pytest.mark.parametrize(
    ("result", "described"),
    [
        ([[1.0]] * 1000, "list of length 1000: gw.tensor(array) makes a tensor"),
        ((1.0, 2.0), "tuple of length 2: gw.tensor(array) makes a tensor"),
        (memoryview(b"ab"), "builtins.memoryview of shape (2,): gw.tensor(array) makes a tensor"),
        (3.5, "3.5"),
    ],
    ids=["list", "tuple", "memoryview", "number"],
)
def test_what_is_no_tensor_is_described_by_its_size(lm, result, described):
    with pytest.raises(InvalidArgumentError) as raised:
        logits_of(lm, [(LAST, lambda tensor, name: result)])
    assert str(raised.value) == (
        f"the hook of {LAST} must return None or a float32 tensor of shape (2, 5, 16), not "
        f"{described}"
    )


@pytest.mark.native("NumPy")
def test_an_array_is_to_become_a_tensor(lm):
    message = "not numpy.ndarray of shape (2, 5, 16): gw.tensor(array) makes a tensor"
    with pytest.raises(InvalidArgumentError, match=re.escape(message)):
        logits_of(lm, [(LAST, lambda tensor, name: tensor.numpy())])
    assert logits_of(lm, [(LAST, lambda tensor, name: gw.tensor(tensor.numpy()))]) == logits_of(lm)


@pytest.mark.parametrize("run", [0, 1], ids=["forward", "generate"])
def test_a_hook_that_disposes_the_model_ends_the_call(run):
    lm = hooked_model.model()
    with pytest.raises(DisposedTensorError, match=r"^this model was disposed: load it again$"):
        runs(lm)[run]([(LAST, lambda tensor, name: lm.dispose())])


def test_a_cache_needs_its_model_for_what_reads_weights():
    with gw.tidy(), hooked_model.model() as lm:
        _, cache = lm.run_with_cache(IDS)
        stack = cache.accumulated_resid()
        lm.dispose()
        for read in (
            cache.logit_lens,
            lambda: cache.accumulated_resid(apply_ln=True),
            cache.stack_head_results,
            lambda: cache.logit_attrs(stack, 3),
        ):
            with pytest.raises(DisposedTensorError, match=r"^this model was disposed: load it"):
                read()
        assert cache.accumulated_resid().tolist() == stack.tolist()


def test_a_deep_copy_of_hooks_shares_the_model(lm):
    hooks = [(LAST, lambda tensor, name: gw.ops.add(tensor, 1.0))]
    before = tiny.counters(lm.device)
    with copy.deepcopy({"hooks": lm.hooks(hooks)})["hooks"] as model:
        assert model is lm
        assert tiny.counters(lm.device) == before
        within = logits_of(lm)
    assert within == logits_of(lm, hooks)
