"""Log-probabilities by the steps that choose the tokens: those of a second pass."""

from __future__ import annotations

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu import samplers
from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.models import decode_step, growing_logprobs, step_logprobs
from gpt2_wgpu.models.evaluation import token_logprobs
from gpt2_wgpu.webgpu import sync
from gpt2_wgpu.webgpu.backends import flush_promises
from tests.memory import tiny
from tests.models.session_models import PROMPT, model_of

pytestmark = pytest.mark.usefixtures("no_leak")
TOP = 3
RULES = {"repetition_penalty": 1.3, "suppress_tokens": [5, 6], "no_repeat_ngram_size": 2}
SAMPLERS = {
    "greedy": samplers.GreedySampler(),
    "random": samplers.RandomSampler(seed=3, temperature=1.4),
    "top_k": samplers.TopKSampler(k=7, seed=4),
    "top_p": samplers.TopPSampler(p=0.7, seed=5),
    "min_p": samplers.RandomSampler(seed=6, min_p=0.02),
    "typical": samplers.RandomSampler(seed=7, typical_p=0.6),
    "rules": samplers.RandomSampler(seed=8, **RULES),
}


@pytest.fixture(scope="module")
def model(device):
    with model_of() as lm:
        yield lm


@pytest.fixture
def by_steps(monkeypatch):
    """Fails a test with a second pass."""

    async def fails(*_):
        raise AssertionError("a second pass")

    monkeypatch.setattr(step_logprobs, "token_logprobs", fails)


def details_of(lm, prompts, length, stops=None, **options):
    inputs = tiny.packed(prompts, length)
    return lm.generate(
        inputs, stop_token_ids=stops, return_details=True, top_logprobs=TOP, **options
    )


def check(lm, prompts, rows):
    new = [row.token_ids for row in rows]
    for found, wanted in zip(rows, sync(token_logprobs(lm, prompts, new, TOP), ""), strict=True):
        assert len(found.token_ids) == len(found.logprobs) == len(found.entropies)
        assert found.logprobs == pytest.approx(wanted.logprobs, abs=1e-4)
        assert found.entropies == pytest.approx(wanted.entropies, abs=1e-4)
        assert found.ranks == wanted.ranks
        for top, other in zip(found.top_logprobs, wanted.top_logprobs, strict=True):
            assert [*top] == [*other]
            assert top == pytest.approx(other, abs=1e-4)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.usefixtures("by_steps")
def test_each_sampler(model, name, rows):
    prompts = [PROMPT[: 9 + 4 * row] for row in range(rows)]
    plain = model.generate(
        tiny.packed(prompts, 60), stop_token_ids=None, sampler=SAMPLERS[name], seed=3
    )
    for _ in range(2):  # recorded, and by the same recording
        found = details_of(model, prompts, 60, sampler=SAMPLERS[name], seed=3)
        texts = [[*prompt, *row.token_ids] for prompt, row in zip(prompts, found, strict=True)]
        assert texts == tiny.ids_of(plain)
        check(model, prompts, found)


@pytest.mark.usefixtures("by_steps")
def test_rows_that_end_early_leave_the_batch(model):
    """At stop tokens and limits of their own, some of them long before the last."""
    prompts = [PROMPT[: 5 + 7 * (row % 3) + row] for row in range(6)]
    sampler = samplers.RandomSampler(seed=2, temperature=2.0)
    found = details_of(model, prompts, 90, stops=[*range(0, 101, 12)], sampler=sampler)
    assert len({len(row.token_ids) for row in found}) > 3
    check(model, prompts, found)


@pytest.mark.usefixtures("by_steps")
def test_user_code_in_the_step(model):
    class Choice(samplers.Greedy):
        def get_next_token(self, probabilities):
            return super().get_next_token(probabilities)

    check(model, [PROMPT], details_of(model, [PROMPT], 40, sampler=Choice()))
    try:
        model.compile("random", logits_processors=[lambda _, logits: gw.ops.mul(logits, 0.5)])
        check(model, [PROMPT], details_of(model, [PROMPT], 40))
    finally:
        model.compile("greedy")


@pytest.mark.usefixtures("by_steps")
def test_a_session(model):
    with model.session(PROMPT) as session:
        for _ in range(2):
            before = list(session.token_ids)
            found = session.generate(
                12, stop_token_ids=None, sampler=SAMPLERS["random"], return_details=True,
                top_logprobs=TOP,
            )  # fmt: skip
            check(model, [before], [found])


@pytest.mark.parametrize("sampler", ["beam", "contrastive", "lookup", "replaced"])
def test_a_second_pass_where_no_step_computes_them(model, monkeypatch, sampler):
    passes = []

    async def counted(*arguments):
        passes.append(arguments)
        return await token_logprobs(*arguments)

    monkeypatch.setattr(step_logprobs, "token_logprobs", counted)
    if sampler == "replaced":
        call = model.call_with_cache
        monkeypatch.setattr(model, "call_with_cache", lambda *given: call(*given))
    if sampler == "lookup":
        model.compile("greedy", prompt_lookup_num_tokens=3)
    known = sampler if sampler in ("beam", "contrastive") else None
    try:
        check(model, [PROMPT], details_of(model, [PROMPT], 45, sampler=known))
    finally:
        model.compile("greedy")
    assert len(passes) == 1


def test_a_text_without_details_has_the_dispatches_that_it_had(model, monkeypatch):
    recorded, steps = decode_step.DecodeStep.recorded, []

    async def noted(step):
        recording = await recorded(step)
        steps.append([work.label.kernel for work in recording.recorded])
        return recording

    monkeypatch.setattr(decode_step.DecodeStep, "recorded", noted)
    model.compile("greedy")  # forgets the recordings
    model.generate(tiny.packed([PROMPT], 40), stop_token_ids=None)
    details_of(model, [PROMPT], 40)
    plain, detailed = steps
    assert not {"token_odds", "top_k", "top_k_cpu", "record_odds"} & {*plain}
    most = "top_k_cpu" if "top_k_cpu" in detailed else "top_k"
    assert detailed == [*plain, "token_odds", most, "record_odds"]


def test_steps_are_checked_with_their_odds(model):
    try:
        model.make_generate_function(check=True)
        check(model, [PROMPT], details_of(model, [PROMPT], 50))
    finally:
        model.compile("greedy")


@pytest.mark.native("losing a device")
def test_a_lost_device(monkeypatch):
    with gw.Device() as lost:
        lm = tiny.model(lost)
        seen = []

        def lose(row, token, text):
            seen.append(token)
            if len(seen) == 7:
                lost.gpu.destroy()
                flush_promises(lost.gpu)

        found = lm.generate(
            "abc", return_details=True, top_logprobs=TOP, callback=lose, **tiny.ENDLESS
        )
        new = lm.device
        assert new is not lost
        assert len(found.logprobs) == 24
        check(lm, [lm.encode_prompts(["abc"], lm.preprocessor)[0]], [found])
        lm.dispose()
        new.close()


def same(found, details):
    """Whether details of tokens are those of a text."""
    assert [token.token_id for token in found] == details.token_ids
    assert [token.logprob for token in found] == pytest.approx(details.logprobs, abs=1e-4)
    assert [token.rank for token in found] == details.ranks
    assert [token.entropy for token in found] == pytest.approx(details.entropies, abs=1e-4)
    for token, wanted in zip(found, details.top_logprobs, strict=True):
        assert token.top_logprobs == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("sampler", ["greedy", "random", "beam"])
@pytest.mark.parametrize("prompts", ["abc", ["abc", "d", "ef"]], ids=["one", "several"])
def test_details_of_a_stream_as_it_is_read(lm, monkeypatch, prompts, sampler):
    """By the steps; a beam search's by passes over its text."""
    options = {**tiny.ENDLESS, "sampler": sampler, "seed": None if sampler == "beam" else 4}
    expected = lm.generate(
        prompts, return_details=True, top_logprobs=TOP, strip_prompt=True, **options
    )
    expected = [expected] if isinstance(prompts, str) else expected
    found: list[list[gw.TokenDetails]] = [[] for _ in expected]
    if sampler != "beam":

        async def fails(*_):
            raise AssertionError("a second pass")

        monkeypatch.setattr(growing_logprobs, "batch_values", fails)
        monkeypatch.setattr(step_logprobs, "token_logprobs", fails)
    with lm.stream(prompts, top_logprobs=TOP, **options) as stream:
        for piece in stream:
            row = 0 if isinstance(piece, str) else piece[0]
            assert [token.token_id for token in stream.last_details] == stream.last_token_ids
            found[row] += stream.last_details
    details = stream.details(2)
    details = [details] if isinstance(prompts, str) else details
    for row, wanted, whole in zip(found, expected, details, strict=True):
        if len(row) < len(wanted.token_ids):  # its last bytes are no character
            row += stream.last_details
        same(row, wanted)
        assert "".join(str(token.text) for token in row) in str(wanted.text)
        assert whole.logprobs == pytest.approx(wanted.logprobs, abs=1e-4)
        assert [len(top) for top in whole.top_logprobs] == [2] * len(wanted.token_ids)


def test_a_stream_of_a_session(lm):
    with lm.session("abc") as session:
        expected = session.generate(9, stop_token_ids=None, return_details=True, top_logprobs=2)
        session.rewind(9)
        with session.stream(9, stop_token_ids=None, top_logprobs=2) as stream:
            found = [token for _ in stream for token in stream.last_details]
        same([*found, *(stream.last_details if len(found) < 9 else [])], expected)


def test_a_stream_that_slides(lm, monkeypatch):
    """Each token has the odds of its step, also after tokens were dropped."""
    with lm.session("abc", context_policy="slide", max_length=16) as session:
        with session.stream(40, stop_token_ids=None, top_logprobs=1) as stream:
            "".join(stream)
        details = stream.details(1)
        assert len(details.token_ids) == 40 and session.dropped_tokens
        pairs = zip(details.token_ids, details.top_logprobs, strict=True)
        assert all([*top] == [token] for token, top in pairs)  # greedy
        call = lm.call_with_cache
        monkeypatch.setattr(lm, "call_with_cache", lambda *given: call(*given))
        with pytest.raises(InvalidArgumentError, match="call_with_cache is replaced"):
            session.stream(4, top_logprobs=1)
        assert session.stream(4, stop_token_ids=None).close() is None  # not busy


def test_a_forgotten_stream_frees_the_memory_of_its_passes(lm, monkeypatch):
    call = lm.call_with_cache
    monkeypatch.setattr(lm, "call_with_cache", lambda *given: call(*given))
    stream = lm.stream("abc", top_logprobs=1, **tiny.ENDLESS)
    assert [token.rank for token in (next(stream), stream.last_details)[1]]  # a pass was needed
    del stream  # no_leak counts


def test_wrong_numbers_of_alternatives(lm):
    for function in (lm.stream, lambda prompt, **options: lm.session(prompt).stream(3, **options)):
        with pytest.raises(
            InvalidArgumentError, match=r"top_logprobs must be an integer .* not 21"
        ):
            function("abc", top_logprobs=21)
