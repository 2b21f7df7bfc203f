"""Every sampler with rules of its own or of the checkpoint, and every option."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu import samplers
from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.nn import TokenRules

pytestmark = [pytest.mark.usefixtures("no_leak"), pytest.mark.native("PyTorch")]

PROMPT, NEW = "The king", {"max_new_tokens": 4}


class Choice(samplers.Greedy):
    """A choice in Python."""

    def get_next_token(self, probabilities):
        return super().get_next_token(probabilities)


class Loop(samplers.Greedy):
    """A loop of its own, which keeps the padding."""

    def __call__(self, next, prompt, cache=None, index=0, *others, **named):
        return prompt


SAMPLERS: dict[str, Any] = {
    "greedy": samplers.Greedy,
    "random": lambda **rules: samplers.TopK(seed=4, **rules),
    "lookup": samplers.Greedy,
    "beam": samplers.Beam,
    "contrastive": samplers.Contrastive,
    "choice": Choice,
    "loop": Loop,
}


def stop_texts(lm):
    return lm.generate(PROMPT, stop_texts=["\0"], **NEW)


def details(lm):
    found = lm.generate(PROMPT, return_details=True, top_logprobs=2, **NEW)
    assert len(found.token_ids) == len(found.logprobs)
    return found.text


def batch(lm):
    return lm.generate([PROMPT, "A wolf"], **NEW)[0]


def callback(lm):
    return lm.generate(PROMPT, callback=lambda *_: None, **NEW)


def sequences(lm):
    found = lm.generate(PROMPT, num_return_sequences=2, **NEW)
    assert len(found) == 2
    return found[0]


def sequences_of_stream(lm):
    with lm.stream(PROMPT, num_return_sequences=2, **NEW) as pieces:
        return PROMPT + "".join(piece for row, piece in pieces if row == 0)


def stream(lm):
    with lm.stream(PROMPT, **NEW) as pieces:
        return PROMPT + "".join(pieces)


def streams(lm):
    with lm.stream([PROMPT, "A wolf"], **NEW) as pieces:
        return PROMPT + "".join(piece for row, piece in pieces if row == 0)


def session(lm):
    with lm.session(PROMPT) as kept:
        kept.generate(**NEW)
        return kept.text


def continuous(lm):
    async def rows():
        async with gw.ContinuousBatch(lm, max_rows=2) as batch:
            prompt = lm.encode_prompts([PROMPT], lm.preprocessor, None)[0]
            row = batch.submit(prompt, sampler=lm.sampler, **NEW)
            return lm.preprocessor.tokenizer.decode([token async for new in row for token in new])

    return PROMPT + asyncio.run(rows())


SEVERAL = [sequences, sequences_of_stream]
OPTIONS = [stop_texts, details, batch, callback, *SEVERAL, stream, streams, session, continuous]


@pytest.fixture
def lm(tales):
    """A tiny model with the embedded one's tokenizer."""
    size = tales.backbone.config.vocab_size
    backbone = gw.GPT2Backbone(size, 1, 1, 8, 8, max_sequence_length=32, seed=1)
    with gw.GPT2CausalLM(backbone, tales.preprocessor) as lm:
        yield lm


def refusal(name, rules, option):
    """What the error says; None where the combination works."""
    if name == "loop":
        if rules == "sampler":
            return "Loop replaces the sampling loop, which applies penalties and excludes tokens"
        if option not in (session, continuous):
            return "Loop cannot be combined with the rules of generation_config.json"
    if option in SEVERAL and name in ("greedy", "lookup", "contrastive"):
        return "gives 2 equal texts, since it draws no random numbers"
    if option is session and name in ("beam", "contrastive", "loop"):
        return "replaces the sampling loop, which a session continues"
    if option is continuous and name in ("beam", "contrastive", "loop", "choice"):
        return "does not choose on the GPU row by row, as rows of a ContinuousBatch do"
    return None


@pytest.mark.parametrize("rules", ["sampler", "checkpoint"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_it_works_or_says_why(lm, name, rules):
    encode = lm.preprocessor.tokenizer.encode
    allowed = {encode(letter)[0] for letter in "abcdefg"}
    never = sorted({*range(lm.backbone.config.vocab_size)} - allowed)
    given = {"suppress_tokens": never, "repetition_penalty": 1.3} if rules == "sampler" else {}
    if rules == "checkpoint":
        lm.token_rules = TokenRules(suppress_tokens=tuple(never))

    def text_with(option):
        lm.compile(SAMPLERS[name](**given), prompt_lookup_num_tokens=3 * (name == "lookup"))
        return option(lm)

    texts = set()
    for option in OPTIONS:
        if said := refusal(name, rules, option):
            with pytest.raises(InvalidArgumentError, match=said) as caught:
                text_with(option)
            assert str(caught.value).count(". ") <= 1
        else:
            texts.add(text_with(option))
    for text in texts:
        assert text.startswith(PROMPT)
        assert {*text.removeprefix(PROMPT)} <= {*"abcdefg"}
    assert len(texts) == (name != "loop")
