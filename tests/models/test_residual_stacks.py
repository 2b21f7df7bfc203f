"""Logit lens and decompositions of the residual stream, against transformers' modules."""

from __future__ import annotations

import numpy as np
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import InvalidArgumentError, NumericalError, ShapeError
from gpt2_wgpu.models import logit_lens
from tests.gpu import references
from tests.models import checkpoints, hook_points

pytestmark = pytest.mark.native("PyTorch")

CONFIG = dict(n_embd=36, n_layer=3, n_head=3, n_positions=32, vocab_size=211)
TOKENS = [[1, 2, 3, 4, 5], [6, 7, 8, 9, 210]]
HEADS = [f"L{layer}H{head}" for layer in range(3) for head in range(3)]


@pytest.fixture(scope="module")
def given(device, tmp_path_factory):
    """Logits and points of transformers' model, weights of norm and head, and our cache."""
    model = checkpoints.make_model(**CONFIG)
    ids = np.random.default_rng(1).integers(0, 211, (2, 5))
    logits, points = hook_points.reference(model, ids)
    norm = model.transformer.ln_f
    weights = [x.detach().numpy() for x in (norm.weight, norm.bias, model.lm_head.weight)]
    directory = checkpoints.save(model, tmp_path_factory.mktemp("stacks"))
    lm = gw.GPT2CausalLM.from_preset(directory, None, "float32", cache_dtype="float32")
    found, cache = lm.run_with_cache(ids)
    yield logits, points, weights, cache
    gw.dispose((found, cache))
    lm.dispose()


@pytest.fixture(autouse=True)
def scope(no_leak):
    with gw.tidy():
        yield


def centred(x):
    return x - x.mean(-1, keepdims=True)


def streams(points):
    names = [f"blocks.{i}.hook_resid_pre" for i in range(3)]
    return np.stack([points[name] for name in [*names, "blocks.2.hook_resid_post"]])


def close(found, expected, atol=1e-4):
    np.testing.assert_allclose(found, expected, atol=atol)


@pytest.mark.parametrize("rows", [1, 3, 100], ids="{} at once".format)
def test_the_logit_lens(given, monkeypatch, rows):
    logits, points, (gain, shift, head), cache = given
    monkeypatch.setattr(logit_lens, "LOGIT_BYTES", rows * 4 * 211)
    lens = cache.logit_lens(top=4, tokens=TOKENS)
    expected = references.layer_norm(streams(points), gain, shift) @ head.T.astype(float)
    close(expected[-1], logits)
    probabilities = references.softmax(expected)
    values, ids = references.top_k(probabilities, 4)
    found = lens.numpy()
    assert lens.labels == ["0_pre", "1_pre", "2_pre", "final_post"]
    np.testing.assert_array_equal(found["ids"], ids)
    close(found["probabilities"], values, 1e-5)
    final = probabilities[-1]
    divergence = (final * (np.log(final) - np.log(probabilities))).sum(-1)
    close(found["divergences"], divergence)
    assert not found["divergences"][-1].any()
    own = np.take_along_axis(
        expected, np.broadcast_to(np.array(TOKENS)[..., None], (4, 2, 5, 1)), -1
    )
    np.testing.assert_array_equal(found["ranks"], (expected > own).sum(-1))
    assert cache.logit_lens(tokens=None).ranks is None
    tokens = [[row[place] for place in (4, 1)] for row in TOKENS]
    some = cache.logit_lens(top=4, tokens=tokens, positions=[4, 1]).numpy()
    for name, values in found.items():
        close(some[name], values[:, :, [4, 1]])
    ends = cache.logit_lens(top=4, tokens=tokens, positions=[-1, -4]).numpy()
    for name, values in some.items():
        close(ends[name], values)
    for wrong, message in (([5], "positions must be"), ([], "positions is empty")):
        with pytest.raises(InvalidArgumentError, match=message):
            cache.logit_lens(positions=wrong)
    lens.dispose()


def test_the_accumulated_stream(given):
    _, points, (gain, shift, _), cache = given
    found, labels = cache.accumulated_resid(incl_mid=True, return_labels=True)
    assert labels == ["0_pre", "0_mid", "1_pre", "1_mid", "2_pre", "2_mid", "final_post"]
    close(found.numpy()[::2], streams(points))
    close(found.numpy()[1::2], [points[f"blocks.{i}.hook_resid_mid"] for i in range(3)])
    normed = cache.accumulated_resid(apply_ln=True)
    close(normed.numpy(), references.layer_norm(streams(points), gain, shift))
    before, labels = cache.accumulated_resid(1, mlp_input=True, apply_ln=True, return_labels=True)
    assert labels == ["0_pre", "1_pre", "1_mid"]
    parts = [points[f"blocks.{name}"] for name in ("0.hook_resid_pre", "1.hook_resid_pre",
                                                   "1.hook_resid_mid")]  # fmt: skip
    close(before.numpy(), centred(np.stack(parts)) / points["blocks.1.ln2.hook_scale"])


@pytest.mark.parametrize(
    ("arguments", "names", "scale"),
    [
        ({}, ["embed", "pos_embed", *(f"{i}_{part}_out" for i in range(3) for part in
              ("attn", "mlp"))], "ln_final"),
        ({"layer": 1, "mode": "mlp"}, ["embed", "pos_embed", "0_mlp_out"], "blocks.1.ln1"),
        ({"layer": 1, "mlp_input": True, "incl_embeds": False, "mode": "attn"},
         ["0_attn_out", "1_attn_out"], "blocks.1.ln2"),
        ({"layer": 0}, ["embed", "pos_embed"], "blocks.0.ln1"),
    ],
    ids=str,
)  # fmt: skip
def test_the_parts_of_the_stream(given, arguments, names, scale):
    _, points, _, cache = given
    found, labels = cache.decompose_resid(**arguments, return_labels=True)
    assert labels == names
    full = [f"blocks.{n[0]}.hook_{n[2:]}" if n[0].isdigit() else f"hook_{n}" for n in names]
    expected = np.stack([points[name] for name in full])
    close(found.numpy(), expected)
    normed = cache.decompose_resid(**arguments, apply_ln=True).numpy()
    close(normed, centred(expected) / points[f"{scale}.hook_scale"])
    if not arguments:
        close(expected.sum(0), points["blocks.2.hook_resid_post"])


def test_the_results_of_heads(given):
    _, points, _, cache = given
    found, labels = cache.stack_head_results(incl_remainder=True, return_labels=True)
    assert labels == [*HEADS, "remainder"]
    expected = np.concatenate([points[f"blocks.{i}.attn.hook_result"] for i in range(3)], 2)
    close(found.numpy()[:-1], np.moveaxis(expected, 2, 0))
    close(found.numpy().sum(0), points["blocks.2.hook_resid_post"])
    two = cache.stack_head_results(2, apply_ln=True).numpy()
    scale = points["blocks.2.ln1.hook_scale"]
    close(two, centred(np.moveaxis(expected, 2, 0)[:6]) / scale)


def test_the_parts_of_a_logit_sum_to_it(given):
    logits, _, (_, shift, head), cache = given
    parts = cache.decompose_resid()
    sums = cache.logit_attrs(parts, TOKENS).numpy().sum(0)
    wanted = np.take_along_axis(logits, np.array(TOKENS)[..., None], -1)[..., 0]
    close(sums + head[TOKENS] @ shift, wanted, 1e-3)
    for tokens, others in ((7, 8), ([7, 7], [8, 8]), (np.array([[7] * 5] * 2), [[8] * 5] * 2)):
        found = cache.logit_attrs(parts, tokens, others).numpy().sum(0)
        close(found + (head[7] - head[8]) @ shift, logits[..., 7] - logits[..., 8], 1e-3)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda cache: cache.logit_lens(0), InvalidArgumentError, "top must be an integer >= 1"),
        (
            lambda cache: cache.logit_lens(1, [1, 2, 3]),
            ShapeError,
            r"tokens must be one token, 2 tok",
        ),
        (lambda cache: cache.logit_lens(1, 211), InvalidArgumentError, "211"),
        (lambda cache: cache.logit_lens(1, "x"), InvalidArgumentError, "give tokens as ids"),
        (lambda cache: cache.logit_lens(1, True), InvalidArgumentError, r"is True \(bool\)"),
        (lambda cache: cache.logit_lens(1, [7, True]), InvalidArgumentError, r"is True \(bool\)"),
        (lambda cache: cache.logit_lens(positions=-1), InvalidArgumentError, "must be a list"),
        (lambda cache: cache.logit_lens(positions="01"), InvalidArgumentError, "must be a list"),
        (lambda cache: cache.logit_lens(positions=slice(2)), InvalidArgumentError, "not slice"),
        (lambda cache: cache.accumulated_resid(-2), InvalidArgumentError, "None and -1 are the in"),
        (lambda cache: cache.accumulated_resid(4), InvalidArgumentError, "layer must be"),
        (lambda cache: cache.decompose_resid(mode="x"), InvalidArgumentError, "mode must be"),
        (
            lambda cache: cache.decompose_resid(0, incl_embeds=False),
            InvalidArgumentError,
            "no comp",
        ),
        (lambda cache: cache.stack_head_results(0), InvalidArgumentError, "layer must be"),
        (lambda cache: cache.logit_attrs(cache["embed"], 1), ShapeError, "a residual stack has"),
        (
            lambda cache: cache.logit_attrs(cache.decompose_resid()[..., :5], 1),
            ShapeError,
            r"d_model \(2, 5, 36\), not \(8, 2, 5, 5\)",
        ),
        (
            lambda cache: cache.logit_attrs(cache.decompose_resid(return_labels=True), 1),
            InvalidArgumentError,
            "return_labels=True gives a pair, pass its first",
        ),
        (lambda cache: cache.logit_attrs(5, 1), InvalidArgumentError, "stack is a tensor .* not 5"),
    ],
)
def test_wrong_arguments_are_rejected(given, call, kind, message):
    with pytest.raises(kind, match=message):
        call(given[3])


EMBEDS, PARTS = ["hook_embed", "hook_pos_embed"], ["*.hook_attn_out", "*.hook_mlp_out"]
SCALE, LAST = ["ln_final.hook_scale"], ["blocks.2.hook_resid_post"]


@pytest.mark.parametrize(
    ("method", "arguments", "names", "missing"),
    [
        ("logit_lens", {}, "hook_embed", ["*.hook_resid_pre", *LAST]),
        ("logit_lens", {}, "*.hook_resid_pre", LAST),
        ("accumulated_resid", {"incl_mid": True}, LAST, ["*.hook_resid_pre", "*.hook_resid_mid"]),
        ("decompose_resid", {}, "hook_embed", [EMBEDS[1], *PARTS]),
        ("decompose_resid", {"apply_ln": True}, "*.hook_mlp_out", [*EMBEDS, PARTS[0], *SCALE]),
        ("decompose_resid", {"apply_ln": True}, [*PARTS, *LAST], EMBEDS),
        ("decompose_resid", {"layer": 1}, EMBEDS, [f"blocks.0.{part[2:]}" for part in PARTS]),
        ("stack_head_results", {}, "blocks.1.attn.hook_result", ["*.attn.hook_z"]),
        (
            "stack_head_results",
            {"incl_remainder": True, "apply_ln": True},
            "*.attn.hook_z",
            LAST,
        ),
        ("logit_attrs", {"residual_stack": None, "tokens": 1}, EMBEDS, SCALE),
    ],
)
def test_all_missing_activations_are_named(small_lm, method, arguments, names, missing):
    """As names and patterns with which the same call succeeds."""
    _, cache = small_lm.run_with_cache([[1, 2]], names)
    if "residual_stack" in arguments:
        stack = gw.tensor([[[[0.5] * small_lm.backbone.hidden_dim] * 2]])
        arguments = {**arguments, "residual_stack": stack}
    with pytest.raises(InvalidArgumentError, match=f"^{method} needs") as raised:
        getattr(cache, method)(**arguments)
    assert str(raised.value).endswith(f"names of run_with_cache {', '.join(map(repr, missing))}")
    _, cache = small_lm.run_with_cache(
        [[1, 2]], [*([names] if isinstance(names, str) else names), *missing]
    )
    getattr(cache, method)(**arguments)


@pytest.fixture(params=[True, False], ids=["cpu", "gpu"])
def variant(request, capabilities):
    """With the kernels for CPU adapters and with those for GPUs."""
    capabilities(prefers_no_barriers=request.param)


@pytest.mark.usefixtures("variant")
def test_logits_that_are_not_finite(small_lm):
    """They have no ids and ranks; reading all is an error that says where they begin."""
    factors = [[[1.0], [1.0]], [[1.0], [float("nan")]]]
    hooks = [("blocks.1.hook_resid_post", lambda x, _: gw.ops.mul(x, gw.tensor(factors)))]
    with small_lm.hooks(hooks):
        _, cache = small_lm.run_with_cache([[1, 2], [3, 4]])
    lens = cache.logit_lens(2, tokens=5)
    ids, ranks = np.array(lens.ids.tolist()), np.array(lens.ranks.tolist())
    bad = np.zeros((4, 2, 2), dtype=bool)
    bad[2:, 1, 1] = True
    assert ((ids == -1).all(-1) == bad).all() and ((ids >= 0).all(-1) == ~bad).all()
    assert ((ranks == -1) == bad).all()
    assert (np.isnan(lens.probabilities.tolist()).all(-1) == bad).all()
    with pytest.raises(
        NumericalError,
        match=r"logits of 2_pre, row 1 at position 1, are not fin.* a hook of the run",
    ):
        lens.numpy()
    with pytest.raises(NumericalError, match="row 1 at position 1,"):
        cache.logit_lens(2, positions=[-1]).numpy()
    assert cache.logit_lens(2, positions=[0]).numpy()["ids"].min() >= 0
    with pytest.raises(NumericalError, match="not finite"):
        gw.inspect.lens(cache, row=1)


@pytest.mark.parametrize(
    ("method", "name", "remedy"),
    [
        ("accumulated_resid", "pos_slice", "as in stack"),
        ("decompose_resid", "expand_neurons", r"cache\['post', layer\] has its neurons"),
        ("stack_head_results", "pos_slice", "as in stack"),
        ("logit_attrs", "batch_slice", r"as in attributions\[:, 0\]"),
    ],
)
def test_an_argument_of_transformer_lens_says_what_to_use(given, method, name, remedy):
    arguments = {"residual_stack": None, "tokens": 1} if method == "logit_attrs" else {}
    with pytest.raises(InvalidArgumentError, match=f"^{method} has no argument {name}: .*{remedy}"):
        getattr(given[3], method)(**arguments, **{name: True})


def test_tokens_as_text(tales):
    _, cache = tales.run_with_cache("Once upon a", "*.hook_resid_*")
    tokenizer = tales.preprocessor.tokenizer
    (king,) = tokenizer.encode(" king")
    by_text = cache.logit_lens(1, " king").ranks.numpy()
    np.testing.assert_array_equal(by_text, cache.logit_lens(1, king).ranks.numpy())
    _, two = tales.run_with_cache(["Once upon a", "There was a"], ["*.hook_resid_*", "ln_final.*"])
    (queen,) = tokenizer.encode(" queen")
    stack = two.accumulated_resid()
    found = two.logit_attrs(stack, [" king", " queen"], [queen, " king"]).numpy()
    expected = two.logit_attrs(stack, [king, queen], [queen, king]).numpy()
    np.testing.assert_array_equal(found, expected)
    assert not np.array_equal(expected, two.logit_attrs(stack, king, queen).numpy())
    with pytest.raises(InvalidArgumentError, match="tokens, not one"):
        two.logit_lens(1, [" king", " king and queen"])
    with pytest.raises(InvalidArgumentError, match="tokens, not one"):
        cache.logit_lens(1, " king and queen")
