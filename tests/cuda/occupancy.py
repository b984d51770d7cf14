"""Blocks of a kernel that a multiprocessor runs at once, by the limits of CUDA's programming guide (compute
capabilities 8.0, 9.0, 10.0)."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Multiprocessor:
    registers: int = 65536
    register_unit: int = 256  # A warp gets whole units.
    warps: int = 64
    blocks: int = 32
    shared_bytes: int = 228 << 10
    shared_unit: int = 128
    shared_reserved: int = 1 << 10  # Each block takes it.


MULTIPROCESSORS = {
    80: Multiprocessor(shared_bytes=164 << 10),
    90: Multiprocessor(),
    100: Multiprocessor(),
}


def _up(value, unit):
    return -(-value // unit) * unit


def blocks(architecture, threads, registers, shared_bytes):
    """`shared_bytes`: static and dynamic."""
    device = MULTIPROCESSORS[architecture]
    warps = -(-threads // 32)
    of_warp = _up(registers * 32, device.register_unit)
    # Each quarter of a multiprocessor has registers of its own.
    by_registers = device.registers // 4 // of_warp * 4 // warps
    by_shared = device.shared_bytes // _up(shared_bytes + device.shared_reserved, device.shared_unit)
    return min(device.warps // warps, device.blocks, by_registers, by_shared)
