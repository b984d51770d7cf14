#!/usr/bin/env python3
"""Writes record.bin, a recording of routing as common/balance/routing_record.h describes the format, with
nothing of the project: what must stay readable.

It has the layers of deploy/demo_model, ten batches a second in each for two seconds, and an expert that
is as popular as all others together. Needs the packages numpy and xxhash.

Usage: make_record.py [DIRECTORY]    (default: the folder of this script)
"""

import pathlib
import struct
import sys

import numpy as np
import xxhash

LAYERS = [(layer, 32, 4) for layer in (1, 2, 3, 4)]
START_US = 1_700_000_000_000_000
UNKNOWN = 0xFFFFFFFF


def text(value):
    return struct.pack("<I", len(value)) + value


def header():
    rest = text(b"golden fingerprint") + text(b"golden outline")
    rest += struct.pack("<I", len(LAYERS))
    rest += b"".join(struct.pack("<III", *layer) for layer in LAYERS)
    start = b"EXMROUTE" + struct.pack("<II", 1, len(rest) + 8) + rest
    seed = xxhash.xxh3_64_intdigest(start)
    return start + struct.pack("<Q", seed), seed


def block(offset, seed, time_us, layer, experts, batch_us, node_us):
    tokens = len(experts)
    body = struct.pack("<QQIIIII", time_us, 7, layer, tokens, batch_us, node_us, 1)
    body += bytes(int(expert) for row in experts for expert in row)
    size = struct.pack("<I", len(body))
    check = struct.pack("<I", xxhash.xxh3_64_intdigest(size, seed=offset) & 0xFFFFFFFF)
    return size + check + body + struct.pack("<Q", xxhash.xxh3_64_intdigest(body, seed=seed))


def main():
    here = pathlib.Path(__file__).resolve().parent
    target = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else here
    random = np.random.RandomState(3)
    file, seed = header()
    for step in range(20):
        for layer, experts, top_k in LAYERS:
            popular = np.full(experts, 1 / (experts - 1))
            popular[layer] = 1
            popular /= popular.sum()
            chosen = [
                random.choice(experts, size=top_k, replace=False, p=popular)
                for _ in range(random.randint(1, 17))
            ]
            batch_us = UNKNOWN if step == 0 else 400 + 10 * step
            time_us = START_US + 100_000 * step + layer
            file += block(len(file), seed, time_us, layer, chosen, batch_us, 100)
    (target / "record.bin").write_bytes(file)


if __name__ == "__main__":
    main()
