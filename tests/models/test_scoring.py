"""``score`` and ``logprobs``, against transformers; what a ``layer_intercept_fn`` sees."""

from __future__ import annotations

import math
from itertools import chain

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import ContextLengthError, InvalidArgumentError, ShapeError
from tests.memory import tiny
from tests.models.conftest import SMALL

pytestmark = pytest.mark.usefixtures("no_leak")

IDS = [[7, 200, 3, 3, 19, 84], [5, 6, 7, 8, 9, 10]]
TARGETS = [[200, 3, 3, 19, 84, 1], [6, 7, 8, 9, 10, 210]]


def log_softmax(logits):
    from tests.gpu import references

    return references.log_softmax(logits)


@pytest.mark.native("PyTorch")
@pytest.mark.parametrize("mask", [None, [[1] * 6, [0, 0, 1, 1, 1, 1]]])
def test_score_equals_transformers(small, small_lm, mask):
    """Left padding changes what is attended to; positions count from the first column, as in
    KerasHub and in transformers' forward pass."""
    import numpy as np

    from tests.models import checkpoints

    expected = checkpoints.logits_of(small[0], IDS, mask)
    real = np.array(mask or [[1] * 6] * 2, dtype=bool)
    logits = small_lm.score(IDS, mask)
    np.testing.assert_allclose(logits.numpy()[real], expected[real], atol=1e-3)
    losses = small_lm.score(IDS, mask, "loss", target_ids=TARGETS)
    reference = -np.take_along_axis(log_softmax(expected), np.array(TARGETS)[..., None], -1)[..., 0]
    np.testing.assert_allclose(losses.numpy()[real], reference[real], atol=1e-3)
    gw.dispose([logits, losses])


@pytest.mark.native("PyTorch")
def test_layer_intercept_fn_sees_the_hidden_states(small, small_lm):
    import numpy as np
    import torch

    with torch.no_grad():
        states = small[0](torch.tensor(IDS), output_hidden_states=True).hidden_states
    seen = []
    small_lm.score(IDS, layer_intercept_fn=lambda x, i: seen.append((i, gw.keep(x))) or x).dispose()
    assert [index for index, _ in seen] == [-1, 0, 1, 2]
    for (_, x), expected in zip(seen[:-1], states, strict=False):  # the last one is normalised
        np.testing.assert_allclose(x.numpy(), expected.numpy(), atol=1e-3)
        x.dispose()
    seen[-1][1].dispose()


@pytest.mark.native("PyTorch")
def test_logprobs_equal_transformers(small, small_lm):
    """Also of rows longer than the context, whose windows are those of ``perplexity``."""
    import numpy as np

    from tests.models import checkpoints

    rows = [[3, 9, 200, 41], [17], [i * i % SMALL["vocab_size"] for i in range(100)]]
    found = small_lm.logprobs(rows)
    assert [len(row) for row in found] == [3, 0, 99]
    for row, values in zip(rows, found, strict=True):
        chances = log_softmax(checkpoints.logits_of(small[0], [row[:64]])[0])
        expected = [chances[i, token] for i, token in enumerate(row[1:64])]
        np.testing.assert_allclose(values[: len(expected)], expected, atol=1e-3)
    assert small_lm.logprobs(rows[0]) == pytest.approx(found[0], abs=1e-5)
    mean = math.fsum(chain(*found)) / 102
    assert small_lm.perplexity(rows) == pytest.approx(math.exp(-mean), rel=1e-6)


@pytest.mark.native("PyTorch")
def test_details_equal_transformers(small, small_lm):
    """Also of rows longer than the context."""
    import numpy as np

    from tests.models import checkpoints

    rows = [[3, 9, 200, 41], [17], [i * i % SMALL["vocab_size"] for i in range(100)]]
    found = small_lm.logprobs(rows, return_details=True, top_logprobs=5)
    plain = small_lm.logprobs(rows)
    for row, details, values in zip(rows, found, plain, strict=True):
        assert [each.token_id for each in details] == row[1:]
        assert [each.logprob for each in details] == pytest.approx(values, abs=1e-5)
        chances = log_softmax(checkpoints.logits_of(small[0], [row[:64]])[0])
        for line, each in zip(chances[:-1], details[:63], strict=len(row) < 64):
            assert each.rank == (line > line[each.token_id]).sum()
            assert each.entropy == pytest.approx(-(np.exp(line) * line).sum(), abs=1e-3)
            assert [*each.top_logprobs] == np.argsort(-line, kind="stable")[:5].tolist()
            values = [*each.top_logprobs.values()]
            np.testing.assert_allclose(values, np.sort(line)[::-1][:5], atol=1e-3)
    assert small_lm.logprobs(rows[0], return_details=True)[0].top_logprobs == {}


def test_details_of_texts(tales):
    """The texts of the tokens are the text, also of characters of several tokens."""
    text = "Once upon a time 🐉 – ü"
    details = tales.logprobs(text, return_details=True, top_logprobs=2)
    assert "".join(each.text for each in details) == text
    assert any(each.text == "" for each in details)
    (other,) = tales.logprobs([text], return_details=True)
    assert [each.logprob for each in other] == pytest.approx([d.logprob for d in details], abs=1e-6)
    with pytest.raises(InvalidArgumentError, match=r"top_logprobs=2 .* add return_details=True"):
        tales.logprobs(text, top_logprobs=2)
    with pytest.raises(InvalidArgumentError, match="top_logprobs must be"):
        tales.logprobs(text, return_details=True, top_logprobs=21)


@pytest.fixture(scope="module")
def lm(device):
    lm = tiny.model(device)  # of width 16
    yield lm
    lm.dispose()


@pytest.fixture(scope="module")
def narrow(device):
    """Width 12: the residual stream has padding."""
    lm = gw.GPT2CausalLM(gw.GPT2Backbone(257, 2, 2, 12, 24, max_sequence_length=16, device=device))
    yield lm
    lm.dispose()


@pytest.mark.parametrize("width", [16, 12])
def test_layer_intercept_fn_changes_the_hidden_states(lm, narrow, width):
    """Zeros after the last block leave the final norm's bias, 0: all logits are equal."""
    model = lm if width == 16 else narrow

    def zero_at_the_end(x, index):
        return x * 0.0 if index == 1 else x + 0.0

    with gw.tidy():
        logits = model.score([[1, 2, 3]], layer_intercept_fn=zero_at_the_end).tolist()
        same = model.score([[1, 2, 3]], layer_intercept_fn=lambda x, _: x + 0.0).tolist()
        plain = model.score([[1, 2, 3]]).tolist()
    assert all(value == 0 for row in logits[0] for value in row)
    assert same == plain
    assert any(value != 0 for value in plain[0][0])


@pytest.mark.parametrize("wrong", [5, None, iter("ab")])
def test_logprobs_of_something_else(lm, wrong):
    with pytest.raises(InvalidArgumentError, match="logprobs takes texts or token ids, not"):
        lm.logprobs(wrong)


def test_logprobs_of_texts(lm):
    one = lm.logprobs("abc")
    assert len(one) == 3  # after the start token
    assert lm.logprobs(["abc", "a"])[0] == pytest.approx(one, abs=1e-6)
    assert lm.logprobs([]) == []
    (start,) = lm.preprocessor.encode_prompts([""])[0]
    ids = [start, *(ord(letter) - 33 for letter in "abc")]
    assert lm.logprobs(ids) == pytest.approx(one, abs=1e-6)  # ids are taken as they are
    losses = lm.score([ids[:-1]], scoring_mode="loss", target_ids=[ids[1:]])
    assert losses.tolist()[0] == pytest.approx([-value for value in one], abs=1e-6)
    losses.dispose()


def test_long_losses_come_in_chunks(lm, monkeypatch):
    from gpt2_wgpu.models import scoring

    with gw.tidy():
        whole = lm.score(IDS, scoring_mode="loss", target_ids=TARGETS).tolist()
        monkeypatch.setattr(scoring, "LOGIT_BYTES", 257 * 4 * 5)
        assert lm.score(IDS, scoring_mode="loss", target_ids=TARGETS).tolist() == whole


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"scoring_mode": "los"}, InvalidArgumentError, "must be 'logits' or 'loss', not 'los'"),
        ({"scoring_mode": "loss"}, InvalidArgumentError, "needs target_ids"),
        ({"scoring_mode": "loss", "target_ids": [[1]]}, ShapeError, "1 rows of 1 ids"),
        ({"layer_intercept_fn": 5}, InvalidArgumentError, "layer_intercept_fn must be a function"),
        ({"layer_intercept_fn": lambda x, i: None}, ShapeError, "must return a Tensor of shape"),
        ({"token_ids": [[1] * 49]}, ContextLengthError, "49 positions exceed"),
    ],
)
def test_invalid_arguments(lm, arguments, error, message):
    with pytest.raises(error, match=message):
        lm.score(**{"token_ids": IDS, **arguments})
