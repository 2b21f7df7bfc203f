"""Contrastive search as a sampler: arguments and KerasHub's call."""

from __future__ import annotations

import numpy as np
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu import samplers
from gpt2_wgpu.errors import InvalidArgumentError


def test_config_round_trip_and_defaults():
    sampler = samplers.ContrastiveSampler(3, 0.2, temperature=0.5)
    assert samplers.get(samplers.serialize(sampler)).get_config() == sampler.get_config()
    assert type(samplers.get("contrastive")) is samplers.ContrastiveSampler
    defaults = samplers.Contrastive().get_config()
    assert defaults == {"k": 5, "alpha": 0.6, "temperature": 1.0}


@pytest.mark.parametrize("wrong", [{"k": 0}, {"k": 33}, {"alpha": 1.1}, {"temperature": 0}])
def test_wrong_arguments(wrong):
    with pytest.raises(InvalidArgumentError):
        samplers.ContrastiveSampler(**wrong)


@pytest.mark.native("NumPy")
@pytest.mark.usefixtures("device")
def test_a_call_avoids_tokens_whose_hidden_state_is_in_the_text():
    # Each token's hidden state is its own axis; tokens 0, 1, 2 have falling probabilities.
    table = np.log([0.5, 0.3, 0.15, 0.05])
    seen = []

    def following(prompt, cache, index):
        rows = np.asarray(prompt)
        seen.append((len(rows), cache.tolist()))
        logits = gw.tensor(np.tile(table, (len(rows), 1)), "float32")
        return logits, gw.tensor(np.eye(4, dtype=np.float32)[rows[:, index - 1]]), cache

    prompt = np.array([[3, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
    with gw.tidy("test"):
        cache = gw.tensor([[7], [8]], "int32")
        hidden = gw.tensor(np.eye(4, dtype=np.float32)[prompt])
        sampler = samplers.ContrastiveSampler(3, 0.5)
        mask = [[False] * 5, [False, False, False, True, False]]
        found = sampler(following, prompt, cache, 1, mask, hidden_states=hidden)
        assert found.tolist() == [[3, 0, 1, 2, 0], [0, 1, 2, 0, 0]]
        assert seen[0] == (2, [[7], [8]])
        assert seen[1] == (6, [[7]] * 3 + [[8]] * 3)
        stopped = sampler(following, prompt, cache, 1, None, [1], hidden_states=hidden)
        assert stopped.tolist() == [[3, 0, 1, 0, 0], [0, 1, 2, 0, 0]]
        with pytest.raises(InvalidArgumentError, match="hidden_states"):
            sampler(following, prompt, cache, 1)
