"""The part of llguidance that GrammarConstraint calls, for grammars that list whole texts.

``tests/parity/live_grammar.py`` compares it with the real library.
"""

from __future__ import annotations

import json
import re

TokenizerWrapper = LLTokenizer = lambda tokenizer: tokenizer


class LLMatcher:
    def __init__(self, tokenizer, grammar, *, log_level=1):
        self.tokenizer, self.written, self.ended = tokenizer, b"", False
        literals = re.findall(r'"(?:[^"\\]|\\.)*"', grammar) if "start:" in grammar else []
        self.texts = [json.loads(literal).encode() for literal in literals]

    @staticmethod
    def grammar_from_json_schema(schema, defaults=None):
        texts = [json.dumps(value) for value in json.loads(schema)["enum"]]
        return "start: " + " | ".join(map(json.dumps, texts))

    @staticmethod
    def grammar_from_regex(pattern):
        return "start: " + " | ".join(map(json.dumps, pattern.split("|")))

    def compute_logit_bias(self):
        return bytes(200 * self._allows(i) for i in range(len(self.tokenizer.tokens)))

    def consume_token(self, token_id):
        if not self._allows(token_id):
            return False
        self.ended = token_id == self.tokenizer.eos_token_id
        self.written += b"" if self.ended else self.tokenizer.tokens[token_id]
        return True

    def get_error(self):
        return "" if self.texts else "no start rule"

    def _allows(self, token_id):
        if token_id == self.tokenizer.eos_token_id:
            return self.written in self.texts
        after = self.written + self.tokenizer.tokens[token_id]
        return after != self.written and any(text.startswith(after) for text in self.texts)
