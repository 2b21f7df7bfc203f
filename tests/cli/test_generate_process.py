"""`generate` as a process with the embedded model, on this machine's adapter."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import gpt2_wgpu as gw
from tests.cli.conftest import COMMAND, Run, Started

PROMPT = "Once upon a time"


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> str:
    """What the embedded model says greedily, in 24 tokens, after PROMPT."""
    done = subprocess.run(
        [*COMMAND, "generate", "--greedy", "-n", "24", "-q", PROMPT],
        capture_output=True,
        encoding="utf-8",
        env=environment,
        cwd=tmp_path_factory.mktemp("elsewhere"),
        check=True,
    )
    return done.stdout


def test_a_story(story: str) -> None:
    assert story.startswith(PROMPT + " ") or story.startswith(PROMPT + ",")
    assert len(story.split()) > 12
    assert story.endswith("\n")


def test_figures_go_to_stderr(run: Run) -> None:
    done = run("generate", "--greedy", "-n", "5", PROMPT)
    assert done.returncode == 0
    lines = done.stderr.splitlines()
    (figures,) = (line for line in lines if "on the CPU" not in line)
    assert figures.startswith("gpt2-wgpu: fairytales on ")
    assert "+ 5 tokens" in figures
    assert "first token" in figures
    assert "tokens/s" in figures
    assert figures.endswith("stopped: token limit")


def test_standard_input_is_a_prompt(run: Run, story: str) -> None:
    done = run("generate", "--greedy", "-n", "24", "-q", input=PROMPT + "\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, story, "")


def test_a_draft_model_changes_no_text(run: Run, story: str) -> None:
    options = ("--draft-model", "fairytales", "--num-speculative-tokens", "4", "--json")
    done = run("generate", "--greedy", "-n", "24", "--no-stream", *options, PROMPT)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert PROMPT + found["text"] + "\n" == story
    assert found["accepted_tokens"] > found["drafted_tokens"] / 2  # the same model


def test_f32_reads_like_f16(run: Run) -> None:
    texts = set()
    for dtype in ("f32", "f16"):
        done = run("generate", "--greedy", "-n", "8", "-q", "--dtype", dtype, PROMPT)
        assert (done.returncode, done.stderr) == (0, "")
        texts.add(done.stdout)
    assert len(texts) == 1


@pytest.mark.parametrize(("gain", "reported"), [(3.0, True), (1.0, False)])
def test_a_default_that_is_not_float16_is_told(
    run: Run,
    environment: dict[str, str],
    device: gw.Device,
    tmp_path: Path,
    gain: float,
    reported: bool,
    story: str,
) -> None:
    """The story's process left measurements of the adapter in the user's cache; here are others."""
    known = Path(environment["XDG_CACHE_HOME"], "gpt2-wgpu", "default_dtype.json")
    if not device.info.is_software:
        assert not known.exists()
        pytest.skip("a GPU computes here: nothing is measured")
    made_up = tmp_path / "gpt2-wgpu" / known.name
    made_up.parent.mkdir()
    seconds = {"float16": gain, "q8": 1.0}
    made_up.write_text(json.dumps(dict.fromkeys(json.loads(known.read_text()), seconds)))
    silencing = (("-q",), ("--dtype", "f16")) if reported else ()
    for option, expected in ((), reported), *((silent, False) for silent in silencing):
        env = {"XDG_CACHE_HOME": str(tmp_path)}
        done = run("generate", "--greedy", "-n", "1", *option, PROMPT, env=env)
        assert done.returncode == 0
        assert ("q8 weights, 3.0 times as fast as float16 here" in done.stderr) is expected


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["-m", "no-such-model", PROMPT], "no-such-model"),
        (["-m", "no/such/directory", PROMPT], "no/such/directory"),
        (["-m", "", PROMPT], "''"),
        (["word " * 3000], "512"),
    ],
)
def test_a_run_time_error_is_one_line(argv: list[str], said: str, run: Run) -> None:
    done = run("generate", "-q", *argv, env={"HF_HUB_OFFLINE": "1"})
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("gpt2-wgpu: error: ")
    assert done.stderr.count("\n") == 1
    assert "report" not in done.stderr
    assert said in done.stderr


def test_a_directory_without_a_model(run: Run, tmp_path: Path) -> None:
    done = run("generate", "-m", str(tmp_path), PROMPT)
    assert (done.returncode, done.stdout) == (1, "")
    assert str(tmp_path) in done.stderr
    assert done.stderr.count("\n") == 1


def test_control_c_in_mid_stream(environment: dict[str, str], started: Started) -> None:
    process = started(
        [*COMMAND, "generate", "--seed", "1", "-n", "500", PROMPT],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    )
    assert process.stdout is not None
    first = os.read(process.stdout.fileno(), 1000)
    while len(first) <= len(PROMPT):
        first += os.read(process.stdout.fileno(), 1000)
    process.send_signal(signal.SIGINT)
    rest, err = process.communicate(timeout=20)
    assert process.returncode == 130
    text = (first + rest).decode()
    assert text.startswith(PROMPT)
    assert text.endswith("\n")
    assert "Traceback" not in err.decode()
    assert "error" not in err.decode()
    assert "stopped: Ctrl-C · seed 1\n" in err.decode()


def test_control_c_in_mid_json(environment: dict[str, str], started: Started) -> None:
    process = started(
        [*COMMAND, "generate", "--json", "-q", "-n", "500", PROMPT],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    rest, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, b"")
    *tokens, end = map(json.loads, (first + rest).splitlines())
    assert all(token.keys() == {"token", "text"} for token in tokens)
    assert (end["done"], end["reason"]) == (True, "aborted")


def test_control_c_while_a_prompt_is_read(environment: dict[str, str], started: Started) -> None:
    process = started(
        [*COMMAND, "generate"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment | {"PYTHONUNBUFFERED": "1"},
    )
    with pytest.raises(subprocess.TimeoutExpired):  # it waits for a prompt
        process.wait(2)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20) == (b"", b"gpt2-wgpu: interrupted\n")
    assert process.returncode == 130


def test_a_reader_that_leaves(environment: dict[str, str], started: Started) -> None:
    process = started(
        [*COMMAND, "generate", "-q", "-n", "500", PROMPT],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    )
    assert process.stdout is not None
    head = process.stdout.read(len(PROMPT) + 4)
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read()
    process.stderr.close()
    assert (process.wait(20), err) == (0, b"")
    assert head.decode().startswith(PROMPT)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("options", [[], ["--json"], ["--no-stream"]])
def test_an_output_that_is_full(options: list[str], run: Run) -> None:
    with Path("/dev/full").open("w") as full:
        done = run("generate", "-q", "-n", "5", *options, PROMPT, stdout=full)
    assert done.returncode == 1
    assert done.stderr == (
        "gpt2-wgpu: error: cannot write to standard output: No space left on device\n"
    )


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
def test_an_output_that_is_closed(environment: dict[str, str]) -> None:
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *COMMAND, "generate", "-q", "-n", "5", PROMPT],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert done.returncode == 1
    assert done.stderr == "gpt2-wgpu: error: cannot write to standard output: it is closed\n"


def on_a_terminal(argv: list[str], env: dict[str, str]) -> Iterator[bytes]:
    """Runs `argv` with a terminal for all three streams; yields what the screen gets."""
    import pty

    pid, screen = pty.fork()
    if pid == 0:
        os.execvpe(argv[0], argv, env)
    try:
        while chunk := os.read(screen, 4096):
            yield chunk
    except OSError:  # how Linux says that the other end of a terminal is gone
        pass
    finally:
        os.close(screen)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pty")
@pytest.mark.parametrize("no_color", ["", "1"])
def test_on_a_terminal(no_color: str, environment: dict[str, str], story: str) -> None:
    argv = [*COMMAND, "generate", "--greedy", "-n", "24", PROMPT]
    env = environment | {"NO_COLOR": no_color}
    screen = b"".join(on_a_terminal(argv, env)).decode().replace("\r\n", "\n")
    assert "tokens/s" in screen
    if no_color:
        assert story in screen
        assert "\033[1m" not in screen
        assert "\033[2m" not in screen
    else:
        assert f"\033[1m{PROMPT}\033[0m" + story.removeprefix(PROMPT) in screen
        assert "\033[2mgpt2-wgpu: fairytales on" in screen


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pty")
def test_a_terminal_without_a_prompt_does_not_wait_for_one(environment: dict[str, str]) -> None:
    argv = [*COMMAND, "generate", "--greedy", "-n", "4"]
    screen = b"".join(on_a_terminal(argv, environment)).decode()
    assert "no prompt: starting a new text" in screen
