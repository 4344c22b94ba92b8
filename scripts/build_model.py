#!/usr/bin/env python3
"""Build all-MiniLM-L6-v2 as ONNX files from its published weights, and prove that they compute the right vectors.

    build_model.py SOURCE TARGET      SOURCE holds config.json, model.safetensors and the tokenizer files

Writes `model.onnx` (f32) and `model_int8.onnx` (dynamic quantisation) with inputs input_ids, attention_mask and
token_type_ids (int64 [batch, seq]) and the output last_hidden_state (f32 [batch, seq, hidden]), and copies the
tokenizer's files. Exits non-zero when a vector strays from `reference_vectors.json`.
"""

import json
import shutil
import struct
import sys
from pathlib import Path

import numpy
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

REFERENCE = Path(__file__).with_name("reference_vectors.json")
COPIED = ("config.json", "tokenizer_config.json", "special_tokens_map.json")
# The graph needs operator set 20 (Gelu). Format 9 is the one that came with it, so old runtimes read the file too.
OPSET, FORMAT = 20, 9
# What the files must reach: f32 differs from the reference by rounding alone, int8 by its precision.
LIMITS = {"model.onnx": 0.9999, "model_int8.onnx": 0.98}


def read_safetensors(path):
    """All tensors of a safetensors file: a length, a JSON table of contents, then the raw little-endian data."""
    raw = path.read_bytes()
    (length,) = struct.unpack_from("<Q", raw)
    contents = json.loads(raw[8 : 8 + length])
    contents.pop("__metadata__", None)
    kinds = {"F32": "<f4", "I64": "<i8"}
    tensors = {}
    for name, entry in contents.items():
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        tensors[name] = numpy.frombuffer(raw[begin:end], kinds[entry["dtype"]]).reshape(entry["shape"])
    return tensors


class Graph:
    """Collects nodes and weights; every method returns the name of what it adds."""

    def __init__(self, tensors, epsilon):
        self.tensors, self.epsilon = tensors, epsilon
        self.nodes, self.weights = [], {}

    def weight(self, name, value):
        if name not in self.weights:
            self.weights[name] = numpy_helper.from_array(numpy.ascontiguousarray(value), name)
        return name

    def ints(self, *values):
        return self.weight("ints_" + "_".join(map(str, values)), numpy.array(values, numpy.int64))

    def node(self, kind, *inputs, **attributes):
        output = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], output, **attributes))
        return output

    def dense(self, x, name):
        matrix = self.weight(name + ".weight", self.tensors[name + ".weight"].T)
        bias = self.weight(name + ".bias", self.tensors[name + ".bias"])
        return self.node("Add", self.node("MatMul", x, matrix), bias)

    def norm(self, x, name):
        scale = self.weight(name + ".weight", self.tensors[name + ".weight"])
        bias = self.weight(name + ".bias", self.tensors[name + ".bias"])
        return self.node("LayerNormalization", x, scale, bias, axis=-1, epsilon=self.epsilon)


def embeddings(g):
    """Word + position + token type, normalised."""
    prefix = "embeddings."
    table = {
        kind: g.weight(f"{prefix}{kind}_embeddings.weight", g.tensors[f"{prefix}{kind}_embeddings.weight"])
        for kind in ("word", "position", "token_type")
    }
    words = g.node("Gather", table["word"], "input_ids", axis=0)
    types = g.node("Gather", table["token_type"], "token_type_ids", axis=0)
    # The first `seq` rows of the position table. Range + Gather would say the same but trips a graph optimiser.
    length = g.node("Slice", g.node("Shape", "input_ids"), g.ints(1), g.ints(2), g.ints(0))
    positions = g.node("Slice", table["position"], g.ints(0), length, g.ints(0))
    return g.norm(g.node("Add", g.node("Add", words, types), positions), prefix + "LayerNorm")


def mask(g):
    """0 where a token counts and a number that Softmax turns into 0 where it is padding: [batch, 1, 1, seq]."""
    kept = g.node("Cast", g.node("Unsqueeze", "attention_mask", g.ints(1, 2)), to=TensorProto.FLOAT)
    lowest = numpy.array(numpy.finfo(numpy.float32).min, numpy.float32)
    padded = g.node("Sub", g.weight("one", numpy.array(1, numpy.float32)), kept)
    return g.node("Mul", padded, g.weight("lowest", lowest))


def attention(g, x, padding, prefix, heads, dim):
    """Multi-head self-attention with its output projection."""

    def split(part, order):
        y = g.node("Reshape", g.dense(x, f"{prefix}self.{part}"), g.ints(0, 0, heads, dim))
        return g.node("Transpose", y, perm=order)

    query, key, value = split("query", [0, 2, 1, 3]), split("key", [0, 2, 3, 1]), split("value", [0, 2, 1, 3])
    root = g.weight("sqrt_dim", numpy.array(dim**0.5, numpy.float32))
    scores = g.node("Add", g.node("Div", g.node("MatMul", query, key), root), padding)
    mixed = g.node("MatMul", g.node("Softmax", scores, axis=-1), value)
    joined = g.node("Reshape", g.node("Transpose", mixed, perm=[0, 2, 1, 3]), g.ints(0, 0, heads * dim))
    return g.dense(joined, prefix + "output.dense")


def build(config, tensors):
    """The whole encoder as an ONNX model."""
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    g = Graph(tensors, config["layer_norm_eps"])
    x, padding = embeddings(g), mask(g)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"encoder.layer.{layer}."
        attended = attention(g, x, padding, prefix + "attention.", heads, hidden // heads)
        x = g.norm(g.node("Add", attended, x), prefix + "attention.output.LayerNorm")
        wide = g.node("Gelu", g.dense(x, prefix + "intermediate.dense"), approximate="none")
        x = g.norm(g.node("Add", g.dense(wide, prefix + "output.dense"), x), prefix + "output.LayerNorm")
    g.nodes[-1].output[0] = "last_hidden_state"

    def value(name, kind, *shape):
        return helper.make_tensor_value_info(name, kind, ["batch", "seq", *shape])

    inputs = [value(name, TensorProto.INT64) for name in ("input_ids", "attention_mask", "token_type_ids")]
    output = [value("last_hidden_state", TensorProto.FLOAT, hidden)]
    graph = helper.make_graph(g.nodes, "all-MiniLM-L6-v2", inputs, output, list(g.weights.values()))
    opsets = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=FORMAT, producer_name="doc-server")


def quantise(source, target):
    """Weights to int8, activations at run time.

    One scale per output channel: with one per matrix the worst reference cosine is 0.93 instead of 0.99.
    """
    import logging

    from onnxruntime.quantization import QuantType, quantize_dynamic

    # Its advice to preprocess first is for graphs with unknown shapes; this one is checked by its results.
    logging.getLogger().setLevel(logging.ERROR)
    quantize_dynamic(str(source), str(target), weight_type=QuantType.QInt8, per_channel=True)


def write_tokenizer(source, target):
    """Without the published truncation to 128 tokens and padding to 128: whoever counts tokens must see all of them."""
    tokenizer = json.loads((source / "tokenizer.json").read_text("utf-8"))
    tokenizer["truncation"] = tokenizer["padding"] = None
    (target / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), "utf-8")


def embed(session, ids):
    """One text's vector: mean over its tokens, length 1."""
    ids = numpy.array([ids], numpy.int64)
    feeds = {"input_ids": ids, "attention_mask": numpy.ones_like(ids), "token_type_ids": numpy.zeros_like(ids)}
    vector = session.run(["last_hidden_state"], feeds)[0][0].mean(axis=0)
    return vector / numpy.linalg.norm(vector)


def verify(path, limit):
    """Compare a file with the reference vectors; returns the worst cosine and the greatest difference of a value."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    worst, difference = 1.0, 0.0
    for case in json.loads(REFERENCE.read_text("utf-8"))["cases"]:
        expected, found = numpy.array(case["vector"]), embed(session, case["input_ids"])
        worst = min(worst, float(expected @ found / numpy.linalg.norm(expected)))
        difference = max(difference, float(numpy.abs(expected - found).max()))
    print(f"model: {path.name} {path.stat().st_size / 1e6:.1f} MB, cosine >= {worst:.6f}, difference <= {difference:.1e}")
    if not worst >= limit:
        sys.exit(f"error: {path.name} does not compute the reference vectors (cosine {worst:.6f}, wanted {limit})")


def main():
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    config = json.loads((source / "config.json").read_text("utf-8"))
    onnxruntime.set_default_logger_severity(3)
    model = build(config, read_safetensors(source / "model.safetensors"))
    onnx.checker.check_model(model)
    onnx.save(model, str(target / "model.onnx"))
    quantise(target / "model.onnx", target / "model_int8.onnx")
    write_tokenizer(source, target)
    for name in COPIED:
        shutil.copyfile(source / name, target / name)
    for name, limit in LIMITS.items():
        verify(target / name, limit)


if __name__ == "__main__":
    main()
