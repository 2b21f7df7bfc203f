"""KerasHub's sampler call of beam and contrastive search, with a function as the model."""

from __future__ import annotations

import math

import numpy as np
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu import samplers
from gpt2_wgpu.errors import InvalidArgumentError

pytestmark = [pytest.mark.usefixtures("device"), pytest.mark.native("NumPy")]


def forced(prompt, cache, index):
    """Logits that leave no choice but ``cache[:, index]``."""
    rows = np.asarray(cache.tolist())[:, index]
    return gw.tensor(np.eye(26, dtype=np.float32)[rows] * 1e9), None, cache


def test_beam_search_moves_the_cache_with_its_beams():
    text = [[18, 4, 16, 20, 4, 13], [13, 4, 23, 19, 13, 4]]
    with gw.tidy("test"):
        cache = gw.tensor(text, "int32")
        sampler = samplers.BeamSampler(2)
        found = sampler(forced, np.zeros((2, 6), np.int32), cache)
        assert found.tolist() == text
        mask = [[False] * 6, [place == 2 for place in range(6)]]
        found = sampler(forced, np.full((2, 6), 25), cache, 1, mask, [20, 19])
        assert found.tolist() == [[25, 4, 16, 20, 25, 25], [25, 4, 25, 19, 25, 25]]


def test_beam_search_finds_the_best_text_where_greedy_search_does_not():
    # A token's probabilities depend on the token before it: greedy takes 0, then has 0.4 at most.
    table = np.log([[0.4, 0.3, 0.3], [0.0005, 0.999, 0.0005], [0.3, 0.3, 0.4], [0.5, 0.4, 0.1]])

    def following(prompt, cache, index):
        return gw.tensor(table[np.asarray(prompt)[:, index - 1]], "float32"), None, cache

    prompt = np.array([[3, 0, 0, 0]])
    with gw.tidy("test"):
        sampler = samplers.BeamSampler(2, return_all_beams=True, length_penalty=0)
        tokens, scores = sampler(following, prompt, index=1)
        assert tokens.shape == (1, 2, 4)
        assert tokens.tolist()[0][0] == [3, 1, 1, 1]
        assert scores.tolist()[0][0] == pytest.approx(math.log(0.4 * 0.999**2), abs=1e-5)
        assert samplers.Greedy()(following, prompt, index=1).tolist() == [[3, 0, 0, 0]]
        certain = samplers.BeamSampler(5, return_all_beams=True)  # four beams of probability 0
        tokens, scores = certain(forced, np.zeros((1, 2), np.int32), gw.tensor([[7, 8]], "int32"))
        assert tokens.shape == (1, 5, 2)
        assert tokens.tolist()[0][0] == [7, 8]
        assert scores.shape == (1, 5)


def test_contrastive_search_avoids_tokens_whose_hidden_state_is_in_the_text():
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
