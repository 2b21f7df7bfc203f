"""`gpt2-wgpu batch` as a process: records in and out, and its continuation after a kill."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import gpt2_wgpu
from gpt2_wgpu.cli.batch_state import locked_state
from gpt2_wgpu.cli.main import main
from gpt2_wgpu.cli.record_files import RecordFile
from gpt2_wgpu.errors import ContextLengthError, InvalidArgumentError, PresetError
from tests.cli.conftest import COMMAND, Run, Started
from tests.cli.fake_engine import FakeEngine

OPTIONS = ("batch", "--seed", "3", "-n", "2", "--dtype", "f16", "--batch-size", "2")


def write_prompts(path: Path, count: int) -> list[dict[str, Any]]:
    """Write `count` records to a file of JSON Lines; returns them."""
    records = [{"id": n, "prompt": "Once" + " and" * (n % 5)} for n in range(count)]
    path.write_text("".join(json.dumps(each) + "\n" for each in records))
    return records


def test_records_are_continued_in_order(run: Run, tmp_path: Path) -> None:
    records = write_prompts(tmp_path / "in.jsonl", 5)
    done = run(*OPTIONS, "in.jsonl", "out.csv")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "wrote out.csv (5 records)" in done.stderr
    out = list(csv.DictReader((tmp_path / "out.csv").open(newline="")))
    assert [each["prompt"] for each in out] == [each["prompt"] for each in records]
    assert out[0]["text"] == out[0]["text"].removeprefix("Once") != ""
    again = run(*OPTIONS, "in.jsonl", "out.csv")
    assert "out.csv is complete: 5 records" in again.stderr
    assert list(csv.DictReader((tmp_path / "out.csv").open(newline=""))) == out


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_killed_run_loses_and_repeats_nothing(
    run: Run, started: Started, environment: dict[str, str], tmp_path: Path
) -> None:
    write_prompts(tmp_path / "in.jsonl", 90)
    target = tmp_path / "out.jsonl"
    for least, number in ((1, signal.SIGINT), (2_500, signal.SIGKILL)):
        process = started(
            [*COMMAND, *OPTIONS, "-q", "in.jsonl", "out.jsonl"],
            cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        while process.poll() is None and not (target.exists() and target.stat().st_size > least):
            time.sleep(0.01)
        process.send_signal(number)
        assert process.wait() == (130 if number == signal.SIGINT else -number)
        with target.open("ab") as file:
            file.write(b'{"id": 3, "pro')  # a record that was being written
    last = run(*OPTIONS, "in.jsonl", "out.jsonl")
    assert last.returncode == 0, last.stderr
    assert "continuing after" in last.stderr
    found = target.read_text()
    assert run(*OPTIONS, "--force", "in.jsonl", "out.jsonl").returncode == 0
    assert target.read_text() == found


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ('{"id": 1}\n', (), "record 1 of in.jsonl has no field 'prompt', only 'id': see"),
        ('{"prompt": 1}\n', (), "record 1 of in.jsonl must have a text in the field 'prompt'"),
        ('{"prompt": "a", "error": 1}\n', (), "a field 'error' already: name another with --error"),
        ('{"prompt": "a", "text": "b"}\n', (), "a field 'text' already: name another with --text"),
        ('{"prompt": "a"}\n\n[1]\n', (), "in.jsonl, line 3 must be a JSON object, not [1]"),
        ('{"prompt": "a"\n', (), "in.jsonl, line 1: "),
        ('{"prompt": "other"}\n', ("out.jsonl",), "record 1 of out.jsonl is not of this IN"),
    ],
)
def test_invalid_files(
    content: str, options: tuple[str, ...], message: str, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "in.jsonl").write_text(content)
    (tmp_path / "out.jsonl").write_text('{"prompt": "a", "text": "b"}\n')
    done = run("batch", "in.jsonl", *(options or ("new.jsonl",)))
    assert done.returncode == 1
    assert message in done.stderr


def test_wrong_usage_has_status_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.jsonl").write_text('{"prompt": "a"}\n')
    (tmp_path / "folder.jsonl").mkdir()
    for argv, said in (
        (["in.jsonl", "in.jsonl"], "OUT is IN, in.jsonl: give another file"),
        (["in.jsonl", "out.txt"], "argument OUT: 'out.txt' must end with .jsonl or .csv"),
        (["in.txt", "out.csv"], "argument IN: 'in.txt' must end with .jsonl or .csv"),
        (["in.jsonl", "folder.jsonl"], "OUT is a directory, folder.jsonl: give a file"),
        (["in.jsonl", "folder.jsonl", "--force"], "OUT is a directory"),
    ):
        assert main(["batch", *argv]) == 2
        err = capsys.readouterr().err
        assert err.startswith("gpt2-wgpu batch: error: ") and said in err
    assert (tmp_path / "in.jsonl").read_text() == '{"prompt": "a"}\n'


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
def test_records_without_a_text(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They stop the job after the texts before, or are skipped with their error."""
    monkeypatch.chdir(tmp_path)
    odd: list[dict[str, Any]] = [{"prompt": None}, {"prompt": 3}]
    wanted = ["", "'prompt', not None: see --prompt-field", "'prompt', not 3: see --prompt-field"]
    if name == "out.jsonl":
        odd.append({"id": 1})
        wanted.append("has no field 'prompt', only 'id': see --prompt-field")
    records = [{"prompt": "Once"}, *odd, {"prompt": "The wolf"}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records))
    options = ["batch", "in.jsonl", name, "-n", "2", "--greedy", "--dtype", "f16", "-q"]
    skipping = ["--on-error", "skip"] * (name == "out.csv")  # whose records then have the field
    for _ in range(2):  # the second time before the model is loaded
        assert main([*options]) == 1
        err = capsys.readouterr().err
        assert "record 2 of in.jsonl must have a text in the field 'prompt', not None" in err
        assert "or go on without it by --on-error skip" in err
        (first,) = RecordFile(tmp_path / name)
        assert first["text"]
        monkeypatch.setattr(gpt2_wgpu.GPT2CausalLM, "from_preset", None)
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    anew = ["--force"] if skipping else []
    assert main([*options, "--on-error", "skip", *anew]) == 0
    found = list(RecordFile(tmp_path / name))
    assert found[0]["text"] == first["text"] and found[-1]["text"]
    errors = [each.get("error", "") for each in found]
    assert all(said in error for said, error in zip([*wanted, ""], errors, strict=True))
    assert [bool(each["text"]) for each in found] == [not error for error in errors]
    if name == "out.jsonl":
        assert all(
            record.items() <= each.items() for each, record in zip(found, records, strict=True)
        )
    assert main([*options, "--on-error", "skip"]) == 0  # complete
    assert list(RecordFile(tmp_path / name)) == found


def test_csv_with_newlines_in_fields_is_cut_at_a_record(tmp_path: Path) -> None:
    file = RecordFile(tmp_path / "out.csv")
    records = [{"prompt": 'a "b"\nc', "text": "d\r\n"}, {"prompt": "e", "text": 'f,\n"'}]
    file.append(records[:1])
    file.append(records[1:])
    whole = file.path.read_bytes()
    first = whole.index(b'"e",')
    header = len(b'"prompt","text"\n')
    for length in range(len(whole) + 1):
        file.path.write_bytes(whole[:length])
        file.cut(file.complete()[2])
        kept = max(end for end in (0, header, first, len(whole)) if end <= length)
        assert file.path.read_bytes() == whole[:kept], length
    assert list(file) == records


def test_rows_of_another_length_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    for line in ("a", "a,b,c"):
        path.write_text(f"prompt,id\n1,2\n{line}\n")
        with pytest.raises(InvalidArgumentError, match=r"line 3 must have 2 fields"):
            list(RecordFile(path))


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeEngine:
    """An engine whose loading fails, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    engine = FakeEngine().install(monkeypatch)
    engine.failure = PresetError("no preset")
    return engine


FOREIGN = [
    "notes without a newline",
    '{"prompt": "b", "te',
    "a,b\n1,2",
    '{"prompt": "b"}\nxy',
    "\n",
]


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
@pytest.mark.parametrize("content", FOREIGN)
def test_a_file_of_another_program_is_not_changed(
    name: str, content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.jsonl").write_text('{"prompt": "a"}\n')
    out = tmp_path / name
    out.write_text(content)
    assert main(["batch", "in.jsonl", name]) == 1
    assert out.read_text() == content
    assert "no preset" not in capsys.readouterr().err


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
def test_an_incomplete_first_record_is_continued(name: str, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"prompt": "a"}\n')
    out = RecordFile(tmp_path / name)
    whole = out.encoded([{"prompt": "a", "text": "some"}])
    for length in range(1, len(whole)):
        out.path.write_bytes(whole[:length])
        assert main(["batch", "in.jsonl", name]) == 1
        header = b'"prompt","text"\n' if name == "out.csv" else b""
        assert out.path.read_bytes() == (header if length >= len(header) else b"")


@pytest.mark.usefixtures("engine")
def test_force_keeps_the_file_until_there_are_texts(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"prompt": "a"}\n')
    out = tmp_path / "out.jsonl"
    out.write_text("an earlier result")
    assert main(["batch", "--force", "in.jsonl", "out.jsonl"]) == 1
    assert out.read_text() == "an earlier result"


@pytest.mark.usefixtures("engine")
def test_directories_are_no_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.jsonl").write_text('{"prompt": "a"}\n')
    (tmp_path / "folder.jsonl").mkdir()
    assert main(["batch", "folder.jsonl", "out.jsonl"]) == 1
    assert "cannot read folder.jsonl: " in capsys.readouterr().err
    with pytest.raises(InvalidArgumentError, match="cannot write"):
        RecordFile(tmp_path / "folder.jsonl").cut(0)


@pytest.mark.usefixtures("engine")
def test_records_of_csv_have_the_same_fields(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b", "id": 1}\n')
    assert main(["batch", "in.jsonl", "out.csv"]) == 1
    assert "record 2 of in.jsonl and record 1 differ in the field 'id'" in capsys.readouterr().err


def test_csv_keeps_the_order_of_its_header_and_carriage_returns(tmp_path: Path) -> None:
    file = RecordFile(tmp_path / "out.csv")
    records = [{"prompt": "a\rb", "text": "c"}, {"text": "d", "prompt": "e"}]
    file.append(records[:1])
    file.append(records[1:])
    assert list(file) == records
    file.append(records[1:], anew=True)
    assert list(file) == records[1:]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--seed", "7"], "seed 7"),
        ([], "seed "),
        (["--beams", "2", "--seed", "7"], "--seed has no effect with --beams"),
        (["--greedy", "--top-k", "5"], "--top-k has no effect with --greedy"),
    ],
)
def test_seed_and_options_without_effect_are_reported(
    options: list[str], said: str, engine: FakeEngine, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    engine.failure = None
    seeds = []

    def texts(*_: object, seed: int | None, **__: object) -> Iterator[str]:
        seeds.append(seed)
        return iter(["b"])

    monkeypatch.setattr(gpt2_wgpu, "generate_batches", texts)
    (tmp_path / "in.jsonl").write_text('{"prompt": "a"}\n')
    assert main(["batch", "in.jsonl", "out.jsonl", *options]) == 0
    first = capsys.readouterr().err.splitlines()[0].removeprefix("gpt2-wgpu: ")
    assert first.startswith(said)
    if said.startswith("seed"):
        assert first == f"seed {seeds[0]}"


@pytest.mark.usefixtures("engine")
def test_an_input_without_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.jsonl").touch()
    out = tmp_path / "out.jsonl"
    out.write_text("notes")
    assert main(["batch", "in.jsonl", "out.jsonl"]) == 1
    assert "out.jsonl is not of this IN" in capsys.readouterr().err
    assert out.read_text() == "notes"
    assert main(["batch", "in.jsonl", "out.jsonl", "--force"]) == 0
    assert out.read_text() == ""
    out.unlink()
    assert main(["batch", "in.jsonl", "out.jsonl"]) == 0
    assert out.read_text() == ""
    assert "in.jsonl has no records: out.jsonl is empty" in capsys.readouterr().err
    with pytest.raises(InvalidArgumentError, match=r"cannot read .*none\.jsonl: No such file"):
        RecordFile(tmp_path / "none.jsonl").complete()


def test_a_field_twice_in_a_header(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("prompt,id,id\na,1,2\n")
    with pytest.raises(InvalidArgumentError, match=r"the header of .* has the field 'id' twice"):
        list(RecordFile(path))


@pytest.fixture
def texts(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """A fake of `generate_batches` and three records: "text N", or an error for "bad"."""
    engine.failure = None
    found: dict[str, Any] = {"until": 99}

    def fake(_: object, prompts: Iterator[str], **options: Any) -> Iterator[Any]:
        found.update(options)
        for number, prompt in enumerate(prompts, options["first"]):
            if number == found["until"]:
                raise PresetError("killed")
            error = ContextLengthError(f"prompt {number} has 9 tokens")
            if prompt == "bad" and options["on_error"] == "stop":
                raise error
            yield error if prompt == "bad" else f"text {number}"

    monkeypatch.setattr(gpt2_wgpu, "generate_batches", fake)
    (tmp_path / "in.jsonl").write_text(
        "".join(json.dumps({"prompt": prompt}) + "\n" for prompt in ("a", "bad", "c"))
    )
    return found


def test_a_bad_prompt_stops_the_job_after_the_texts_before(
    texts: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["batch", "in.jsonl", "out.jsonl"]) == 1
    assert "record 2 of in.jsonl has 9 tokens, or go on without" in capsys.readouterr().err
    assert list(RecordFile(tmp_path / "out.jsonl")) == [{"prompt": "a", "text": "text 0"}]
    assert main(["batch", "in.jsonl", "out.jsonl", "--on-error", "skip"]) == 0
    assert "1 records were skipped: see their field error" in capsys.readouterr().err
    assert list(RecordFile(tmp_path / "out.jsonl")) == [
        {"prompt": "a", "text": "text 0"},
        {"prompt": "bad", "text": "", "error": "has 9 tokens"},
        {"prompt": "c", "text": "text 2"},
    ]
    assert not (tmp_path / "out.jsonl.run").exists()


@pytest.mark.usefixtures("texts")
def test_errors_in_csv_have_a_field_of_all_records(tmp_path: Path) -> None:
    options = ["batch", "in.jsonl", "out.csv", "--on-error", "skip", "--error-field", "why"]
    for _ in range(2):
        assert main(options) == 0
        rows = [(each["text"], each["why"]) for each in RecordFile(tmp_path / "out.csv")]
        assert rows == [("text 0", ""), ("", "has 9 tokens"), ("text 2", "")]


def test_a_run_goes_on_with_its_seed_and_options(
    texts: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["batch", "in.jsonl", "out.jsonl", "--on-error", "skip"]
    texts["until"] = 2
    assert main([*options, "--temp", "0.5"]) == 1
    seed = texts["seed"]
    state = tmp_path / "out.jsonl.run"
    assert json.loads(state.read_text())["seed"] == seed
    (tmp_path / "out.jsonl").write_text('{"prompt": "a", "text": "text 0"}\n')
    for changed, said in (
        ([], "begun with --temperature 0.5, not None"),
        (["--temp", "0.5", "-n", "3"], "begun with --max-tokens None, not 3"),
        (["--temp", "0.5", "--seed", str(seed + 1)], f"with --seed {seed}, not {seed + 1}"),
    ):
        capsys.readouterr()
        assert main([*options, *changed]) == 1
        assert said in capsys.readouterr().err
    texts["until"] = 99
    assert main([*options, "--temp", "0.5"]) == 0
    assert (texts["seed"], texts["first"]) == (seed, 1)
    assert len(list(RecordFile(tmp_path / "out.jsonl"))) == 3
    assert not state.exists()


@pytest.mark.usefixtures("texts")
def test_two_runs_on_one_output(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with locked_state(tmp_path / "out.jsonl"):
        assert main(["batch", "in.jsonl", "out.jsonl"]) == 1
    assert "another run is writing out.jsonl: wait until it ends" in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists()
    assert not (tmp_path / "out.jsonl.run").exists()
