"""Export of a checkpoint as a Hugging Face GPT-2 directory with f16 weights."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from tokenizer import end_of_text_id, save_gpt2_files

RUN = Path(__file__).parent / "runs" / "fairytales"

# Name of a block's layer here -> name in GPT-2, and whether to transpose the matrix: GPT-2 stores
# [in, out], torch.nn.Linear [out, in].
LAYERS = {
    "ln_1": ("ln_1", False),
    "c_attn": ("attn.c_attn", True),
    "attn_proj": ("attn.c_proj", True),
    "ln_2": ("ln_2", False),
    "c_fc": ("mlp.c_fc", True),
    "mlp_proj": ("mlp.c_proj", True),
}


def gpt2_tensors(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename and transpose the weights; the head is tied to wte and not stored."""
    result = {}
    for name, tensor in state.items():
        if name.startswith("blocks."):
            _, block, layer, kind = name.split(".")
            gpt2, transpose = LAYERS[layer]
            name = f"h.{block}.{gpt2}.{kind}"
            if transpose and kind == "weight":
                tensor = tensor.T
        result[f"transformer.{name}"] = tensor.to(torch.float16).contiguous()
    return result


def config(shape: dict[str, int], eot: int, dropout: float) -> dict[str, Any]:
    """Return the config.json of GPT2LMHeadModel."""
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "activation_function": "gelu_new",
        "attn_pdrop": 0.0,
        "bos_token_id": eot,
        "embd_pdrop": dropout,
        "eos_token_id": eot,
        "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-5,
        "n_ctx": shape["context"],
        "n_embd": shape["width"],
        "n_head": shape["heads"],
        "n_inner": None,
        "n_layer": shape["layers"],
        "n_positions": shape["context"],
        "resid_pdrop": dropout,
        "tie_word_embeddings": True,
        "torch_dtype": "float16",
        "vocab_size": shape["vocabulary"],
    }


def write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def export(run: Path, out: Path) -> None:
    """Export run/checkpoint.pt and run/tokenizer.json to the directory `out`."""
    checkpoint = torch.load(run / "checkpoint.pt", map_location="cpu", weights_only=False)
    tokenizer = Tokenizer.from_file(str(run / "tokenizer.json"))
    eot = end_of_text_id(tokenizer)
    shape = checkpoint["shape"]
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "config.json", config(shape, eot, checkpoint["args"]["dropout"]))
    sampling = {"do_sample": True, "temperature": 0.8, "top_k": 40}
    write_json(
        out / "generation_config.json",
        {"bos_token_id": eot, "eos_token_id": eot, "pad_token_id": eot, **sampling},
    )
    weights = out / "model.safetensors"
    save_file(gpt2_tensors(checkpoint["model"]), weights, {"format": "pt"})
    weights.chmod(0o644)  # safetensors creates it with mode 0600
    save_gpt2_files(tokenizer, out, shape["context"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=RUN)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    export(args.run, args.out)


if __name__ == "__main__":
    main()
