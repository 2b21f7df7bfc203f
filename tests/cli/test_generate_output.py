"""Calls and output of `generate`, with the fake engine."""

from __future__ import annotations

import io
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpt2_wgpu.cli.main import main
from gpt2_wgpu.sampling_parameters import TIME_LIMIT_SECONDS
from tests.cli.fake_engine import FakeEngine

Captured = pytest.CaptureFixture[str]

MILD = {"repetition_penalty": 1.1}


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    for name in ("NO_COLOR", "GPT2_WGPU_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    return FakeEngine().install(monkeypatch)


def pipe_in(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_prompt_and_text_read_as_one(engine: FakeEngine, capsys: Captured) -> None:
    assert main(["generate", "Once", "--seed", "7", "-n", "2"]) == 0
    out, err = capsys.readouterr()
    assert out == "Once a b\n"
    assert err == (
        "gpt2-wgpu: fairytales on Fake 9000 · 3 + 2 tokens · first token 0.25 s "
        "(compiling included) · 12.5 tokens/s · stopped: token limit · seed 7\n"
    )
    assert engine.stream is not None
    assert engine.stream.closed


@pytest.mark.parametrize(
    ("options", "out"),
    [
        (["--no-echo"], " a b\n"),
        (["--no-stream"], "Once a b\n"),
        (["--no-stream", "--no-echo"], " a b\n"),
    ],
)
def test_text_modes(options: list[str], out: str, engine: FakeEngine, capsys: Captured) -> None:
    assert main(["generate", "Once", *options]) == 0
    assert capsys.readouterr().out == out


def test_a_final_newline_is_not_doubled(engine: FakeEngine, capsys: Captured) -> None:
    engine.pieces = [(" a.\n", [5])]
    assert main(["generate", "Once"]) == 0
    assert capsys.readouterr().out == "Once a.\n"


def test_quiet_means_text_alone(engine: FakeEngine, capsys: Captured) -> None:
    engine.info.is_software = True
    assert main(["generate", "-q", ""]) == 0
    assert capsys.readouterr() == (" a b\n", "")


@pytest.mark.parametrize(
    ("options", "sampler"),
    [
        (["--greedy", "--temp", "2"], ("GreedySampler", {})),
        (["--temp", "0"], ("GreedySampler", {})),
        (["--greedy", "--repeat-penalty", "1.1"], ("GreedySampler", MILD)),
        (
            ["--top-p", "1", "--repeat-penalty", "1"],
            ("TopKSampler", {"k": 40, "temperature": 0.8, "seed": 3}),
        ),
        ([], ("TopPSampler", {"p": 0.95, "k": 40, "temperature": 0.8, "seed": 3, **MILD})),
        (
            ["--top-k", "0"],
            ("TopPSampler", {"p": 0.95, "k": None, "temperature": 0.8, "seed": 3, **MILD}),
        ),
        (["--top-p", "1"], ("TopKSampler", {"k": 40, "temperature": 0.8, "seed": 3, **MILD})),
        (
            ["--top-p", "1", "--top-k", "0", "--temp", "1.5"],
            ("RandomSampler", {"temperature": 1.5, "seed": 3, **MILD}),
        ),
        (
            ["--penalty-alpha", "0.4"],
            ("ContrastiveSampler", {"k": 5, "alpha": 0.4, "temperature": 1.0}),
        ),
        (
            ["--penalty-alpha", "0.4", "--top-k", "8", "--repeat-penalty", "1.1"],
            ("ContrastiveSampler", {"k": 8, "alpha": 0.4, "temperature": 1.0, **MILD}),
        ),
        (
            ["--prompt-lookup", "4", "--top-p", "1"],
            ("TopKSampler", {"k": 40, "temperature": 0.8, "seed": 3, **MILD}),
        ),
        (["--greedy", "--prompt-lookup", "4"], ("GreedySampler", {})),
    ],
)
def test_the_sampler(
    options: list[str], sampler: tuple[str, dict[str, Any]], engine: FakeEngine
) -> None:
    assert main(["generate", "Once", "--seed", "3", *options]) == 0
    class_name, config = sampler
    assert engine.calls["sampler"] == {"class_name": class_name, "config": config}
    assert engine.calls["prompt_lookup_num_tokens"] == 4 * ("--prompt-lookup" in options)


def test_a_draft_model(engine: FakeEngine, capsys: Captured) -> None:
    """It is a second model; the sampler of the other options is the base."""
    engine.stats.drafted_tokens, engine.stats.accepted_tokens = 8, 5
    engine.generation_defaults = {"num_beams": 3}  # which has no drafts
    options = ["--draft-model", "gpt2", "--draft-dtype", "q4", "--seed", "3", "--json"]
    assert main(["generate", "Once", "-m", "gpt2_large_en", "--dtype", "f16", *options]) == 0
    draft, model = engine.presets
    assert (draft["preset"], draft["dtype"]) == ("gpt2", "q4")
    assert (model["preset"], model["dtype"]) == ("gpt2_large_en", "float16")
    assert engine.calls["draft_model"].stream is not None
    config = engine.calls["sampler"]["config"]
    assert (engine.calls["sampler"]["class_name"], config["num_speculative_tokens"]) == (
        "SpeculativeSampler", 5,
    )  # fmt: skip
    assert config["base_sampler"]["class_name"] == "TopPSampler"
    assert config["base_sampler"]["config"]["seed"] == 3
    out, err = capsys.readouterr()
    figures = json.loads(out.splitlines()[-1])
    assert (figures["drafted_tokens"], figures["accepted_tokens"]) == (8, 5)
    assert " · 5 of 8 drafted tokens accepted · " in err
    assert main(["generate", "Once", "--draft-model", "gpt2", "--draft-max", "2", "--greedy"]) == 0
    config = engine.calls["sampler"]["config"]
    assert config["num_speculative_tokens"] == 2
    assert config["base_sampler"]["class_name"] == "GreedySampler"
    assert main(["generate", "Once", "--draft-dtype", "q4"]) == 2
    assert "--draft-dtype needs --draft-model" in capsys.readouterr().err


def test_without_a_seed_every_run_has_its_own_and_says_which(
    engine: FakeEngine, capsys: Captured
) -> None:
    seeds = set()
    for _ in range(3):
        assert main(["generate", "Once"]) == 0
        seeds.add(engine.calls["sampler"]["config"]["seed"])
        assert capsys.readouterr().err.endswith(
            f"seed {engine.calls['sampler']['config']['seed']}\n"
        )
    assert len(seeds) == 3


def test_options_reach_the_engine(engine: FakeEngine) -> None:
    adapters = ["--adapter-weights", "one", "--adapter-weights", "two"]
    options = [
        *adapters,
        "--dtype",
        "f32",
        "--cache-dtype",
        "f16",
        "-n",
        "9",
        "--stop",
        "END",
        "--stop",
        "!",
        "--no-start-token",
        "--time-limit",
        "2.5",
    ]
    assert main(["generate", "Once", "-m", "gpt2", *options]) == 0
    assert engine.calls["from_preset"] == {
        "preset": "gpt2",
        "dtype": "float32",
        "cache_dtype": "float16",
        "adapter": ["one", "two"],
    }
    assert engine.calls["stream"] == {
        "inputs": "Once",
        "max_new_tokens": 9,
        "stop_texts": ["END", "!"],
        "time_limit": 2.5,
        "add_start_token": False,
        "top_logprobs": None,
    }
    assert main(["generate", "Once", "--no-stop", "--time-limit", "-1"]) == 0
    assert engine.calls["stream"]["stop_texts"] == []  # not None, for those of the checkpoint
    assert engine.calls["stream"]["time_limit"] == TIME_LIMIT_SECONDS.high
    for given, allowed in ((["<a>", "<b>"], ["<a>", "<b>"]), (["<a>", "all"], "all")):
        options = [part for token in given for part in ("--allowed-special", token)]
        assert main(["generate", "Once", *options]) == 0
        assert engine.calls["stream"]["allowed_special"] == allowed
    assert main(["generate", "Once"]) == 0
    assert engine.calls["from_preset"] == {
        "preset": "fairytales",
        "dtype": None,
        "cache_dtype": None,
        "adapter": None,
    }
    assert engine.calls["stream"] == {
        "inputs": "Once",
        "max_new_tokens": 128,
        "stop_texts": None,
        "time_limit": None,
        "add_start_token": True,
        "top_logprobs": None,
    }


@pytest.mark.parametrize(
    ("argv", "piped", "prompt"),
    [
        ([], "Once upon\n", "Once upon"),
        (["-"], "Once upon", "Once upon"),
        ([], "two\n\n", "two\n"),
        ([], "dos\r\n", "dos"),
        ([], "naïve 😀", "naïve 😀"),
        (["given"], "ignored", "given"),
        ([], "", ""),
    ],
)
def test_where_the_prompt_comes_from(
    argv: list[str],
    piped: str,
    prompt: str,
    engine: FakeEngine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
) -> None:
    pipe_in(monkeypatch, piped.encode())
    assert main(["generate", *argv]) == 0
    assert engine.calls["stream"]["inputs"] == prompt
    assert ("no prompt: starting a new text" in capsys.readouterr().err) == (prompt == "")


def test_a_prompt_of_an_option_or_a_file(
    engine: FakeEngine, tmp_path: Path, capsys: Captured
) -> None:
    file = tmp_path / "prompt.txt"
    file.write_bytes("Es war\r\neinmal ü\r\n".encode())
    for options, prompt in (
        (["-p", "-"], "-"),
        (["-f", str(file)], "Es war\r\neinmal ü"),
    ):
        assert main(["generate", *options]) == 0
        assert engine.calls.pop("stream")["inputs"] == prompt
    file.write_bytes(b"caf\xe9")
    capsys.readouterr()
    for options, status, said in (
        (["-f", str(file)], 1, f"{file} is not valid UTF-8: byte 0xe9 at 3; convert it\n"),
        (["-f", str(tmp_path)], 1, f"cannot read {tmp_path}: Is a directory\n"),
        (["-f", str(file), "-p", "a"], 2, "give one prompt: PROMPT, --prompt or --file"),
        (["-p", "a", "b"], 2, "give one prompt: PROMPT, --prompt or --file"),
    ):
        assert main(["generate", *options]) == status
        assert said in capsys.readouterr().err
    assert "stream" not in engine.calls


def test_the_model_of_the_environment(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    for value, options, model in (
        ("my/model", [], "my/model"),
        ("my/model", ["-m", "other"], "other"),
        ("", [], "fairytales"),
    ):
        monkeypatch.setenv("GPT2_WGPU_MODEL", value)
        assert main(["generate", "-q", "Once", *options]) == 0
        assert engine.calls["from_preset"]["preset"] == model


def test_a_pipe_that_is_not_utf8(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    pipe_in(monkeypatch, b"caf\xe9")
    assert main(["generate"]) == 1
    assert capsys.readouterr() == (
        "",
        "gpt2-wgpu: error: standard input is not valid UTF-8: byte 0xe9 at 3; convert it, or give "
        "the text as an argument\n",
    )
    assert engine.calls == {}


def test_json_lines(engine: FakeEngine, capsys: Captured) -> None:
    engine.pieces = [(" a", [5]), ("ü", [200, 120]), ("", [7]), ("end", []), ("", [8, 9])]
    assert main(["generate", "Once", "--json", "--seed", "1", "-q", "-n", "6"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line) for line in lines] == [
        {"token": 5, "text": " a"},
        {"token": 200, "text": ""},
        {"token": 120, "text": "ü"},
        {"token": 7, "text": "end"},
        {"token": 8, "text": ""},
        {"token": 9, "text": ""},
        {
            "done": True,
            "reason": "length",
            "prompt_tokens": 3,
            "tokens": 6,
            "seconds_to_first_token": 0.25,
            "tokens_per_second": 12.5,
            "model": "fairytales",
            "adapter": "Fake 9000",
            "seed": 1,
        },
    ]
    assert "ü" in lines[2]


def test_json_of_a_text_that_comes_after_its_token(engine: FakeEngine, capsys: Captured) -> None:
    engine.pieces = [(" a", [5]), (" The E", [])]
    assert main(["generate", "Once", "--json"]) == 0
    *tokens, _ = map(json.loads, capsys.readouterr().out.splitlines())
    assert tokens == [{"token": 5, "text": " a"}, {"token": None, "text": " The E"}]


@pytest.fixture
def patient_signals() -> Iterator[None]:
    """The command lets a second Ctrl-C end the process: not the process of the tests."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("patient_signals")
def test_control_c_says_how_to_repeat_the_run(engine: FakeEngine, capsys: Captured) -> None:
    engine.pieces = [(" a", [5]), KeyboardInterrupt()]
    for options in ([], ["--no-stream"]):
        assert main(["generate", "Once", "--seed", "7", *options]) == 130
        out, err = capsys.readouterr()
        assert out == "Once a\n"
        assert err.count("\n") == 1
        assert err.endswith(" · stopped: Ctrl-C · seed 7\n")
    assert engine.stream is not None
    assert engine.stream.closed


@pytest.mark.usefixtures("patient_signals")
def test_control_c_does_not_break_json(engine: FakeEngine, capsys: Captured) -> None:
    engine.pieces = [(" a", [5]), ("", [6]), KeyboardInterrupt()]
    assert main(["generate", "Once", "--json", "--seed", "7", "-q"]) == 130
    out, err = capsys.readouterr()
    assert err == ""
    first, end = map(json.loads, out.splitlines())
    assert first == {"token": 5, "text": " a"}
    assert (end["done"], end["reason"], end["seed"]) == (True, "aborted", 7)
    assert main(["generate", "Once", "--json", "--no-stream", "-q"]) == 130
    whole = json.loads(capsys.readouterr().out)
    assert (whole["text"], whole["token_ids"], whole["reason"]) == (" a", [5, 6], "aborted")


@pytest.mark.usefixtures("patient_signals")
@pytest.mark.parametrize("options", [["--json"], ["--json", "--no-stream"], ["--no-stream"]])
def test_control_c_where_nothing_can_be_written(
    options: list[str], engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    engine.pieces = [KeyboardInterrupt()]
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["generate", "Once", "-q", *options]) == 130
    assert capsys.readouterr().err == ""
