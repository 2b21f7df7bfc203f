"""Parameters of `gpt2-wgpu run`: its options, by the names that /set takes."""

from __future__ import annotations

import argparse
from typing import Any

from gpt2_wgpu.cli.options import suggestion
from gpt2_wgpu.cli.sampling_options import conflict
from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.sampling_parameters import PARAMETERS
from gpt2_wgpu.shown import shown

_OTHERS = (
    *("greedy", "beams", "penalty_alpha", "prompt_lookup"),
    *("stop", "no_stop", "time_limit", "verbose"),
)
_ALIASES = {"num_predict": "max_new_tokens"}  # ollama's
_SWITCH = {"on": True, "true": True, "off": False, "false": False}


class Parameters:
    """The options of sampling and stopping in ``args``, with the types of ``args.parser``.

    Each has the name of its Python argument and those of its options: ``repetition_penalty`` is
    also ``repeat-penalty`` and ``repeat_penalty``.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.changed = True  # since the sampler was set
        self._args = args
        names = [*(each.name for each in PARAMETERS), *_OTHERS]
        self._actions = {a.dest: a for a in args.parser._actions if a.dest in names}
        self._initial = {name: getattr(args, name) for name in names}
        self._names = {name: name for name in names} | _ALIASES
        for name, action in self._actions.items():
            for flag in action.option_strings:
                self._names |= dict.fromkeys((flag, flag.strip("-").replace("-", "_")), name)

    def set(self, line: str) -> None:
        """Set a parameter: "temperature 0.5", or as in ollama "parameter temperature 0.5".

        Raises:
            InvalidArgumentError: no parameter has this name, the value is not valid, or it cannot
                be combined with another parameter's.
        """
        words = line.split(maxsplit=1)
        if words[:1] == ["parameter"]:
            words = words[1].split(maxsplit=1) if len(words) > 1 else []
        if len(words) != 2:
            raise InvalidArgumentError("/set takes a name and a value, such as temperature 0.5")
        given, value = words
        name = self._names.get(given) or self._names.get(given.replace("-", "_"))
        if name is None:
            hint = suggestion(given, self._names)
            raise InvalidArgumentError(
                f"no parameter {shown(given)}{hint}; /show parameters lists them"
            )
        found = self._value(name, value)
        others = vars(self._args) | {name: found}
        if pair := conflict(argparse.Namespace(**others)):
            (other,) = {*pair} - {name}
            if other not in self._actions:
                raise InvalidArgumentError(
                    f"{name} cannot be combined with the option --draft-model"
                )
            off = "off" if self._actions[other].nargs == 0 else "none"
            raise InvalidArgumentError(
                f"{name} cannot be combined with {other}: /set {other} {off}, then again"
            )
        setattr(self._args, name, found)
        self.changed = True

    def _value(self, name: str, value: str) -> Any:
        if value == "default":
            return self._initial[name]
        action = self._actions[name]
        if value == "none" and action.nargs != 0:
            return action.default
        if action.nargs == 0:
            if value not in _SWITCH:
                raise InvalidArgumentError(f"{name} is on or off, not {shown(value)}")
            return _SWITCH[value]
        if len(value) > 1 and value[0] == value[-1] == '"':
            value = value[1:-1]
        assert callable(action.type)
        try:
            found = action.type(value)
        except argparse.ArgumentTypeError as error:
            raise InvalidArgumentError(f"{name}: {error}") from None
        return [found] if isinstance(self._initial[name], list) else found

    def rows(self, settings: dict[str, Any]) -> list[tuple[str, str]]:
        """Return names and values, for a table; ``settings``: the values in effect."""
        values = {name: getattr(self._args, name) for name in _OTHERS} | settings
        return [(name, _shown(values[name])) for name in self._initial]


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return " ".join(map(shown, value)) or "none"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
