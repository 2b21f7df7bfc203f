"""The list of a checkpoint's files, shared by download, conversion, server and loading."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from gpt2_wgpu import checkpoint_files, other_formats
from gpt2_wgpu.checkpoint_files import BESIDE_WEIGHTS, EXTRAS, TOKENIZER_PARTS, WHOLE_TOKENIZER
from gpt2_wgpu.cli.static_site import MODEL_FILE
from gpt2_wgpu.models import conversion
from gpt2_wgpu.weights.sources import NEEDED_FILES

pytestmark = pytest.mark.native("reads web/")
SOURCES = Path(__file__).parents[2] / "web" / "sources.js"


@pytest.mark.parametrize(
    ("constant", "names"),
    [("WHOLE_TOKENIZER", WHOLE_TOKENIZER), ("TOKENIZER_PARTS", TOKENIZER_PARTS), ("EXTRAS", EXTRAS),
     ("CONFIG", checkpoint_files.CONFIG)],
)  # fmt: skip
def test_the_page_has_the_same_list(constant, names):
    (literal,) = re.findall(rf"^const {constant} = (.+?);", SOURCES.read_text("utf-8"), re.M)
    assert json.loads(literal) == json.loads(json.dumps(names))


def test_every_file_is_fetched_converted_and_served():
    assert set(BESIDE_WEIGHTS) <= set(NEEDED_FILES)
    assert set(BESIDE_WEIGHTS) <= set(conversion._MODEL_FILES)
    assert all(MODEL_FILE.fullmatch(name) for name in BESIDE_WEIGHTS)
    assert not MODEL_FILE.fullmatch("configXjson")


@pytest.mark.parametrize(
    ("constant", "table"),
    [("FORMATS", other_formats.FORMATS), ("TOKENIZERS", other_formats._OTHER_TOKENIZERS)],
)
def test_the_page_names_the_same_formats(constant, table):
    source = (SOURCES.parent / "other-formats.js").read_text("utf-8")
    (literal,) = re.findall(rf"^export const {constant} = (\[.+?^\]);", source, re.M | re.S)
    assert json.loads(literal.replace(",\n]", "\n]")) == json.loads(json.dumps(table))
