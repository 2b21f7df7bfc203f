"""Mapping of tensor names in a checkpoint to names of the model."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from gpt2_wgpu.errors import WeightsError
from gpt2_wgpu.models.config import GPT2Config
from gpt2_wgpu.weights.checkpoint import SINGLE_FILE, Checkpoint
from gpt2_wgpu.weights.naming import resolve
from tests.weights.building import Entries, valid_file, write, zeros

CONFIG = GPT2Config(vocab_size=7, n_positions=5, n_embd=4, n_layer=2, n_head=2)
EXPECTED = CONFIG.expected_tensors()


def checkpoint_of(directory: Path, entries: Entries) -> Checkpoint:
    write(directory / SINGLE_FILE, valid_file(entries))
    return Checkpoint.open(directory)


@pytest.fixture(autouse=True)
def warnings_are_errors() -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("prefix", ["", "transformer."])
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_plain_checkpoint(prefix: str, dtype: str, tmp_path: Path) -> None:
    entries = {prefix + name: entry for name, entry in zeros(EXPECTED, dtype).items()}
    with checkpoint_of(tmp_path, entries) as source:
        found = resolve(source, EXPECTED)
        assert list(found) == list(EXPECTED)
        for name, entry in found.items():
            assert entry.name == prefix + name
            assert entry.shape == EXPECTED[name]
            assert source.read(entry.name).nbytes == entry.nbytes


def test_prefix_may_be_mixed_and_masks_are_ignored(tmp_path: Path) -> None:
    entries = zeros(EXPECTED)
    entries["transformer.ln_f.bias"] = entries.pop("ln_f.bias")
    masks = {"h.0.attn.bias": (1, 1, 5, 5), "transformer.h.1.attn.masked_bias": ()}
    with checkpoint_of(tmp_path, entries | zeros(masks)) as source:
        assert resolve(source, EXPECTED)["ln_f.bias"].name == "transformer.ln_f.bias"


def test_masks_of_an_odd_dtype_are_ignored_too(tmp_path: Path) -> None:
    masks: Entries = {"h.0.attn.bias": ("BOOL", [1], b"\1")}
    with checkpoint_of(tmp_path, zeros(EXPECTED) | masks) as source:
        assert list(resolve(source, EXPECTED)) == list(EXPECTED)


def test_stored_copy_of_a_tied_head_is_ignored(tmp_path: Path) -> None:
    entries = zeros(EXPECTED) | zeros({"lm_head.weight": (7, 4)})
    with checkpoint_of(tmp_path, entries) as source:
        assert "lm_head.weight" not in resolve(source, EXPECTED)


def test_own_head_is_required_and_found(tmp_path: Path) -> None:
    untied = replace(CONFIG, tie_word_embeddings=False).expected_tensors()
    with (
        checkpoint_of(tmp_path, zeros(EXPECTED)) as source,
        pytest.raises(WeightsError, match=r"1 of 29 .*lm_head\.weight \[7, 4\] is missing"),
    ):
        resolve(source, untied)
    with checkpoint_of(tmp_path, zeros(untied)) as source:
        assert resolve(source, untied)["lm_head.weight"].shape == (7, 4)


def test_missing_and_mismatching_tensors_are_listed(tmp_path: Path) -> None:
    entries = zeros(EXPECTED)
    del entries["ln_f.weight"]
    entries |= zeros({"wte.weight": (8, 4), "h.0.attn.c_attn.weight": (12, 4)})
    with checkpoint_of(tmp_path, entries) as source, pytest.raises(WeightsError) as caught:
        resolve(source, EXPECTED)
    message = str(caught.value)
    assert "3 of 28 tensors do not fit config.json" in message
    assert "wte.weight is [8, 4] instead of [7, 4]" in message
    assert "h.0.attn.c_attn.weight is [12, 4] instead of [4, 12]" in message
    assert "ln_f.weight [4] is missing" in message
    assert "config.json is probably of another model" in message
    assert "\n" not in message


def test_no_more_than_five_faults_are_listed(tmp_path: Path) -> None:
    with (
        checkpoint_of(tmp_path, zeros({"wte.weight": (7, 4)})) as source,
        pytest.raises(WeightsError, match=r"27 of 28 .*, \.\.\. \(22 more\);") as caught,
    ):
        resolve(source, EXPECTED)
    assert str(caught.value).count("is missing") == 5


def test_another_architecture_is_told_from_a_damaged_checkpoint(tmp_path: Path) -> None:
    other = zeros({"model.embed_tokens.weight": (7, 4), "model.norm.weight": (4,)})
    with (
        checkpoint_of(tmp_path, other) as source,
        pytest.raises(WeightsError, match=r"none of GPT-2's 28 .*model\.embed_tokens\.weight"),
    ):
        resolve(source, EXPECTED)
    with (
        checkpoint_of(tmp_path, {}) as source,
        pytest.raises(WeightsError, match="but nothing; this is a checkpoint of another"),
    ):
        resolve(source, EXPECTED)


@pytest.mark.parametrize("dtype", ["I8", "F64"])
def test_other_dtypes_are_named(dtype: str, tmp_path: Path) -> None:
    entries = zeros(EXPECTED) | zeros({"h.1.mlp.c_fc.bias": (16,)}, dtype)
    with (
        checkpoint_of(tmp_path, entries) as source,
        pytest.raises(WeightsError, match=rf"'h\.1\.mlp\.c_fc\.bias' has dtype {dtype}; .*BF16"),
    ):
        resolve(source, EXPECTED)


@pytest.mark.parametrize("first", [True, False])
def test_of_two_names_the_usual_one_is_read(first: bool, tmp_path: Path) -> None:
    usual = zeros({"transformer.wpe.weight": (5, 4)})
    entries = usual | zeros(EXPECTED) if first else zeros(EXPECTED) | usual
    message = r"'transformer\.wpe\.weight' is read, and 'wpe\.weight', .* is not"
    with checkpoint_of(tmp_path, entries) as source, pytest.warns(UserWarning, match=message):
        assert resolve(source, EXPECTED)["wpe.weight"].name == "transformer.wpe.weight"


def test_two_odd_names_are_ambiguous(tmp_path: Path) -> None:
    entries = zeros(EXPECTED) | zeros({"module.wpe.weight": (5, 4)})
    with (
        checkpoint_of(tmp_path, entries) as source,
        pytest.raises(WeightsError, match=r"both 'wpe\.weight' and 'module\.wpe\.weight'"),
    ):
        resolve(source, EXPECTED)


@pytest.mark.parametrize(
    "prefix",
    [
        "_orig_mod.",
        "module.",
        "_orig_mod.module.",
        "module._orig_mod.transformer.",
        "_fsdp_wrapped_module.transformer.",
        "_forward_module.model.transformer.",
        "model.",
    ],
)
def test_prefixes_of_trainers(prefix: str, tmp_path: Path) -> None:
    entries = {prefix + name: entry for name, entry in zeros(EXPECTED).items()}
    with checkpoint_of(tmp_path, entries) as source:
        assert resolve(source, EXPECTED)["ln_f.bias"].name == f"{prefix}ln_f.bias"


def test_wrappers_within_a_name(tmp_path: Path) -> None:
    entries = {
        name.replace("h.", "h._fsdp_wrapped_module.").replace(".attn.", "._orig_mod.attn."): entry
        for name, entry in zeros(EXPECTED).items()
    }
    with checkpoint_of(tmp_path, entries) as source:
        assert list(resolve(source, EXPECTED)) == list(EXPECTED)


def test_an_unknown_prefix_is_named(tmp_path: Path) -> None:
    entries = {f"student.{name}": entry for name, entry in zeros(EXPECTED).items()}
    with (
        checkpoint_of(tmp_path, entries) as source,
        pytest.raises(WeightsError, match=r"the prefix 'student\.' is unknown: remove it"),
    ):
        resolve(source, EXPECTED)


def transposed(entries: Entries) -> Entries:
    """The entries of a model whose layers are nn.Linear."""
    return {
        name: (dtype, shape[::-1] if name.startswith("h.") else shape, data)
        for name, (dtype, shape, data) in entries.items()
    }


def test_matrices_of_nn_linear_are_marked(tmp_path: Path) -> None:
    with checkpoint_of(tmp_path, transposed(zeros(EXPECTED))) as source:
        found = resolve(source, EXPECTED)
    marked = [name for name, entry in found.items() if entry.transposed]
    assert marked == [n for n, s in EXPECTED.items() if len(s) == 2 and n.startswith("h.")]
    with checkpoint_of(tmp_path, zeros(EXPECTED)) as source:
        assert not any(entry.transposed for entry in resolve(source, EXPECTED).values())


def test_a_square_layer_follows_the_others(tmp_path: Path) -> None:
    """With n_inner = n_embd only c_attn is not square."""
    expected = replace(CONFIG, n_inner=4).expected_tensors()
    with checkpoint_of(tmp_path, transposed(zeros(expected))) as source:
        assert resolve(source, expected)["h.1.mlp.c_fc.weight"].transposed


def test_layers_of_both_kinds_fit_no_model(tmp_path: Path) -> None:
    entries = zeros(EXPECTED) | {
        name: entry
        for name, entry in transposed(zeros(EXPECTED)).items()
        if name.startswith("h.0.mlp")
    }
    with (
        checkpoint_of(tmp_path, entries) as source,
        pytest.raises(WeightsError, match="2 of 28 tensors do not fit"),
    ):
        resolve(source, EXPECTED)


def test_a_model_without_biases(tmp_path: Path) -> None:
    without = {n: e for n, e in zeros(EXPECTED).items() if not n.endswith(".bias")}
    with checkpoint_of(tmp_path, without) as source:
        assert list(resolve(source, EXPECTED)) == list(without)
    one_missing = zeros(EXPECTED)
    del one_missing["ln_f.bias"]
    with (
        checkpoint_of(tmp_path, one_missing) as source,
        pytest.raises(WeightsError, match=r"1 of 28 .*ln_f\.bias \[4\] is missing"),
    ):
        resolve(source, EXPECTED)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("base_model.model.transformer.h.0.attn.c_attn.lora_A.weight", "a LoRA adapter: merge it"),
        ("model.h.0.attn.c_attn.scales", "quantised by another library"),
        ("transformer.h.0.attn.c_attn.qweight", "quantised by another library"),
        ("transformer.h.0.attn.c_attn.kernel", "in Flax's or Keras' names"),
    ],
)
def test_tensors_of_other_kinds_are_named(name: str, kind: str, tmp_path: Path) -> None:
    entries = zeros(EXPECTED) | zeros({name: (1,)})
    del entries["h.0.attn.c_attn.weight"]
    with (
        checkpoint_of(tmp_path, entries) as source,
        pytest.raises(WeightsError, match=f"these are .*{kind}"),
    ):
        resolve(source, EXPECTED)


@pytest.mark.parametrize("name", ["lm_head.weight", "transformer.wte.weight"])
def test_one_of_a_tied_pair_serves_as_both(name: str, tmp_path: Path) -> None:
    entries = zeros(EXPECTED)
    entries[name] = entries.pop("wte.weight")
    with checkpoint_of(tmp_path, entries) as source:
        assert resolve(source, EXPECTED)["wte.weight"].name == name


def test_unknown_extras_are_named_in_a_warning(tmp_path: Path) -> None:
    extras = zeros({f"transformer.h.2.extra{i}": (1,) for i in range(7)})
    with checkpoint_of(tmp_path, zeros(EXPECTED) | extras) as source:
        with pytest.warns(UserWarning, match=r"7 tensors are not used .*h\.2\.extra0, ") as caught:
            resolve(source, EXPECTED)
        assert "h.2.extra4, ... (2 more)" in str(caught[0].message)
        assert caught[0].filename == __file__


def test_one_extra_is_one_tensor(tmp_path: Path) -> None:
    with (
        checkpoint_of(tmp_path, zeros(EXPECTED) | zeros({"extra": (1,)})) as source,
        pytest.warns(UserWarning, match="1 tensor is not used by this model: extra;"),
    ):
        resolve(source, EXPECTED)
