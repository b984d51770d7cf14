"""Weights that are not in memory of their own but in a mapped checkpoint file."""

from __future__ import annotations

import bisect
import gc
from typing import Dict, List, Tuple

import torch
from torch import nn


def _mapped_files() -> List[Tuple[int, int]]:
    """Address ranges [begin, end) of mapped safetensors files, ascending; none where /proc is unknown."""
    found = []
    try:
        with open("/proc/self/maps") as file:
            for line in file:
                fields = line.split(maxsplit=5)
                if len(fields) == 6 and fields[5].rstrip().endswith(".safetensors"):
                    begin, end = fields[0].split("-")
                    found.append((int(begin, 16), int(end, 16)))
    except OSError:
        pass
    return sorted(found)


def leave_mapped_files(model: nn.Module) -> None:
    """Copies what a model still has in mapped files to memory of its own, one tensor at a time.

    safetensors maps a file as a whole, and as long as one tensor is in it all pages that were ever
    touched stay memory of the process: those of weights that are gone as well.
    """
    ranges = _mapped_files()
    begins = [begin for begin, _ in ranges]
    copies: Dict[Tuple[int, Tuple[int, ...]], torch.Tensor] = {}
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.device.type != "cpu" or tensor.numel() == 0:
            continue
        address = tensor.data_ptr()
        at = bisect.bisect_right(begins, address) - 1
        if at >= 0 and address < ranges[at][1]:
            # Tied weights stay tied.
            key = (address, tuple(tensor.shape))
            if key not in copies:
                copies[key] = tensor.data.clone()
            tensor.data = copies[key]
    # Modules refer to each other in circles: freed now, not some time later.
    gc.collect()
