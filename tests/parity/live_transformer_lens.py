"""Hook points, patching and attributions against TransformerLens itself, in `make parity`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import gpt2_wgpu as gw
from tests.parity import cases

TOKENS = np.array(cases.TARGETS)


def bridge_of_the_model() -> Any:
    import torch
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import AutoTokenizer, GPT2LMHeadModel

    torch.set_grad_enabled(False)
    model = GPT2LMHeadModel.from_pretrained(cases.MODEL, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(cases.MODEL)
    bridge = TransformerBridge.boot_transformers(
        str(cases.MODEL), hf_model=model, tokenizer=tokenizer
    )
    bridge.set_use_attn_result(True)
    return bridge


def ids(values: Any = cases.IDS) -> Any:
    """Ids as TransformerLens takes them."""
    import torch

    return torch.tensor(values)


@pytest.fixture(scope="module")
def bridge() -> Any:
    """The embedded model in TransformerLens, as it is."""
    return bridge_of_the_model()


@pytest.fixture(scope="module")
def theirs(bridge: Any) -> Any:
    """Its activations."""
    return bridge.run_with_cache(ids())[1]


@pytest.fixture
def ours(lm: gw.GPT2CausalLM) -> Iterator[gw.ActivationCache]:
    """Our activations."""
    with gw.tidy():
        yield lm.run_with_cache(cases.IDS, "*")[1]


def assert_close(found: Any, expected: Any, atol: float = 1e-4) -> None:
    np.testing.assert_allclose(found, expected, atol=atol)


def test_every_point_equals_theirs(ours: gw.ActivationCache, theirs: Any) -> None:
    for name, found in ours.numpy().items():
        expected = theirs[name].numpy()
        if name.endswith("attn_scores"):
            future = ~np.tri(found.shape[-1], dtype=bool)
            found, expected = (np.where(future, 0, each) for each in (found, expected))
        np.testing.assert_allclose(found, expected, atol=1e-4, err_msg=name)


@pytest.mark.parametrize(
    "arguments",
    [{}, {"layer": 2}, {"layer": 1, "mlp_input": True}, {"mode": "attn", "incl_embeds": False}],
    ids=str,
)
@pytest.mark.parametrize("apply_ln", [False, True], ids=["plain", "scaled"])
def test_decompositions_equal_theirs(
    ours: gw.ActivationCache, theirs: Any, arguments: dict[str, Any], apply_ln: bool
) -> None:
    given: dict[str, Any] = {"apply_ln": apply_ln, "return_labels": True}
    expected, labels = theirs.decompose_resid(**arguments, **given)
    found: Any = ours.decompose_resid(**arguments, **given)
    assert found[1] == labels
    assert_close(found[0].numpy(), expected.numpy())
    if "mode" not in arguments:
        expected, labels = theirs.accumulated_resid(**arguments, incl_mid=True, **given)
        found = ours.accumulated_resid(**arguments, incl_mid=True, **given)
        assert found[1] == labels
        assert_close(found[0].numpy(), expected.numpy(), 2e-4)
    if "mode" not in arguments and "mlp_input" not in arguments:
        expected, labels = theirs.stack_head_results(**arguments, incl_remainder=True, **given)
        found = ours.stack_head_results(**arguments, incl_remainder=True, **given)
        assert found[1] == labels
        assert_close(found[0].numpy(), expected.numpy())


def test_attributions_equal_theirs_with_folded_norms(ours: gw.ActivationCache) -> None:
    bridge = bridge_of_the_model()
    bridge.enable_compatibility_mode(
        fold_ln=True, center_writing_weights=False, center_unembed=False, fold_value_biases=False
    )
    _, theirs = bridge.run_with_cache(ids())
    for given in ((TOKENS,), (TOKENS, np.roll(TOKENS, 1, 1))):
        expected = theirs.logit_attrs(theirs.decompose_resid(), *map(ids, given))
        found = ours.logit_attrs(_stack(ours.decompose_resid()), *given)
        assert_close(found.numpy(), expected.numpy(), 1e-3)


def _stack(found: Any) -> gw.Tensor:
    assert isinstance(found, gw.Tensor)
    return found


@pytest.mark.parametrize(
    ("point", "place"),
    [
        ("blocks.1.hook_resid_pre", (slice(None), 5)),
        ("blocks.2.attn.hook_z", (slice(None), slice(None), 1)),
        ("blocks.0.attn.hook_v", (slice(None), 3, 0)),
        ("blocks.3.attn.hook_pattern", (slice(None), 2)),
        ("blocks.1.mlp.hook_post", (slice(None), 7)),
        ("blocks.2.ln2.hook_normalized", (slice(None), 15)),
        ("blocks.2.attn.hook_q", (slice(None), 15, 2)),
    ],
    ids=str,
)
def test_patching_changes_the_logits_as_theirs(
    lm: gw.GPT2CausalLM, bridge: Any, theirs: Any, point: str, place: Any
) -> None:
    """One position or head of the other row's activation, in place of a row's own."""

    def patched(tensor: Any, hook: Any) -> Any:
        tensor = tensor.clone()
        tensor[place] = tensor.flip(0)[place]
        return tensor

    chosen = np.zeros(theirs[point].shape, np.float32)
    chosen[place] = 1

    def patch(tensor: gw.Tensor, name: str) -> gw.Tensor:
        other = gw.ops.concat([tensor[1:], tensor[:1]])
        mask = gw.tensor(chosen)
        return gw.ops.add(gw.ops.mul(other, mask), gw.ops.mul(tensor, gw.ops.sub(1.0, mask)))

    expected = bridge.run_with_hooks(ids(), fwd_hooks=[(point, patched)])
    plain = bridge(ids())
    with gw.tidy():
        found = lm.run_with_hooks(cases.IDS, [(point, patch)]).numpy()
    assert np.abs(expected.numpy() - plain.numpy()).max() > 1e-2
    assert_close(found, expected.numpy(), 1e-3)
