"""The complete model against transformers with the same weights."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gpt2_wgpu as gw
from gpt2_wgpu.activation_names import ACTIVATION_KINDS
from tests.models import checkpoints

pytestmark = pytest.mark.native("PyTorch")


@pytest.fixture
def loaded(tmp_path, device):
    """Loads a transformers model through a directory; frees what was loaded."""
    opened = []

    def load(model, dtype="float32", stored="float32", **kwargs):
        checkpoints.save(model, tmp_path, stored, **kwargs)
        lm = gw.GPT2CausalLM.from_preset(tmp_path, None, dtype, cache_dtype="float32")
        opened.append(lm)
        return lm

    yield load
    for lm in opened:
        lm.dispose()


def ids_for(model, batch, tokens, seed=0):
    return np.random.default_rng(seed).integers(0, model.config.vocab_size, (batch, tokens))


def logits_with_cache(lm, ids, splits=()):
    """Logits of ``ids`` [B, T], given in pieces that end at ``splits``."""
    borders = [0, *splits, ids.shape[1]]
    with gw.tidy():
        cache = lm.backbone.new_cache(*ids.shape)
        pieces = [
            lm.call_with_cache(ids[:, a:b], cache, a)[0].numpy() for a, b in pairwise(borders)
        ]
    return np.concatenate(pieces, axis=1)


@pytest.fixture(params=[True, False], ids=["cpu", "gpu"])
def variant(request, capabilities):
    """With the kernels for CPU adapters and with those for GPUs."""
    capabilities(prefers_no_barriers=request.param)


@pytest.mark.usefixtures("variant", "no_leak")
@pytest.mark.parametrize("splits", [(), (1,), (5, 6, 7), range(1, 20)], ids=str)
def test_cached_logits_equal_transformers(small, small_lm, splits):
    ids = ids_for(small[0], 2, 20)
    expected = checkpoints.logits_of(small[0], ids)
    found = logits_with_cache(small_lm, ids, splits)
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.usefixtures("variant", "no_leak")
@pytest.mark.parametrize("splits", [(), range(1, 20)], ids=["at once", "one by one"])
def test_a_cache_in_f16(small, splits):
    ids = ids_for(small[0], 2, 20)
    lm = gw.GPT2CausalLM.from_preset(small[1], None, "float32", cache_dtype="float16")
    found = logits_with_cache(lm, ids, splits)
    with gw.tidy():
        cache = lm.build_cache(ids)[1]
        keys_and_values = cache.numpy()
    lm.dispose()
    error = np.abs(found - checkpoints.logits_of(small[0], ids)).max()
    assert 0 < error <= 1e-2
    np.testing.assert_array_equal(keys_and_values, keys_and_values.astype(np.float16))


@pytest.mark.usefixtures("variant", "no_leak")
def test_a_long_cache_is_read_in_parts(tmp_path, device):
    """At 300 of 320 positions a step on a GPU reads three shares of them."""
    model = checkpoints.make_model(n_embd=32, n_layer=2, n_head=2, n_positions=320, vocab_size=99)
    checkpoints.save(model, tmp_path)
    ids = ids_for(model, 2, 320)
    with gw.GPT2CausalLM.from_preset(tmp_path, None, "float32", cache_dtype="float32") as lm:
        found = logits_with_cache(lm, ids, range(100, 320, 1)[::37])
        with gw.tidy():
            cache = lm.backbone.new_cache(2, 320)
            lm.call_with_cache(ids[:, :300], cache, 0)
            step = lm.call_with_cache(ids[:, 300:301], cache, 300)[0].numpy()
    expected = checkpoints.logits_of(model, ids)
    np.testing.assert_allclose(found, expected, atol=5e-5)
    np.testing.assert_allclose(step[:, 0], expected[:, 300], atol=5e-5)


@pytest.mark.usefixtures("variant")
def test_rows_of_different_positions(small, small_lm):
    """One call may continue rows at different positions."""
    ids = ids_for(small[0], 2, 12)
    expected = checkpoints.logits_of(small[0], ids)
    with gw.tidy():
        cache = small_lm.backbone.new_cache(2, 12)
        small_lm.call_with_cache(ids, cache, 0)  # positions 5 and 9 are overwritten below
        pair = np.stack([ids[0, 5:7], ids[1, 9:11]])
        found = small_lm.call_with_cache(pair, cache, [5, 9])[0].numpy()
    np.testing.assert_allclose(found[0], expected[0, 5:7], atol=2e-5)
    np.testing.assert_allclose(found[1], expected[1, 9:11], atol=2e-5)


@pytest.mark.usefixtures("variant", "no_leak")
def test_hidden_states_and_cache(small, small_lm):
    import torch

    model = small[0]
    ids = ids_for(model, 2, 9)
    with torch.no_grad():
        out = model.transformer(torch.tensor(ids), use_cache=True)
    with gw.tidy():
        hidden, cache = small_lm.build_cache(ids)
        found, keys_and_values = hidden.numpy(), cache.numpy()
    np.testing.assert_allclose(found, out.last_hidden_state.numpy(), atol=2e-5)
    assert keys_and_values.shape == (2, 3, 2, 9, 3, 16)
    for layer, cached in enumerate(out.past_key_values.layers):
        for part, expected in enumerate((cached.keys, cached.values)):
            np.testing.assert_allclose(
                keys_and_values[:, layer, part], expected.numpy().transpose(0, 2, 1, 3), atol=2e-5
            )


@pytest.mark.usefixtures("variant", "no_leak")
@pytest.mark.parametrize("padding", ["left", "right", "middle"])
def test_backbone_with_padding(small, small_lm, padding):
    import torch

    ids = ids_for(small[0], 2, 10)
    mask = np.ones((2, 10), int)
    mask[1, {"left": slice(0, 4), "right": slice(6, 10), "middle": slice(3, 6)}[padding]] = 0
    with torch.no_grad():
        # transformers derives positions from nothing but the place, as Keras does
        expected = small[0].transformer(
            torch.tensor(ids), attention_mask=torch.tensor(mask),
            position_ids=torch.arange(10)[None],
        ).last_hidden_state.numpy()  # fmt: skip
    inputs = {"token_ids": ids, "padding_mask": mask}
    with gw.tidy():
        found, logits = small_lm.backbone(inputs).numpy(), small_lm(inputs).numpy()
    real = mask.astype(bool)
    np.testing.assert_allclose(found[real], expected[real], atol=2e-5)
    head = small[0].lm_head.weight.detach().numpy()
    np.testing.assert_allclose(logits[real], expected[real] @ head.T, atol=5e-5)


@pytest.mark.parametrize("activation", sorted(ACTIVATION_KINDS))
def test_every_activation(loaded, activation):
    model = checkpoints.make_model(
        n_embd=16, n_layer=1, n_head=2, n_positions=8, vocab_size=31, activation_function=activation
    )
    ids = ids_for(model, 1, 8)
    found = logits_with_cache(loaded(model), ids)
    np.testing.assert_allclose(found, checkpoints.logits_of(model, ids), atol=1e-5)


@pytest.mark.usefixtures("variant")
@pytest.mark.parametrize(
    "config",
    [
        {"n_embd": 1, "n_head": 1, "vocab_size": 3},
        {"n_embd": 30, "n_head": 3, "n_inner": 50},
        {"n_embd": 33, "n_head": 11, "n_inner": 7, "vocab_size": 65},
        {"n_embd": 70, "n_head": 5, "scale_attn_by_inverse_layer_idx": True},
        {"n_embd": 26, "n_head": 2, "scale_attn_weights": False},
        {"n_embd": 64, "n_head": 2, "layer_norm_epsilon": 0.1},
        {"n_embd": 24, "n_head": 3, "tie_word_embeddings": False},
        {"n_embd": 24, "n_head": 3, "reorder_and_upcast_attn": True},
    ],
    ids=lambda config: "-".join(f"{value}" for value in config.values()),
)
def test_sizes_and_switches(loaded, config):
    import torch

    model = checkpoints.make_model(
        **{"n_layer": 2, "n_positions": 17, "vocab_size": 101, "initializer_range": 0.3} | config
    )
    if not model.config.tie_word_embeddings:
        assert not torch.equal(model.lm_head.weight, model.transformer.wte.weight)
    ids = ids_for(model, 3, 17)
    found = logits_with_cache(loaded(model), ids, (4, 5))
    expected = checkpoints.logits_of(model, ids)
    np.testing.assert_allclose(found, expected, atol=2e-5 * max(1, np.abs(expected).max()))


@given(data=st.data())
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    database=None,
)
def test_any_configuration(loaded, data):
    heads = data.draw(st.integers(1, 5), "n_head")
    config = {
        "n_head": heads,
        "n_embd": heads * data.draw(st.integers(1, 17), "head size"),
        "n_inner": data.draw(st.none() | st.integers(1, 70), "n_inner"),
        "n_layer": data.draw(st.integers(1, 3), "n_layer"),
        "n_positions": data.draw(st.integers(2, 30), "n_positions"),
        "vocab_size": data.draw(st.integers(2, 140), "vocab_size"),
        "activation_function": data.draw(st.sampled_from(sorted(ACTIVATION_KINDS)), "activation"),
        "tie_word_embeddings": data.draw(st.booleans(), "tied"),
        "scale_attn_by_inverse_layer_idx": data.draw(st.booleans(), "by layer"),
    }
    model = checkpoints.make_model(seed=data.draw(st.integers(0, 9), "seed"), **config)
    length = data.draw(st.integers(1, config["n_positions"]), "tokens")
    ids = ids_for(model, data.draw(st.integers(1, 3), "batch"), length)
    split = data.draw(st.integers(1, length), "split")
    lm = loaded(model)
    found = logits_with_cache(lm, ids, () if split == length else (split,))
    expected = checkpoints.logits_of(model, ids)
    np.testing.assert_allclose(found, expected, atol=3e-5 * max(1, np.abs(expected).max()))
    lm.dispose()


@pytest.mark.parametrize("stored", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("shards", [None, "20KB"], ids=["one file", "shards"])
def test_stored_types_and_shards(small, loaded, stored, dtype, shards):
    import torch

    model = checkpoints.make_model(**small[0].config.to_diff_dict())
    ids = ids_for(model, 1, 16)
    lm = loaded(model, dtype, stored, **({"max_shard_size": shards} if shards else {}))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(parameter.to(getattr(torch, stored)))
            if dtype == "float16" and parameter.ndim == 2 and "wpe" not in name:
                parameter.copy_(parameter.to(torch.float16))
    expected = checkpoints.logits_of(model, ids)
    np.testing.assert_allclose(logits_with_cache(lm, ids), expected, atol=2e-5)


@pytest.mark.usefixtures("variant", "no_leak")
def test_greedy_text_of_a_ragged_batch_equals_single_runs(small, small_lm):
    model = small[0]
    prompts = [list(ids_for(model, 1, n, seed=n)[0]) for n in (1, 4, 9)]
    length = 40
    small_lm.compile(sampler="greedy")
    padded = [prompt + [0] * (length - len(prompt)) for prompt in prompts]
    mask = [[place < len(prompt) for place in range(length)] for prompt in prompts]
    batch = small_lm.generate({"token_ids": padded, "padding_mask": mask}, stop_token_ids=None)
    for row, prompt in enumerate(prompts):
        expected, margin = checkpoints.greedy(model, prompt, length - len(prompt))
        assert margin > 1e-4, "the reference itself is undecided: choose another seed"
        assert batch["token_ids"][row].tolist() == expected
        alone = small_lm.generate(
            {"token_ids": padded[row], "padding_mask": mask[row]}, stop_token_ids=None
        )
        assert alone["token_ids"].tolist() == expected
    assert batch["padding_mask"].all()


# --- GPT-2 124M, random weights -----------------------------------------------------------------


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """GPT-2 at its true size: (model, directory)."""
    model = checkpoints.make_model(seed=1)
    assert model.num_parameters() == 124_439_808
    return model, checkpoints.save(model, tmp_path_factory.mktemp("base"))


def test_124m_in_f32(base, device):
    model, directory = base
    lm = gw.GPT2CausalLM.from_preset(directory, None, "float32", cache_dtype="float32")
    try:
        ids = ids_for(model, 2, 24)
        expected = checkpoints.logits_of(model, ids)
        assert np.abs(logits_with_cache(lm, ids, (16,)) - expected).max() <= 1e-3

        prompt = ids[0, :5].tolist()
        expected, margin = checkpoints.greedy(model, prompt, 32)
        assert margin > 0.005, "the reference itself is undecided: choose another seed"
        lm.compile(sampler="greedy")
        packed = {
            "token_ids": prompt + [0] * 32,
            "padding_mask": [True] * 5 + [False] * 32,
        }
        found = lm.generate(packed, stop_token_ids=None)["token_ids"].tolist()
        assert found == expected
    finally:
        lm.dispose()


@checkpoints.without_gradients
def test_124m_in_f16(device, tmp_path):
    model = checkpoints.make_model(initializer_range=0.05)
    checkpoints.save(model, tmp_path)
    lm = gw.GPT2CausalLM.from_preset(tmp_path, None, "float16", cache_dtype="float32")
    try:
        ids = ids_for(model, 1, 24)
        found, expected = logits_with_cache(lm, ids), checkpoints.logits_of(model, ids)
        assert np.abs(expected).max() > 3
        assert np.abs(found - expected).max() <= 3e-2
        # All of that is the rounding of the weights, none of it the arithmetic:
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and "wpe" not in name:
                parameter.copy_(parameter.half())
        assert np.abs(found - checkpoints.logits_of(model, ids)).max() <= 1e-3
    finally:
        lm.dispose()


def test_124m_in_f32_on_a_device_with_default_limits(base):
    """WebGPU's guaranteed binding of 128 MiB is smaller than wte in f32 (147 MiB)."""
    model, directory = base
    with gw.Device(limits="default") as device:
        assert device.limits["max-storage-buffer-binding-size"] == 128 << 20
        lm = gw.GPT2CausalLM.from_preset(directory, None, "float32", device, cache_dtype="float32")
        assert len(lm.backbone.weights.wte.parts) == 2
        ids = np.array([[0, 43_690, 43_691, 50_256]])  # both parts, and their borders
        expected = checkpoints.logits_of(model, ids)
        with gw.tidy():
            cache = lm.backbone.new_cache(1, 4)
            found = lm.call_with_cache(ids, cache, 0)[0].numpy()
        assert np.abs(found - expected).max() <= 1e-3
        lm.dispose()
