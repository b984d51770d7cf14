#!/usr/bin/env python3
"""Records what torch.topk does on a CPU with ties and NaN, as torch_topk.json in this folder.

Needs torch (recorded with 2.13.0) and is not run by the tests: the record is what they compare
TieOrder::kTorchCpu with. Values are small integers, so that ties abound; null is NaN.

Usage: record_torch_topk.py [DIRECTORY]    (default: the folder of this script)
"""

import json
import pathlib
import random
import sys

import torch

# (values, k): both of torch's ways, full selection, and sizes of real gates.
SHAPES = [(8, 2), (8, 8), (8, 1), (16, 4), (60, 4), (64, 1), (64, 6), (128, 1), (128, 2), (128, 8),
          (160, 6), (256, 4), (256, 8), (512, 8), (33, 17)]


def main():
    here = pathlib.Path(__file__).resolve().parent
    target = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else here
    draw = random.Random(5)
    lines = []
    for count, k in SHAPES:
        for levels in (1, 3, 12):
            for is_sorted in (True, False):
                for nans in (0, 3):
                    values = [float(draw.randrange(levels)) for _ in range(count)]
                    for _ in range(nans):
                        values[draw.randrange(count)] = float("nan")
                    ids = torch.topk(torch.tensor(values), k, sorted=is_sorted)[1].tolist()
                    lines.append(json.dumps({
                        "sorted": is_sorted,
                        "values": [None if v != v else int(v) for v in values],
                        "ids": ids,
                    }))
    (target / "torch_topk.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")


if __name__ == "__main__":
    main()
