"""Reading ptxas, and occupancy, against examples."""

import pytest

import occupancy
import ptxas

TEXT = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_ZN1a12_GLOBAL__N_15ScaleIfLj8EEEvNS_1PE' for 'sm_80'
ptxas info    : Function properties for _ZN1a12_GLOBAL__N_15ScaleIfLj8EEEvNS_1PE
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 14 registers, used 1 barriers, 2048 bytes smem, 392 bytes cmem[0]
ptxas info    : Compile time = 5.000 ms
ptxas info    : Compiling entry function '_Z4CopyPf' for 'sm_90'
ptxas info    : Function properties for _Z4CopyPf
    16 bytes stack frame, 12 bytes spill stores, 4 bytes spill loads
ptxas info    : Used 255 registers, used 0 barriers
"""


def test_reads_every_kernel():
    assert ptxas.parse(TEXT) == [
        ptxas.Kernel("Scale<float, 8>", 80, 14, 2048, 0, 0),
        ptxas.Kernel("Copy", 90, 255, 0, 16, 16),
    ]


def test_refuses_what_it_does_not_understand():
    with pytest.raises(ValueError, match="no registers"):
        ptxas.parse(TEXT.replace("Used 255 registers", "Uses 255 registers"))
    with pytest.raises(ValueError, match="of no kernel"):
        ptxas.parse(TEXT.replace("Compiling entry function '_Z4CopyPf'", "Compiling it"))


@pytest.mark.parametrize(
    "demangled, short",
    [
        ("void a::(anonymous namespace)::F<true>(a::P)", "F<true>"),
        ("void a::F<a::b::T, 32u>(float (*)(int))", "F<T, 32>"),
        ("a::(anonymous namespace)::G(a::P)", "G"),
    ],
)
def test_short_names(demangled, short):
    assert ptxas.short_name(demangled) == short


# As NVIDIA's occupancy calculator has it.
@pytest.mark.parametrize(
    "architecture, threads, registers, shared, blocks",
    [
        (90, 128, 32, 0, 16),
        (90, 128, 128, 0, 4),
        (90, 128, 130, 0, 3),
        (90, 256, 32, 0, 8),
        (90, 128, 128, 72 << 10, 3),
        (80, 128, 128, 72 << 10, 2),
        (80, 32, 16, 0, 32),
        (100, 1024, 64, 0, 1),
    ],
)
def test_occupancy(architecture, threads, registers, shared, blocks):
    assert occupancy.blocks(architecture, threads, registers, shared) == blocks
