"""Views of activations: numbers of the cache, as HTML that is safe to show."""

from __future__ import annotations

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import InvalidArgumentError

TEXTS = ["A <b>\n wolf", "The king"]
SHORT = 3  # tokens of the second, with the start token
NAMES = ["*.hook_pattern", "*.hook_resid_*"]


@pytest.fixture
def cache(tales, no_leak):
    with gw.tidy():
        yield tales.run_with_cache(TEXTS, NAMES, return_type=None)[1]


def test_attention(cache):
    view = gw.inspect.attention(cache, -1, row=1)
    assert view.layer == cache.num_layers - 1
    assert view.tokens == ["<|endoftext|>", "The", " king"]
    pattern = cache["pattern", view.layer]
    assert pattern.shape[2] > SHORT
    assert view.patterns == pattern[:, :, :SHORT, :SHORT].tolist()[1]
    assert "[0]" not in view._repr_html_() and gw.inspect.attention(cache, 0).tokens[-1] == " wolf"


def test_lens(cache):
    view = gw.inspect.lens(cache, top=3, positions=[2, 0], row=1)
    assert view.tokens == [" king", "<|endoftext|>"]
    lens = cache.logit_lens(3)
    assert view.layers == lens.labels
    for layer, row in enumerate(lens.ids.tolist()):
        found = [[text for text, _ in cell] for cell in view.predictions[layer]]
        assert found == [[cache.token_text(token) for token in row[1][place]] for place in (2, 0)]
    chances = [cell[0][1] for cell in view.predictions[-1]]
    expected = lens.probabilities.tolist()[-1][1]
    assert chances == pytest.approx([expected[2][0], expected[0][0]], abs=1e-6)
    whole = gw.inspect.lens(cache, row=1)
    assert whole.tokens == ["<|endoftext|>", "The", " king"]
    assert {len(layer) for layer in whole.predictions} == {SHORT}
    last = gw.inspect.lens(cache, positions=[-1], row=1)
    assert last.tokens == [" king"] and last.predictions[0][0] == whole.predictions[0][-1]


def test_padding_at_the_beginning(tales, no_leak):
    """A mask may leave out any positions."""
    with gw.tidy():
        inputs = {"token_ids": [[7, 8, 9], [0, 8, 9]], "padding_mask": [[1, 1, 1], [0, 1, 1]]}
        _, cache = tales.run_with_cache(inputs, NAMES)
        assert cache.positions() == [0, 1, 2] and cache.positions(1) == [1, 2]
        own = cache["pattern", 0][:, :, 1:, 1:].tolist()[1]
        assert gw.inspect.attention(cache, 0, row=1).patterns == own
        assert gw.inspect.lens(cache, row=1).tokens == [cache.token_text(token) for token in (8, 9)]


def test_html_has_no_markup_of_the_text(cache):
    for view in (gw.inspect.attention(cache, 0), gw.inspect.lens(cache, top=2)):
        html = view._repr_html_()
        assert "<b>" not in html and "⏎" in html
        assert html.count("<table>") == html.count("</table>") > 0


def test_errors(cache, tales):
    with pytest.raises(InvalidArgumentError, match="row must be"):
        gw.inspect.attention(cache, 0, row=2)
    with pytest.raises(InvalidArgumentError, match=r"layer must be .*99"):
        gw.inspect.attention(cache, 99)
    with pytest.raises(InvalidArgumentError, match="row must be"):
        gw.inspect.lens(cache, row=-1)
    with pytest.raises(InvalidArgumentError, match=f"positions must be .* <= {SHORT - 1}, not"):
        gw.inspect.lens(cache, row=1, positions=[SHORT])
    with pytest.raises(InvalidArgumentError, match="positions must be a list"):
        gw.inspect.lens(cache, positions=-1)
    for call in (lambda: gw.inspect.lens("x"), lambda: gw.inspect.attention({}, 0)):
        with pytest.raises(InvalidArgumentError, match="cache must be an ActivationCache"):
            call()
    _, other = tales.run_with_cache("The", "hook_embed", return_type=None)
    with pytest.raises(InvalidArgumentError, match="were not computed"):
        gw.inspect.lens(other)
