"""Tensors of a checkpoint's safetensors files, one at a time.

Read into memory of their own, not mapped: a mapped file counts as memory of the process, and what lies
between the wanted tensors would be mapped with them.
"""

from __future__ import annotations

import json
import os
import pathlib
import struct
from typing import Any, Dict, Iterator, Tuple

import torch

from expertmesh import errors

DTYPES: Dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    # Exponents only: decoded where they are used.
    "F8_E8M0": torch.uint8,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
# A header of real checkpoints has a few megabytes at most.
_MAX_HEADER = 100 << 20


class SafetensorsFile:
    """One open file. `names` are its tensors; close it, or use it as a context manager.

    Raises InvalidArgument, naming the file, when it is damaged.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._file = open(path, "rb", buffering=0)
        try:
            self._entries, self._start = self._read_header()
        except BaseException:
            self._file.close()
            raise

    def _fail(self, what: str) -> errors.InvalidArgument:
        return errors.InvalidArgument(f"{self._path} {what}; download the file again")

    def _read_header(self) -> Tuple[Dict[str, Any], int]:
        size = os.fstat(self._file.fileno()).st_size
        prefix = self._file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
        if length > min(size - 8, _MAX_HEADER):
            raise self._fail(f"has {size} bytes and no complete safetensors header")
        try:
            entries = json.loads(self._file.read(length))
        except ValueError as error:
            raise self._fail(f"has a header that is not JSON ({error})") from None
        if not isinstance(entries, dict):
            raise self._fail("has a header that is no JSON object")
        entries.pop("__metadata__", None)
        return entries, 8 + length

    def __enter__(self) -> SafetensorsFile:
        return self

    def __exit__(self, *unused: Any) -> None:
        self._file.close()

    @property
    def names(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def read(self, name: str) -> torch.Tensor:
        """The tensor, on the CPU, in its own memory and the file's dtype."""
        try:
            entry = self._entries[name]
            dtype, shape = DTYPES[entry["dtype"]], [int(n) for n in entry["shape"]]
            begin, end = (int(n) for n in entry["data_offsets"])
        except (KeyError, TypeError, ValueError) as error:
            raise self._fail(f"says nothing usable of {name} ({error!r})") from None
        count = 1
        for n in shape:
            count *= n
        size = os.fstat(self._file.fileno()).st_size - self._start
        if (
            min([*shape, begin], default=begin) < 0
            or end > size
            or end - begin != count * dtype.itemsize
        ):
            raise self._fail(
                f"has {name}, {entry['dtype']} {shape}, at bytes {begin} to {end} of {size}"
            )
        tensor = torch.empty(shape, dtype=dtype)
        if count:
            self._file.seek(self._start + begin)
            view: Any = memoryview(tensor.reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
            while view:
                read = self._file.readinto(view)
                if not read:
                    raise self._fail(f"ended inside of {name}")
                view = view[read:]
        return tensor


def checkpoint_files(folder: pathlib.Path) -> Dict[str, pathlib.Path]:
    """File of each tensor of a checkpoint. Raises InvalidArgument when there is no safetensors file."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            weight_map = json.loads(index.read_text())["weight_map"]
            return {str(name): folder / str(file) for name, file in weight_map.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise errors.InvalidArgument(f"{index} has no usable weight_map ({error!r})") from None
    single = folder / "model.safetensors"
    if not single.is_file():
        raise errors.InvalidArgument(
            f"{folder} has neither model.safetensors nor model.safetensors.index.json; other formats are "
            "not read: save the model as safetensors"
        )
    with SafetensorsFile(single) as file:
        return {name: single for name in file.names}
