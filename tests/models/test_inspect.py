"""Views of activations: numbers of the cache, as HTML that is safe to show."""

from __future__ import annotations

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import InvalidArgumentError

TEXTS = ["A <b>\n wolf", "The king"]
NAMES = ["*.hook_pattern", "*.hook_resid_*"]


@pytest.fixture
def cache(tales, no_leak):
    with gw.tidy():
        yield tales.run_with_cache(TEXTS, NAMES, return_type=None)[1]


def test_attention(cache):
    view = gw.inspect.attention(cache, -1, row=1)
    assert view.layer == cache.num_layers - 1
    assert view.tokens[1:3] == ["The", " king"]
    assert view.patterns == cache["pattern", view.layer].tolist()[1]


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
    _, other = tales.run_with_cache("The", "hook_embed", return_type=None)
    with pytest.raises(InvalidArgumentError, match="were not computed"):
        gw.inspect.lens(other)
