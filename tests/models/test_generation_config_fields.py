"""docs/generation-config.md: each field of transformers' file, and how the library treats it."""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from gpt2_wgpu.models.generation_config import read_settings

pytestmark = pytest.mark.native("PyTorch, files of the repository")

DOCUMENT = Path(__file__).parents[2] / "docs" / "generation-config.md"
ROWS = dict(
    re.findall(r"^\| `(\w+)` \| (full|no|no effect) \|", DOCUMENT.read_text(), re.MULTILINE)
)
# Values for fields whose value is checked, or has no effect as 3.
VALUES = {
    **dict.fromkeys(("temperature", "top_p", "min_p", "typical_p", "repetition_penalty"), 0.5),
    "do_sample": False,
    "bad_words_ids": [[3]],
    "force_words_ids": [[3]],
    "early_stopping": True,
    "stop_strings": ["x"],
    "penalty_alpha": 0.5,
    "sequence_bias": [[[3], 1.0]],
}
# Fields that others must ask for.
WITH = {name: {"num_beams": 2} for name in ("length_penalty", "early_stopping", "force_words_ids")}
READ_WITH_CONFIG = {"eos_token_id", "bos_token_id"}  # tests/models/test_token_ids.py


def test_the_table_has_the_fields_of_transformers():
    import transformers
    from transformers import GenerationConfig

    fields = {name for name in vars(GenerationConfig()) if not name.startswith("_")}
    documented = re.search(r"transformers (\d+\.\d+)", DOCUMENT.read_text())
    assert documented is not None
    if documented[1] == transformers.__version__.rpartition(".")[0]:  # others have other fields
        assert fields - ROWS.keys() == set()
    assert len(ROWS) > 70


@pytest.mark.parametrize("name", ROWS)
def test_a_field_is_obeyed_or_named_as_documented(name, tmp_path):
    value = VALUES.get(name, 3)
    others = WITH.get(name, {})
    (tmp_path / "generation_config.json").write_text(json.dumps(others))
    before = read_settings(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({name: value, **others}))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        settings = read_settings(tmp_path)
    named = [f"sets {name}, which" in str(each.message) for each in caught]
    assert named == [True] * (ROWS[name] == "no")
    obeyed = ROWS[name] == "full" and name not in READ_WITH_CONFIG
    assert (replace(settings, values=before.values) != before) == obeyed
