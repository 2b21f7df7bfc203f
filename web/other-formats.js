/** Other checkpoint formats, recognised by file name, with a remedy: as in gpt2_wgpu/other_formats.py. */

export const FORMATS = [
  ["adapter_config\\.json|adapter_model\\.(safetensors|bin)", "a LoRA adapter and no model: load its base model, with from_preset(..., adapter=...) or --adapter-weights"],
  ["model\\.weights\\.h5|task\\.json|.*\\.weights\\.h5|assets", "a KerasHub preset: load its whole directory with from_preset() outside of a browser, or use the checkpoint in Hugging Face's format"],
  [".*\\.keras", "a model that Keras saved: load it with from_preset() of GPT2CausalLM outside of a browser, and write it with save_to_preset()"],
  [".*\\.gguf|ggml-.*\\.bin", "a GGUF file of llama.cpp: use the original checkpoint in Hugging Face's format"],
  ["onnx|.*\\.onnx|.*\\.ort", "an ONNX export: use the original checkpoint in Hugging Face's format"],
  ["tf_model.*\\.h5|saved_model\\.pb|checkpoint|model\\.ckpt.*|.*\\.tflite", "a TensorFlow model: load it in transformers and write it with save_pretrained() (from_tf=True), or use the original checkpoint in Hugging Face's format"],
  ["flax_model.*\\.msgpack", "a Flax model: load it in transformers and write it with save_pretrained() (from_flax=True)"],
  [".*\\.npz", "NumPy arrays (MLX?): use the original checkpoint in Hugging Face's format"],
  [".*\\.(bin|pt|pth|ckpt|pkl)", "a PyTorch pickle, which can run code and is not read here: load it in transformers and write it with save_pretrained()"],
];

export const TOKENIZERS = [
  ["vocab\\.txt", "of BertTokenizer (WordPiece)"],
  ["spiece\\.model|tokenizer\\.model|sentencepiece.*\\.model", "of SentencePiece"],
  [".*\\.tiktoken|encoder\\.json|vocab\\.bpe", "OpenAI's own format"],
];

const MOST_NAMES = 10_000;

/** The first of a table that is among these names. @param {string[][]} table @param {string[]} names */
function among(table, names) {
  const sorted = [...names].sort().slice(0, MOST_NAMES);
  for (const [pattern, what] of table) {
    const whole = new RegExp(`^(?:${pattern})$`);
    const name = sorted.find((name) => whole.test(name));
    if (name !== undefined) return { name, what };
  }
  return null;
}

/** What files without weights that can be read are; empty if unknown. @param {string[]} names */
export function weightsInstead(names) {
  const found = among(FORMATS, names);
  return found ? `${found.name} is ${found.what}` : "";
}

/** Which other tokenizer is there; empty if none. @param {string[]} names */
export function tokenizerInstead(names) {
  const found = among(TOKENIZERS, names);
  return found ? `, and ${found.name} is ${found.what}, not GPT-2's byte-level BPE` : "";
}
