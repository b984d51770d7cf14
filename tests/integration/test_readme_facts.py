"""What READMEs say is so: links, paths, flags, metrics, tests of the guarantees, the way of a token; and what code
says about READMEs."""

import functools
import pathlib
import re
import subprocess

import pytest

from mesh import cli, program
from readmes import (
    ROOT,
    anchors,
    blocks_of,
    code_spans,
    headings,
    links,
    programs,
    readmes,
    rows,
    section,
    tree,
)

FRONT_PAGE_LINES = 150
SUFFIXES = (".cc", ".h", ".py", ".sh", ".proto", ".ts", ".go", ".java", ".cmake")
SOURCES = ("CMakeLists.txt", *(f"*{suffix}" for suffix in SUFFIXES))
FRONT, ROUTER = "README.md", "router_service/README.md"


def read(file):
    return (ROOT / file).read_text()


@functools.cache
def sources():
    """Text by path from the root, of all that is written by hand."""
    paths = [path.relative_to(ROOT).as_posix() for path in tree(*SOURCES)]
    return {path: read(path) for path in paths}


def named(pattern):
    """What READMEs name, and where: [(README, match)]. Never empty."""
    found = [(file, match) for file in readmes() for match in re.findall(pattern, read(file))]
    assert found, f"no README has anything like {pattern}"
    return found


def test_the_front_page_is_a_page():
    lines = len(read(FRONT).splitlines())
    assert lines <= FRONT_PAGE_LINES, f"{FRONT} has {lines} lines; move some to the README of a room"


@pytest.mark.parametrize("file", readmes())
def test_links_lead_somewhere(file):
    for link in links(read(file)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / file).parent / path if path else ROOT / file
        assert target.exists(), f"{file}: {link} leads nowhere"
        if anchor:
            assert anchor in anchors(target.read_text()), f"{file}: {link}: no such heading"


def test_every_room_is_on_the_front_page():
    linked = {link.partition("#")[0] for link in links(read(FRONT))}
    assert linked >= set(readmes()) - {FRONT}


@pytest.mark.parametrize("file", readmes())
def test_paths_exist(file):
    """Those in backticks that begin with a folder of the tree. NAME and LANGUAGE stand for any."""
    tops = {path.name for path in ROOT.iterdir() if path.is_dir() and path.name[0] != "."} - {"build"}
    for span in code_spans(read(file)):
        path = span.split()[0].split("::")[0]
        if "/" in path and path.split("/")[0] in tops:
            pattern = re.sub("LANGUAGE|NAME", "*", path).rstrip("/")
            assert next(ROOT.glob(pattern), None), f"{file}: there is no {path}"


@pytest.mark.parametrize("file", readmes())
def test_blocks_that_are_not_commands_are_tested_elsewhere(file):
    for block in blocks_of(file):
        if block.language == "python" and block.kind != "excerpt":
            assert block.kind == "elsewhere", f"{block}: name the test that runs it"
            assert f'"{file}"' in read(block.words), f"{block}: {block.words} does not read {file}"
        elif block.language not in ("", "bash"):
            assert block.kind == "excerpt", f"{block}: name the file that it is taken from"
            lines = iter(line.strip() for line in read(block.words).splitlines())
            for line in block.text.splitlines():
                wanted = line.strip()
                assert any(wanted in each for each in lines), f"{block}: not in {block.words}: {line}"


# --- Guarantees ------------------------------------------------------------------------------------


def find_test(name):
    """The one file or folder of tests whose path ends so."""
    wanted = pathlib.PurePath(name).parts
    found = [
        path
        for path in (ROOT / "tests").rglob("*")
        if path.parts[-len(wanted) :] == wanted and "__pycache__" not in path.parts
    ]
    assert len(found) == 1, f"{name}: {len(found)} in tests have this name"
    return found[0]


def is_registered(path):
    """ctest runs it."""
    stem = re.sub(r"^test_|_test$", "", path.stem)
    return re.search(rf"\b{stem}(_test)?\b", (path.parent / "CMakeLists.txt").read_text())


def has_test(path, name):
    cc = rf"^(TYPED_)?TEST(_F|_P)?\(\w+, {name}\)"
    pattern = rf"^def {name}\(" if path.suffix == ".py" else cc
    return re.search(pattern, path.read_text(), re.MULTILINE)


@pytest.mark.parametrize("claim, tests", rows(section(read(FRONT), "Guarantees")))
def test_guarantees_are_tested(claim, tests):
    names = re.findall(r"`([^`]+)`", tests)
    assert names, f"no test shows: {claim}"
    for name in names:
        file, _, test = name.split()[0].partition("::")
        path = find_test(file)
        if path.suffix in (".py", ".cc") and re.match("test_|.*_test$", path.stem):
            assert is_registered(path), f"{file} is no test of ctest"
        if test:
            assert has_test(path, test), f"{file} has no test {test}"


def test_guarantees_have_rows():
    assert len(rows(section(read(FRONT), "Guarantees"))) > 10


# --- One token's way -------------------------------------------------------------------------------


def way():
    """Steps of the page: their numbers, and the paths that they name."""
    text = section(read(ROUTER), "One token's way")
    steps = re.findall(r"^(\d+)\. (.*?)(?=^\d+\. |^\S|\Z)", text, re.MULTILINE | re.DOTALL)
    return [(int(number), re.findall(r"`([\w/]+/[\w.*]+)`", step)) for number, step in steps]


def test_the_way_is_numbered():
    numbers = [number for number, _ in way()]
    assert len(numbers) > 5
    assert numbers == list(range(1, len(numbers) + 1))


def test_the_way_names_files_that_exist():
    for number, paths in way():
        for path in paths:
            assert next(ROOT.glob(path), None), f"{ROUTER}: step {number}: there is no {path}"


def test_the_way_names_no_file_twice():
    seen = {}
    for number, paths in way():
        for path in paths:
            # Header and source are one file to a reader.
            name = str(pathlib.PurePath(path).with_suffix(""))
            assert name not in seen, f"{ROUTER}: {path} is named in step {seen[name]} and in {number}"
            seen[name] = number
    assert len(seen) > 20


def test_words_are_those_of_the_code():
    table = rows(section(read(ROUTER), "Words"))
    assert len(table) > 10
    rooms = ("router_service/", "expert_service/", "common/", "proto/")
    code = "\n".join(text for path, text in sources().items() if path.startswith(rooms))
    for word, _, names in table:
        for name in re.findall(r"`(\w+)`", names):
            assert re.search(rf"\b{name}\b", code), f"{ROUTER}, Words: {word}: the code has no {name}"
    words = [word for row in table for word in row[0].split(", ")]
    assert len(words) == len(set(words)), "a word has two meanings"


# --- Flags, variables, metrics ---------------------------------------------------------------------

SCRIPTS = (
    "deploy/local.sh",
    "deploy/observability/up.sh",
    "deploy/packages.sh",
    "tests/run.sh",
    "tests/bench/run.sh",
    "client/stubs/generate.sh",
)


def flags_in(text):
    """--like-this, and --like_this as Abseil lists it."""
    names = re.findall(r"(?<![\w-])--([a-z][a-z0-9]*(?:[-_][a-z0-9]+)*)", text)
    return {name.replace("_", "-") for name in names}


def help_of(*argv):
    done = subprocess.run([*argv, "--help"], capture_output=True, text=True, cwd=ROOT, check=False)
    return done.stdout


@functools.cache
def known_flags():
    """By what a command line begins with."""
    flags = {
        "expertmesh-router": flags_in(help_of(program("router"))),
        "expertmesh-expert": flags_in(help_of(program("expert"))),
        # It has no --help; its first lines say what it takes.
        "deploy/venv.sh": flags_in(read("deploy/venv.sh").partition("set -euo")[0]),
    }
    flags |= {script: flags_in(help_of(ROOT / script)) for script in SCRIPTS}
    for command in re.findall(r"^  ([a-z]+(?: [a-z]+)?)  ", cli("--help").stdout, re.MULTILINE):
        flags[f"expertmesh {command}"] = flags_in(cli(*command.split(), "--help").stdout)
    for name, known in flags.items():
        assert known, f"{name} --help lists no flags"
        known.add("help")
    flags["expertmesh"] = {"help"}
    return flags


def program_of(line):
    """Which of ours a command line runs; none: some other program, or no program at all."""
    words = [pathlib.PurePath(word).name for word in line.split()]
    for name in sorted(known_flags(), key=len, reverse=True):
        ours = [pathlib.PurePath(word).name for word in name.split()]
        if words[: len(ours)] == ours:
            # Two scripts are called run.sh.
            if "/" not in name or line.split()[0] == name:
                return name
    return None


@pytest.mark.parametrize("file", readmes())
def test_flags_exist(file):
    every = set().union(*known_flags().values())
    for span in code_spans(read(file)):
        name = program_of(span)
        if name is not None:
            unknown = flags_in(span) - known_flags()[name]
        elif span.startswith("--"):
            unknown = flags_in(span) - every
        else:  # A command line of some other program.
            continue
        assert not unknown, f"{file}: `{span}`: no flag {unknown}"
    for block in blocks_of(file):
        if block.language == "bash":
            for line in re.sub(r"\\\n", " ", block.text).splitlines():
                if line.strip() and (name := program_of(line)):
                    unknown = flags_in(line) - known_flags()[name]
                    assert not unknown, f"{block}: {name} has no flag {unknown}"


def test_flags_are_told_apart():
    assert program_of("build/release/client/cpp/expertmesh health --wait 60") == "expertmesh health"
    assert program_of("deploy/local.sh up --detach") == "deploy/local.sh"
    assert program_of("tests/bench/run.sh --quick") == "tests/bench/run.sh"
    assert program_of("cmake --build build/release") is None
    assert "max-queue-delay-us" in known_flags()["expertmesh-router"]
    assert "replicas" not in known_flags()["expertmesh-router"]


def test_variables_exist():
    for file, variable in named(r"\bEXPERTMESH_[A-Z_]+\b"):
        assert any(variable in text for text in sources().values()), f"{file}: no {variable}"


def test_metrics_exist():
    code = "\n".join(text for path, text in sources().items() if not path.startswith("tests/"))
    for file, metric in named(r"\bexpertmesh_(?:router|expert|process)_\w+"):
        assert f'"{metric}"' in code, f"{file}: there is no metric {metric}"


def test_methods_exist():
    protos = "\n".join(text for path, text in sources().items() if path.endswith(".proto"))
    for file, method in named(r"`(?:expertmesh\.v1\.)?(?:Router|Control|Expert)[./](\w+)`"):
        assert f"rpc {method}(" in protos, f"{file}: there is no method {method}"


# --- What code says about READMEs ------------------------------------------------------------------

# "see router_service/README.md, Routers": a path from the root, and the beginning of a heading.
POINTER = re.compile(r"((?:\w[\w.-]*/)*README\.md)(?:, ([A-Z][\w '-]*))?")


def pointers():
    for path, text in sources().items():
        if not pathlib.PurePath(path).match("tests/integration/*readme*.py"):
            for match in POINTER.finditer(text):
                yield path, match[1], match[2]


def test_code_points_to_what_is_there():
    found = list(pointers())
    assert sum(heading is not None for _, _, heading in found) >= 3
    for path, file, heading in found:
        assert file in readmes(), f"{path}: there is no {file}"
        if heading is not None:
            there = headings(read(file))
            assert any(heading == each or heading.startswith(each + " ") for each in there), (
                f"{path}: {file} has no heading {heading}"
            )
