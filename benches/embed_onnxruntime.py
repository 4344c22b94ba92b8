#!/usr/bin/env python3
"""Query and passage embedding: our server's stage beside Python's ONNX Runtime on the same files, one thread each.

    python3 benches/embed_onnxruntime.py

Needs what `scripts/setup run` makes, and numpy, onnxruntime and tokenizers for Python (of one ONNX Runtime version with
the library there). Both sides tokenise, run, take the mean and scale to length 1. Rounds alternate, so that whatever
else the machine does meets both; the figure of each side is its best round's median.
"""

import json
import os
import re
import statistics
import subprocess
import time
from pathlib import Path

import numpy
import onnxruntime
from tokenizers import Tokenizer

ROUNDS = 3
DATA = Path(os.environ.get("DOC_SERVER_DATA_DIR", "/var/lib/doc-server")) / "runtime"
MODEL = DATA / "models/all-MiniLM-L6-v2"
# Name of the Rust bench: file, text, calls. The texts are those of benches/embed.rs.
CASES = {
    "query_int8": ("model_int8.onnx", "how to set a connection pool timeout", 400),
    "query_f32": ("model.onnx", "how to set a connection pool timeout", 400),
    "passage_int8": ("model_int8.onnx", "word " * 254, 100),
    "passage_f32": ("model.onnx", "word " * 254, 100),
}
UNITS = {"ns": 1e-6, "µs": 1e-3, "ms": 1.0, "s": 1e3}


def session(file):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(MODEL / file), options, providers=["CPUExecutionProvider"])


def embed(model, tokenizer, text):
    ids = numpy.array([tokenizer.encode(text).ids], numpy.int64)
    feeds = {"input_ids": ids, "attention_mask": numpy.ones_like(ids), "token_type_ids": numpy.zeros_like(ids)}
    vector = model.run(["last_hidden_state"], feeds)[0][0].mean(axis=0)
    return vector / numpy.linalg.norm(vector)


def python_median(model, tokenizer, text, calls):
    for _ in range(20):
        embed(model, tokenizer, text)
    times = []
    for _ in range(calls):
        started = time.perf_counter()
        embed(model, tokenizer, text)
        times.append((time.perf_counter() - started) * 1e3)
    return statistics.median(times)


def bench_binary():
    command = ["cargo", "bench", "--bench", "embed", "--no-run", "--message-format=json"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    built = [json.loads(line) for line in lines if '"compiler-artifact"' in line]
    return next(one["executable"] for one in built if one["target"]["kind"] == ["bench"] and one["executable"])


def rust_median(binary, name):
    out = subprocess.run([binary, "--bench", f"{name}$"], check=True, capture_output=True, text=True).stdout
    row = next(line for line in out.splitlines() if re.search(rf"\b{name}\b", line))
    # fastest │ slowest │ median │ …
    value, unit = re.findall(r"([\d.]+) (ns|µs|ms|s)\b", row)[2]
    return float(value) * UNITS[unit]


def main():
    binary = bench_binary()
    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    models = {file: session(file) for file, _, _ in CASES.values()}
    print(f"{'ms, median of one text':24} {'ours':>8} {'python':>8} {'ratio':>6}   (onnxruntime {onnxruntime.__version__})")
    for name, (file, text, calls) in CASES.items():
        ours, theirs = [], []
        for _ in range(ROUNDS):
            ours.append(rust_median(binary, name))
            theirs.append(python_median(models[file], tokenizer, text, calls))
        print(f"{name:24} {min(ours):8.3f} {min(theirs):8.3f} {min(ours) / min(theirs):6.2f}")


if __name__ == "__main__":
    main()
