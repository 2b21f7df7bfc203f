"""Packer, preprocessor and tokenizer against what KerasHub made of random inputs."""

from __future__ import annotations

import numpy as np
import pytest

import gpt2_wgpu as gw
from tests.parity import cases

pytestmark = pytest.mark.native("NumPy")


@pytest.fixture(scope="module")
def tokenizer() -> gw.GPT2Tokenizer:
    return gw.GPT2Tokenizer.from_preset("fairytales")


def test_packed_rows_equal_keras_hub_s() -> None:
    packed = cases.recorded("keras_text")["packed"]
    assert len(packed) == 60
    for case in packed:
        ids, mask = gw.StartEndPacker(**case["arguments"])(case["inputs"], **case["call"])
        np.testing.assert_array_equal(ids, case["ids"], str(case))
        np.testing.assert_array_equal(mask, case["mask"], str(case))


@pytest.mark.parametrize("start", [True, False])
@pytest.mark.parametrize("end", [True, False])
def test_packed_texts_equal_keras_hub_s(
    tokenizer: gw.GPT2Tokenizer, start: bool, end: bool
) -> None:
    expected = cases.recorded("keras_text")["preprocessed"][f"{start} {end}"]
    preprocessor = gw.GPT2Preprocessor(
        tokenizer, cases.PACKED_LENGTH, add_start_token=start, add_end_token=end
    )
    found = preprocessor(cases.TEXTS)
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        np.testing.assert_array_equal(found[key], values)


@pytest.mark.parametrize("text", cases.TOKENIZED)
def test_ids_equal_keras_hub_s(tokenizer: gw.GPT2Tokenizer, text: str) -> None:
    assert tokenizer(text) == cases.recorded("keras_text")["ids"][text]
    assert tokenizer.detokenize(tokenizer(text)) == text
