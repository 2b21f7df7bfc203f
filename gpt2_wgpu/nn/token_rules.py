"""Rules for tokens: data of the shaders exclude_tokens.wgsl and bias_sequences.wgsl."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Sequence
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
    sequence_bias: tuple[tuple[tuple[int, ...], float], ...] = ()  # for the last token of each
    forced_bos_token_id: tuple[int, ...] = ()  # at most one: the second token of a text
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
            or self.has_long_biases
            or self.forced_bos_token_id
            or self.forced_eos_token_id
            or self.no_repeat_ngram_size
            or self.min_length
            or self.min_new_tokens
            or any(len(word) > 1 for word in self.bad_words_ids)
        )

    @property
    def has_long_biases(self) -> bool:
        """Return whether biases differ from step to step."""
        return any(len(sequence) > 1 for sequence, _ in self.sequence_bias)

    def over(self, defaults: TokenRules, off: Collection[str] = ()) -> TokenRules:
        """Return these rules, with those of ``defaults`` where these have no effect.

        ``off``: names of rules without effect all the same.
        """
        own = {name: value for name, value in vars(self).items() if value or name in off}
        return replace(defaults, **own)

    def always_excluded(self, stop_token_ids: Sequence[int]) -> set[int]:
        """Return the tokens that are never chosen; a bad word that is a stop token is not bad."""
        single = {word[0] for word in self.bad_words_ids if len(word) == 1}
        return {*self.suppress_tokens, *(single - {*stop_token_ids})}

    def cause_of_exclusion(self) -> str:
        """Say why no token may be left: by these rules, or by code of the user."""
        processor = "a logits processor or replaced method returned minus infinity for all"
        names = [name for name, value in vars(self).items() if value and name != "sequence_bias"]
        return f"by {' and '.join(names)}, or {processor}" if names else processor

    def words(self, stop_token_ids: Sequence[int]) -> list[int]:
        """Return the words of ``rules`` in shaders/exclude_tokens.wgsl."""
        bad = [word for word in self.bad_words_ids if len(word) > 1]
        biased = self._biased_tokens()
        lists = [stop_token_ids, self.begin_suppress_tokens, self.forced_eos_token_id]
        words = [
            self.no_repeat_ngram_size,
            self.min_length,
            self.min_new_tokens,
            *map(len, lists),
            len(bad),
            *(token + 1 for token in self.forced_bos_token_id or (-1,)),
            len(biased),
            *(token for tokens in lists for token in tokens),
        ]
        records = [[len(word), *word] for word in bad] + biased
        first = len(words) + len(records)
        for record in records:
            words.append(first)
            first += len(record)
        return words + [word for record in records for word in record]

    def biases(self) -> dict[int, float]:
        """Return the biases that do not depend on the text, by token."""
        return {sequence[0]: bias for sequence, bias in self.sequence_bias if len(sequence) == 1}

    def _biased_tokens(self) -> list[list[int]]:
        """Return the words of each token that ends longer sequences.

        They are the token, its own bias, the number of sequences, and of each the bias and the
        other tokens, with their number.
        """
        fixed, found = self.biases(), dict[int, list[int]]()
        for sequence, bias in self.sequence_bias:
            *others, last = sequence
            if others:
                words = found.setdefault(last, [last, _bits(fixed.get(last, 0.0)), 0])
                words[2] += 1
                words += (_bits(bias), len(others), *others)
        return list(found.values())

    def check(self, candidates: int) -> None:
        """Raise InvalidArgumentError for a token that is not one of ``candidates``."""
        for name, token in self._tokens():
            if not 0 <= token < candidates:
                raise InvalidArgumentError(
                    f"token {token} of {name} is not in the vocabulary: ids are in "
                    f"[0, {candidates})"
                )

    def _tokens(self) -> Iterator[tuple[str, int]]:
        for name in (
            "suppress_tokens",
            "begin_suppress_tokens",
            "forced_bos_token_id",
            "forced_eos_token_id",
        ):
            yield from ((name, token) for token in getattr(self, name))
        yield from (("bad_words_ids", token) for word in self.bad_words_ids for token in word)
        for sequence, _ in self.sequence_bias:
            name = "sequence_bias" if len(sequence) > 1 else "logit_bias"
            yield from ((name, token) for token in sequence)


def _bits(bias: float) -> int:
    return int.from_bytes(struct.pack("<f", bias), "little")


NO_RULES = TokenRules()
