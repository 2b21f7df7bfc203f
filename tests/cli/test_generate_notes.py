"""Messages of `generate`: warnings, notes, errors; with the fake engine."""

from __future__ import annotations

import io
import json
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest

from gpt2_wgpu.cli.main import main
from gpt2_wgpu.errors import PresetError
from tests.cli.fake_engine import FakeEngine

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    for name in ("NO_COLOR", "GPT2_WGPU_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    return FakeEngine().install(monkeypatch)


def test_a_warning_is_one_line(engine: FakeEngine, capsys: Captured) -> None:
    engine.warning = "12 tensors\nare not used"
    shown = warnings.showwarning
    assert main(["generate", "Once"]) == 0
    first, figures = capsys.readouterr().err.splitlines()
    assert first == "gpt2-wgpu: warning: 12 tensors are not used"
    assert "tokens/s" in figures
    assert main(["generate", "-q", "Once"]) == 0
    assert capsys.readouterr().err == ""
    assert warnings.showwarning is shown


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--greedy", "--seed", "0"], "--seed has no effect with --greedy"),
        (["--greedy", "--temp", "0.8"], "--temp has no effect with --greedy"),
        (["--greedy", "--temp", "2", "--seed", "1"], "--temp and --seed have no effect"),
        (["--temp", "0", "--seed", "1"], "--seed has no effect with --temp 0"),
        (["--greedy"], ""),
        (["--greedy", "--temp", "0"], "--temp has no effect with --greedy"),
        (["--greedy", "--top-k", "5", "--top-p", "0.5"], "--top-k and --top-p have no effect"),
        (["--greedy", "--repeat-penalty", "1.2"], ""),
        (["--temp", "0"], ""),
        (["--temp", "2", "--seed", "1"], ""),
        (["--beams", "2", "--top-k", "3", "--greedy"], "--top-k and --greedy have no effect with"),
        (["--beams", "2", "--repeat-penalty", "1.2", "--min-length", "3"], ""),
        (["--penalty-alpha", "0.6", "--top-k", "4"], ""),
        (
            ["--penalty-alpha", "0.6", "--top-k", "0"],
            "--top-k has no effect with --penalty-alpha",
        ),
        (
            ["--penalty-alpha", "0.6", "--repeat-penalty", "2", "--top-p", "0.5", "--greedy"],
            "--top-p and --greedy have no effect with --penalty-alpha",
        ),
    ],
)
def test_options_without_effect_are_noted(
    options: list[str], said: str, engine: FakeEngine, capsys: Captured
) -> None:
    assert main(["generate", "Once", *options]) == 0
    err = capsys.readouterr().err
    assert ("no effect" in err) == bool(said)
    assert said in err
    assert main(["generate", "Once", "-q", *options]) == 0
    assert capsys.readouterr().err == ""


def test_values_of_the_model_are_defaults(engine: FakeEngine, capsys: Captured) -> None:
    engine.generation_defaults = {"temperature": 0.0, "repetition_penalty": 1.5}
    assert main(["generate", "Once", "--seed", "3"]) == 0
    greedy = {"class_name": "GreedySampler", "config": {"repetition_penalty": 1.5}}
    assert engine.calls["sampler"] == greedy
    assert "--seed has no effect with the greedy search of generation_config.json" in (
        capsys.readouterr().err
    )
    assert main(["generate", "Once", "--beams", "2", "--min-length", "3"]) == 0
    config = engine.calls["sampler"]["config"]
    assert (config["repetition_penalty"], config["min_length"]) == (1.5, 3)
    engine.generation_defaults = {"num_beams": 3, "length_penalty": 2.0, "early_stopping": True}
    assert main(["generate", "Once", "--seed", "3"]) == 0
    config = engine.calls["sampler"]["config"]
    assert (config["num_beams"], config["length_penalty"], config["early_stopping"]) == (3, 2, True)
    assert "--seed has no effect with the search of generation_conf" in capsys.readouterr().err
    for option, kind in (
        (["--beams", "2"], "Beam"), (["--greedy"], "Greedy"), (["--temp", "1"], "TopP"),
        (["--penalty-alpha", "0.5"], "Contrastive"), (["--prompt-lookup", "2"], "TopP"),
    ):  # fmt: skip
        assert main(["generate", "Once", *option]) == 0
        assert engine.calls["sampler"]["class_name"] == f"{kind}Sampler"
    engine.generation_defaults = {"penalty_alpha": 0.4}
    assert main(["generate", "Once", "--top-k", "6"]) == 0
    config = engine.calls["sampler"]["config"]
    assert (config["k"], config["alpha"]) == (6, 0.4)
    engine.generation_defaults = {}
    engine.generation_limits = {"max_new_tokens": 5}
    assert main(["generate", "Once"]) == 0
    assert engine.calls["stream"]["max_new_tokens"] == 5
    assert main(["generate", "Once", "-n", "7"]) == 0
    assert engine.calls["stream"]["max_new_tokens"] == 7
    engine.generation_limits = {"max_length": 5}  # which `stream` applies
    assert main(["generate", "Once"]) == 0
    assert engine.calls["stream"]["max_new_tokens"] is None
    assert "min_length" not in engine.calls["sampler"]["config"]  # the model's
    assert main(["generate", "Once", "--min-length", "0"]) == 0
    assert engine.calls["sampler"]["config"]["min_length"] == 0  # no rule
    capsys.readouterr()
    options = ["--temp", "0.5", "--top-k", "7", "--repeat-penalty", "1", "--seed", "3"]
    assert main(["generate", "Once", *options]) == 0
    assert engine.calls["sampler"]["config"] == {"k": 7, "p": 0.95, "temperature": 0.5, "seed": 3}
    assert "no effect" not in capsys.readouterr().err


def test_batch_merges_adapters(engine: FakeEngine, tmp_path: Path) -> None:
    engine.failure = PresetError("no preset")
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"prompt": "a"}\n')
    assert main(["batch", str(source), str(target), "--adapter-weights", "a"]) == 1
    assert engine.calls["from_preset"]["adapter"] == ["a"]


def test_start_token_and_context_are_named(engine: FakeEngine, capsys: Captured) -> None:
    engine.stats.finish_reason = "context"
    assert main(["generate", "", "--no-start-token", "-n", "3"]) == 0
    err = capsys.readouterr().err
    assert "--no-start-token has no effect" in err
    assert "stopped: end of the model's context" in err
    engine.stats.new_tokens, engine.stats.finish_reason = 0, "length"
    assert main(["generate", "Once", "--no-start-token", "-n", "2"]) == 0
    err = capsys.readouterr().err
    assert "no effect" not in err
    assert "stopped: token limit" in err


def test_json_without_streaming_is_one_object(engine: FakeEngine, capsys: Captured) -> None:
    engine.stats.tokens_per_second = float("nan")
    engine.stats.seconds_to_first_token = None
    assert main(["generate", "Once", "--json", "--no-stream", "--greedy", "-n", "2"]) == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == 1
    assert json.loads(out) == {
        "prompt": "Once",
        "text": " a b",
        "token_ids": [5, 6],
        "done": True,
        "reason": "length",
        "prompt_tokens": 3,
        "tokens": 2,
        "seconds_to_first_token": None,
        "tokens_per_second": None,
        "model": "fairytales",
        "adapter": "Fake 9000",
        "seed": None,
    }
    assert err == "gpt2-wgpu: fairytales on Fake 9000 · 3 + 2 tokens · stopped: token limit\n"


def test_a_software_adapter_is_named(engine: FakeEngine, capsys: Captured) -> None:
    engine.info.is_software = True
    assert main(["generate", "Once"]) == 0
    figures, note = capsys.readouterr().err.splitlines()
    assert "tokens/s" in figures
    assert note.startswith("gpt2-wgpu: no GPU is used: Fake 9000 runs on the CPU")


def test_that_the_cpu_computes_is_said_once(engine: FakeEngine, capsys: Captured) -> None:
    engine.info.is_software = True
    engine.warning = 'running on the CPU (Fake 9000); pass dtype="float16" to override'
    assert main(["generate", "Once"]) == 0
    warning, figures = capsys.readouterr().err.splitlines()
    assert warning.endswith("on the CPU (Fake 9000); pass --dtype f16 to override")
    assert "tokens/s" in figures


def test_an_error_is_one_line(engine: FakeEngine, capsys: Captured) -> None:
    engine.failure = PresetError("no preset 'x':\nuse a directory")
    assert main(["generate", "Once"]) == 1
    assert capsys.readouterr() == (
        "",
        "gpt2-wgpu: error: no preset 'x': use a directory\n",
    )


def test_an_error_in_mid_stream_ends_the_line_and_the_stream(
    engine: FakeEngine, capsys: Captured
) -> None:
    engine.pieces = [(" a", [5]), PresetError("the device is gone")]
    assert main(["generate", "Once"]) == 1
    assert capsys.readouterr() == ("Once a\n", "gpt2-wgpu: error: the device is gone\n")
    assert engine.stream is not None
    assert engine.stream.closed


def test_a_fault_of_ours_asks_for_a_report(
    engine: FakeEngine, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.failure = KeyError("wte")
    assert main(["generate", "Once"]) == 1
    assert capsys.readouterr().err == (
        "gpt2-wgpu: error: unexpected KeyError: 'wte'. Please report it, with the output of "
        "--debug\n"
    )
    for argv in (["generate", "Once", "--debug"], ["--debug", "generate", "Once"]):
        assert main(argv) == 1
        assert "Traceback (most recent call last)" in capsys.readouterr().err
    monkeypatch.setenv("GPT2_WGPU_DEBUG", "1")
    assert main(["generate", "Once"]) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err


class Teletype(io.StringIO):
    """A text stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [
        ({}, True),
        ({"NO_COLOR": "1"}, False),
        ({"NO_COLOR": ""}, True),
        ({"TERM": "dumb"}, False),
    ],
)
def test_colour_only_where_it_is_wanted(
    environment: dict[str, str],
    coloured: bool,
    engine: FakeEngine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    streams = SimpleNamespace(out=Teletype(), err=Teletype())
    monkeypatch.setattr(sys, "stdout", streams.out)
    monkeypatch.setattr(sys, "stderr", streams.err)
    for name, value in ({"TERM": "xterm"} | environment).items():
        monkeypatch.setenv(name, value)
    assert main(["generate", "Once"]) == 0
    assert streams.out.getvalue() == ("\033[1mOnce\033[0m a b\n" if coloured else "Once a b\n")
    assert ("\033[2m" in streams.err.getvalue()) == coloured


def test_progress_only_on_a_terminal(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    engine.progress = [(1000, 4000), (4000, 4000)]
    assert main(["generate", "Once"]) == 0
    err = capsys.readouterr().err
    assert "loading" not in err
    assert "compiling kernels" not in err
    screen = Teletype()
    monkeypatch.setattr(sys, "stderr", screen)
    assert main(["generate", "Once"]) == 0
    assert "loading fairytales" in screen.getvalue()
    assert "gpt2-wgpu: compiling kernels" in screen.getvalue()
    quiet = Teletype()
    monkeypatch.setattr(sys, "stderr", quiet)
    assert main(["generate", "-q", "Once"]) == 0
    assert quiet.getvalue() == ""


def test_closed_standard_output(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["generate", "Once"]) == 1
    assert capsys.readouterr().err == (
        "gpt2-wgpu: error: cannot write to standard output: it is closed\n"
    )
