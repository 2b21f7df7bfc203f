"""GPT-2's configuration: Hugging Face's ``config.json``, validated, with KerasHub's aliases."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from gpt2_wgpu import small_files, strict_json
from gpt2_wgpu.activation_names import ACTIVATION_KINDS
from gpt2_wgpu.errors import ConfigError
from gpt2_wgpu.models.keras_config import from_keras, is_keras_config
from gpt2_wgpu.shown import shown

# Bounds far above any GPT-2, which reject invalid sizes before an allocation.
_BOUNDS = {
    "vocab_size": 1 << 24,
    "n_positions": 1 << 20,
    "n_embd": 1 << 16,
    "n_layer": 1 << 10,
    "n_head": 1 << 12,
    "n_inner": 1 << 20,
}
# transformers' attribute_map: aliases of sizes in config.json.
_OTHER_NAMES = {
    "hidden_size": "n_embd",
    "max_position_embeddings": "n_positions",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}
# Unsupported switches that change results → the values without effect.
_UNSUPPORTED: Mapping[str, tuple[object, ...]] = {
    "add_cross_attention": (False, None),
    "is_encoder_decoder": (False, None),
    "quantization_config": (None,),
    "pruned_heads": ({}, None),
}
_OWN_SIZES = ("n_embd", "n_layer", "n_head")


@dataclass(frozen=True, kw_only=True)
class GPT2Config:
    """Sizes and switches of a GPT-2 model, with the names and defaults of transformers' GPT2Config.

    Settings without effect on inference (dropouts, initializers, ``use_cache``) or its result
    (``reorder_and_upcast_attn``: attention is float32 anyway) are omitted.

    ``bos_token_id`` and ``eos_token_id`` may be beyond ``vocab_size``: transformers writes its
    default 50256 into small models, too. Such a token is never generated.

    Raises:
        ConfigError: a value has the wrong type or is out of range; the message has key and value.
    """

    vocab_size: int = 50257
    n_positions: int = 1024
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    n_inner: int | None = None
    activation_function: str = "gelu_new"
    layer_norm_epsilon: float = 1e-5
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    tie_word_embeddings: bool = True
    bos_token_id: int | None = 50256
    eos_token_id: int | tuple[int, ...] | None = 50256

    def __post_init__(self) -> None:
        self._check_sizes()
        self._check_switches()
        self._check_token_ids()

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> GPT2Config:
        """Create a configuration from a parsed ``config.json``; missing keys get the defaults.

        Args:
            values: the JSON object, in Hugging Face's or KerasHub's format.

        Returns:
            The configuration.

        Raises:
            ConfigError: this is not a GPT-2 configuration, a value is malformed, or a switch
                (named with its value) is not supported.
        """
        if is_keras_config(values):
            values = from_keras(values)
        model_type = values.get("model_type")
        if model_type is None and not all(key in values for key in _OWN_SIZES):
            raise ConfigError("key 'model_type' is missing; for GPT-2 it is 'gpt2'")
        if model_type not in (None, "gpt2"):
            raise ConfigError(f"model_type {shown(model_type)} is not supported, only 'gpt2'")
        for key, harmless in _UNSUPPORTED.items():
            if (value := values.get(key)) not in harmless:
                raise ConfigError(f"{key} = {shown(value)} is not supported")
        known: dict[str, Any] = {
            key: values[key] for key in cls.__dataclass_fields__ if key in values
        }
        for other, own in _OTHER_NAMES.items():
            if other in values and known.setdefault(own, values[other]) != values[other]:
                raise ConfigError(
                    f"{own} = {shown(known[own])} and {other} = "
                    f"{shown(values[other])} contradict each other"
                )
        if "eos_token_id" in known:
            known["eos_token_id"] = flat_ids(known["eos_token_id"])
        return cls(**known)

    @classmethod
    def from_json_file(cls, path: str | os.PathLike[str]) -> GPT2Config:
        """Read a ``config.json``.

        Raises:
            ConfigError: the file cannot be read, is not a JSON object, or as in `from_dict`.
        """
        values = read_object(path)
        try:
            return cls.from_dict(values)
        except ConfigError as error:
            raise ConfigError(f"{os.fspath(path)}: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """Return the contents of ``config.json``, the inverse of `from_dict`."""
        values = {"model_type": "gpt2", **asdict(self)}
        if isinstance(self.eos_token_id, tuple):
            values["eos_token_id"] = list(self.eos_token_id)
        return values

    @property
    def vocabulary_size(self) -> int:
        """KerasHub's name for ``vocab_size``."""
        return self.vocab_size

    @property
    def num_layers(self) -> int:
        """KerasHub's name for ``n_layer``."""
        return self.n_layer

    @property
    def num_heads(self) -> int:
        """KerasHub's name for ``n_head``."""
        return self.n_head

    @property
    def hidden_dim(self) -> int:
        """KerasHub's name for ``n_embd``."""
        return self.n_embd

    @property
    def intermediate_dim(self) -> int:
        """Width of the feed-forward layer: ``n_inner``, or four times ``n_embd``."""
        return 4 * self.n_embd if self.n_inner is None else self.n_inner

    @property
    def max_sequence_length(self) -> int:
        """KerasHub's name for ``n_positions``."""
        return self.n_positions

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.n_embd // self.n_head

    @property
    def activation_kind(self) -> str:
        """The formula of ``activation_function``, a value of `ACTIVATION_KINDS`."""
        return ACTIVATION_KINDS[self.activation_function]

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """``eos_token_id`` as a tuple, empty if there is none."""
        if self.eos_token_id is None:
            return ()
        return (self.eos_token_id,) if isinstance(self.eos_token_id, int) else self.eos_token_id

    def expected_tensors(self) -> dict[str, tuple[int, ...]]:
        """Return name → shape of all tensors in a checkpoint, without the prefix ``transformer.``.

        Linear weights are stored [in, out] (transformers' Conv1D). ``lm_head.weight`` [V, D] is
        included only if it is not tied to ``wte.weight``.
        """
        d, inner = self.n_embd, self.intermediate_dim
        tensors: dict[str, tuple[int, ...]] = {
            "wte.weight": (self.vocab_size, d),
            "wpe.weight": (self.n_positions, d),
        }
        for i in range(self.n_layer):
            tensors |= {
                f"h.{i}.ln_1.weight": (d,),
                f"h.{i}.ln_1.bias": (d,),
                f"h.{i}.attn.c_attn.weight": (d, 3 * d),
                f"h.{i}.attn.c_attn.bias": (3 * d,),
                f"h.{i}.attn.c_proj.weight": (d, d),
                f"h.{i}.attn.c_proj.bias": (d,),
                f"h.{i}.ln_2.weight": (d,),
                f"h.{i}.ln_2.bias": (d,),
                f"h.{i}.mlp.c_fc.weight": (d, inner),
                f"h.{i}.mlp.c_fc.bias": (inner,),
                f"h.{i}.mlp.c_proj.weight": (inner, d),
                f"h.{i}.mlp.c_proj.bias": (d,),
            }
        tensors |= {"ln_f.weight": (d,), "ln_f.bias": (d,)}
        if not self.tie_word_embeddings:
            tensors["lm_head.weight"] = (self.vocab_size, d)
        return tensors

    def parameter_count(self) -> int:
        """Number of trained values: 124,439,808 for the defaults."""
        return sum(math.prod(shape) for shape in self.expected_tensors().values())

    def _check_sizes(self) -> None:
        for key, bound in _BOUNDS.items():
            value = getattr(self, key)
            if key == "n_inner" and value is None:
                continue
            if type(value) is not int or not 1 <= value <= bound:  # rejects bool
                raise ConfigError(f"{key} = {shown(value)} must be an integer from 1 to {bound:,}")
        if self.n_embd % self.n_head:
            raise ConfigError(f"n_embd = {self.n_embd} is not a multiple of n_head = {self.n_head}")

    def _check_switches(self) -> None:
        name = self.activation_function
        if not isinstance(name, str) or name not in ACTIVATION_KINDS:
            raise ConfigError(
                f"activation_function = {shown(name)} is not supported; "
                f"supported are {', '.join(ACTIVATION_KINDS)}"
            )
        epsilon = self.layer_norm_epsilon
        if type(epsilon) not in (int, float) or not 0 < epsilon <= 1:  # rejects NaN, too
            raise ConfigError(
                f"layer_norm_epsilon = {shown(epsilon)} must be above 0 and at most 1"
            )
        for key in ("scale_attn_weights", "scale_attn_by_inverse_layer_idx", "tie_word_embeddings"):
            if not isinstance(value := getattr(self, key), bool):
                raise ConfigError(f"{key} = {shown(value)} must be true or false")

    def _check_token_ids(self) -> None:
        # An id beyond the vocabulary is valid: transformers writes its default 50256 into the
        # configuration of small models. Such a token is never generated.
        eos = self.eos_token_id if isinstance(self.eos_token_id, tuple) else (self.eos_token_id,)
        for key, values in (("bos_token_id", (self.bos_token_id,)), ("eos_token_id", eos)):
            for value in values:
                if value is not None and (type(value) is not int or not 0 <= value < 2**31):
                    raise ConfigError(f"{key} = {shown(value)} must be a token id or null")


def read_object(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a JSON object; ConfigError, with the file's name, if that fails."""
    try:
        values = strict_json.parse(small_files.read(path))
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"{os.fspath(path)}: cannot be read: {reason}") from None
    except ValueError as error:
        raise ConfigError(f"{os.fspath(path)}: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{os.fspath(path)}: this is not a JSON object")
    return values


def flat_ids(value: Any) -> Any:
    """Flatten a list of ids, or of lists of ids, to a tuple; return other values unchanged."""
    if not isinstance(value, list):
        return value
    return tuple(item for part in value for item in (part if isinstance(part, list) else [part]))
