"""Log-probabilities by the steps that choose the tokens: those of a second pass."""

from __future__ import annotations

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu import samplers
from gpt2_wgpu.models import decode_step, step_logprobs
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
