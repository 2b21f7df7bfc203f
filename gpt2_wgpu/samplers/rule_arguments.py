"""Arguments of a sampler that are token ids: checked, as parts of ``TokenRules``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.sampling_parameters import MAX_COUNT
from gpt2_wgpu.shown import shown
from gpt2_wgpu.validation import Range

_ID = Range(0, MAX_COUNT, whole=True)
_BIAS = Range(-1e30, 1e30)
Biases = tuple[tuple[tuple[int, ...], float], ...]


def _ids(name: str, value: Any) -> tuple[int, ...]:
    """Token ids; an integer is one of them."""
    if _ID.find(value) is not None:
        value = (value,)
    return tuple(int(_ID.check(f"a token id of {name}", each)) for each in _listed(name, value))


def words_of(name: str, value: Any) -> tuple[tuple[int, ...], ...]:
    """Lists of token ids, none of them empty."""
    words = tuple(_ids(name, _listed(name, each)) for each in _listed(name, value))
    if () in words:
        raise InvalidArgumentError(f"{name} holds an empty list: give at least one token id")
    return words


def _biases(name: str, value: Any) -> Biases:
    """Sequences of one token with their number, of a mapping."""
    if value is None:
        return ()
    if not isinstance(value, Mapping):
        raise InvalidArgumentError(
            f"{name} must be a dict of token ids and numbers, not {shown(value)}"
        )
    pairs = (
        ((int(_ID.check(f"a token id of {name}", token)),), _BIAS.check(f"a bias of {name}", bias))
        for token, bias in value.items()
    )
    return tuple(sorted(pairs))


def _sequence_biases(name: str, value: Any) -> Biases:
    """Pairs of token ids and number, of a mapping or of pairs."""
    if isinstance(value, Mapping):
        value = list(value.items())
    found = {}
    for pair in _listed(name, value):
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise InvalidArgumentError(
                f"{name} must be a dict of tuples of token ids and numbers, or a list of pairs, "
                f"not {shown(value)}"
            )
        (sequence,) = words_of(name, [pair[0]])
        found[sequence] = _BIAS.check(f"a bias of {name}", pair[1])
    return tuple(sorted(found.items()))


def _one_id(name: str, value: Any) -> tuple[int, ...]:
    """A token id, or none."""
    return () if value is None else (int(_ID.check(name, value)),)


def all_biases(*given: Biases) -> Biases:
    """Return the biases of sequences, the sums of those given."""
    sums: dict[tuple[int, ...], float] = {}
    for sequence, bias in (pair for biases in given for pair in biases):
        sums[sequence] = sums.get(sequence, 0.0) + bias
    return tuple(sorted(sums.items()))


def _listed(name: str, value: Any) -> Iterable[Any]:
    if value is None:
        return ()
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise InvalidArgumentError(f"{name} must be a list of token ids, not {shown(value)}")
    return value


RULE_ARGUMENTS: dict[str, Callable[[str, Any], tuple[Any, ...]]] = {
    "suppress_tokens": _ids,
    "begin_suppress_tokens": _ids,
    "bad_words_ids": words_of,
    "logit_bias": _biases,
    "sequence_bias": _sequence_biases,
    "forced_bos_token_id": _one_id,
    "forced_eos_token_id": _ids,
}
