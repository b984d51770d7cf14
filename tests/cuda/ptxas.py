"""What ptxas -v says of kernels (deploy/cmake/nvcc.sh keeps it beside each object file)."""

import dataclasses
import re
import subprocess

ENTRY = re.compile(r"ptxas info\s*: Compiling entry function '(\w+)' for 'sm_(\d+)a?'")
STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"ptxas info\s*: Used (\d+) registers(.*)")
SHARED = re.compile(r"(\d+) bytes smem")


@dataclasses.dataclass(frozen=True)
class Kernel:
    name: str  # Without namespace and arguments: "NarrowProductBf16<true>".
    architecture: int
    registers: int
    shared_bytes: int  # Static.
    stack_bytes: int
    spill_bytes: int


def short_name(demangled):
    """`void a::(anonymous namespace)::F<b::C, 3u>(b::D)` -> `F<C, 3>`."""
    name = demangled.replace("(anonymous namespace)::", "").removeprefix("void ")
    depth, end = 0, len(name)
    for i, letter in enumerate(name):
        depth += {"<": 1, ">": -1}.get(letter, 0)
        if letter == "(" and depth == 0:
            end = i
            break
    name = re.sub(r"\b\w+::", "", name[:end])
    return re.sub(r"\b(\d+)u?l?\b", r"\1", name)


def demangle(names):
    done = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True)
    return dict(zip(names, done.stdout.splitlines(), strict=True))


def parse(text):
    """Kernels in the order of the text. ValueError when ptxas says it in another way."""
    found, entry, stack = [], None, None
    for line in text.splitlines():
        if match := ENTRY.search(line):
            entry, stack = match, None
        elif (match := STACK.search(line)) and entry:
            stack = match
        elif match := USED.search(line):
            if entry is None or stack is None:
                raise ValueError(f"registers of no kernel: {line}")
            shared = SHARED.search(match[2])
            found.append(
                Kernel(
                    entry[1],
                    int(entry[2]),
                    int(match[1]),
                    int(shared[1]) if shared else 0,
                    int(stack[1]),
                    int(stack[2]) + int(stack[3]),
                )
            )
            entry = None
    if len(found) != len(ENTRY.findall(text)):
        raise ValueError("some kernel has no registers")
    names = demangle([kernel.name for kernel in found]) if found else {}
    return [dataclasses.replace(kernel, name=short_name(names[kernel.name])) for kernel in found]


def read(build):
    """All kernels of a build folder."""
    return [kernel for path in sorted(build.glob("cuda/**/*.ptxas")) for kernel in parse(path.read_text())]
