#!/usr/bin/env python3
"""Write reference_vectors.json: the forward pass of all-MiniLM-L6-v2 in numpy, in f64, without ONNX.

    reference_vectors.py MODEL_FOLDER > scripts/reference_vectors.json

Needs numpy, safetensors and tokenizers; nothing else in the repository runs it. It shares no code with
build_model.py, so that a mistake there cannot hide here.
"""

import json
import math
import sys
from pathlib import Path

import numpy
from safetensors.numpy import load_file
from tokenizers import Tokenizer

TEXTS = (
    "connection pool timeout",
    "How do I spawn a task that outlives the current function?",
    "error[E0308]: mismatched types, expected `&str`, found `String`",
    "naïve café — 東京 🚀",
    "a",
    " ".join(["Each value in Rust has an owner, and there can only be one owner at a time."] * 14),
)
HOW = (
    "Made by scripts/reference_vectors.py: an f64 numpy forward pass over the published safetensors of"
    " all-MiniLM-L6-v2 (no ONNX involved), exact Gelu, mean over all tokens, L2 norm 1, rounded to 7 decimals."
)
erf = numpy.vectorize(math.erf)


def normalise(x, w, name):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / numpy.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
    return scaled * w[name + ".weight"] + w[name + ".bias"]


def linear(x, w, name):
    return x @ w[name + ".weight"].T + w[name + ".bias"]


def forward(ids, w, heads=12, layers=6):
    count = len(ids)
    x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][:count]
    x = normalise(x + w["embeddings.token_type_embeddings.weight"][0], w, "embeddings.LayerNorm")
    for layer in range(layers):
        p = f"encoder.layer.{layer}."
        q, k, v = (
            linear(x, w, f"{p}attention.self.{part}").reshape(count, heads, -1).swapaxes(0, 1)
            for part in ("query", "key", "value")
        )
        scores = numpy.exp(q @ k.swapaxes(1, 2) / math.sqrt(q.shape[-1]))
        mixed = ((scores / scores.sum(-1, keepdims=True)) @ v).swapaxes(0, 1).reshape(count, -1)
        x = normalise(x + linear(mixed, w, p + "attention.output.dense"), w, p + "attention.output.LayerNorm")
        wide = linear(x, w, p + "intermediate.dense")
        wide = wide * 0.5 * (1 + erf(wide / math.sqrt(2)))
        x = normalise(x + linear(wide, w, p + "output.dense"), w, p + "output.LayerNorm")
    vector = x.mean(0)
    return vector / numpy.linalg.norm(vector)


def main():
    folder = Path(sys.argv[1])
    weights = {k: v.astype(numpy.float64) for k, v in load_file(folder / "model.safetensors").items()}
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    cases = []
    for text in TEXTS:
        ids = tokenizer.encode(text).ids
        vector = [round(float(x), 7) for x in forward(ids, weights)]
        cases.append({"text": text, "input_ids": ids, "vector": vector})
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    print(f'{{"how": {json.dumps(HOW)},\n"cases": [\n{lines}\n]}}')


if __name__ == "__main__":
    main()
