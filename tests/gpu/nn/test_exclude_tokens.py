"""The kernels exclude_tokens and bias_sequences against Python: flags, biases, and the text."""

from __future__ import annotations

import numpy as np
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.nn import (
    History,
    SamplingOptions,
    SamplingState,
    TokenRules,
    bias_sequences,
    exclude_tokens,
)
from gpt2_wgpu.nn.sampling import CHUNK

pytestmark = [pytest.mark.usefixtures("no_leak", "guarded"), pytest.mark.native("NumPy")]

BANNED, FORCED = 1 << 29, 1 << 28


def excluded(text, prompt, limit, rules, stops, candidates):
    """The tokens that the kernel's header names."""
    if rules.forced_eos_token_id and len(text) + 1 == limit:
        return {*range(candidates)} - {*rules.forced_eos_token_id}
    bos = rules.forced_bos_token_id
    if bos and len(text) == 1:
        return {*range(candidates)} - {*bos}
    found = set()
    if len(text) < rules.min_length or len(text) - prompt < rules.min_new_tokens:
        found |= {*stops}
    if len(text) == prompt + bool(bos and prompt == 1):
        found |= {*rules.begin_suppress_tokens}
    size = rules.no_repeat_ngram_size
    grams = [tuple(text[i : i + size]) for i in range(len(text) - size + 1)] if size else []
    words = [word for word in rules.bad_words_ids if 1 < len(word) <= len(text)]
    for sequence in (*grams, *words):
        if tuple(text[len(text) - len(sequence) + 1 :]) == sequence[:-1]:
            found.add(sequence[-1])
    return found


def is_forced(text, limit, rules):
    last = rules.forced_eos_token_id and len(text) + 1 == limit
    return bool(last or (rules.forced_bos_token_id and len(text) == 1))


@pytest.mark.parametrize("candidates", [1, 31, 256, 257, 700])
@pytest.mark.parametrize(
    "rules",
    [
        TokenRules(no_repeat_ngram_size=1),
        TokenRules(no_repeat_ngram_size=3, min_length=6),
        TokenRules(no_repeat_ngram_size=500, begin_suppress_tokens=(0,)),
        TokenRules(forced_eos_token_id=(0,), min_new_tokens=2),
        TokenRules(bad_words_ids=((0, 0), (0,) * 9, (0,))),
        TokenRules(forced_bos_token_id=(0,), begin_suppress_tokens=(0,)),
        TokenRules(sequence_bias=(((0, 0), 1.5),), bad_words_ids=((0, 0),), min_length=2),
    ],
    ids=lambda rules: str(rules.words([])),
)
def test_flags_equal_python(device, rules, candidates):
    chance = np.random.default_rng(candidates)
    lengths, prompts, limits = (1, 1, 2, 5, 6, 400), [1, 1, 1, 5, 4, 390], [2, 5, 9, 9, 7, 401]
    texts = [chance.integers(0, min(candidates, 3), length).tolist() for length in lengths]
    rows = [History(text, prompt) for text, prompt in zip(texts, prompts, strict=True)]
    options = SamplingOptions(temperature=0, rules=rules)
    with gw.tidy():
        state = SamplingState.create(device, rows, limits, options, [0], candidates, length=403)
        for text in texts:
            text[-1] = candidates - 1  # the newest token is added by the kernel
        newest = np.array([text[-1] for text in texts], np.uint32)
        device.queue.upload(state.token.storage, 0, newest)
        exclude_tokens(state)
        flags = state.maxima_and_counts.numpy()[:, -(-candidates // CHUNK) :] & (BANNED | FORCED)
        exclude_tokens(state)  # flags are replaced
        again = state.maxima_and_counts.numpy()[:, -(-candidates // CHUNK) :] & (BANNED | FORCED)
        written = state.texts.numpy()
    for row, text in enumerate(texts):
        wanted = excluded(text, prompts[row], limits[row], rules, [0], candidates)
        assert {*np.nonzero(flags[row] & BANNED)[0].tolist()} == wanted
        forced = {*range(candidates)} - wanted if is_forced(text, limits[row], rules) else set()
        assert {*np.nonzero(flags[row] & FORCED)[0].tolist()} == forced
        assert written[row, : len(text) + 1].tolist() == [prompts[row], *text]
    np.testing.assert_array_equal(again, flags)


def biases(text, sequences, candidates):
    """What the header of bias_sequences says, for all tokens."""
    found = np.zeros(candidates, np.float32)
    for sequence, bias in sequences:
        others = len(sequence) - 1
        if others <= len(text) and tuple(text[len(text) - others :]) == sequence[:-1]:
            found[sequence[-1]] += np.float32(bias)
    return found


@pytest.mark.parametrize("candidates", [1, 65, 257, 700])
def test_biases_equal_python(device, candidates):
    chance = np.random.default_rng(candidates)
    texts = [chance.integers(0, min(candidates, 2), length).tolist() for length in (1, 2, 9, 400)]
    tails = [chance.integers(0, min(candidates, 2), n).tolist() for n in (1, 1, 2, 3, 9, 450)]
    ends = (0, candidates - 1)
    sequences = {(*tail, end): len(tail) + end / 8 for tail in tails for end in ends}
    sequences |= {(token,): -token / 4 - 1 for token in range(0, candidates, 3)}
    sequences |= {(0, token): token / 2 for token in range(candidates)}  # more than threads
    rules = TokenRules(sequence_bias=tuple(sequences.items()))
    rows = [History(text, len(text)) for text in texts]
    options = SamplingOptions(temperature=0, rules=rules)
    with gw.tidy():
        state = SamplingState.create(device, rows, [401] * 4, options, [0], candidates, length=403)
        for text in (texts, [[*text[:-1], 0] for text in texts]):  # biases are replaced
            newest = np.array([row[-1] for row in text], np.uint32)
            device.queue.upload(state.token.storage, 0, newest)
            exclude_tokens(state)
            bias_sequences(state)
            expected = [biases(row, sequences.items(), candidates) for row in text]
            np.testing.assert_allclose(state.bias.numpy(), expected, rtol=1e-6)
