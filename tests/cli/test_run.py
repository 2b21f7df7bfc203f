"""`gpt2-wgpu run`: turns, commands and errors; at a terminal and from a pipe."""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.cli.conversation import Conversation
from gpt2_wgpu.cli.line_readers import TerminalLines, history_file, read_turn
from gpt2_wgpu.cli.main import main
from gpt2_wgpu.cli.program import parse
from gpt2_wgpu.cli.repl import COMMANDS, Repl
from gpt2_wgpu.cli.terminal import Terminal

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def lm() -> Iterator[gw.GPT2CausalLM]:
    with gw.GPT2CausalLM.from_preset("fairytales", dtype="float32") as loaded:
        yield loaded


class Lines:
    """Lines of a test; an exception among them is raised."""

    def __init__(self, *lines: str | type[BaseException]) -> None:
        self._lines = iter(lines)

    def read(self, prompt: str) -> str:
        line = next(self._lines, EOFError)
        if isinstance(line, str):
            return line
        raise line


def options(*argv: str) -> argparse.Namespace:
    return parse(["run", "fairytales", "--greedy", "-n", "6", *argv])


@pytest.fixture
def talk(lm: gw.GPT2CausalLM, capsys: Captured):
    """Runs lines; returns what is on stdout and stderr, without the "gpt2-wgpu: "."""

    def run(*lines: str | type[BaseException], argv: tuple[str, ...] = ()) -> tuple[str, str]:
        capsys.readouterr()
        with closing(Repl(lm, options(*argv), Terminal())) as repl:
            assert repl.run(Lines(*lines)) == 0
        out, err = capsys.readouterr()
        return out, err.replace("gpt2-wgpu: ", "")

    return run


def test_turns_make_one_text(talk, lm: gw.GPT2CausalLM) -> None:
    """Each answer continues all that was written before it."""
    out, err = talk("Once upon a time", "", "The wolf", '"""', "a", 'b"""', "/show text")
    assert err == ""
    lm.compile("greedy")
    text = ""
    for prompt in ("Once upon a time", "", " The wolf", "\na\nb"):
        text += prompt
        text += lm.generate(text, max_new_tokens=6, strip_prompt=True)
    assert out.endswith(text + "\n")


def test_undo_retry_clear_save_and_load(
    talk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = str(tmp_path / "text.json")
    random = ("/set temperature 1", "/set top_k 0", "/set greedy off", "/set seed 3")
    out, err = talk("Once", "The", "/undo", "/show text", f"/save {file}")
    first = out.splitlines()[-1]
    assert first == "Once" + out.splitlines()[0]
    assert "removed ' The" in err and "(1 turns)" in err
    out, err = talk(*random, "/set verbose on", "Once", "/retry", "/retry", "/set seed 4", "/retry")
    third, fourth, fifth, again = out.splitlines()
    assert len({third, fourth, fifth}) == 3 and again == fourth
    assert re.findall(r"seed (\d+)", err) == ["3", "4", "5", "4"]
    out, _ = talk(
        "/set seed 18446744073709551615", *random[:3], "Once", "/retry", argv=("--verbose",)
    )
    last, zero = out.splitlines()
    out, _ = talk("/set seed 0", *random[:3], "Once")
    assert out.splitlines() == [zero] and last != zero
    drawn = iter((1, 3))
    monkeypatch.setattr("secrets.randbelow", lambda _: next(drawn))
    out, _ = talk(*random, "/set seed default", "Once", "/retry", "/show text")
    same, again, whole = out.splitlines()
    assert same != again and whole == "Once" + again
    monkeypatch.undo()
    out, _ = talk("A", "/clear", "/show text", f"/load {file}", "/show text", "", "/undo")
    assert first in out.splitlines()
    content = json.loads(Path(file).read_text())
    for change in ({"version": 2}, {"turns": [{"prompt": "x", "answer": "", "before": 0}]}):
        Path(file).write_text(json.dumps(content | change))
        out, err = talk(f"/load {file}", "/show text")
        assert (out, err.count("error: ")) == ("", 1)
        assert f"error: {file} is " in err


def test_parameters(talk) -> None:
    out, err = talk(
        "/set temperature 0.5",
        "/set parameter top-k 7",
        "/set num_predict 3",
        '/set stop "The end"',
        "/set repeat_penalty 1.3",
        "/set greedy off",
        "/show parameters",
        "/set temperature default",
        "/set verbose on",
        "Once",
    )
    rows = dict(line.split(maxsplit=1) for line in out.splitlines()[:-1])
    expected = {
        "temperature": "0.5",
        "top_k": "7",
        "max_new_tokens": "3",
        "stop": "'The end'",
        "repetition_penalty": "1.3",
        "greedy": "off",
        "seed": "none",
    }
    assert expected.items() <= rows.items()
    assert "+ 3 tokens" in err and "stopped: token limit · seed " in err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/sow", "no command '/sow'; did you mean /show?; /help lists them"),
        ("/set tmperature 1", "no parameter 'tmperature'; did you mean temperature?"),
        ("/set temperature x", "temperature: 'x' must be a number >= 0"),
        ("/set top_k", "/set takes a name and a value"),
        ("/set greedy perhaps", "greedy is on or off, not 'perhaps'"),
        ("/undo", "there is no turn to undo"),
        ("/retry", "there is no turn to undo"),
        ("/undo 2", "/undo takes no argument, not '2'"),
        ("/save", "/save needs the name of a file"),
        ("/save /none/x", "cannot write /none/x: No such file or directory"),
        ("/load /none/x", "cannot read /none/x: No such file or directory"),
        ("/load /dev/null", "/dev/null is not a text that /save of this version has written"),
        ("/show modl", "nothing to show named 'modl'; did you mean model?"),
        ("word " * 600, "in the model's context of 512: shorten it\n"),
    ],
)
def test_an_error_does_not_end_the_program(line: str, said: str, talk) -> None:
    out, err = talk(line, "/show model", KeyboardInterrupt)
    assert err.count("error: ") == 1
    assert said in err
    assert " 0 of 512 tokens\n" in out
    assert "Ctrl-D or /bye ends the program" in err


def test_parameters_that_the_options_do_not_combine(talk) -> None:
    out, err = talk(
        "/set beams 3",
        "/set penalty_alpha 0.6",
        "/set prompt_lookup 4",
        "/set beams none",
        "/set penalty_alpha 0.6",
        "/show parameters",
    )
    said = "cannot be combined with beams: /set beams none, then again"
    assert [line.removeprefix("error: ") for line in err.splitlines()] == [
        f"penalty_alpha {said}",
        f"prompt_lookup {said}",
    ]
    rows = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert (rows["beams"], rows["penalty_alpha"], rows["prompt_lookup"]) == ("none", "0.6", "0")


def test_show_and_help(talk) -> None:
    out, _ = talk("/show", "/help")
    for word in ("float32", "memory, budget", "fairytales", "min_p", *COMMANDS):
        assert word in out


def test_the_context_ends(talk) -> None:
    out, err = talk("word " * 490, "/set n -1", "", "more", "/show model")
    assert "the model's context of 512 tokens is full: /undo or /clear" in err
    assert "nothing fits behind it in the model's context of 512: /undo or /clear\n" in err
    assert " 512 of 512 tokens\n" in out


def test_an_answer_computes_only_new_tokens(
    talk, monkeypatch: pytest.MonkeyPatch, lm: gw.GPT2CausalLM
) -> None:
    """Also after /undo, which goes back, and not in a search, which has no session."""
    kept: list[int] = []
    edit = gw.Session.edit

    def counted(self: gw.Session, *args: Any, **kwargs: Any) -> int:
        kept.append(edit(self, *args, **kwargs))
        return kept[-1]

    monkeypatch.setattr(gw.Session, "edit", counted)
    in_use = gw.memory().num_bytes
    talk("Once upon a time", "The wolf", "/undo", "A king", "/set beams 2", "Then")
    assert lm.preprocessor is not None
    first = len(lm.preprocessor.tokenizer.encode("Once upon a time")) + 1 + 6
    assert kept == [0, first, first]
    assert gw.memory().num_bytes == in_use


@pytest.mark.parametrize("search", ["/set beams none", "/set beams 2"])
def test_a_time_limit_ends_an_answer(search: str, talk) -> None:
    limit = ("/set time_limit 1e-9", "/set verbose on")
    _, err = talk(*limit, search, "Once", argv=("-n", "300"))
    assert "stopped: time limit" in err


def test_the_ends_of_a_checkpoint_can_be_switched_off(
    talk, lm: gw.GPT2CausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = talk("Once upon a time", "/show text")
    limits: dict[str, Any] = {"stop_texts": (whole.split()[2],), "time_limit": 1e-9}
    monkeypatch.setattr(lm, "generation_limits", limits)
    for argv, said in (((), "time limit"), (("--time-limit", "-1"), "stop text")):
        out, err = talk("Once upon a time", "/show parameters", argv=("--verbose", *argv))
        rows = dict(line.split(maxsplit=1) for line in out.splitlines()[1:])
        assert f"stopped: {said}" in err
        assert rows["stop"] == repr(limits["stop_texts"][0])
        assert rows["time_limit"] == ("none" if argv else "1e-09")
    off = ("--no-stop", "--time-limit", "-1")
    assert talk("Once upon a time", "/show text", argv=off)[0] == whole
    commands = ("/set no_stop on", "/set time_limit -1", "Once upon a time", "/show text")
    assert talk(*commands)[0] == whole
    _, err = talk("/set no_stop on", "/set stop x", "/show parameters")
    assert "stop cannot be combined with no_stop: /set no_stop off, then again" in err


def test_a_draft_model_gives_the_same_text(lm: gw.GPT2CausalLM, talk, capsys: Captured) -> None:
    """The statistics say how many of its tokens were accepted."""
    lines = ("Once upon a time", "The wolf", "/show text")
    plain, _ = talk(*lines)
    args = options("--draft-model", "fairytales", "--draft-max", "3", "--verbose")
    draft = gw.GPT2CausalLM.from_preset("fairytales", dtype="q4")
    with draft, closing(Repl(lm, args, Terminal(), draft)) as repl:
        assert repl.run(Lines(*lines, "/show model", "/set beams 2")) == 0
    out, err = capsys.readouterr()
    assert out.startswith(plain.rstrip("\n"))
    assert re.search(r"^draft model +fairytales$", out, re.MULTILINE)
    assert err.count(" drafted tokens accepted") == 2
    assert "beams cannot be combined with the option --draft-model" in err


def test_a_stop_text_is_not_part_of_the_text(talk) -> None:
    out, _ = talk("Once upon a time", "/show text", argv=("-n", "20"))
    stop = out.splitlines()[0].split()[4]
    shown, _ = talk("Once upon a time", "/show text", argv=("-n", "20", "--stop", stop))
    answer = shown.splitlines()[0]
    assert stop not in answer and out.startswith(answer)
    assert shown.splitlines()[1] == "Once upon a time" + answer


def test_control_c_keeps_what_was_written(talk, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Conversation.stream

    def interrupted(*args: Any, **kwargs: Any) -> gw.TextStream:
        found: gw.TextStream = stream(*args, **kwargs)
        following = type(found).__next__

        def piece(self: gw.TextStream) -> str:
            if self.stats.new_tokens == 3:
                os.kill(os.getpid(), signal.SIGINT)
            return following(self)

        found.__class__ = type("Stream", (type(found),), {"__next__": piece})
        return found

    monkeypatch.setattr(Conversation, "stream", interrupted)
    out, err = talk("Once upon a time", "/show text", argv=("-n", "100"))
    answer, text = out.splitlines()
    assert text == "Once upon a time" + answer
    assert 0 < len(answer.split()) < 8
    assert err == ""
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_control_c_before_the_first_piece_keeps_what_was_typed(
    talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a turn without an answer; /retry then keeps the answer of before."""
    stream, calls = Conversation.stream, itertools.count()

    def interrupted(*args: Any, **kwargs: Any) -> gw.TextStream:
        if next(calls) > 0:
            raise KeyboardInterrupt
        return stream(*args, **kwargs)

    monkeypatch.setattr(Conversation, "stream", interrupted)
    out, err = talk("Once", "/retry", "/show text", " More", "/show text", "/undo")
    answer, before, after = out.splitlines()
    assert before == "Once" + answer and after == before + " More"
    assert err.splitlines() == ["interrupted", "interrupted", "removed ' More'"]


def test_a_terminal_by_prompt_toolkit(tmp_path: Path) -> None:
    from prompt_toolkit.application import create_app_session
    from prompt_toolkit.input import create_pipe_input
    from prompt_toolkit.output import DummyOutput

    history = tmp_path / "state" / "history"
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        lines = TerminalLines(list(COMMANDS), history)
        for typed, turn in (
            ("/set temp 1\r", "/set temp 1"),
            ('"""a\rb"""\r', "a\nb"),
            ("\x1b[A\x1b[A\x1b[A\r", "/set temp 1"),
        ):
            keys.send_text(typed)
            assert read_turn(lines) == turn
        for typed, error in (("a\x03", KeyboardInterrupt), ("\x04", EOFError)):
            keys.send_text(typed)
            with pytest.raises(error):
                read_turn(lines)
    assert history.stat().st_mode & 0o777 == 0o600
    assert "+/set temp 1" in history.read_text()


def test_a_history_that_cannot_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    TerminalLines([], tmp_path / "file" / "history")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert history_file() == Path("/state/gpt2-wgpu/history")


def test_a_pipe(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    data = b"/set n 4\n/set greedy on\nOnce upon a time\r\n/nothing\n/show text"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert main(["run", "fairytales", "--dtype", "f32"]) == 0
    out, err = capsys.readouterr()
    answer, text = out.splitlines()
    assert text == "Once upon a time" + answer
    assert err.count("\n") == 1
    assert "no command '/nothing'" in err
    assert main(["run", "fairytales", "Once", "-q", "-n", "4", "--greedy"]) == 0
    assert len(capsys.readouterr().out) > 4
    assert main(["run", "no-such-model"]) == 1
    assert "unknown model 'no-such-model'" in capsys.readouterr().err
