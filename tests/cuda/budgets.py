"""common/experts/cuda/budgets.csv: what each kernel may use of a multiprocessor, and how many of its blocks run there at
once then, by architecture."""

import csv
import dataclasses
import pathlib

import occupancy

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILE = ROOT / "common/experts/cuda/budgets.csv"


@dataclasses.dataclass(frozen=True)
class Budget:
    kernel: str
    threads: int  # In a block.
    registers: int  # At most, of a thread.
    static_shared_bytes: int  # At most, of a block.
    dynamic_shared_bytes: int
    blocks: dict  # By architecture.


def read(path=FILE):
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        row["kernel"]: Budget(
            row["kernel"],
            *(int(row[name]) for name in ("threads", "registers", "static_shared_bytes", "dynamic_shared_bytes")),
            {int(name.removeprefix("blocks_")): int(row[name]) for name in row if name.startswith("blocks_")},
        )
        for row in rows
    }


def faults(budgets, kernels):
    """What is wrong with `kernels`, as ptxas.read gives them, or with the table itself; sentences."""
    found = []
    for budget in budgets.values():
        shared = budget.static_shared_bytes + budget.dynamic_shared_bytes
        for architecture, stated in budget.blocks.items():
            blocks = occupancy.blocks(architecture, budget.threads, budget.registers, shared)
            if blocks != stated:
                found.append(f"{budget.kernel}: {blocks} blocks at once on sm_{architecture}, not {stated}")
    for kernel in kernels:
        where = f"{kernel.name} for sm_{kernel.architecture}"
        if kernel.spill_bytes or kernel.stack_bytes:
            found.append(f"{where}: {kernel.spill_bytes} bytes spilled, {kernel.stack_bytes} bytes of stack")
        if not (budget := budgets.get(kernel.name)):
            found.append(f"{where}: no budget in {FILE.name}")
            continue
        if kernel.registers > budget.registers:
            found.append(f"{where}: {kernel.registers} registers, its budget is {budget.registers}")
        if kernel.shared_bytes > budget.static_shared_bytes:
            found.append(f"{where}: {kernel.shared_bytes} bytes of shared memory, not {budget.static_shared_bytes}")
    compiled = {(kernel.name, kernel.architecture) for kernel in kernels}
    for budget in budgets.values():
        for architecture in budget.blocks:
            if (budget.kernel, architecture) not in compiled:
                found.append(f"{budget.kernel} for sm_{architecture}: not compiled")
    return found
