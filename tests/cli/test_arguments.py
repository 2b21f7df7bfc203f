"""Arguments: help, versions and wrong usage, all without an engine."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from gpt2_wgpu._version import __version__
from gpt2_wgpu.cli.program import build_parser, parse
from tests.cli.conftest import Run

COMMANDS = next(each.choices for each in build_parser()._actions if isinstance(each.choices, dict))


def usage_error(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Parses `argv`, which must fail with status 2, nothing on stdout and one line on stderr."""
    with pytest.raises(SystemExit) as exit_request:
        parse(argv)
    assert exit_request.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("\n")
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize(
    ("option", "value", "bound"),
    [
        ("--temp", "-1", "must be a number >= 0"),
        ("--temp", "nan", "must be a number >= 0"),
        ("--temp", "inf", "must be a number >= 0"),
        ("--temp", "warm", "must be a number >= 0"),
        ("--top-k", "-1", "must be an integer >= 0"),
        ("--top-k", "2.5", "must be an integer >= 0"),
        ("--top-k", "9" * 20, f"must be an integer >= 0 and <= {2**31 - 1}"),
        ("-n", "9" * 21, f"must be an integer >= 1 and <= {2**31 - 1}"),
        ("-n", str(2**31), f"must be an integer >= 1 and <= {2**31 - 1}"),
        ("--top-p", "0", "must be a number > 0 and <= 1"),
        ("--top-p", "1.01", "must be a number > 0 and <= 1"),
        ("--top-p", "nan", "must be a number > 0 and <= 1"),
        ("--seed", "-1", f"must be an integer >= 0 and <= {2**64 - 1}"),
        ("--seed", str(2**64), f"must be an integer >= 0 and <= {2**64 - 1}"),
        ("--seed", "9" * 5000, "must be an integer"),
        ("-n", "0", "must be an integer >= 1"),
        ("-n", "-2", f"must be an integer >= 1 and <= {2**31 - 1}, or -1"),
        ("--penalty-alpha", "2", "must be a number >= 0 and <= 1"),
        ("--prompt-lookup", "8", "must be an integer >= 0 and <= 7"),
        ("--max-new-tokens", "many", "must be an integer >= 1"),
        ("--stop", "", "at least 1 character"),
        ("--time-limit", "0", "must be a number > 0 and <= 1e+09"),
    ],
)
def test_a_value_out_of_bounds_is_named(
    option: str, value: str, bound: str, capsys: pytest.CaptureFixture[str]
) -> None:
    err = usage_error(capsys, "generate", "Once", option, value)
    assert option in err
    assert ascii(value[:37])[1:-1] in err
    assert bound in err
    assert len(err) < 300


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "required: COMMAND"),
        (["sing"], "'sing' (choose from "),
        (["genrate", "Once"], "'genrate'; did you mean generate? (choose from "),
        (["generate", "--num-beams=3", "Once"], "--num-beams=3; did you mean --beams?"),
        (
            ["run", "--beams", "2", "--penalty-alpha", "0"],
            "argument --penalty-alpha: not allowed with argument --beams",
        ),
        *(
            (
                [command, *more, "--prompt-lookup", "4", option, value],
                f"argument {option}: not allowed with argument --prompt-lookup",
            )
            for command, *more in (["generate"], ["run"], ["batch", "a.csv", "b.csv"])
            for option, value in (
                ("--beams", "3"),
                ("--penalty-alpha", "0.6"),
            )
        ),
        *(
            (
                ["generate", "--draft-model", "gpt2", *other],
                f"argument {other[0]}: not allowed with argument --draft-model",
            )
            for other in (["--beams", "3"], ["--penalty-alpha", "0"], ["--prompt-lookup", "2"])
        ),
        (["generate", "--draft-max", "8"], "--draft-max"),
        (["generate", "--dtype", "f8"], "'f8'"),
        (["generate", "--top-k"], "--top-k: expected one argument"),
        (["generate", "--tem", "1"], "--tem"),  # no abbreviations: they break when options come
        (["generate", "Once", "upon"], "upon"),
        (["doctor", "--quiet"], "--quiet"),
        (["batch", "a.csv", "b.csv", "--time-limit", "1"], "--time-limit"),
        (["generate", "caf\udce9"], "not valid UTF-8"),
        (["generate", "--stop", "caf\udce9"], "not valid UTF-8"),
    ],
)
def test_wrong_usage(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in usage_error(capsys, *argv)


@pytest.mark.parametrize(
    ("argv", "name", "value"),
    [
        (["--temp", "0"], "temperature", 0.0),
        (["--top-k", "0"], "top_k", 0),
        (["--top-p", "1"], "top_p", 1.0),
        (["--seed", str(2**64 - 1)], "seed", 2**64 - 1),
        (["-n", "1"], "max_new_tokens", 1),
        (["-n", "-1"], "max_new_tokens", 2**31 - 1),
        (["--max-tokens", "5"], "max_new_tokens", 5),
        (["--temperature", "0.5"], "temperature", 0.5),
        (["-n", str(2**31 - 1)], "max_new_tokens", 2**31 - 1),
        (["--top-k", str(2**31 - 1)], "top_k", 2**31 - 1),
        (["--stop", "a", "--stop", "\n"], "stop", ["a", "\n"]),
        (["--time-limit", "-1"], "time_limit", 10**9),
        (["--no-stop"], "no_stop", True),
        (["--prompt-lookup", "4", "--repeat-penalty", "2"], "prompt_lookup", 4),
        (["--prompt-lookup", "0", "--beams", "2"], "beams", 2),
        (["--", "-dashing"], "prompt", "-dashing"),
        (["-"], "prompt", "-"),
        ([], "model", "fairytales"),
    ],
)
def test_bounds_themselves_are_allowed(argv: list[str], name: str, value: object) -> None:
    assert getattr(parse(["generate", *argv]), name) == value


def test_usage_errors_of_the_process(run: Run) -> None:
    done = run("generate", "--top-p", "1.5", "Once")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        "gpt2-wgpu generate: error: argument --top-p: '1.5' must be a number > 0 and <= 1 "
        "(see 'gpt2-wgpu generate --help')\n"
    )


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        (
            ["generate", "Once", "upon", "a"],
            "gpt2-wgpu generate: error: unrecognized arguments: upon a; put a prompt of several "
            "words in quotes (see 'gpt2-wgpu generate --help')\n",
        ),
        (
            ["generate", "Once", "--tem", "1"],
            "gpt2-wgpu generate: error: unrecognized arguments: --tem 1; did you mean --temp? "
            "(see 'gpt2-wgpu generate --help')\n",
        ),
        (
            ["doctor", "me"],
            "gpt2-wgpu doctor: error: unrecognized arguments: me (see 'gpt2-wgpu doctor --help')\n",
        ),
        (
            [],
            "gpt2-wgpu: error: the following arguments are required: COMMAND (see 'gpt2-wgpu "
            "--help')\n",
        ),
    ],
)
def test_a_hint_points_at_the_help_that_helps(
    argv: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert usage_error(capsys, *argv) == error


@pytest.mark.parametrize(
    "command",
    [name for name in COMMANDS if name != "serve"],
)
def test_help_names_every_option_and_shows_examples(command: str, run: Run) -> None:
    done = run(command, "--help", env={"COLUMNS": "80"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "examples:\n  gpt2-wgpu " in done.stdout
    assert "\033" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    for action in build_parser()._actions:
        for parser in (getattr(action, "choices", None) or {}).values():
            for option in parser._actions if parser.prog.endswith(command) else ():
                assert option.help
                assert all(flag in done.stdout for flag in option.option_strings)


def test_help_lists_the_commands(run: Run) -> None:
    done = run("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "generate" in done.stdout
    assert "doctor" in done.stdout


def test_version_names_wgpu_too(run: Run) -> None:
    done = run("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"gpt2-wgpu {__version__} (wgpu {metadata.version('wgpu')})\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_that_cannot_be_written(option: str, run: Run) -> None:
    with Path("/dev/full").open("w") as full:
        done = run(option, stdout=full)
    assert done.returncode == 1
    assert done.stderr == (
        "gpt2-wgpu: error: cannot write to standard output: No space left on device\n"
    )
