"""The command `gpt2-wgpu completion`: a script that completes commands and options in a shell."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator

from gpt2_wgpu.cli.options import Parser
from gpt2_wgpu.cli.terminal import Terminal

_EPILOG = """\
examples:
  gpt2-wgpu completion bash > ~/.gpt2-wgpu.bash  # and source it in ~/.bashrc
  eval "$(gpt2-wgpu completion zsh)"             # in ~/.zshrc, after compinit
  gpt2-wgpu completion fish > ~/.config/fish/completions/gpt2-wgpu.fish
"""

Commands = dict[str, tuple[str, argparse.ArgumentParser]]  # name → help, parser


def add_parser(commands: argparse._SubParsersAction[Parser]) -> Parser:
    """Adds the command `completion` to `commands`; returns its parser."""
    parser = commands.add_parser(
        "completion",
        help="print a script of shell completion",
        description="Prints a script that completes commands, options and their choices.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("shell", choices=SHELLS, help="shell that reads the script")
    parser.set_defaults(commands=commands)
    return parser


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    """Runs the command; returns the exit status."""
    helps = {each.dest: each.help or "" for each in args.commands._choices_actions}
    found = {name: (helps[name], parser) for name, parser in args.commands.choices.items()}
    terminal.write("\n".join(SHELLS[args.shell](found)) + "\n")
    return 0


def _options(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    return (each for each in parser._actions if each.option_strings)


def _positionals(parser: argparse.ArgumentParser) -> list[str]:
    """Returns the choices of the positional arguments."""
    actions = [each for each in parser._actions if not each.option_strings]
    return [str(choice) for action in actions for choice in action.choices or ()]


def _summary(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    """Returns the beginning of an option's help, without characters that shells interpret."""
    text = parser._get_formatter()._expand_help(action)
    return re.sub(r"[^\w ,.+-]", "", re.split(r"[;:(]", text)[0]).strip()


def _bash(commands: Commands) -> Iterator[str]:
    yield "# Completion of gpt2-wgpu in bash. File names complete where there is no other word."
    yield "_gpt2_wgpu() {"
    yield '    local current="${COMP_WORDS[COMP_CWORD]}" command= word words='
    yield '    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do'
    yield f'        case "$word" in {"|".join(commands)}) command=$word; break;; esac'
    yield "    done"
    yield '    case "$command ${COMP_WORDS[COMP_CWORD-1]}" in'
    for name, (_, parser) in commands.items():
        for action in _options(parser):
            if action.nargs != 0:
                cases = "|".join(f'"{name} {flag}"' for flag in action.option_strings)
                yield f'        {cases}) words="{" ".join(map(str, action.choices or ()))}";;'
    yield '        *) case "$command" in'
    yield f'            "") words="--version --debug --help {" ".join(commands)}";;'
    for name, (_, parser) in commands.items():
        flags = [flag for action in _options(parser) for flag in action.option_strings]
        yield f'            {name}) words="{" ".join([*_positionals(parser), *flags])}";;'
    yield "        esac;;"
    yield "    esac"
    yield '    COMPREPLY=($(compgen -W "$words" -- "$current"))'
    yield "}"
    yield "complete -o default -F _gpt2_wgpu gpt2-wgpu"


def _zsh(commands: Commands) -> Iterator[str]:
    yield "#compdef gpt2-wgpu"
    yield "_gpt2_wgpu() {"
    yield "    local state line"
    yield "    local -a commands=("
    yield from (f"        '{name}:{_plain(text)}'" for name, (text, _) in commands.items())
    yield "    )"
    yield "    _arguments -C --version --debug --help '1:command:->command' '*::argument:->rest'"
    yield "    case $state in"
    yield "    command) _describe command commands;;"
    yield "    rest) case $line[1] in"
    for name, (_, parser) in commands.items():
        yield f"        {name}) _arguments \\"
        for action in _options(parser):
            for flag in action.option_strings:
                yield f"            '*{flag}[{_summary(parser, action)}]{_value(action)}' \\"
        words = _positionals(parser)
        kind = f"({' '.join(words)})" if words else "_files"
        yield f"            '*:argument:{kind}';;"
    yield "        esac;;"
    yield "    esac"
    yield "}"
    yield "compdef _gpt2_wgpu gpt2-wgpu"


def _value(action: argparse.Action) -> str:
    """Returns how zsh completes the value of an option."""
    if action.nargs == 0:
        return ""
    name = re.sub(r"[^\w]", "", str(action.metavar or action.dest))
    return (
        f":{name}:({' '.join(map(str, action.choices))})" if action.choices else f":{name}:_files"
    )


def _fish(commands: Commands) -> Iterator[str]:
    yield "# Completion of gpt2-wgpu in fish."
    first = "complete -c gpt2-wgpu -n __fish_use_subcommand"
    for name, (text, _) in commands.items():
        yield f"{first} -f -a {name} -d '{_plain(text)}'"
    yield f"{first} -l version"
    for name, (_, parser) in commands.items():
        inside = f"complete -c gpt2-wgpu -n '__fish_seen_subcommand_from {name}'"
        if words := _positionals(parser):
            yield f"{inside} -f -a '{' '.join(words)}'"
        for action in _options(parser):
            kinds = {True: "-l", False: "-s"}
            flags = [
                f"{kinds[flag.startswith('--')]} {flag.lstrip('-')}"
                for flag in action.option_strings
            ]
            value = "" if action.nargs == 0 else " -r"
            if action.choices:
                value = f" -x -a '{' '.join(map(str, action.choices))}'"
            yield f"{inside} {' '.join(flags)}{value} -d '{_summary(parser, action)}'"


def _plain(text: str) -> str:
    return re.sub(r"[^\w ,.+-]", "", text)


SHELLS = {"bash": _bash, "zsh": _zsh, "fish": _fish}
