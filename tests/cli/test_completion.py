"""`gpt2-wgpu completion`: the shells themselves read the scripts and complete."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from gpt2_wgpu.cli.main import main
from gpt2_wgpu.cli.program import build_parser

Captured = pytest.CaptureFixture[str]


def script(shell: str, capsys: Captured) -> str:
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("gen", ["generate"]),
        ("generate --tem", ["--temp", "--temperature"]),
        ("generate --dtype q", ["q8", "q4"]),
        ("generate -q --dtype f3", ["f32"]),
        ("batch --top-", ["--top-k", "--top-p"]),
        ("completion z", ["zsh"]),
        ("generate --temp q", []),  # a value, so file names
    ],
)
def test_bash(line: str, found: list[str], tmp_path: Path, capsys: Captured) -> None:
    words = ["gpt2-wgpu", *line.split()]
    (tmp_path / "script").write_text(
        script("bash", capsys)
        + f"COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}\n"
        + '_gpt2_wgpu; printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(
        ["bash", "--norc", str(tmp_path / "script")], capture_output=True, text=True, check=True
    )
    assert (done.stdout.split(), done.stderr) == (found, "")


@pytest.mark.skipif(not shutil.which("fish"), reason="needs fish")
def test_fish(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "script").write_text(
        script("fish", capsys)
        + "complete -C 'gpt2-wgpu gener'\ncomplete -C 'gpt2-wgpu generate --dtype q'\n"
    )
    done = subprocess.run(
        ["fish", "--no-config", str(tmp_path / "script")], capture_output=True, text=True
    )
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == ["generate", "q4", "q8"]


@pytest.mark.skipif(not shutil.which("zsh"), reason="needs zsh")
def test_zsh(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "script").write_text(
        f"autoload -U compinit; compinit -u -d {tmp_path}/dump\n"
        + script("zsh", capsys)
        # _arguments only works while zsh completes: here it prints what it was called with.
        + "_arguments() { [[ $1 == -C ]] && state=rest line=(generate) || print -l -- $@ }\n"
        + "_gpt2_wgpu\n"
    )
    done = subprocess.run(["zsh", "-f", str(tmp_path / "script")], capture_output=True, text=True)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert (
        "*--dtype[storage format of the weights on the GPU]:dtype:(f32 f16 q8 q4 float32 float16)"
        in lines
    )
    assert "*--greedy[always take the most likely token]" in lines


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_command_and_option_is_there(shell: str, capsys: Captured) -> None:
    text = script(shell, capsys)
    commands = next(each for each in build_parser()._actions if isinstance(each.choices, dict))
    assert isinstance(commands.choices, dict)
    for name, parser in commands.choices.items():
        assert name in text
        for action in parser._actions:
            for flag in action.option_strings:
                long = f"-l {flag[2:]} " if flag.startswith("--") else f"-s {flag[1:]} "
                assert (long if shell == "fish" else flag) in text, (name, flag)


def test_an_unknown_shell(capsys: Captured) -> None:
    assert main(["completion", "bsh"]) == 2
    assert "'bsh'; did you mean bash? (choose from bash, zsh, fish)" in capsys.readouterr().err
