"""Constrained output: the text is always valid JSON of one form, with any model and sampler.

`allows` and `finished` see decoded text only. All tokens of the vocabulary are candidates; the
logits of those that are not allowed become minus infinity. The form bounds the length: each text
ends before `max_new_tokens`. With `gpt2-wgpu[grammar]` a JSON schema does the same:

    gw.samplers.GrammarConstraint.from_json_schema(tokenizer, schema)
"""

import json

import regex

import gpt2_wgpu as gw


class Pattern:
    """Texts that match a regular expression as a whole."""

    def __init__(self, pattern: str) -> None:
        self.pattern = regex.compile(pattern)

    def allows(self, text: str, piece: str) -> bool:
        return self.pattern.fullmatch(text + piece, partial=True) is not None

    def finished(self, text: str) -> bool:
        return self.pattern.fullmatch(text) is not None


HERO = Pattern(r'\{"hero": "[A-Za-z ]{1,24}", "age": [1-9][0-9]?, "brave": (true|false)\}')

with gw.GPT2CausalLM.from_preset("fairytales") as lm:
    assert lm.preprocessor is not None
    constraint = gw.samplers.TextConstraint(lm.preprocessor.tokenizer, HERO)
    lm.compile(gw.samplers.TopK(20, seed=1), logits_processors=[constraint])
    prompts = ["Once upon a time there was a king: ", "The wolf: "]
    for text in lm.generate(prompts, max_new_tokens=80, strip_prompt=True):
        hero = json.loads(text)
        print(f"{hero['hero'].strip()!r} is {hero['age']}, brave: {hero['brave']}")
