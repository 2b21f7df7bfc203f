"""Hooks that see and replace activations, in forward passes."""

from __future__ import annotations

import asyncio

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import DisposedTensorError, InvalidArgumentError, ShapeError
from gpt2_wgpu.webgpu import Recording
from tests.memory import tiny
from tests.models import hooked_model
from tests.models.hooked_model import IDS, LAST, close, flat, logits_of

EVERY_POINT = gw.models.hook_points.point_names(2)
POINTS = [name for name in EVERY_POINT if "blocks.1." not in name]

pytestmark = pytest.mark.usefixtures("no_leak")


@pytest.fixture(scope="module")
def lm(device):
    lm = hooked_model.model()
    yield lm
    lm.dispose()


@pytest.fixture
def steer(lm):
    vector, hook = hooked_model.steering(lm.backbone.hidden_dim)
    yield hook
    vector.dispose()


@pytest.mark.chromium_cases()
@pytest.mark.parametrize("point", POINTS)
def test_a_hook_may_look_or_return_equal_values(lm, point):
    plain, seen = logits_of(lm), []
    assert logits_of(lm, [(point, lambda tensor, name: seen.append((name, tensor.shape)))]) == plain
    assert [name for name, _ in seen] == [point]
    assert seen[0][1][0] == 2
    assert close(logits_of(lm, [(point, lambda tensor, _: gw.ops.mul(tensor, 1.0))]), plain)


@pytest.mark.chromium_cases()
@pytest.mark.parametrize("point", POINTS)
def test_every_point_takes_part_in_the_result(lm, point):
    """What a hook returns is used."""
    changed = logits_of(lm, [(point, lambda tensor, _: gw.ops.add(tensor, gw.ops.relu(tensor)))])
    assert not close(changed, logits_of(lm), 1e-3)


@pytest.mark.chromium_cases()
def test_a_hook_of_scores_gives_later_positions_no_weight(lm):
    zeros = ("*.hook_attn_scores", lambda tensor, _: gw.ops.mul(tensor, 0.0))
    with gw.tidy():
        whole = lm.run_with_hooks([IDS[0]], [zeros])[:, :3]
        assert close(flat(whole), logits_of(lm, [zeros], [IDS[0][:3]]))
        with lm.hooks([zeros]):
            _, cache = lm.run_with_cache([IDS[0]], names="*.hook_pattern")
            for i, weights in enumerate(cache["pattern", 1][0, 0].tolist()):
                assert close(weights, [1 / (i + 1)] * (i + 1) + [0.0] * (4 - i), 1e-6)


@pytest.mark.parametrize("layer", [0, 1])
def test_ablating_a_head_is_the_same_at_each_point(lm, layer):
    at = f"blocks.{layer}.attn.hook_"

    def without_head(axis):
        def hook(tensor, name):
            shape = [1] * 4
            shape[axis] = 2
            return gw.ops.mul(tensor, gw.ops.reshape(gw.tensor([1.0, 0.0]), shape))

        return hook

    expected = logits_of(lm, [(f"{at}z", without_head(2))])
    for name, axis in (("pattern", 1), ("result", 2), ("v", 2)):
        assert close(logits_of(lm, [(f"{at}{name}", without_head(axis))]), expected)
    assert not close(expected, logits_of(lm), 1e-3)


def test_the_end_of_a_block_is_the_beginning_of_the_next(lm, steer):
    after = logits_of(lm, [("blocks.0.hook_resid_post", steer)])
    assert logits_of(lm, [("blocks.1.hook_resid_pre", steer)]) == after
    assert close(logits_of(lm, [("blocks.0.hook_mlp_out", steer)]), after)
    assert not close(after, logits_of(lm), 1e-2)


def test_patching_takes_kept_activations_of_another_input(lm):
    """The whole residual stream of one row in place of the other's gives its logits."""
    with gw.tidy():
        _, cache = lm.run_with_cache([IDS[1]], LAST)
        patched = logits_of(lm, [(LAST, lambda *_: cache["resid_post", -1])], [IDS[0]])
        assert cache[LAST].shape == (1, 5, 16)  # not freed by the engine
    assert patched == logits_of(lm, [], [IDS[1]])


def test_what_a_hook_gives_or_keeps_is_not_freed(lm):
    """Also where the engine frees its own: the residual stream between blocks."""
    kept, between = [], "blocks.0.hook_resid_post"

    def keeps(tensor, name):
        kept.append(gw.keep(tensor))

    with gw.tidy():
        _, cache = lm.run_with_cache([IDS[1]], [between, LAST])
        expected = logits_of(lm, [], [IDS[1]])
        for _ in range(2):
            hooks = [(between, lambda *_: cache[between]), ("blocks.1.hook_resid_pre", keeps)]
            assert logits_of(lm, hooks, [IDS[0]]) == expected
        assert flat(kept[0]) == flat(kept[1]) == flat(cache[between])
    gw.dispose(kept)


def test_hooks_are_called_in_order_and_each_sees_the_result_before(lm):
    plus = [(LAST, lambda tensor, _: gw.ops.add(tensor, 1.0))]
    twice = [("*.hook_resid_post", lambda tensor, _: gw.ops.mul(tensor, 2.0)), *plus]
    with gw.tidy(), lm.hooks(twice[:1]):
        _, cache = lm.run_with_cache(IDS, LAST)
        with lm.hooks(plus):
            _, both = lm.run_with_cache(IDS, [LAST])
            assert close(flat(gw.ops.sub(both[LAST], cache[LAST])), [1.0] * both[LAST].size)
        assert flat(lm({"token_ids": IDS})) == logits_of(lm, [])


def test_only_what_is_asked_for_is_computed(lm, device):
    """A point within a fused kernel adds the dispatches that compute it, in its layer alone."""

    def kernels(hooks):
        with gw.tidy(), lm.hooks(hooks):
            cache, (ids, start) = lm.backbone.new_cache(2, 5), words(lm)
            recording = Recording(device)
            with recording:
                lm.backbone.logits(lm.backbone.blocks(ids, cache, start))
        found = [label.kernel for _, _, _, label in recording.commands]
        recording.close()
        return found

    def look(tensor, name):
        pass

    plain = kernels([])
    assert kernels([("*.hook_resid_*", look)]) == plain
    with_pattern = kernels([("blocks.1.attn.hook_pattern", look)])
    added = list(with_pattern)
    for kernel in plain:
        added.remove(kernel)
    assert [kernel.removesuffix("_cpu") for kernel in added] == ["attention_scores", "softmax"]


def words(lm):
    return lm.backbone.as_uint32(IDS), lm.backbone.as_uint32([0, 0])


@pytest.fixture(params=[True, False], ids=["cpu", "gpu"])
def variant(request, capabilities):
    """With the kernels for CPU adapters and with those for GPUs."""
    capabilities(prefers_no_barriers=request.param)


@pytest.mark.usefixtures("variant")
@pytest.mark.chromium_cases("point")
@pytest.mark.parametrize("point", POINTS)
def test_tokens_one_by_one_are_those_of_a_whole_pass(lm, point):
    """With a hook in a cache of 130 positions, which GPUs read in two parts."""

    def hook(tensor, name):
        return gw.ops.mul(tensor, 1.5)

    expected = logits_of(lm, [(point, hook)])
    found = []
    with gw.tidy(), lm.hooks([(point, hook)]):
        cache = lm.backbone.new_cache(2, 130)
        for first, end in ((0, 3), (3, 4), (4, 5)):
            ids = [row[first:end] for row in IDS]
            found.append(lm.call_with_cache(ids, cache, first)[0])
        found = flat(gw.ops.concat(found, 1))
    assert close(found, expected)


@pytest.mark.native("a checkpoint of the package")
@pytest.mark.parametrize("dtype", ["float16", "q8", "q4"])
def test_looking_changes_no_bit_of_other_weights(device, dtype):
    with gw.GPT2CausalLM.from_preset("fairytales", dtype=dtype) as tales, gw.tidy():
        ids = [[4095, 2, 1077, 51, 904, 13, 3377, 250, 1999, 800]]
        logits, _ = tales.run_with_cache(ids, "*")
        assert flat(logits) == flat(tales({"token_ids": ids}))
        plain = tales.generate("Once upon", max_new_tokens=8, seed=1)
        with tales.hooks([("*", lambda tensor, name: None)]):
            assert tales.generate("Once upon", max_new_tokens=8, seed=1) == plain


# --- the cache ----------------------------------------------------------------------------------


def test_names_of_activations(lm):
    with gw.tidy():
        _, cache = lm.run_with_cache(
            "abc", ["hook_embed", "*.ln1.*", lambda name: "pattern" in name]
        )
        assert len(cache) == 1 + 4 + 2
        assert cache["pattern", 1] is cache["pattern", -1] is cache["blocks.1.attn.hook_pattern"]
        assert cache["scale", 0, "ln1"] is cache["blocks.0.ln1.hook_scale"]
        assert cache["embed"] is dict(cache.items())["hook_embed"]
        assert ("pattern", 0) in cache and ("z", 0) not in cache
        assert ("pattern", 99) not in cache and 5 not in cache
        assert cache["attn", 1] is cache["pattern", 1]  # TransformerLens' short name
        assert list(cache) == cache.keys() and cache.values()[0].shape[1:] == (
            len(lm.preprocessor.tokenizer.encode("abc")) + lm.preprocessor.add_start_token, 16,
        )  # fmt: skip
        for key, message in (
            (("z", 0), r"blocks.0.attn.hook_z was not computed: pass it to run_with_cache"),
            (("z", 2), "layer must be an integer >= -2 and <= 1, not 2: the model has 2 layers"),
            ("blocks.2.hook_resid_pre", "the model has 2 layers, blocks.0 to blocks.1"),
            ("resid_pre", r"each layer has one, did you mean \('resid_pre', 0\)"),
            (("patern", 1), r"did you mean \('pattern', 1\)"),
            (("atn", 1), r"did you mean \('pattern', 1\)"),
            (("scale", 1), r"did you mean \('scale', 1, 'ln1'\) or \('scale', 1, 'ln2'\)"),
            (("q", 1, "mlp"), r"did you mean \('q', 1\)"),
            (("embed", 0), "did you mean 'embed'"),
            ("xyz", "lm.hook_points lists them"),
            ("scale", "ln_final.hook_scale was not computed"),
            ("blocks.0.hook_q", "no hook point is called .* did you mean 'blocks.0.attn.hook_q'"),
            (3, "a hook point is a name or"),
        ):
            with pytest.raises(InvalidArgumentError, match=message):
                cache[key]
        _, every = lm.run_with_cache("abc")
        assert every.keys() == [name for name in EVERY_POINT if not name.endswith("hook_result")]
        assert not len(lm.run_with_cache("abc", [])[1])


def test_the_cache_obeys_scopes_and_frees_nothing_else(lm):
    @gw.tidy()
    def run(returned):
        _, cache = lm.run_with_cache(IDS, LAST)
        return cache if returned else [cache].clear()

    before = gw.memory().num_tensors
    run(False)
    assert gw.memory().num_tensors == before
    cache = run(True)
    assert gw.memory().num_tensors == before + 1
    gw.dispose(cache)
    cache.dispose()
    with pytest.raises(DisposedTensorError):
        cache[LAST].tolist()
    assert gw.memory().num_tensors == before
    logits_of(lm)  # the weights are there


def test_rows_of_different_length(lm):
    with gw.tidy():
        logits, cache = lm.run_with_cache([[1, 2, 3], [4]], "hook_embed")
        alone = lm.run_with_cache([[4]], [])[0]
        assert (logits.shape[:2], cache["embed"].shape) == ((2, 3), (2, 3, 16))
        assert close(flat(logits[1, :1]), flat(alone))


# --- errors -------------------------------------------------------------------------------------


def nothing(tensor, name):
    pass


async def waits(tensor, name):
    pass


@pytest.mark.parametrize(
    ("hooks", "message"),
    [
        ([("blocks.0.hook_reside_pre", nothing)], "did you mean 'blocks.0.hook_resid_pre'"),
        ([("resid_post", nothing)], r"did you mean '\*.hook_resid_post'"),
        ([("q", nothing)], r"did you mean '\*.attn.hook_q'"),
        ([("scale", nothing)], r"did you mean '\*.hook_scale'"),
        ([("embed", nothing)], "did you mean 'hook_embed'"),
        ([(("pattern", 1), nothing)], "did you mean 'blocks.1.attn.hook_pattern'"),
        ([([("scale", 1, "ln1")], nothing)], "did you mean 'blocks.1.ln1.hook_scale'"),
        ([(("pattern", 2), nothing)], r"not by \('pattern', 2\)$"),
        ([("blocks.2.*", nothing)], r"no hook point matches 'blocks.2.\*'"),
        ([(lambda name: False, nothing)], "no hook point matches"),
        ([(3, nothing)], "hook points are selected by"),
        ([LAST], "pairs"),
        (nothing, "pairs"),
        ([(LAST, lambda tensor: None)], r"called as hook\(tensor, name\)"),
        ([(LAST, 3)], r"called as hook\(tensor, name\)"),
        ([(LAST, waits)], "not a coroutine function"),
    ],
)
def test_wrong_hooks_are_rejected(lm, hooks, message):
    with pytest.raises(InvalidArgumentError, match=message):
        lm.hooks(hooks)


@pytest.mark.parametrize(
    ("result", "kind", "message"),
    [
        (lambda tensor: tensor[:, :1], ShapeError, r"\(2, 5, 16\), not one of shape \(2, 1, 16\)"),
        (lambda tensor: gw.ops.cast(tensor, "int32"), InvalidArgumentError, "not of dtype int32"),
        (lambda tensor: [[1.0]], InvalidArgumentError, r"not list of length 1: gw\.tensor\("),
        (lambda tensor: waits(tensor, ""), InvalidArgumentError, "not a coroutine"),
    ],
    ids=["shape", "dtype", "list", "coroutine"],
)
def test_wrong_results_are_rejected_and_leave_nothing(lm, result, kind, message):
    with pytest.raises(kind, match=message):
        logits_of(lm, [(LAST, lambda tensor, name: result(tensor))])
    with pytest.raises(kind), lm.hooks([(LAST, lambda tensor, name: result(tensor))]):
        tiny.text_of(lm, IDS, 8)
    logits_of(lm)


def test_a_result_on_another_device_is_rejected(lm):
    with gw.Device() as other, gw.tidy():
        zeros = gw.tensor([[[0.0] * 16] * 5] * 2, device=other)
        with pytest.raises(InvalidArgumentError, match="not on"):
            lm.run_with_hooks(IDS, [(LAST, lambda tensor, name: zeros)])


def test_an_error_of_a_hook_ends_the_call(lm):
    def fails(tensor, name):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        lm.run_with_hooks(IDS, [(LAST, fails)])
    with pytest.raises(ZeroDivisionError), lm.hooks([(LAST, fails)]):
        lm.run_with_cache(IDS)
    with pytest.raises(InvalidArgumentError, match="inputs must be texts, rows of ids or a dict"):
        lm.run_with_cache(3)


AROUND = ": apply them by `with lm.hooks(hooks):` around the call"


@pytest.mark.parametrize(
    ("method", "name", "remedy"),
    [
        ("run_with_cache", "names_filter", ": use names"),
        ("run_with_cache", "pos_slice", ": use an index of the tensors, as in cache[name][:, -1:]"),
        ("run_with_hooks", "fwd_hooks", ": use hooks"),
        ("run_with_hooks", "other", ""),
        ("run_with_cache", "fwd_hooks", AROUND),
        ("run_with_cache", "hooks", AROUND),
        ("hooks", "fwd_hooks", ": use hooks"),
        ("hooks", "bwd_hooks", ": there are no gradients, so no hooks of them"),
        (
            "run_with_hooks",
            "return_type",
            ": the result is always logits; lm.logprobs gives minus the loss of each token",
        ),
    ],
)
def test_an_argument_of_transformer_lens_says_what_to_use(lm, method, name, remedy):
    with pytest.raises(InvalidArgumentError) as raised:
        getattr(lm, method)(*([] if method == "hooks" else [IDS]), **{name: LAST})
    assert str(raised.value) == f"{method} has no argument {name}{remedy}"


@pytest.mark.native("NumPy")
def test_the_remedies_for_arguments_of_transformer_lens(lm):
    with gw.tidy():
        logits, cache = lm.run_with_cache(IDS, names=LAST)
        whole = cache[LAST].numpy()
        assert (cache[LAST][:, -1:].numpy() == whole[:, -1:]).all()
        assert (cache[LAST][0].numpy() == whole[0]).all()
        assert (lm.run_with_hooks(IDS).numpy() == logits.numpy()).all()


def test_the_loss_is_the_mean_of_logprobs(lm):
    """What TransformerLens gives for return_type="loss", with the hooks of the block."""
    for kind in ("loss", "both"):
        with pytest.raises(
            InvalidArgumentError, match=r"lm\.logprobs gives minus the loss of each"
        ):
            lm.run_with_cache(IDS, return_type=kind)
    zero = [(LAST, lambda tensor, _: gw.ops.mul(tensor, 0.0))]
    with gw.tidy(), lm.hooks(zero):
        logits = lm.run_with_cache([IDS[0]], [])[0]
        losses = gw.ops.log_softmax(logits).tolist()[0]
        expected = [row[token] for row, token in zip(losses[:-1], IDS[0][1:], strict=True)]
        assert close(lm.logprobs([IDS[0]])[0], expected)


def test_a_block_gives_its_model(lm, steer):
    hooks = [(LAST, steer)]
    with lm.hooks(hooks) as hooked, gw.tidy():
        assert hooked is lm
        assert flat(hooked({"token_ids": IDS})) == logits_of(lm)
    with lm.hooks() as hooked:
        assert hooked is lm and logits_of(lm) != logits_of(lm, hooks)

    async def block():
        async with lm.hooks(hooks) as hooked:
            return hooked

    assert asyncio.run(block()) is lm
