"""Streaming: complete characters only, and stop strings across pieces."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gpt2_wgpu.errors import InvalidArgumentError, TokenizerError
from gpt2_wgpu.text import GPT2Tokenizer, StopTextMatcher, StreamingDetokenizer

GPT2 = GPT2Tokenizer()
BYTE_IDS = [GPT2.token_to_id(GPT2.id_to_token(token_id)) for token_id in range(256)]


def stream(ids: list[int]) -> list[str]:
    detokenizer = StreamingDetokenizer(GPT2)
    return [*(detokenizer.push(token_id) for token_id in ids), detokenizer.flush()]


@given(st.lists(st.integers(0, 50_256) | st.sampled_from(BYTE_IDS), max_size=40))
def test_pieces_joined_are_the_decoded_text(ids: list[int]) -> None:
    assert "".join(stream(ids)) == GPT2.decode(ids)


@given(st.text(st.characters(exclude_characters="\ufffd", exclude_categories=["Cs"])))
@example("👩‍👩‍👧 日本 ﷽")
def test_a_split_character_is_never_shown(text: str) -> None:
    pieces = stream(GPT2.encode(text))
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)
    assert pieces[-1] == ""


def test_a_character_comes_with_its_last_token() -> None:
    ids = GPT2.encode("日")
    assert len(ids) == 2
    assert stream(ids) == ["", "日", ""]
    assert stream(ids[:1]) == ["", "\ufffd"]


def test_flush_starts_anew_and_bad_ids_are_named() -> None:
    detokenizer = StreamingDetokenizer(GPT2)
    detokenizer.push(GPT2.encode("日")[0])
    assert detokenizer.flush() == "\ufffd"
    assert detokenizer.push(15496) == "Hello"
    with pytest.raises(TokenizerError, match="60000"):
        detokenizer.push(60_000)


# --- stop strings -------------------------------------------------------------------------------


def before_stop(text: str, stops: list[str]) -> tuple[str, bool]:
    """Cut ``text`` letter by letter where a stop string is first complete."""
    for end in range(len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            return text[: end - max(map(len, found))], True
    return text, False


@given(
    st.lists(st.text("ab", max_size=5), max_size=8),
    st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
)
def test_cutting_does_not_depend_on_the_pieces(pieces: list[str], stops: list[str]) -> None:
    matcher = StopTextMatcher(stops)
    shown, stopped = "", False
    for piece in pieces:
        emitted, stopped = matcher.push(piece)
        shown += emitted
    shown += matcher.flush()
    assert (shown, stopped) == before_stop("".join(pieces), stops)


@given(st.text("abc", max_size=8), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_only_what_could_begin_a_stop_string_is_held_back(text: str, stops: list[str]) -> None:
    emitted, stopped = StopTextMatcher(stops).push(text)
    if not stopped:
        held = text[len(emitted) :]
        begins = [size for size in range(len(text) + 1)
                  if any(stop.startswith(text[len(text) - size :]) for stop in stops)]  # fmt: skip
        assert emitted + held == text
        assert len(held) == max(begins, default=0)


def test_a_known_stream() -> None:
    matcher = StopTextMatcher(["\n\n", "END"])
    assert matcher.push("one\n") == ("one", False)
    assert matcher.push("two E") == ("\ntwo ", False)
    assert matcher.push("N") == ("", False)
    assert matcher.push("ough") == ("ENough", False)
    assert matcher.push(" E") == (" ", False)
    assert matcher.matched is None
    assert matcher.push("ND of it") == ("", True)
    assert matcher.matched == "END"
    assert matcher.push("more") == ("", True)
    assert matcher.flush() == ""


def test_held_text_comes_with_flush() -> None:
    matcher = StopTextMatcher(["stop"])
    assert matcher.push("a sto") == ("a ", False)
    assert matcher.flush() == "sto"
    assert matcher.flush() == ""


@pytest.mark.parametrize("stops", ["stop", [""], ["a", 3]])
def test_bad_stop_strings(stops: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="stop_texts must be a list"):
        StopTextMatcher(stops)
