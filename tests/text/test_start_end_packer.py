"""StartEndPacker: KerasHub's semantics, except that rows never exceed the length."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.text import StartEndPacker


def pack(inputs: Any, length: int = 5, call: dict[str, Any] | None = None, **options: Any) -> Any:
    packed = StartEndPacker(length, **options).call(inputs, **(call or {}))
    if isinstance(packed, np.ndarray):
        assert packed.dtype == np.int32
        return packed.tolist()
    return packed


@pytest.mark.parametrize(
    ("inputs", "options", "expected"),
    [
        ([5, 6, 7], {}, [5, 6, 7, 0, 0]),
        ([], {}, [0] * 5),
        ([[5, 6, 7], [8]], {}, [[5, 6, 7, 0, 0], [8, 0, 0, 0, 0]]),
        (np.array([[5, 6], [7, 8]]), {"pad_value": 9}, [[5, 6, 9, 9, 9], [7, 8, 9, 9, 9]]),
        ([5, 6, 7], {"start_value": 1, "end_value": 2}, [1, 5, 6, 7, 2]),
        ([5, 6, 7, 8, 9], {"start_value": 1, "end_value": 2}, [1, 5, 6, 7, 2]),
        ([5, 6, 7, 8], {"start_value": [1, 1], "end_value": [2, 3]}, [1, 1, 5, 2, 3]),
        ([5, 6, 7, 8, 9, 10], {}, [5, 6, 7, 8, 9]),
        ([5], {"start_value": 1, "end_value": 2, "padding_side": "left"}, [0, 0, 1, 5, 2]),
        ([[5], [6, 7]], {"padding_side": "left"}, [[0, 0, 0, 0, 5], [0, 0, 0, 6, 7]]),
        (["a", "b"], {}, ["a", "b", "", "", ""]),
        (
            [["a"], ["b", "c"]],
            {"start_value": "[S]", "end_value": "[E]", "pad_value": "[P]"},
            [["[S]", "a", "[E]", "[P]", "[P]"], ["[S]", "b", "c", "[E]", "[P]"]],
        ),
    ],
)  # fmt: skip
def test_packing(inputs: Any, options: dict[str, Any], expected: list[Any]) -> None:
    assert pack(inputs, **options) == expected


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ({"add_start_value": False}, [5, 6, 2, 0]),
        ({"add_end_value": False}, [1, 5, 6, 0]),
        ({"add_start_value": False, "add_end_value": False}, [5, 6, 0, 0]),
        ({"sequence_length": 3}, [1, 5, 2]),
        ({"sequence_length": 2}, [1, 2]),
        ({}, [1, 5, 6, 2]),
    ],
)
def test_options_of_a_call(call: dict[str, Any], expected: list[int]) -> None:
    assert pack([5, 6], length=4, call=call, start_value=1, end_value=2) == expected


@pytest.mark.parametrize("padding_side", ["right", "left"])
def test_padding_mask(padding_side: Any) -> None:
    packer = StartEndPacker(
        4, start_value=1, end_value=0, return_padding_mask=True, padding_side=padding_side
    )
    ids, mask = packer([[5], [6, 7]])
    step = 1 if padding_side == "right" else -1
    assert mask.dtype == np.bool_
    assert mask.tolist() == [[True, True, True, False][::step], [True] * 4]
    assert ids[0].tolist() == ([1, 5, 0, 0] if step == 1 else [0, 1, 5, 0])
    one_ids, one_mask = packer([5])
    assert one_ids.tolist() == ids[0].tolist() and one_mask.tolist() == mask[0].tolist()


def test_a_length_without_room_for_the_specials_is_an_error() -> None:
    packer = StartEndPacker(4, start_value=[1, 1], end_value=2)
    with pytest.raises(InvalidArgumentError, match=r"sequence_length 2 .*at least 3"):
        packer([5], sequence_length=2)
    assert packer([5], sequence_length=2, add_end_value=False).tolist() == [1, 1]


@pytest.mark.parametrize(
    "options",
    [{"start_value": 1.0}, {"end_value": True}, {"pad_value": 0.5}, {"start_value": [1, None]},
     {"padding_side": "top"}, {"sequence_length": 0}, {"sequence_length": 2.0},
     {"sequence_length": True}],
)  # fmt: skip
def test_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError, match=next(iter(options))):
        StartEndPacker(**{"sequence_length": 5, **options})


@pytest.mark.parametrize(
    ("inputs", "options"),
    [
        ([1.0], {}),
        ([True], {}),
        (["a", 1], {}),
        ([["a"], [1]], {}),
        (["a"], {"start_value": 1}),
        ([1], {"end_value": "a"}),
        ([1], {"pad_value": ""}),
        (["a"], {"pad_value": 0}),
        (5, {}),
        ([["a"], None], {}),
    ],
)
def test_bad_inputs(inputs: Any, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        pack(inputs, **options)


def test_config_round_trip() -> None:
    packer = StartEndPacker(6, start_value=1, end_value=[2, 3], pad_value=9, padding_side="left")
    again = StartEndPacker.from_config(json.loads(json.dumps(packer.get_config())))
    assert again.get_config() == packer.get_config()
    assert again([5]).tolist() == packer([5]).tolist() == [9, 9, 1, 5, 2, 3]


@pytest.mark.parametrize("value", [None, 10, "a", [10], [1, 2], []])
def test_config_holds_special_values_as_given(value: Any) -> None:
    config = StartEndPacker(6, start_value=value, end_value=value).get_config()
    assert config["start_value"] == config["end_value"] == value


def test_config_follows_a_change() -> None:
    packer = StartEndPacker(6, start_value=10)
    packer.start_value = [3]
    assert packer.get_config()["start_value"] == [3]
    assert StartEndPacker(6, start_value=(1, 2)).get_config()["start_value"] == [1, 2]  # JSON
