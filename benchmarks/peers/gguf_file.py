"""Writer of GPT-2 as a GGUF file in f32, for wllama (llama.cpp in the browser).

wllama takes and returns text only. Tokens are therefore named ``<0>``, ``<1>``, …, so that ids can
be parsed from its output, and the tokens of prompts are marked as user-defined, so that it matches
them in its input. Speed does not depend on the names.
"""

from __future__ import annotations

from pathlib import Path

from gguf import GGUFWriter, TokenType

from benchmarks.peers.onnx_graph import read_weights

# Name in Hugging Face's checkpoints → name in llama.cpp. Matrices of blocks are [in, out] in the
# former and [out, in] in the latter.
_NAMES = {
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}


def write_gguf(directory: Path, prompt_ids: set[int]) -> None:
    """Write ``model.gguf`` into ``directory``; prompts may consist of ``prompt_ids``."""
    config, weights = read_weights(directory)
    writer = GGUFWriter(directory / "model.gguf", "gpt2")
    writer.add_context_length(config["n_positions"])
    writer.add_embedding_length(config["n_embd"])
    writer.add_feed_forward_length(config.get("n_inner") or 4 * config["n_embd"])
    writer.add_block_count(config["n_layer"])
    writer.add_head_count(config["n_head"])
    writer.add_layer_norm_eps(config["layer_norm_epsilon"])
    writer.add_file_type(0)  # all f32
    vocabulary = config["vocab_size"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([f"<{index}>" for index in range(vocabulary)])
    kinds = [
        TokenType.USER_DEFINED if i in prompt_ids else TokenType.NORMAL for i in range(vocabulary)
    ]
    writer.add_token_types(kinds)
    writer.add_token_merges(["< 0"])
    writer.add_bos_token_id(vocabulary - 1)
    writer.add_eos_token_id(vocabulary - 1)
    writer.add_tensor("token_embd.weight", weights["wte.weight"])
    writer.add_tensor("position_embd.weight", weights["wpe.weight"])
    for kind in ("weight", "bias"):
        writer.add_tensor(f"output_norm.{kind}", weights[f"ln_f.{kind}"])
        for n in range(config["n_layer"]):
            for theirs, ours in _NAMES.items():
                value = weights[f"h.{n}.{theirs}.{kind}"]
                writer.add_tensor(f"blk.{n}.{ours}.{kind}", value.T.copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
