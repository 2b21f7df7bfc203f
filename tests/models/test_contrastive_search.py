"""Contrastive search of a model, against a loop over transformers' hidden states."""

from __future__ import annotations

import numpy as np
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import InvalidArgumentError, NumericalError, ShapeError
from gpt2_wgpu.models import search_step
from gpt2_wgpu.samplers import ContrastiveSampler
from gpt2_wgpu.webgpu.backends import flush_promises
from tests.gpu.references import softmax
from tests.memory.tiny import packed
from tests.models.checkpoints import without_gradients

pytestmark = [pytest.mark.usefixtures("no_leak"), pytest.mark.native("PyTorch")]

PROMPTS = [[11, 5, 100, 7], [3], [90, 8, 17, 60, 2, 2]]


@without_gradients
def reference(model, prompt, length, k, alpha, temperature=1.0, stops=(), process=None):
    """Ids, and the smallest lead of a chosen token's score."""
    import torch

    def last(rows):
        out = model(torch.tensor(rows), output_hidden_states=True)
        return out.logits[:, -1].numpy(), out.hidden_states[-1].numpy()

    ids, lead = list(prompt), np.inf
    while len(ids) < length:
        logits, _ = last([ids])
        allowed = logits[0] if process is None else process(ids, logits[0])
        probabilities = softmax(allowed.astype(float) / temperature)
        best = [token for token in np.argsort(-probabilities)[:k] if allowed[token] > -np.inf]
        _, hidden = last([[*ids, token] for token in best])
        unit = hidden / np.linalg.norm(hidden, axis=-1, keepdims=True)
        closest = np.einsum("rd,rtd->rt", unit[:, -1], unit[:, :-1]).max(axis=1)
        scores = (1 - alpha) * probabilities[best] - alpha * closest
        if len(best) > 1:
            lead = min(lead, np.diff(np.sort(scores))[-1])
        ids.append(int(best[scores.argmax()]))
        if ids[-1] in stops:
            break
    return ids, lead


def generated(lm, prompts, length, stops=()):
    """Rows of ids up to the end."""
    out = lm.generate(packed(prompts, length), stop_token_ids=list(stops))
    rows = zip(out["token_ids"], out["padding_mask"], strict=True)
    return [ids[mask].tolist() for ids, mask in rows]


@pytest.mark.parametrize(
    ("k", "alpha", "temperature", "stops"),
    [(5, 0.6, 1.0, ()), (3, 0.3, 0.7, range(60)), (2, 1.0, 2.0, ()), (1, 0.5, 1.0, ())],
)
def test_ids_equal_the_reference(small, small_lm, k, alpha, temperature, stops):
    small_lm.compile(ContrastiveSampler(k, alpha, temperature=temperature))
    found = generated(small_lm, PROMPTS, 20, stops)
    for prompt, row in zip(PROMPTS, found, strict=True):
        expected, lead = reference(small[0], prompt, 20, k, alpha, temperature, stops)
        assert lead > 1e-5, lead
        assert row == expected
        assert generated(small_lm, [prompt], 20, stops) == [row]


def test_text_and_streams(tales):
    tales.compile("contrastive")
    text = tales.generate("The king", max_new_tokens=12)
    assert text.startswith("The king")
    with tales.stream("The king", max_new_tokens=12) as stream:
        assert "The king" + "".join(stream) == text
    tales.compile("greedy")
    assert tales.generate("The king", max_new_tokens=12) != text


def test_a_full_prompt_and_too_few_tokens(small_lm):
    small_lm.compile(ContrastiveSampler(2))
    assert generated(small_lm, [[1, 2, 3]], 3) == [[1, 2, 3]]
    tiny = gw.GPT2CausalLM(gw.GPT2Backbone(4, 1, 1, 8, 8, max_sequence_length=8, seed=1))
    tiny.compile(ContrastiveSampler(5))
    with pytest.raises(InvalidArgumentError, match="k 5 exceeds"):
        generated(tiny, [[1, 2]], 5)
    tiny.dispose()


def test_replaced_methods_are_called(small_lm, monkeypatch):
    small_lm.compile(ContrastiveSampler(3))
    expected = generated(small_lm, PROMPTS, 12)
    built, called = small_lm.build_cache, small_lm.call_with_cache
    calls: list[object] = []

    kept: list[gw.Tensor] = []

    def build_cache(token_ids):
        calls.append("build")
        hidden, cache = built(token_ids)
        kept.append(gw.keep(hidden))
        return hidden, cache

    def call_with_cache(token_ids, cache, cache_update_index):
        found = called(token_ids, cache, cache_update_index)
        calls.append(found[0].numpy().shape)  # reading: the step runs eagerly
        return found

    monkeypatch.setattr(small_lm, "build_cache", build_cache)
    assert generated(small_lm, PROMPTS, 12) == expected
    monkeypatch.setattr(small_lm, "call_with_cache", call_with_cache)
    assert generated(small_lm, PROMPTS, 12) == expected
    assert not any(hidden.disposed for hidden in kept)
    gw.dispose(kept)
    assert calls[0] == "build"
    assert calls[-1] == (9, 1, 211)


def test_logits_that_are_not_finite_raise(small_lm, monkeypatch):
    small_lm.compile(ContrastiveSampler(2))
    original = small_lm.call_with_cache

    def broken(token_ids, cache, cache_update_index):
        logits, hidden, cache = original(token_ids, cache, cache_update_index)
        return logits * float("nan"), hidden, cache

    monkeypatch.setattr(small_lm, "call_with_cache", broken)
    with pytest.raises(NumericalError, match="not finite"):
        generated(small_lm, PROMPTS, 10)


def test_results_of_a_replaced_call_with_cache(small_lm, monkeypatch):
    """An array as logits is taken; missing hidden states and another cache are errors."""
    small_lm.compile(ContrastiveSampler(3))
    expected = generated(small_lm, PROMPTS, 12)
    original = small_lm.call_with_cache
    monkeypatch.setattr(
        small_lm, "call_with_cache",
        lambda *args: (lambda logits, *others: (logits.numpy(), *others))(*original(*args)),
    )  # fmt: skip
    assert generated(small_lm, PROMPTS, 12) == expected
    monkeypatch.setattr(
        small_lm, "call_with_cache", lambda *args: (original(*args)[0], None, args[1])
    )
    with pytest.raises(ShapeError, match=r"needs hidden states .*, not None"):
        generated(small_lm, PROMPTS, 12)
    monkeypatch.setattr(small_lm, "call_with_cache", lambda *args: (*original(*args)[:2], None))
    with pytest.raises(ShapeError, match="the cache that it was given"):
        generated(small_lm, PROMPTS, 12)


def test_a_lost_device_is_replaced(small, monkeypatch):
    lost = gw.Device()
    with gw.GPT2CausalLM.from_preset(small[1], None, "float32", lost) as lm:
        lm.compile(ContrastiveSampler(3))
        expected = generated(lm, PROMPTS, 14)
        run, steps = search_step.SearchStep.run, []

        async def losing(self, *args):
            steps.append(0)
            if len(steps) == 4:
                self.device.gpu.destroy()
                flush_promises(self.device.gpu)
            return await run(self, *args)

        monkeypatch.setattr(search_step.SearchStep, "run", losing)
        assert generated(lm, PROMPTS, 14) == expected
        assert lm.device is not lost
        assert gw.memory(lost).num_tensors == 0
    lm.device.close()
    lost.close()
