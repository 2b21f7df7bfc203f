"""The cut by top-p: nuclei of any size against NumPy, and the ways of the kernel to find them."""

from __future__ import annotations

import numpy as np
import pytest

from gpt2_wgpu.nn import SamplingOptions
from tests.gpu import references
from tests.gpu.doctored import doctored
from tests.gpu.nn.test_sampling import expected_token, kept_tokens, sampled, threads

__all__ = ["threads"]  # the fixture: workgroups of 32 and of 256 threads

pytestmark = [pytest.mark.usefixtures("threads", "no_leak"), pytest.mark.native("NumPy")]


# Equal logits below the largest: their number and level. A list does not hold all of the second.
SHELVES = {"shelf": (480, -0.9), "long shelf": (600, -0.3)}


def logits_like(kind, vocabulary):
    """Rows of logits whose nuclei differ: of few tokens, of most, and with many equal logits."""
    if kind in SHELVES:
        end, level = SHELVES[kind]
        values = np.full((3, vocabulary), -30, np.float32)
        values[:, 0], values[:, 1:end] = 0, level
        return values
    if kind == "text":
        order = np.argsort(references.random(3, vocabulary), axis=-1)
        return (-1.5 * np.log1p(order)).astype(np.float32)
    scale = {"wide": 3, "narrow": 0.05}.get(kind, 0.5)
    values = references.random(3, vocabulary, scale=scale)
    return np.round(values * 2) / 2 if kind == "equal" else values


@pytest.mark.parametrize("vocabulary", [257, 5000, 50257])
@pytest.mark.parametrize("kind", ["text", "wide", "flat", "equal"])
@pytest.mark.parametrize("top_p", [1e-6, 0.3, 0.9, 0.96, 0.99, 0.9999, 0.9999999])
@pytest.mark.parametrize("min_p", [0.0, 0.01])
def test_a_nucleus_of_any_size(device, vocabulary, kind, top_p, min_p):
    """Listed, cut by up to three attempts, and with equal logits by a search."""
    logits = logits_like(kind, vocabulary)
    options = SamplingOptions(top_p=top_p, min_p=min_p, temperature=0.8, seed=vocabulary)
    found = sampled(device, logits, options)["token"][:, 0]
    for row, token in enumerate(found):
        expected, goal, running = expected_token(logits[row], options, row, 3)
        near_border = np.abs(running - goal).min() < 64 + running[-1] * 1e-6
        assert token == expected or near_border, (row, token, expected)


@pytest.mark.parametrize("top_p", [0.6, 0.9])
def test_a_nucleus_of_few_tokens_is_listed(device, tmp_path, top_p):
    """The kernel draws the same tokens without its draw from all logits."""
    logits = logits_like("text", 50257)
    options = SamplingOptions(top_p=top_p, seed=4)
    expected = sampled(device, logits, options)["token"]
    assert (expected[:, 0] != logits.argmax(-1)).any()  # the token if nothing is drawn
    with doctored(
        device, tmp_path, "sample.wgsl", "  draw(random, uniform_options.candidates, thread);", ""
    ):
        np.testing.assert_array_equal(sampled(device, logits, options)["token"], expected)


LAST_ATTEMPT = "if (attempt == ATTEMPTS) { break; }"


@pytest.mark.parametrize(
    ("kind", "top_p", "attempts"),
    [
        ("text", 0.99, 1),
        ("wide", 0.9, 1),
        ("wide", 0.99, 1),
        ("flat", 0.3, 2),
        ("flat", 0.99, 2),
        ("narrow", 0.9, 3),
    ],
)
def test_the_cut_is_where_it_is_predicted(device, tmp_path, kind, top_p, attempts):
    """The same tokens are drawn if the last attempt that is needed is the last one made."""
    logits = logits_like(kind, 50257)
    options = SamplingOptions(top_p=top_p, seed=4)
    expected = sampled(device, logits, options)["token"]

    def with_attempts(count):
        stop = f"if (attempt == {count}u) {{ return true; }}"
        folder = tmp_path / str(count)
        with doctored(device, folder, "include/sample_nucleus.wgsl", LAST_ATTEMPT, stop):
            return sampled(device, logits, options)["token"]

    np.testing.assert_array_equal(with_attempts(attempts), expected)
    if attempts > 1:  # it is noticed that one more is needed
        assert (with_attempts(attempts - 1) != expected).any()


@pytest.mark.parametrize("kind", ["text", "wide", "flat", "equal", *SHELVES])
@pytest.mark.parametrize("top_p", [0.4, 0.9])
def test_a_nucleus_ends_at_the_right_token(device, kind, top_p):
    """Many draws: of the last quarter of its mass some, and none after it."""
    logits = np.repeat(logits_like(kind, 3000)[:1], 150, axis=0)
    options = SamplingOptions(top_p=top_p, seed=5)
    found = sampled(device, logits, options, seeds=range(150))["token"][:, 0]
    kept, masses = kept_tokens(logits[0], options)
    order = np.argsort(-logits[0], kind="stable")[: len(kept)]
    assert {*found.tolist()} <= {*order.tolist()}
    tail = order[np.cumsum(masses[order]) > 0.75 * masses[order].sum()]
    assert 10 < np.isin(found, tail).sum() < 75


def test_all_cuts_at_once_of_a_long_row(device):
    """The most passes, with as many tokens for each of 32 threads as Mesa's llvmpipe allows."""
    logits = np.zeros((2, 82_000), np.float32)
    options = SamplingOptions(top_p=0.9, top_k=81_993, typical_p=0.95, seed=3)
    found = sampled(device, logits, options)["token"][:, 0]
    expected = [expected_token(logits[row], options, row, 3)[0] for row in range(2)]
    np.testing.assert_array_equal(found, expected)
