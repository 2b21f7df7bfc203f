"""`gpt2-wgpu score` and `tokenize`: figures equal to the library's, and wrong usage."""

from __future__ import annotations

import io
import json
import math
import sys
from pathlib import Path

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.cli import tokenize
from gpt2_wgpu.cli.main import main

Captured = pytest.CaptureFixture[str]
TEXTS = ["Once upon a time", "naïve café"]


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GPT2_WGPU_MODEL", raising=False)


def pipe_in(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_scores_are_those_of_the_library(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    options = ["-q", "--json", "--dtype", "f32"]
    assert main(["score", *TEXTS, *options]) == 0
    out = capsys.readouterr().out
    with gw.GPT2CausalLM.from_preset("fairytales", dtype="float32") as lm:
        for text, line in zip(TEXTS, out.splitlines(), strict=True):
            score = json.loads(line)
            assert score["text"] == text
            assert score["perplexity"] == pytest.approx(lm.perplexity(text), rel=1e-4)
            tokens = score["tokens"]
            assert [each["logprob"] for each in tokens] == pytest.approx(
                lm.logprobs(text), abs=1e-4
            )
            assert score["logprob"] == pytest.approx(sum(lm.logprobs(text)), abs=1e-3)
            assert lm.preprocessor is not None
            ids = [each["token"] for each in tokens]
            assert ids == lm.preprocessor.tokenizer.encode(text)
            bits = -score["logprob"] / math.log(2) / len(text.encode())
            assert score["bits_per_byte"] == pytest.approx(bits, abs=1e-5)
    pipe_in(monkeypatch, "\r\n".join([*TEXTS, "", ""]).encode())
    assert main(["score", "--lines", *options]) == 0
    assert capsys.readouterr().out == out
    (tmp_path / "text").write_text(TEXTS[0] + "\n")
    assert main(["score", "-q", "--dtype", "f32", "-f", str(tmp_path / "text")]) == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["perplexity", "tokens", "bits/byte", "text"]
    figures, _, text = row.partition("Once")
    assert float(figures.split()[0]) == round(json.loads(out.splitlines()[0])["perplexity"], 2)
    assert "Once" + text == TEXTS[0]


def test_tokens_of_a_text_and_back(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tokenizer = gw.GPT2Tokenizer.from_preset("fairytales")
    text = "Once upon\n a <|endoftext|> 😀"
    ids = tokenizer.encode(text)
    assert main(["tokenize", text]) == 0
    rows = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert [int(each[0]) for each in rows] == ids
    assert rows[0][1] == '"Once"'
    assert rows[-1][1].startswith("b'\\x")  # a part of the smiley
    assert main(["tokenize", "--ids", text]) == 0
    line = capsys.readouterr().out
    for given in (line, json.dumps(ids)):
        pipe_in(monkeypatch, given.encode())
        assert main(["tokenize", "--decode"]) == 0
        assert capsys.readouterr().out == text + "\n"
    (tmp_path / "text").write_text(text + "\n")
    options = ["--json", "--allowed-special", "all", "-f", str(tmp_path / "text")]
    assert main(["tokenize", *options]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["text"] == text
    assert found["token_ids"] == tokenizer.encode(text, allowed_special="all")
    assert "<|endoftext|>" in found["tokens"]
    assert main(["tokenize", "--decode", *map(str, ids)]) == 0
    assert capsys.readouterr().out == text + "\n"


def test_the_example_of_ids_is_of_the_default_model(capsys: Captured) -> None:
    (line,) = [each for each in tokenize._EPILOG.splitlines() if "--decode" in each]
    assert main(line.split()[1:]) == 0
    assert capsys.readouterr().out == "Once upon a time\n"


def test_no_control_characters_reach_the_terminal(capsys: Captured) -> None:
    for argv, seen in (
        (["score", "-q", "a\x1b[31m\x9b1mb"], "  a\\u001b[31m\\u009b1mb\n"),
        (["tokenize", "\x7f"], '"\\u007f"\n'),
    ):
        assert main(argv) == 0
        assert capsys.readouterr().out.endswith(seen)


@pytest.mark.parametrize(
    ("argv", "status", "said"),
    [
        (["tokenize", "Once", "upon"], 2, "put a text of several words in quotes"),
        (["tokenize", "--decode", "--ids", "1"], 2, "--decode prints a text: omit --ids"),
        (["tokenize", "a", "-f", "b"], 2, "give TEXT or --file, not both"),
        (["tokenize", "--decode", "1", "-2x"], 2, "-2x"),
        (["score", "Once", ""], 2, "an empty text has no tokens to score"),
        (["tokenize", "--decode", "1 x"], 2, "'x' is no id: --decode takes ids such as"),
        (["tokenize", "--decode", "999999"], 2, "999999"),
        (["tokenize", "-f", "none"], 1, "cannot read none: No such file or directory"),
        (["tokenize", "-m", "fairytale", "a"], 1, "did you mean 'fairytales'"),
        (["score", "a", "--lines"], 2, "give texts, or --file or standard input with --lines"),
        (
            ["score", "-q", "--stride", "513", "abc"],
            2,
            "--stride 513 must be <= 512, the model's context",
        ),
        (["score", ""], 2, "an empty text has no tokens to score"),
        (["score", "-f", ""], 2, "argument -f/--file: '' is empty; give the name of a file"),
        (["convert", "fairytales", ""], 2, "argument DST: '' is empty"),
        (["score", "-f", "none"], 1, "cannot read none: No such file or directory"),
    ],
)
def test_errors_are_one_line(
    argv: list[str], status: int, said: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(argv) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.count("\n") == 1
