"""The kernel exclude_tokens against Python: flags of tokens, and the text."""

from __future__ import annotations

import numpy as np
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.nn import History, SamplingOptions, SamplingState, TokenRules, exclude_tokens
from gpt2_wgpu.nn.sampling import CHUNK

pytestmark = [pytest.mark.usefixtures("no_leak", "guarded"), pytest.mark.native("NumPy")]

BANNED = 1 << 29


def excluded(text, prompt, limit, rules, stops, candidates):
    """The tokens that the kernel's header names."""
    if rules.forced_eos_token_id and len(text) + 1 == limit:
        return {*range(candidates)} - {*rules.forced_eos_token_id}
    found = set()
    if len(text) < rules.min_length or len(text) - prompt < rules.min_new_tokens:
        found |= {*stops}
    if len(text) == prompt:
        found |= {*rules.begin_suppress_tokens}
    size = rules.no_repeat_ngram_size
    grams = [tuple(text[i : i + size]) for i in range(len(text) - size + 1)] if size else []
    words = [word for word in rules.bad_words_ids if 1 < len(word) <= len(text)]
    for sequence in (*grams, *words):
        if tuple(text[len(text) - len(sequence) + 1 :]) == sequence[:-1]:
            found.add(sequence[-1])
    return found


@pytest.mark.parametrize("candidates", [1, 31, 256, 257, 700])
@pytest.mark.parametrize(
    "rules",
    [
        TokenRules(no_repeat_ngram_size=1),
        TokenRules(no_repeat_ngram_size=3, min_length=6),
        TokenRules(no_repeat_ngram_size=500, begin_suppress_tokens=(0,)),
        TokenRules(forced_eos_token_id=(0,), min_new_tokens=2),
        TokenRules(bad_words_ids=((0, 0), (0,) * 9, (0,))),
    ],
    ids=lambda rules: str(rules.words([])),
)
def test_flags_equal_python(device, rules, candidates):
    chance = np.random.default_rng(candidates)
    texts = [chance.integers(0, min(candidates, 3), length).tolist() for length in (1, 5, 6, 400)]
    prompts, limits = [1, 5, 4, 390], [2, 9, 7, 401]
    rows = [History(text, prompt) for text, prompt in zip(texts, prompts, strict=True)]
    options = SamplingOptions(temperature=0, rules=rules)
    with gw.tidy():
        state = SamplingState.create(device, rows, limits, options, [0], candidates, length=403)
        for text in texts:
            text[-1] = candidates - 1  # the newest token is added by the kernel
        newest = np.array([text[-1] for text in texts], np.uint32)
        device.queue.upload(state.token.storage, 0, newest)
        exclude_tokens(state)
        flags = state.maxima_and_counts.numpy()[:, -(-candidates // CHUNK) :] & BANNED
        exclude_tokens(state)  # flags are replaced
        again = state.maxima_and_counts.numpy()[:, -(-candidates // CHUNK) :] & BANNED
        written = state.texts.numpy()
    for row, text in enumerate(texts):
        wanted = excluded(text, prompts[row], limits[row], rules, [0], candidates)
        assert {*np.nonzero(flags[row])[0].tolist()} == wanted
        assert written[row, : len(text) + 1].tolist() == [prompts[row], *text]
    np.testing.assert_array_equal(again, flags)
