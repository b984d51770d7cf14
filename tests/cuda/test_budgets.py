"""Kernels keep to their budgets (common/experts/cuda/budgets.csv) on every architecture, and spill nothing."""

import dataclasses
import os
import pathlib

import pytest

import budgets
import ptxas

BUILD = pathlib.Path(os.environ["EXPERTMESH_BUILD"])


@pytest.fixture(scope="module", name="kernels")
def fixture_kernels():
    return ptxas.read(BUILD)


def test_every_kernel_is_within_its_budget(kernels):
    found = budgets.faults(budgets.read(), kernels)
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"registers": 200}, "200 registers, its budget is 128"),
        ({"shared_bytes": 16}, "16 bytes of shared memory, not 0"),
        ({"spill_bytes": 8}, "8 bytes spilled"),
        ({"stack_bytes": 8}, "8 bytes of stack"),
        ({"name": "Unknown"}, "Unknown for sm_90: no budget"),
        ({"name": "Unknown"}, "NarrowProductBf16<true> for sm_90: not compiled"),
    ],
)
def test_what_is_beyond_is_named(kernels, change, words):
    changed = [
        dataclasses.replace(kernel, **change)
        if (kernel.name, kernel.architecture) == ("NarrowProductBf16<true>", 90)
        else kernel
        for kernel in kernels
    ]
    assert any(words in fault for fault in budgets.faults(budgets.read(), changed))


def test_a_wrong_occupancy_is_named(kernels):
    table = budgets.read()
    wide = table["WideProductBf16<true, 64>"]
    table[wide.kernel] = dataclasses.replace(wide, blocks=wide.blocks | {90: 4})
    assert budgets.faults(table, kernels) == ["WideProductBf16<true, 64>: 3 blocks at once on sm_90, not 4"]
