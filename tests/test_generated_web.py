"""Copies of the package's tables in the files of the site: current, and within the ranges."""

from __future__ import annotations

import re

import generate_web
import pytest

from gpt2_wgpu.sampling_parameters import PARAMETERS, SEED

FILES = [path.relative_to(generate_web.ROOT).as_posix() for path in generate_web.contents()]


@pytest.mark.parametrize("name", FILES)
def test_the_copies_are_current(name: str) -> None:
    """If this fails: `python scripts/generate_web.py`."""
    path = generate_web.ROOT / name
    assert path.read_text("utf-8") == generate_web.contents()[path]


def test_a_table_replaces_what_is_between_its_marks() -> None:
    text = "one\n  // begin: numbers\n  old\n  older\n  // end: numbers\ntwo\n"
    new = generate_web.with_tables(text, {"numbers": ["1", " 2"]})
    assert new == "one\n  // begin: numbers\n  1\n   2\n  // end: numbers\ntwo\n"
    with pytest.raises(ValueError, match="unpack"):
        generate_web.with_tables(text, {"names": []})


@pytest.mark.parametrize("parameter", PARAMETERS, ids=lambda each: each.name)
def test_a_field_of_the_page_takes_only_what_is_in_range(parameter) -> None:
    found = re.search(
        rf'<input id="{parameter.javascript}" type="number" min="(.*?)" max="(.*?)"',
        (generate_web.ROOT / "index.html").read_text("utf-8"),
    )
    assert (found is not None) == (parameter.field is not None or parameter is SEED)
    if found is not None:
        number = int if parameter.range.whole else float
        for bound in map(number, found.groups()):
            assert parameter.range.find(bound) == bound
        low, high, _ = parameter.field.slider if parameter.field else (0, 0, 1)
        assert number(found[1]) <= low <= high <= number(found[2])
