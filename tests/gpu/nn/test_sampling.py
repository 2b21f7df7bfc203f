"""Sampling kernel against NumPy: kept tokens, drawn tokens, advance of rows."""

from __future__ import annotations

import numpy as np
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import ShapeError
from gpt2_wgpu.nn import (
    ALL_EXCLUDED,
    FULL,
    LIVE,
    NOT_FINITE,
    RECENT,
    STOPPED,
    History,
    Norm,
    Penalties,
    SamplingOptions,
    SamplingState,
    fold_norm,
    project_logits,
    sample,
)
from gpt2_wgpu.nn.sampling import CHUNK, OF_PROMPT
from tests.gpu import references
from tests.gpu.matrices import free, matrix_of
from tests.gpu.nn.test_load_weight import pcg4d

ONE = 2**30


def kept_tokens(logits, options):
    """Ids that may be drawn, and the integer mass of every id."""
    logits = np.asarray(logits, np.float64)
    masses = np.rint(ONE * references.softmax(logits / options.temperature)).astype(np.int64)
    order = np.argsort(-logits, kind="stable")
    if options.top_k:
        order = order[: options.top_k]
    before = np.cumsum(masses[order]) - masses[order]
    if options.top_p < 1:
        order = order[before <= options.top_p * ONE]
    scaled = logits / options.temperature
    if options.min_p:
        order = order[scaled[order] >= scaled.max() + np.log(options.min_p)]
    if options.typical_p < 1:
        log_p = scaled[order] - np.logaddexp.reduce(scaled[order])
        deviations = np.abs((np.exp(log_p) * log_p).sum() - log_p)
        by_deviation = np.argsort(deviations, kind="stable")
        count = (np.exp(log_p)[by_deviation].cumsum() < options.typical_p).sum()
        bound = deviations[by_deviation[min(count, len(order) - 1)]]
        order = order[deviations <= bound + 1e-9]
    return np.sort(order), masses


def expected_token(logits, options, row, position):
    """The draw as the kernel's header describes it."""
    kept, masses = kept_tokens(logits, options)
    key = [options.seed & 0xFFFFFFFF, options.seed >> 32, row, position]
    random = int(pcg4d(np.array([key], np.uint32))[0, 0])
    running = np.cumsum(masses[kept])
    goal = random * int(running[-1]) >> 32
    return int(kept[np.searchsorted(running, goal, side="right")]), goal, running


def state_of(device, rows, options, candidates, stops=(), position=3, limit=100, seeds=None):
    history = History([1] * (position + 1), position + 1)
    return SamplingState.create(
        device, [history] * rows, [limit] * rows, options, stops, candidates, seeds
    )


def ranks(values):
    """Floats as words in the same order, as rank.wgsl has it."""
    bits = (np.asarray(values, np.float32) + 0.0).view(np.uint32)
    ordered = np.where(bits >> 31, ~bits, bits | 0x80000000).astype(np.uint32)
    return np.where(np.isfinite(values), ordered, 0xFFFFFFFF).astype(np.uint32)


def largest_of(values, candidates):
    """The largest rank of each 256 of the first ``candidates``, as a head leaves them."""
    counted = ranks(values)[:, :candidates]
    return np.maximum.reduceat(counted, np.arange(0, candidates, CHUNK), axis=1)


def choose(values, state):
    """``sample`` of any logits, with what a head would have noted of them."""
    noted = state.maxima_and_counts.numpy()
    chunks = -(-state.candidates // CHUNK)
    noted[:, :chunks] = largest_of(values, state.candidates)
    state.maxima_and_counts.device.queue.upload(state.maxima_and_counts.storage, 0, noted)
    sample(gw.tensor(values), state)


def sampled(device, logits, options, **kwargs):
    with gw.tidy():
        state = state_of(device, len(logits), options, logits.shape[1], **kwargs)
        choose(logits, state)
        return {
            name: getattr(state, name).numpy()
            for name in ("token", "position", "finished", "recent")
        }


@pytest.fixture(params=[32, 256])
def threads(request, monkeypatch, capabilities):
    """Both workgroup sizes, independent of the choice; the larger one as on a GPU."""
    monkeypatch.setattr("gpt2_wgpu.nn.sampling.threads_per_row", lambda *_: request.param)
    capabilities(prefers_no_barriers=request.param == 32)


pytestmark = [pytest.mark.usefixtures("threads", "no_leak"), pytest.mark.native("NumPy")]

SIZES = [1, 2, 31, 32, 33, 255, 257, 1000, 50257]


@pytest.mark.parametrize("vocabulary", SIZES)
def test_greedy_takes_the_first_of_the_largest(device, vocabulary):
    logits = references.random(3, vocabulary)
    logits[1] = np.round(logits[1])  # many equals
    logits[2] = -1e30
    found = sampled(device, logits, SamplingOptions(temperature=0))
    np.testing.assert_array_equal(found["token"][:, 0], logits.argmax(-1))


@pytest.mark.parametrize("vocabulary", SIZES)
@pytest.mark.parametrize(
    "options",
    [
        SamplingOptions(seed=1),
        SamplingOptions(temperature=0.3, seed=2**40 + 5),
        SamplingOptions(top_k=1, seed=3),
        SamplingOptions(top_k=5, seed=4),
        SamplingOptions(top_k=10**6, seed=5),
        SamplingOptions(top_p=0.1, seed=6),
        SamplingOptions(top_p=0.9, temperature=2, seed=7),
        SamplingOptions(top_k=40, top_p=0.5, seed=2**64 - 1),
        SamplingOptions(min_p=0.1, seed=8),
        SamplingOptions(min_p=1.0, seed=9),
        SamplingOptions(typical_p=0.2, seed=10),
        SamplingOptions(typical_p=0.9, temperature=2, seed=11),
        SamplingOptions(top_k=20, min_p=0.05, temperature=1.5, seed=12),
        SamplingOptions(top_k=300, top_p=0.95, min_p=0.01, typical_p=0.5, seed=13),
    ],
    ids=lambda o: f"t{o.temperature}k{o.top_k}p{o.top_p}m{o.min_p}y{o.typical_p}",
)
def test_draws_equal_numpy(device, vocabulary, options):
    logits = references.random(4, vocabulary, scale=3)
    found = sampled(device, logits, options, position=9)["token"][:, 0]
    for row, token in enumerate(found):
        expected, goal, running = expected_token(logits[row], options, row, 9)
        # A draw on the border between two tokens may fall to either: masses differ by rounding.
        near_border = np.abs(running - goal).min() < 64 + running[-1] * 1e-6
        assert token == expected or near_border, (row, token, expected)


def test_a_row_with_a_seed_of_its_own_draws_as_it_would_alone(device):
    logits = np.repeat(references.random(1, 500), 4, axis=0)
    seeds = [7, 2**40 + 1, 2**64 - 1, 7]
    found = sampled(device, logits, SamplingOptions(top_k=50, seed=9), seeds=seeds)["token"][:, 0]
    for token, seed in zip(found, seeds, strict=True):
        options = SamplingOptions(top_k=50, seed=seed)
        assert sampled(device, logits[:1], options)["token"][0, 0] == token
    assert len({*found.tolist()}) == 3


@pytest.mark.parametrize("k", [1, 2, 7, 39, 40])
def test_top_k_keeps_exactly_k_of_equals_in_index_order(device, k):
    seeds = range(150 + 5 * k)
    logits = np.zeros((len(seeds), 40), np.float32)
    found = sampled(device, logits, SamplingOptions(top_k=k, seed=9), seeds=seeds)
    seen = {*found["token"][:, 0].tolist()}
    assert seen <= set(range(k))
    assert len(seen) >= 0.9 * k


def test_top_p_always_keeps_one_and_stops_after_the_mass(device):
    seeds = range(120)
    logits = np.log(np.array([[0.5, 0.3, 0.15, 0.05]] * len(seeds), np.float32))
    for p, allowed in [(1e-9, {0}), (0.49, {0}), (0.51, {0, 1}), (0.81, {0, 1, 2})]:
        found = sampled(device, logits, SamplingOptions(top_p=p, seed=9), seeds=seeds)
        assert {*found["token"][:, 0].tolist()} == allowed


def test_frequencies_follow_the_distribution(device):
    probabilities = np.array([0.4, 0.3, 0.2, 0.1], np.float32)
    rows = 4000
    logits = np.tile(np.log(probabilities), (rows, 1)).astype(np.float32)
    found = sampled(device, logits, SamplingOptions(seed=11))["token"][:, 0]
    counts = np.bincount(found, minlength=4) / rows
    np.testing.assert_allclose(counts, probabilities, atol=4 * np.sqrt(0.25 / rows))


def test_rows_move_on_and_the_ring_remembers(device):
    options = SamplingOptions(temperature=0)
    with gw.tidy():
        state = state_of(device, 2, options, 50, position=14)
        for step in range(4):
            logits = np.zeros((2, 50), np.float32)
            logits[0, 10 + step] = logits[1, 20 + step] = 1
            choose(logits, state)
        assert state.position.numpy().tolist() == [18, 18]
        assert state.token.numpy().tolist() == [[13], [23]]
        recent = state.recent.numpy()
    for row, first in enumerate((10, 20)):
        assert [recent[row, place % RECENT] for place in range(15, 19)] == [
            first, first + 1, first + 2, first + 3,
        ]  # fmt: skip


def test_stop_tokens_and_full_rows_end_and_stay(device):
    logits = np.zeros((3, 9), np.float32)
    logits[[0, 1, 2], [4, 5, 6]] = 1
    options = SamplingOptions(temperature=0)
    with gw.tidy():
        rows = [History([1] * 3, 3)] * 3
        state = SamplingState.create(device, rows, [9, 9, 4], options, [7, 5, 8], 9)
        for _ in range(2):
            choose(logits, state)
        assert state.finished.numpy().tolist() == [LIVE, STOPPED, FULL]
        assert state.position.numpy().tolist() == [4, 3, 3]
        assert state.token.numpy()[:, 0].tolist() == [4, 5, 6]


def test_a_row_that_begins_full_is_left_alone(device):
    found = sampled(device, np.ones((1, 5), np.float32), SamplingOptions(), position=4, limit=5)
    assert (found["finished"][0], found["position"][0], found["token"][0, 0]) == (FULL, 4, 1)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("options", [SamplingOptions(temperature=0), SamplingOptions(top_k=3)])
def test_logits_that_are_not_finite_end_the_row(device, bad, options):
    logits = references.random(3, 300)
    logits[1, 271] = bad
    found = sampled(device, logits, options)
    assert found["finished"].tolist() == [LIVE, NOT_FINITE, LIVE]
    assert found["position"].tolist() == [4, 3, 4]


@pytest.mark.parametrize("lowest", [-3.4e38, -3.4028e38])
@pytest.mark.parametrize("options", [SamplingOptions(temperature=0), SamplingOptions(top_k=3)])
def test_a_row_whose_tokens_are_all_excluded_ends(device, lowest, options):
    logits = references.random(3, 300)
    logits[1] = lowest
    logits[2, :299] = lowest
    found = sampled(device, logits, options)
    assert found["finished"].tolist() == [LIVE, ALL_EXCLUDED, LIVE]
    assert found["position"].tolist() == [4, 3, 4]
    assert found["token"][2, 0] == 299


def test_shapes(device):
    with gw.tidy():
        state = state_of(device, 2, SamplingOptions(), 4)
        for shape in ((3, 4), (2, 3)):
            with pytest.raises(ShapeError, match="for state of 2 rows and 4 candidates"):
                sample(gw.tensor(references.random(*shape)), state)


@pytest.mark.parametrize("kernel", ["cpu", "gpu", "w8a8"])
@pytest.mark.parametrize(
    ("rows", "columns", "candidates"),
    [(1, 1, 1), (1, 255, 255), (2, 256, 256), (1, 257, 257), (3, 600, 511), (9, 520, 513)],
)
@pytest.mark.usefixtures("guarded")
@pytest.mark.chromium_cases("kernel", "threads")
def test_a_head_leaves_the_largest_of_its_logits(
    device, capabilities, kernel, rows, columns, candidates
):
    """In parts of the weights, too; what is beyond the candidates may be as large as it likes."""
    capabilities(
        prefers_no_barriers=kernel != "gpu",
        prefers_w8a8=kernel == "w8a8",
        max_binding=272 * 32 * 8 if kernel == "w8a8" else 271 * 64 * 4,
    )
    x, w = references.random(rows, 1, 64), references.random(columns, 64, seed=1)
    w[candidates:] *= 100
    w[:1] *= np.float32(0.0)  # a logit of 0, or of -0
    gain, shift = references.random(64, seed=2), references.random(64, seed=3)
    matrix = matrix_of(device, w, "q8" if kernel == "w8a8" else "float32")
    with gw.tidy():
        there = gw.tensor(gain), gw.tensor(shift)
        folded = fold_norm(*there, matrix)
        norm = Norm(*there, folded, 64, 1e-5)
        state = state_of(device, rows, SamplingOptions(temperature=0), candidates)
        found = project_logits(gw.tensor(x), matrix, state, norm=norm)
        values = found.numpy()
        np.testing.assert_array_equal(
            state.maxima_and_counts.numpy(), largest_of(values, candidates)
        )
        sample(found, state)
        np.testing.assert_array_equal(state.token.numpy()[:, 0], values[:, :candidates].argmax(-1))
        assert not state.maxima_and_counts.numpy().any()  # as the next step needs it
        gw.dispose(folded)
    expected = references.layer_norm(x[:, 0], gain, shift) @ w.T
    tolerance = 0.05 if kernel == "w8a8" else 1e-4
    np.testing.assert_allclose(values, expected, rtol=tolerance, atol=tolerance * np.abs(w).max())
    free(matrix)


def penalised(logits, prompt, new, penalties):
    """transformers' repetition penalty over all tokens, OpenAI's other two over the new ones."""
    logits = logits.astype(float)
    for token in {*prompt, *new}:
        value = logits[token]
        value = value * penalties.repetition if value < 0 else value / penalties.repetition
        times = new.count(token)
        logits[token] = value - penalties.frequency * times - penalties.presence * (times > 0)
    return logits


@pytest.mark.parametrize(
    "penalties", [Penalties(1.7), Penalties(0.5, 0.9), Penalties(1.2, -0.3, 0.4)], ids=str
)
@pytest.mark.chromium_cases("threads")
def test_penalties_equal_numpy_and_count_what_is_chosen(device, penalties):
    """Three steps; the chosen tokens are those of the penalised logits, and are counted."""
    width, candidates = 64, 300
    x, w = references.random(2, 1, width), references.random(310, width, seed=1)
    texts = [([5, 7, 5, 299], []), ([9], [11, 11, 8])]  # a row begins, another goes on
    options = SamplingOptions(temperature=0, penalties=penalties)
    matrix = matrix_of(device, w, "float32")
    with gw.tidy():
        rows = [History(prompt + new, len(prompt)) for prompt, new in texts]
        state = SamplingState.create(device, rows, [50, 50], options, [], candidates)
        for _ in range(3):
            found = project_logits(gw.tensor(x), matrix, state)
            expected = np.stack([
                penalised(x[row, 0] @ w[:candidates].T, *texts[row], penalties) for row in (0, 1)
            ])  # fmt: skip
            values = found.numpy()[:, :candidates]
            np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-4)
            sample(found, state)
            tokens = state.token.numpy()[:, 0].tolist()
            assert tokens == values.argmax(-1).tolist()
            for (_, new), token in zip(texts, tokens, strict=True):
                new.append(token)
        counts = state.maxima_and_counts.numpy()[:, -(-candidates // CHUNK) :]
    for row, (prompt, new) in enumerate(texts):
        expected = np.zeros(candidates, np.uint32)
        for token in new:
            expected[token] += 1
        expected[prompt] |= OF_PROMPT
        np.testing.assert_array_equal(counts[row], expected)
    free(matrix)


@pytest.mark.parametrize(
    "options",
    [
        SamplingOptions(temperature=0),
        SamplingOptions(temperature=1e30, seed=3),
        SamplingOptions(temperature=9.0, top_k=2, seed=3),
        SamplingOptions(temperature=9.0, top_k=299, seed=3),
        SamplingOptions(temperature=9.0, top_p=0.9, seed=3),
        SamplingOptions(temperature=0, penalties=Penalties(1000.0, 1e3, 1e3)),
    ],
    ids=str,
)
def test_excluded_ids_are_never_chosen(device, options):
    """Not even where they have the largest logits, fill a chunk of 256, or one other is left."""
    x, w = references.random(2, 1, 64), references.random(300, 64, seed=1)
    matrix = matrix_of(device, w, "float32")
    for excluded in ([7], [*range(256)], [i for i in range(300) if i not in (150, 290)]):
        prompt = History([5, 290, excluded[0]], 3)
        with gw.tidy():
            state = SamplingState.create(
                device, [prompt] * 2, [50] * 2, options, [], 300, excluded=excluded
            )
            for _ in range(8):
                sample(project_logits(gw.tensor(x), matrix, state), state)
                assert not {*state.token.numpy()[:, 0].tolist()} & {*excluded}
            assert state.finished.tolist() == [0, 0]
    free(matrix)


@pytest.mark.parametrize("top_p", [1.0, 0.7])
@pytest.mark.parametrize("k", [1, 2, 19, 20, 21])
@pytest.mark.parametrize("step", [0.01, 0.5, 4.0])
def test_top_k_of_many_equals(device, k, step, top_p):
    """20 chunks, equals within and across them: a short list, one that overflows, one past both."""
    logits = np.round(references.random(6, 5000, scale=2) / step).astype(np.float32) * step
    options = SamplingOptions(top_k=k, top_p=top_p, temperature=1.5, seed=k)
    found = sampled(device, logits, options)["token"][:, 0]
    for row, token in enumerate(found):
        expected, goal, running = expected_token(logits[row], options, row, 3)
        near_border = np.abs(running - goal).min() < 64 + running[-1] * 1e-6
        assert token == expected or near_border, (row, token, expected)
