"""Activations of ``run_with_cache``, against transformers' modules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import InvalidArgumentError
from tests.models import checkpoints, hook_points

pytestmark = [pytest.mark.native("PyTorch"), pytest.mark.usefixtures("no_leak")]

CONFIGS = {
    "padded": dict(n_embd=36, n_layer=2, n_head=3, n_inner=50, n_positions=32, vocab_size=211),
    "scaled": dict(
        n_embd=32, n_layer=3, n_head=2, n_positions=32, vocab_size=99,
        scale_attn_by_inverse_layer_idx=True, activation_function="relu", layer_norm_epsilon=0.1,
    ),
}  # fmt: skip


@pytest.fixture(params=[True, False], ids=["cpu", "gpu"])
def variant(request, capabilities):
    """With the kernels for CPU adapters and with those for GPUs."""
    capabilities(prefers_no_barriers=request.param)


@pytest.mark.usefixtures("variant")
@pytest.mark.parametrize("name", CONFIGS)
def test_every_point_equals_transformers(device, tmp_path, name):
    model = checkpoints.make_model(**CONFIGS[name])
    ids = np.random.default_rng(1).integers(0, 99, (2, 9))
    expected_logits, expected = hook_points.reference(model, ids)
    checkpoints.save(model, tmp_path)
    with (
        gw.GPT2CausalLM.from_preset(tmp_path, None, "float32", cache_dtype="float32") as lm,
        gw.tidy(),
    ):
        logits, cache = lm.run_with_cache(ids, "*")
        found = cache.numpy()
        np.testing.assert_array_equal(logits.numpy(), lm({"token_ids": ids}).numpy())
        assert list(found) == lm.hook_points
        assert set(found) == set(expected)
    np.testing.assert_allclose(logits_of(found, model), expected_logits, atol=1e-4)
    future = ~np.tri(9, dtype=bool)
    for point, value in expected.items():
        if point.endswith("attn_scores"):
            assert (found[point][..., future] == np.float32(-3e38)).all()
            value, found[point] = (np.where(future, 0, each) for each in (value, found[point]))
        np.testing.assert_allclose(found[point], value, atol=1e-4, err_msg=point)


def test_no_logits(device, tmp_path, monkeypatch):
    """All points are those of a run with logits, which are not computed."""
    checkpoints.save(checkpoints.make_model(**CONFIGS["padded"]), tmp_path)
    with gw.GPT2CausalLM.from_preset(tmp_path, None, "float32") as lm, gw.tidy():
        _, expected = lm.run_with_cache([[1, 2, 3]], "*")
        monkeypatch.setattr(lm.backbone, "logits", None)
        seen: list[str] = []

        def look(tensor: gw.Tensor, name: str) -> None:
            seen.append(name)

        for place, point in enumerate(lm.hook_points):  # the rest of its half block, no more
            seen.clear()
            with lm.hooks([("*", look)]):
                _, one = lm.run_with_cache([[1, 2, 3]], point, return_type=None)
            np.testing.assert_array_equal(one[point].numpy(), expected[point].numpy())
            assert place < len(seen) < place + 15 or point.startswith("ln_final")
        wrong: Any = "loss"
        nothing, found = lm.run_with_cache([[1, 2, 3]], "*", return_type=None)
        assert nothing is None
        for name, value in expected.numpy().items():
            np.testing.assert_array_equal(found[name].numpy(), value)
        with pytest.raises(InvalidArgumentError, match='return_type must be "logits" or None'):
            lm.run_with_cache([1], return_type=wrong)


@pytest.mark.usefixtures("variant")
def test_masked_keys_have_no_weight(device, tmp_path):
    """The points that the mask changes, of a prompt that is padded on the left."""
    model = checkpoints.make_model(**CONFIGS["padded"])
    ids = np.random.default_rng(2).integers(0, 99, (2, 7))
    mask = np.array([[1] * 7, [0, 0, 1, 1, 1, 1, 1]])
    _, expected = hook_points.reference(model, ids, mask)
    checkpoints.save(model, tmp_path)
    inputs = {"token_ids": ids, "padding_mask": mask}
    names = ["*.hook_pattern", "*.hook_z", "*.hook_resid_post", "*.hook_attn_scores"]

    def double(tensor, name):
        return gw.ops.mul(tensor, 2.0)

    with (
        gw.GPT2CausalLM.from_preset(tmp_path, None, "float32", cache_dtype="float32") as lm,
        gw.tidy(),
    ):
        found = lm.run_with_cache(inputs, names)[1].numpy()
        with lm.hooks([("*.hook_pattern", double)]):
            by_pattern = lm(inputs).numpy()
        by_values = lm.run_with_hooks(inputs, [("*.hook_v", double)]).numpy()
    shown = mask.astype(bool)
    for point, value in found.items():
        if point.endswith("attn_scores"):
            assert (value[1, :, 2:, :2] == -1e9).all()
            continue
        if point.endswith("pattern"):
            value, expected[point] = (np.moveaxis(each, 1, 2) for each in (value, expected[point]))
        np.testing.assert_allclose(value[shown], expected[point][shown], atol=1e-4, err_msg=point)
    np.testing.assert_allclose(by_pattern[shown], by_values[shown], atol=1e-4)


def logits_of(found, model):
    norm, head = model.transformer.ln_f, model.lm_head.weight.detach().numpy()
    gain, shift = norm.weight.detach().numpy(), norm.bias.detach().numpy()
    return (found["ln_final.hook_normalized"] * gain + shift) @ head.T
