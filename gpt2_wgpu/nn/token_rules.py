"""Rules that exclude tokens, and biases of logits: data of shaders/exclude_tokens.wgsl."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from gpt2_wgpu.errors import InvalidArgumentError


@dataclass(frozen=True)
class TokenRules:
    """Rules for the next token, with the names and meanings of transformers' ``generate``.

    The defaults have no effect. Lengths count the prompt, with its start token.
    """

    suppress_tokens: tuple[int, ...] = ()
    begin_suppress_tokens: tuple[int, ...] = ()  # not the first new token
    bad_words_ids: tuple[tuple[int, ...], ...] = ()
    logit_bias: tuple[tuple[int, float], ...] = ()
    forced_eos_token_id: tuple[int, ...] = ()  # one of them ends a text that becomes full
    no_repeat_ngram_size: int = 0
    min_length: int = 0  # no stop token before
    min_new_tokens: int = 0

    @property
    def any(self) -> bool:
        """Return whether a rule has an effect."""
        return self != NO_RULES

    @property
    def depend_on_text(self) -> bool:
        """Return whether the excluded tokens differ from step to step."""
        return bool(
            self.begin_suppress_tokens
            or self.forced_eos_token_id
            or self.no_repeat_ngram_size
            or self.min_length
            or self.min_new_tokens
            or any(len(word) > 1 for word in self.bad_words_ids)
        )

    def over(self, defaults: TokenRules) -> TokenRules:
        """Return these rules, with those of ``defaults`` where these have no effect."""
        own = {name: value for name, value in vars(self).items() if value}
        return replace(defaults, **own)

    def always_excluded(self, stop_token_ids: Sequence[int]) -> set[int]:
        """Return the tokens that are never chosen; a bad word that is a stop token is not bad."""
        single = {word[0] for word in self.bad_words_ids if len(word) == 1}
        return {*self.suppress_tokens, *(single - {*stop_token_ids})}

    def words(self, stop_token_ids: Sequence[int]) -> list[int]:
        """Return the words of ``rules`` in shaders/exclude_tokens.wgsl."""
        bad = [word for word in self.bad_words_ids if len(word) > 1]
        lists = [stop_token_ids, self.begin_suppress_tokens, self.forced_eos_token_id]
        words = [
            self.no_repeat_ngram_size,
            self.min_length,
            self.min_new_tokens,
            *map(len, lists),
            len(bad),
            *(token for tokens in lists for token in tokens),
        ]
        first = len(words) + len(bad)
        for word in bad:
            words.append(first)
            first += len(word) + 1
        for word in bad:
            words += (len(word), *word)
        return words

    def check(self, candidates: int) -> None:
        """Raise InvalidArgumentError for a token that is not one of ``candidates``."""
        for name, token in self._tokens():
            if not 0 <= token < candidates:
                raise InvalidArgumentError(
                    f"token {token} of {name} is not in the vocabulary: ids are in "
                    f"[0, {candidates})"
                )

    def _tokens(self) -> Iterator[tuple[str, int]]:
        for name in ("suppress_tokens", "begin_suppress_tokens", "forced_eos_token_id"):
            yield from ((name, token) for token in getattr(self, name))
        yield from (("bad_words_ids", token) for word in self.bad_words_ids for token in word)
        yield from (("logit_bias", token) for token, _ in self.logit_bias)


NO_RULES = TokenRules()
