"""Layers of a backbone: put together they are the model; weights and hidden states."""

from __future__ import annotations

import math
from typing import Any

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import InvalidArgumentError, OutOfGPUMemoryError, ShapeError
from gpt2_wgpu.tensors import dispose, ops
from gpt2_wgpu.webgpu import sync

SIZES = {
    "vocabulary_size": 50, "num_layers": 2, "num_heads": 3, "hidden_dim": 36,
    "intermediate_dim": 44, "max_sequence_length": 9,
}  # fmt: skip
IDS = [[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]]
MASK = [[1, 1, 1, 1, 1], [1, 1, 1, 0, 1]]
SWITCHES = {
    "activation_function": "relu", "scale_attn_by_inverse_layer_idx": True,
    "tie_word_embeddings": False,
}  # fmt: skip


def assembled(backbone, ids, mask):
    """Hidden states as a user of KerasHub computes them from the layers."""
    x = backbone.token_embedding(ids)
    x = x + backbone.position_embedding(x)
    for layer in backbone.transformer_layers:
        x = layer(x, decoder_padding_mask=mask)
    return backbone.layer_norm(x)


@pytest.mark.chromium_cases("dtype")
@pytest.mark.parametrize("dtype", ["float32", "float16", "q8"])
@pytest.mark.parametrize("switches", [{}, SWITCHES], ids=["GPT-2", "switches"])
def test_layers_put_together_are_the_model(device, no_leak, dtype, switches):
    backbone = gw.GPT2Backbone(**SIZES, dtype=dtype, initializer_range=0.3, **switches)
    lm = gw.GPT2CausalLM(backbone)
    with gw.tidy():
        inputs = {"token_ids": IDS, "padding_mask": MASK}
        hidden = assembled(backbone, IDS, MASK)
        expected = backbone(inputs)
        assert ops.max(ops.mul(hidden - expected, hidden - expected)).item() < 1e-10
        logits = backbone.token_embedding(hidden, reverse=True)
        difference = logits - lm(inputs)
        # W8A8 rounds activations, which a last bit can move to the next level.
        assert ops.max(ops.mul(difference, difference)).item() < (1e-2 if dtype == "q8" else 1e-8)
    lm.dispose()


def test_layers_decode_with_the_model_s_cache(device, no_leak):
    """Step by step, as the models' own ``call_with_cache``."""
    backbone = gw.GPT2Backbone(**SIZES, initializer_range=0.3)
    lm = gw.GPT2CausalLM(backbone)
    with gw.tidy():
        ours, theirs = backbone.new_cache(2, 5), backbone.new_cache(2, 5)
        for first, last in ((0, 3), (3, 4), (4, 5)):
            ids = [row[first:last] for row in IDS]
            x = backbone.token_embedding(ids)
            x = x + backbone.position_embedding(x, start_index=first)
            for i, layer in enumerate(backbone.transformer_layers):
                x, _ = layer(
                    x,
                    self_attention_cache=ours[:, i, ...],
                    self_attention_cache_update_index=first,
                )
            logits = backbone.token_embedding(backbone.layer_norm(x), reverse=True)
            expected, _, _ = lm.call_with_cache(ids, theirs, first)
            difference = logits[:, -1:] - expected[:, -1:]
            assert ops.max(ops.mul(difference, difference)).item() < 1e-8
    lm.dispose()


def test_layers_have_keras_hub_s_names_and_configurations(device, no_leak):
    backbone = gw.GPT2Backbone(**SIZES, layer_norm_epsilon=1e-3)
    names = [layer.name for layer in backbone.layers]
    assert names == [
        "token_embedding", "position_embedding", "transformer_layer_0", "transformer_layer_1",
        "layer_norm",
    ]  # fmt: skip
    config = backbone.get_layer("transformer_layer_1").get_config()
    expected = {"intermediate_dim": 44, "num_heads": 3, "layer_norm_epsilon": 1e-3}
    assert config.items() >= expected.items() and config["normalize_first"]
    with pytest.raises(InvalidArgumentError, match="no layer is called 'head'"):
        backbone.get_layer("head")
    with pytest.raises(InvalidArgumentError, match="shares the weights of a model"):
        backbone.layer_norm.set_weights([[1.0] * 36, [0.0] * 36])
    for layer in backbone.layers:
        layer.dispose()  # the model's weights stay
    with gw.tidy():
        own = gw.layers.TransformerDecoder.from_config(config)
        own.build((None, None, 36))
        layer = backbone.transformer_layers[1]
        own.set_weights(layer.get_weights())
        x = gw.tensor([[[0.1 * i for i in range(36)]] * 2])
        difference = own(x) - layer(x)
        assert ops.max(ops.mul(difference, difference)).item() == 0
        own.dispose()
    backbone.dispose()


@pytest.mark.native("PyTorch")
def test_weights_and_hidden_states_are_transformers_(small, small_lm, no_leak):
    import numpy as np
    import torch

    model = small[0]
    backbone = small_lm.backbone
    state = {name: value.numpy() for name, value in model.transformer.state_dict().items()}
    with gw.tidy():
        names = [f"{layer.name}/{name}" for layer in backbone.layers for name in layer.weight_names]
        found = dict(zip(names, map(np.asarray, backbone.get_weights()), strict=True))
        assert found["token_embedding/embeddings"].shape == (211, 48)
        queries, keys, values = np.split(state["h.1.attn.c_attn.weight"], 3, axis=1)
        for name, expected in {
            "token_embedding/embeddings": state["wte.weight"],
            "position_embedding/embeddings": state["wpe.weight"],
            "transformer_layer_1/self_attention/query/kernel": queries.reshape(48, 3, 16),
            "transformer_layer_1/self_attention/key/kernel": keys.reshape(48, 3, 16),
            "transformer_layer_1/self_attention/value/kernel": values.reshape(48, 3, 16),
            "transformer_layer_1/self_attention/attention_output/kernel": state[
                "h.1.attn.c_proj.weight"
            ].reshape(3, 16, 48),
            "transformer_layer_2/feedforward_output_dense/bias": state["h.2.mlp.c_proj.bias"],
            "layer_norm/gamma": state["ln_f.weight"],
        }.items():
            np.testing.assert_array_equal(found[name], expected)
    ids = np.array([[5, 7, 11, 13], [1, 2, 3, 210]])
    with torch.no_grad():
        theirs = model.transformer(torch.tensor(ids), output_hidden_states=True)
    with gw.tidy():
        x = backbone.token_embedding(ids)
        x = x + backbone.position_embedding(x)
        for i, layer in enumerate(backbone.transformer_layers):
            np.testing.assert_allclose(x.numpy(), theirs.hidden_states[i], atol=2e-4)
            x = layer(x)
        np.testing.assert_allclose(
            backbone.layer_norm(x).numpy(), theirs.last_hidden_state, atol=2e-4
        )
    predicted = backbone.predict({"token_ids": ids, "padding_mask": None}, batch_size=1)
    np.testing.assert_allclose(predicted, theirs.last_hidden_state, atol=2e-4)


@pytest.mark.native("NumPy")
def test_predict_gives_what_a_call_gives(tales, no_leak):
    import numpy as np

    inputs = {"token_ids": [[5, 7, 11], [1, 2, 3], [9, 9, 9]], "padding_mask": None}
    with gw.tidy():
        expected = tales(inputs).numpy()
        hidden = tales.backbone(inputs).numpy()
    for batch_size in (1, 2, 32):
        np.testing.assert_allclose(tales.predict(inputs, batch_size), expected, atol=1e-4)
        np.testing.assert_allclose(tales.backbone.predict(inputs, batch_size), hidden, atol=1e-4)
    texts = ["Once upon a time", "The king"]
    preprocessor = gw.GPT2CausalLMPreprocessor(tales.preprocessor.tokenizer, 8)
    lm = gw.GPT2CausalLM(tales.backbone, preprocessor)
    packed = preprocessor(texts)[0]
    with gw.tidy():
        expected = lm(packed).numpy()
    assert expected.shape[:2] == (2, 8)
    np.testing.assert_allclose(lm.predict(texts), expected, atol=1e-4)
    for wrong in ({"token_ids": []}, {}):
        with pytest.raises(InvalidArgumentError, match="of some rows"):
            lm.predict(wrong)
    with pytest.raises(InvalidArgumentError, match="batch_size"):
        lm.predict(inputs, 0)


def numbers_for(backbone, scale):
    """Values for all weights that differ everywhere."""
    shapes = [shape for layer in backbone.layers for shape in layer.weight_shapes.values()]
    return [
        ops.reshape(
            gw.tensor([math.sin(scale * i * i + n) / 4 for i in range(math.prod(shape))]), shape
        )
        for n, shape in enumerate(shapes)
    ]


@pytest.mark.parametrize("switches", [{}, SWITCHES], ids=["GPT-2", "switches"])
def test_weights_that_are_set_are_computed_with(device, no_leak, switches):
    """By the model, its layers and texts; steps that were recorded before are not used."""
    lm = gw.GPT2CausalLM(gw.GPT2Backbone(**SIZES, initializer_range=0.3, **switches))
    other = gw.GPT2Backbone(**SIZES, seed=5, **switches)
    lm.compile("greedy")
    with gw.tidy():
        packed = {"token_ids": [[3, 1, 4, 0, 0, 0]], "padding_mask": [[1, 1, 1, 0, 0, 0]]}

        def generated():
            found: Any = lm.generate(packed, stop_token_ids=None)
            return [[int(token) for token in row] for row in found["token_ids"]]

        before = generated()
        weights = numbers_for(lm.backbone, 0.7)
        lm.backbone.set_weights(weights)
        for found, given in zip(lm.backbone.get_weights(), weights, strict=True):
            assert found.tolist() == given.tolist()
        inputs = {"token_ids": IDS, "padding_mask": MASK}
        hidden = lm.backbone(inputs)
        other.set_weights([weight.tolist() for weight in weights])
        assert hidden.tolist() == other(inputs).tolist()
        assert ops.max(ops.mul(x := hidden - assembled(other, IDS, MASK), x)).item() < 1e-8
        after = generated()
        lm.compile("greedy")
        assert after == generated() != before
    lm.dispose()
    other.dispose()


@pytest.mark.native("NumPy")
def test_set_weights_survive_a_device_loss():
    from tests.models.test_device_loss import lose_device  # with NumPy, which a browser lacks

    with gw.Device() as device:
        backbone = gw.GPT2Backbone(**SIZES, device=device)
        with gw.tidy():
            backbone.set_weights(numbers_for(backbone, 0.2))
            before = backbone({"token_ids": IDS}).tolist()
            lose_device(device)
            assert backbone({"token_ids": IDS}).tolist() == before
        backbone.dispose()
        backbone.device.close()


def test_weights_of_another_shape_change_nothing(device, no_leak):
    backbone = gw.GPT2Backbone(**SIZES)
    with gw.tidy():
        weights = backbone.get_weights()
        before = backbone({"token_ids": IDS}).tolist()
        with pytest.raises(ShapeError, match="36 weights, not 35"):
            backbone.set_weights(weights[1:])
        with pytest.raises(ShapeError, match=r"position_embedding/embeddings has the shape"):
            backbone.set_weights([weights[0], weights[2], *weights[2:]])
        for wrong in (5, None, "weights"):
            with pytest.raises(InvalidArgumentError, match="must be a list of tensors or arrays"):
                backbone.set_weights(wrong)
        with pytest.raises(InvalidArgumentError, match="not float32"):
            backbone.set_weights([[None], *weights[1:]])
        assert backbone({"token_ids": IDS}).tolist() == before
    backbone.dispose()


def test_a_causal_lm_has_the_weights_of_its_backbone(device, no_leak):
    lm = gw.GPT2CausalLM(gw.GPT2Backbone(**SIZES))
    with gw.tidy():
        weights = numbers_for(lm.backbone, 0.4)
        lm.set_weights(weights)
        for found in (lm.get_weights(), lm.backbone.get_weights()):
            assert [each.tolist() for each in found] == [each.tolist() for each in weights]
    lm.dispose()


def test_a_summary_counts_all_parameters(device, no_leak):
    backbone = gw.GPT2Backbone(**SIZES)
    lm, lines = gw.GPT2CausalLM(backbone), []
    lm.summary(lines.append)
    backbone.summary(print_fn=lines.append)
    with gw.tidy():
        count = sum(weight.size for weight in backbone.get_weights())
    assert lm.count_params() == backbone.count_params() == count
    for text, name in zip(lines, ("gpt2_causal_lm", "gpt2_backbone"), strict=True):
        assert f"Model: {name}" in text and f"{count:,} parameters, float32" in text
        for layer in backbone.layers:
            assert f"{layer.name} " in text and f" {layer.count_params():,}" in text
    lm.dispose()


def test_a_preset_without_its_weights(device, no_leak):
    """Configuration and tokenizer are the preset's, weights those of the seed."""
    lm = gw.GPT2CausalLM.from_preset("fairytales", dtype="float32", load_weights=False)
    backbone = gw.GPT2Backbone.from_preset("fairytales", dtype="float32", load_weights=False)
    assert "4,096 tokens" in lm.backbone.described(lm.preprocessor)
    with gw.tidy():
        assert lm.backbone.get_weights()[1].tolist() == backbone.get_weights()[1].tolist()
        norm = lm.backbone.layer_norm.get_weights()[0].tolist()
        assert norm == [1.0] * lm.backbone.hidden_dim  # a trained one is not
    with pytest.raises(InvalidArgumentError, match="adapter belongs to the stored weights"):
        gw.GPT2CausalLM.from_preset("fairytales", adapter="x", load_weights=False)
    lm.dispose()
    backbone.dispose()


def test_weights_that_do_not_fit_change_nothing(device, no_leak, monkeypatch):
    """Neither the weights nor where they are read again after a device loss."""
    backbone = gw.GPT2Backbone(**SIZES)

    async def without_memory(device):
        raise OutOfGPUMemoryError("full")

    with gw.tidy():
        before = backbone({"token_ids": IDS}).tolist()
        with monkeypatch.context() as patch, pytest.raises(OutOfGPUMemoryError):
            patch.setattr(backbone, "load", without_memory)
            backbone.set_weights(numbers_for(backbone, 0.2))
        assert backbone({"token_ids": IDS}).tolist() == before
        dispose(backbone.weights)
        backbone.weights = sync(backbone.load(device), "load")
        assert backbone({"token_ids": IDS}).tolist() == before
    backbone.dispose()
