"""Texts of `generate` by the embedded model, loaded once: options that must not change them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from io import BytesIO, TextIOWrapper
from subprocess import CompletedProcess

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.cli import generate
from gpt2_wgpu.cli.main import main
from tests.cli.conftest import Run

PROMPT = "Once upon a time"


@pytest.fixture(scope="module")
def lm(device: gw.Device) -> Iterator[gw.GPT2CausalLM]:
    with gw.GPT2CausalLM.from_preset("fairytales", dtype="float16") as loaded:
        yield loaded


@pytest.fixture
def run(
    lm: gw.GPT2CausalLM, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Runs `gpt2-wgpu` with these arguments and an empty standard input, in this process."""
    monkeypatch.setattr(generate, "load_model", lambda *_: lm)

    def start(*args: str) -> CompletedProcess[str]:
        monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO()))
        capsys.readouterr()
        return CompletedProcess(args, main(args), *capsys.readouterr())

    return start


@pytest.fixture(scope="module")
def story(lm: gw.GPT2CausalLM) -> str:
    """What the model says greedily, in 24 tokens, after PROMPT, and the end of the line."""
    text = lm.generate(PROMPT, sampler="greedy", max_new_tokens=24)
    return text if text.endswith("\n") else text + "\n"


def test_a_stream_says_what_the_library_says(run: Run, story: str) -> None:
    done = run("generate", "--greedy", "-n", "24", "-q", PROMPT)
    assert (done.returncode, done.stdout, done.stderr) == (0, story, "")


def test_no_stream_says_the_same(run: Run, story: str) -> None:
    done = run("generate", "--greedy", "-n", "24", "-q", "--no-stream", "--no-echo", PROMPT)
    assert (done.returncode, PROMPT + done.stdout) == (0, story)


def test_json_says_the_same(run: Run, story: str) -> None:
    done = run("generate", "--greedy", "-n", "24", "-q", "--json", PROMPT)
    assert done.returncode == 0
    *tokens, end = map(json.loads, done.stdout.splitlines())
    assert (PROMPT + "".join(token["text"] for token in tokens)).rstrip("\n") == story.rstrip("\n")
    assert len([token for token in tokens if token["token"] is not None]) == end["tokens"] == 24
    assert end["done"] is True
    assert end["reason"] == "length"
    assert end["seconds_to_first_token"] > 0
    assert end["tokens_per_second"] > 0
    assert end["model"] == "fairytales"


def test_json_with_logprobs(run: Run) -> None:
    """They are those of the library: tests/models/test_stream_inputs.py."""
    options = ("generate", "--greedy", "-n", "6", "--no-stream", "--logprobs", "2")
    plain = run(*options, PROMPT)
    assert (plain.returncode, plain.stdout) == (2, "")
    assert "--logprobs needs --json" in plain.stderr
    answer = json.loads(run(*options, "--json", PROMPT).stdout)
    entries = answer["logprobs"]
    assert [entry["token"] for entry in entries] == answer["token_ids"]
    assert "".join(entry["text"] for entry in entries) == answer["text"]
    for entry in entries:
        best, second = entry.pop("top_logprobs")
        assert 0 > best["logprob"] >= second["logprob"]
        assert best == {**entry, "logprob": pytest.approx(entry["logprob"], abs=1e-4)}  # greedy


def test_a_stop_text_ends_before_itself(run: Run, story: str) -> None:
    stop = story.split()[-3]
    done = run("generate", "--greedy", "-n", "24", "--json", "--no-stream", "--stop", stop, PROMPT)
    assert done.returncode == 0
    answer = json.loads(done.stdout)
    assert answer["reason"] == "stop_text"
    full = story.removeprefix(PROMPT).rstrip("\n")
    assert answer["text"] == full[: full.index(stop)]
    done = run("generate", "--greedy", "-n", "24", "--json", "--stop", stop, PROMPT)
    *tokens, end = map(json.loads, done.stdout.splitlines())
    assert [token["token"] for token in tokens] == answer["token_ids"]
    assert "".join(token["text"] for token in tokens) == answer["text"]
    assert end["tokens"] == len(tokens)


def test_a_seed_repeats_a_story(run: Run) -> None:
    stories = [
        run("generate", "-q", "-n", "20", "--temp", "1.2", "--seed", seed, PROMPT).stdout
        for seed in ("1", "1", "2")
    ]
    assert stories[0] == stories[1] != stories[2]


@pytest.mark.parametrize(
    "options",
    [
        ["--temp", "0"],
        ["--top-k", "1", "--repeat-penalty", "1"],
        ["--top-k", "1", "--top-p", "1", "--repeat-penalty", "1"],
    ],
)
def test_other_ways_to_be_greedy(options: list[str], run: Run, story: str) -> None:
    assert run("generate", "-n", "24", "-q", *options, PROMPT).stdout == story


def test_more_than_a_vocabulary_of_candidates(run: Run) -> None:
    for options in (["--top-k", "1000000"], ["--top-k", "0", "--top-p", "1"]):
        done = run("generate", "-n", "3", "-q", *options, PROMPT)
        assert (done.returncode, done.stderr) == (0, "")


def test_an_empty_prompt_begins_a_text(run: Run) -> None:
    done = run("generate", "-n", "12", "--greedy")
    assert done.returncode == 0
    assert done.stdout.strip()
    assert "no prompt: starting a new text" in done.stderr


def test_generation_ends_with_the_context(run: Run) -> None:
    done = run("generate", "-n", "100000", "--json", "--no-stream", "the " * 450)
    assert done.returncode == 0
    answer = json.loads(done.stdout)
    assert answer["reason"] in ("context", "stop")
    assert answer["prompt_tokens"] + answer["tokens"] <= 512
