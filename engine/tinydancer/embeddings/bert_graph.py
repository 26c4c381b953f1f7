"""A BERT sentence encoder as an ONNX graph, built from its weights.

Devlin et al. 2018 (the encoder) and Reimers & Gurevych 2019 (mean pooling over tokens). Every text
of a batch has the same number of tokens, so the graph needs no mask: padding would cost time, and
would let a text's vector depend on its neighbours in the batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tinydancer.errors import NotReady

OPSET = 17
IR_VERSION = 8

Weights = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class BertConfig:
    """The sizes of a BERT encoder, under the names of its config.json."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    layer_norm_eps: float


def weight_shapes(config: BertConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of each weight that the graph needs."""
    hidden, inner = config.hidden_size, config.intermediate_size
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (config.vocab_size, hidden),
        "embeddings.position_embeddings.weight": (config.max_position_embeddings, hidden),
        "embeddings.token_type_embeddings.weight": (2, hidden),
        "embeddings.LayerNorm.weight": (hidden,),
        "embeddings.LayerNorm.bias": (hidden,),
    }
    for number in range(config.num_hidden_layers):
        layer = f"encoder.layer.{number}"
        for part in ("query", "key", "value"):
            shapes[f"{layer}.attention.self.{part}.weight"] = (hidden, hidden)
            shapes[f"{layer}.attention.self.{part}.bias"] = (hidden,)
        shapes[f"{layer}.attention.output.dense.weight"] = (hidden, hidden)
        shapes[f"{layer}.attention.output.dense.bias"] = (hidden,)
        shapes[f"{layer}.intermediate.dense.weight"] = (inner, hidden)
        shapes[f"{layer}.intermediate.dense.bias"] = (inner,)
        shapes[f"{layer}.output.dense.weight"] = (hidden, inner)
        shapes[f"{layer}.output.dense.bias"] = (hidden,)
        for norm in ("attention.output", "output"):
            shapes[f"{layer}.{norm}.LayerNorm.weight"] = (hidden,)
            shapes[f"{layer}.{norm}.LayerNorm.bias"] = (hidden,)
    return shapes


def check_weights(weights: Weights, config: BertConfig) -> None:
    """Raise NotReady where a weight is missing, has another shape, or is not a finite number."""
    for name, shape in weight_shapes(config).items():
        if name not in weights:
            raise NotReady(f"the model has no weight {name}", hint="fetch the model again")
        if weights[name].shape != shape:
            raise NotReady(
                f"the weight {name} has shape {weights[name].shape}, not {shape}",
                hint="fetch the model again: this is one of another size",
            )
        if not np.isfinite(weights[name]).all():
            raise NotReady(
                f"the weight {name} has a value that is not a finite number",
                hint="fetch the model again",
            )


class _Graph:
    """Nodes and constants as they are added, each value by its name."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: NDArray[np.float32] | NDArray[np.int64]) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output


def build_graph(weights: Weights, config: BertConfig) -> bytes:
    """The encoder as a serialised ONNX model.

    Input `input_ids` (batch, tokens) int64, [CLS] and [SEP] included; output `vectors`
    (batch, hidden) float32 of unit length. Raises NotReady where the weights do not fit.
    """
    check_weights(weights, config)
    graph = _Graph()
    hidden = _embeddings(graph, weights, config)
    for number in range(config.num_hidden_layers):
        hidden = _layer(graph, weights, config, hidden, f"encoder.layer.{number}")
    graph.add("ReduceMean", [hidden], "mean", axes=[1], keepdims=0)
    graph.add("ReduceL2", ["mean"], "length", axes=[1], keepdims=1)
    graph.add("Div", ["mean", "length"], "vectors")
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "bert-sentence-encoder",
            [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"])],
            [
                helper.make_tensor_value_info(
                    "vectors", TensorProto.FLOAT, ["batch", config.hidden_size]
                )
            ],
            initializer=graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        producer_name="tinydancer",
    )
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _embeddings(graph: _Graph, weights: Weights, config: BertConfig) -> str:
    words = graph.constant("words", weights["embeddings.word_embeddings.weight"])
    # One sentence a text: its token type is always 0, so that vector joins the positions.
    positions = graph.constant(
        "positions",
        weights["embeddings.position_embeddings.weight"]
        + weights["embeddings.token_type_embeddings.weight"][0],
    )
    graph.constant("zero", np.array([0], dtype=np.int64))
    graph.add("Shape", ["input_ids"], "tokens", start=1, end=2)
    graph.add("Gather", [words, "input_ids"], "word_vectors", axis=0)
    graph.add("Slice", [positions, "zero", "tokens", "zero"], "position_vectors")
    graph.add("Add", ["word_vectors", "position_vectors"], "embedded")
    return _norm(graph, weights, config, "embedded", "embeddings")


def _layer(graph: _Graph, weights: Weights, config: BertConfig, hidden: str, layer: str) -> str:
    attended = _attention(graph, weights, config, hidden, layer)
    graph.add("Add", [attended, hidden], f"{layer}.attended")
    hidden = _norm(graph, weights, config, f"{layer}.attended", f"{layer}.attention.output")
    inner = _dense(graph, weights, hidden, f"{layer}.intermediate.dense")
    active = _gelu(graph, inner, f"{layer}.gelu")
    outer = _dense(graph, weights, active, f"{layer}.output.dense")
    graph.add("Add", [outer, hidden], f"{layer}.sum")
    return _norm(graph, weights, config, f"{layer}.sum", f"{layer}.output")


def _attention(graph: _Graph, weights: Weights, config: BertConfig, hidden: str, layer: str) -> str:
    """Scaled dot-product attention over several heads (Vaswani et al. 2017, section 3.2)."""
    heads = config.num_attention_heads
    size = config.hidden_size // heads
    name = f"{layer}.attention.self"
    # Query, key and value in one product; the scale 1/√size goes into the query's weights.
    scale = {"query": np.float32(1 / np.sqrt(size)), "key": np.float32(1), "value": np.float32(1)}
    kernel = graph.constant(
        f"{name}.kernel",
        np.concatenate([weights[f"{name}.{part}.weight"].T * scale[part] for part in scale], 1),
    )
    bias = graph.constant(
        f"{name}.bias",
        np.concatenate([weights[f"{name}.{part}.bias"] * scale[part] for part in scale]),
    )
    graph.add("MatMul", [hidden, kernel], f"{name}.product")
    graph.add("Add", [f"{name}.product", bias], f"{name}.qkv")
    split = graph.constant(f"{name}.split", np.array([0, 0, 3, heads, size], dtype=np.int64))
    graph.add("Reshape", [f"{name}.qkv", split], f"{name}.split_qkv")
    # (batch, tokens, 3, heads, size) → (3, batch, heads, tokens, size)
    graph.add("Transpose", [f"{name}.split_qkv"], f"{name}.parts", perm=[2, 0, 3, 1, 4])
    for index, part in enumerate(scale):
        place = graph.constant(f"{name}.{part}.index", np.array(index, dtype=np.int64))
        graph.add("Gather", [f"{name}.parts", place], f"{name}.{part}", axis=0)
    graph.add("Transpose", [f"{name}.key"], f"{name}.key_t", perm=[0, 1, 3, 2])
    graph.add("MatMul", [f"{name}.query", f"{name}.key_t"], f"{name}.scores")
    graph.add("Softmax", [f"{name}.scores"], f"{name}.shares", axis=-1)
    graph.add("MatMul", [f"{name}.shares", f"{name}.value"], f"{name}.mixed")
    graph.add("Transpose", [f"{name}.mixed"], f"{name}.mixed_t", perm=[0, 2, 1, 3])
    join = graph.constant(f"{name}.join", np.array([0, 0, config.hidden_size], dtype=np.int64))
    graph.add("Reshape", [f"{name}.mixed_t", join], f"{name}.joined")
    return _dense(graph, weights, f"{name}.joined", f"{layer}.attention.output.dense")


def _dense(graph: _Graph, weights: Weights, value: str, name: str) -> str:
    kernel = graph.constant(f"{name}.kernel", weights[f"{name}.weight"].T)
    bias = graph.constant(f"{name}.bias", weights[f"{name}.bias"])
    graph.add("MatMul", [value, kernel], f"{name}.product")
    return graph.add("Add", [f"{name}.product", bias], f"{name}.out")


def _norm(graph: _Graph, weights: Weights, config: BertConfig, value: str, name: str) -> str:
    scale = graph.constant(f"{name}.scale", weights[f"{name}.LayerNorm.weight"])
    bias = graph.constant(f"{name}.shift", weights[f"{name}.LayerNorm.bias"])
    return graph.add(
        "LayerNormalization",
        [value, scale, bias],
        f"{name}.normed",
        axis=-1,
        epsilon=config.layer_norm_eps,
    )


def _gelu(graph: _Graph, value: str, name: str) -> str:
    """x · ½ (1 + erf(x / √2)), in the form that onnxruntime fuses (Hendrycks & Gimpel 2016)."""
    constants = {"root": np.sqrt(2), "one": 1.0, "half": 0.5}
    names = {
        key: graph.constant(f"{name}.{key}", np.array(number, dtype=np.float32))
        for key, number in constants.items()
    }
    graph.add("Div", [value, names["root"]], f"{name}.scaled")
    graph.add("Erf", [f"{name}.scaled"], f"{name}.erf")
    graph.add("Add", [f"{name}.erf", names["one"]], f"{name}.gate")
    graph.add("Mul", [value, f"{name}.gate"], f"{name}.gated")
    return graph.add("Mul", [f"{name}.gated", names["half"]], f"{name}.out")
