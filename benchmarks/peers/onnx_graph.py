"""GPT-2 as an ONNX graph with a KV cache, for onnxruntime, onnxruntime-web and transformers.js.

Built from the operators of onnxruntime's model builder: GroupQueryAttention (with mask and cache),
LayerNormalization, FastGelu. A second graph has attention in standard operators, because the fused
one is incorrect on adapters with subgroups of four. The head is computed for the last position
only, unlike in exports from PyTorch. Inputs and outputs have the names of Hugging Face's exports:
input_ids, position_ids [B, T], past_key_values.N.key/value [B, H, P, D] → logits [B, 1, V],
present.N.key/value [B, H, P + T, D].
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper, save
from safetensors.numpy import load_file

CONTRIB = "com.microsoft"


class Graph:
    """Nodes and weights of a graph; ``add`` returns the name of a node's first output."""

    def __init__(self) -> None:
        self.nodes: list[object] = []
        self.weights: dict[str, object] = {}

    def weight(self, name: str, value: np.ndarray) -> str:
        self.weights[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def add(
        self, op: str, inputs: list[str], outputs: list[str] | None = None, **kw: object
    ) -> str:
        outputs = outputs or [f"{op}_{len(self.nodes)}"]
        self.nodes.append(helper.make_node(op, inputs, outputs, **kw))
        return outputs[0]


def read_weights(directory: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return config.json, and the weights as f32 by their names without ``transformer.``."""
    config = json.loads((directory / "config.json").read_text())
    tensors = load_file(directory / "model.safetensors")
    return config, {
        name.removeprefix("transformer."): value.astype(np.float32)
        for name, value in tensors.items()
    }


def write_onnx(directory: Path, fused: bool) -> None:
    """Write ``onnx/model.onnx`` (``fused``) or ``onnx/model_plain.onnx`` into ``directory``."""
    config, weights = read_weights(directory)
    layers, heads, width = config["n_layer"], config["n_head"], config["n_embd"]
    epsilon, vocabulary = config["layer_norm_epsilon"], config["vocab_size"]
    graph = Graph()
    w = {name: graph.weight(name, value) for name, value in weights.items() if name != "lm_head"}

    def norm(x: str, name: str) -> str:
        inputs = [x, w[f"{name}.weight"], w[f"{name}.bias"]]
        return graph.add("LayerNormalization", inputs, axis=-1, epsilon=epsilon)

    def project(x: str, name: str) -> str:
        return graph.add("Add", [graph.add("MatMul", [x, w[f"{name}.weight"]]), w[f"{name}.bias"]])

    def constant(name: str, *values: int) -> str:
        return graph.weight(name, np.array(values, np.int64))

    one = constant("one", 1)
    _add_masks(graph, one, fused)
    words = graph.add("Gather", [w["wte.weight"], "input_ids"])
    x = graph.add("Add", [words, graph.add("Gather", [w["wpe.weight"], "position_ids"])])
    for n in range(layers):
        qkv = project(norm(x, f"h.{n}.ln_1"), f"h.{n}.attn.c_attn")
        parts = [f"{part}_{n}" for part in "qkv"]
        graph.add("Split", [qkv], parts, axis=-1, num_outputs=3)
        pasts = [f"past_key_values.{n}.{kind}" for kind in ("key", "value")]
        presents = [f"present.{n}.{kind}" for kind in ("key", "value")]
        attend = _fused if fused else _plain
        attended = attend(graph, parts, pasts, presents, heads, width)
        x = graph.add("Add", [x, project(attended, f"h.{n}.attn.c_proj")])
        inner = graph.add("MatMul", [norm(x, f"h.{n}.ln_2"), w[f"h.{n}.mlp.c_fc.weight"]])
        inner = graph.add("FastGelu", [inner, w[f"h.{n}.mlp.c_fc.bias"]], domain=CONTRIB)
        x = graph.add("Add", [x, project(inner, f"h.{n}.mlp.c_proj")])

    last = [constant("last", -1), constant("end", 2**63 - 1), one]
    x = norm(graph.add("Slice", [x, *last]), "ln_f")
    rows = graph.add("Reshape", [x, constant("rows", -1, width)])  # (B, D)
    logits = graph.add("Gemm", [rows, w["wte.weight"]], transB=1)
    graph.add("Unsqueeze", [logits, one], ["logits"])
    file = directory / "onnx" / ("model.onnx" if fused else "model_plain.onnx")
    _save(graph, file, layers, heads, width // heads, vocabulary)


def _add_masks(graph: Graph, one: str, fused: bool) -> None:
    """Add the inputs of the causal mask: two lengths (fused), or a bias [B, 1, T, P + T]."""
    number = graph.weight("number", np.array(1, np.int64))
    longest = graph.add("ReduceMax", ["position_ids"], keepdims=0)  # ()
    total = graph.add("Add", [longest, number])
    if fused:
        newest = graph.add("ReduceMax", ["position_ids", one], keepdims=0)  # (B,)
        graph.add("Cast", [newest], ["newest"], to=TensorProto.INT32)
        graph.add("Cast", [total], ["length"], to=TensorProto.INT32)
        return
    nothing = graph.weight("nothing", np.array(0, np.int64))
    keys = graph.add("Range", [nothing, total, number])
    axes = graph.weight("axes", np.array([1, 3], np.int64))
    seen = graph.add("LessOrEqual", [keys, graph.add("Unsqueeze", ["position_ids", axes])])
    open_, masked = (
        graph.weight(n, np.array(v, np.float32)) for n, v in (("open", 0), ("no", -1e9))
    )
    graph.add("Where", [seen, open_, masked], ["bias"])


def _fused(
    graph: Graph, parts: list[str], pasts: list[str], presents: list[str], heads: int, width: int
) -> str:
    """Add attention as one operator with scale, mask and cache."""
    inputs = [*parts, *pasts, "newest", "length"]
    outputs = [f"attended_{parts[0]}", *presents]
    sizes = {"num_heads": heads, "kv_num_heads": heads}
    return graph.add("GroupQueryAttention", inputs, outputs, domain=CONTRIB, **sizes)


def _plain(
    graph: Graph, parts: list[str], pasts: list[str], presents: list[str], heads: int, width: int
) -> str:
    """Add attention in standard operators, as in exports from PyTorch."""
    split = graph.weight("split", np.array([0, 0, heads, width // heads], np.int64))
    split_heads = [
        graph.add("Transpose", [graph.add("Reshape", [part, split])], perm=[0, 2, 1, 3])
        for part in parts
    ]
    query = split_heads[0]
    for past, new, present in zip(pasts, split_heads[1:], presents, strict=True):
        graph.add("Concat", [past, new], [present], axis=2)
    scale = graph.weight("scale", np.array((width // heads) ** -0.5, np.float32))
    turned = graph.add("Transpose", [presents[0]], perm=[0, 1, 3, 2])
    scores = graph.add("Mul", [graph.add("MatMul", [query, turned]), scale])
    chances = graph.add("Softmax", [graph.add("Add", [scores, "bias"])], axis=-1)
    mixed = graph.add("Transpose", [graph.add("MatMul", [chances, presents[1]])], perm=[0, 2, 1, 3])
    joined = graph.weight("joined", np.array([0, 0, width], np.int64))
    return graph.add("Reshape", [mixed, joined])


def _save(graph: Graph, file: Path, layers: int, heads: int, depth: int, vocabulary: int) -> None:
    def values(kind: int, shapes: Mapping[str, Sequence[object]]) -> list[object]:
        return [helper.make_tensor_value_info(name, kind, shape) for name, shape in shapes.items()]

    def cache(prefix: str, length: str) -> dict[str, list[object]]:
        kinds = [f"{prefix}.{n}.{kind}" for n in range(layers) for kind in ("key", "value")]
        return {name: ["batch_size", heads, length, depth] for name in kinds}

    ids = {name: ["batch_size", "sequence_length"] for name in ("input_ids", "position_ids")}
    inputs = values(TensorProto.INT64, ids)
    inputs += values(TensorProto.FLOAT, cache("past_key_values", "past_sequence_length"))
    outputs = {"logits": ["batch_size", 1, vocabulary], **cache("present", "total_sequence_length")}
    made = helper.make_graph(
        graph.nodes,
        "gpt2",
        inputs,
        values(TensorProto.FLOAT, outputs),
        list(graph.weights.values()),
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(CONTRIB, 1)]
    model = helper.make_model(made, opset_imports=opsets, ir_version=10)
    checker.check_model(model)
    file.parent.mkdir(exist_ok=True)
    save(model, file)
