"""Files of LoRA adapters: what is read, and the errors of those that are not supported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gpt2_wgpu.errors import WeightsError
from gpt2_wgpu.weights.lora import LoraAdapter
from tests.weights.building import valid_file, zeros

CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 8}
NAME = "base_model.model.transformer.h.0.attn.c_attn"
SHAPES: dict[str, tuple[int, ...]] = {
    f"{NAME}.lora_A.weight": (2, 4),
    f"{NAME}.lora_B.weight": (12, 2),
}


def write(directory: Path, config: Any = CONFIG, shapes: Any = SHAPES, dtype: str = "F32") -> Path:
    (directory / "adapter_config.json").write_text(json.dumps(config))
    (directory / "adapter_model.safetensors").write_bytes(valid_file(zeros(shapes, dtype)))
    return directory


@pytest.mark.parametrize("prefix", ["base_model.model.transformer.", "base_model.model.", ""])
@pytest.mark.parametrize("infix", ["", ".default"])
def test_names_and_scales(prefix: str, infix: str, tmp_path: Path) -> None:
    shapes = {
        f"{prefix}h.0.attn.c_attn.lora_A{infix}.weight": (2, 4),
        f"{prefix}h.0.attn.c_attn.lora_B{infix}.weight": (12, 2),
    }
    with LoraAdapter(write(tmp_path, shapes=shapes), 0.5) as adapter:
        (module,) = adapter.modules.values()
        assert [*adapter.modules] == ["h.0.attn.c_attn.weight"]
        assert (module.a.shape, module.b.shape, module.scale) == ((2, 4), (12, 2), 2.0)
        assert adapter.read(module.b).nbytes == 96


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type must be 'LORA', not 'IA3'"),
        ({"use_dora": True}, "use_dora is not supported: merge the adapter"),
        ({"bias": "all"}, "bias 'all' is not supported"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"r": 3}, "for a rank of 3"),
        ({"r": 0}, "r of .* must be a positive number, not 0"),
        ({"lora_alpha": None}, "lora_alpha of .* must be a positive number, not None"),
        ({"rank_pattern": {"c_attn": 7}}, "for a rank of 7"),
        ({"rank_pattern": {"(": 7}}, "rank_pattern has the key '\\('; supported are names"),
        ({"rank_pattern": {"(([a-z._0-9])*)*!": 7}}, "supported are names of modules"),
        ({"rank_pattern": {r"\d+\d+\d+!": 7}}, "supported are names of modules"),
        ({"alpha_pattern": [1]}, "alpha_pattern must be an object"),
    ],
)
def test_configurations_that_are_not_supported(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match=message):
        LoraAdapter(write(tmp_path, {**CONFIG, **changes}))


@pytest.mark.parametrize(
    "key", ["c_attn", r"h\.0\.attn\.c_attn", r"^transformer.h.\d+.attn.c_attn", "c_fc|attn.c_attn"]
)
def test_patterns_of_modules(key: str, tmp_path: Path) -> None:
    config = {**CONFIG, "alpha_pattern": {"mlp.c_fc": 5, key: 2}}
    with LoraAdapter(write(tmp_path, config)) as adapter:
        assert [module.scale for module in adapter.modules.values()] == [1.0]


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({}, "holds no tensors"),
        ({f"{NAME}.lora_A.weight": (2, 4)}, "has lora_A only"),
        ({f"{NAME}.lora_magnitude_vector": (12,)}, "is not lora_A or lora_B"),
        ({"base_model.model.transformer.wte.lora_A.weight": (2, 4)}, "is not lora_A or lora_B"),
        ({f"{NAME}.lora_A.weight": (8,)}, "not a matrix in F32"),
    ],
)
def test_tensors_that_are_not_supported(
    shapes: dict[str, tuple[int, ...]], message: str, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match=message):
        LoraAdapter(write(tmp_path, shapes=shapes))


def test_files_that_are_missing_or_malformed(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"adapter_config\.json does not exist: an adapter is"):
        LoraAdapter(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(WeightsError, match=r"adapter_config\.json: "):
        LoraAdapter(tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps(CONFIG))
    with pytest.raises(WeightsError, match=r"adapter_model\.safetensors"):
        LoraAdapter(tmp_path)
    with pytest.raises(WeightsError, match="not a matrix in F32, F16, BF16"):
        LoraAdapter(write(tmp_path, dtype="F64"))
