"""A mutation is exactly one change to the tree, and says what to do when it is none."""

import pathlib
import subprocess

import pytest

from build import Build
from mutation import Broken, Mutation, mutated
from operators import force, keep_left, replace_constant, replace_name
from source import Tree

FIRST = """
namespace room {
int Sum(int a, int b) { return a + b + 1; }
int Other(int a) { return a > 1 ? a : 2; }
}
"""
SECOND = """
namespace hall {
int Sum(int a) { return a - 1; }
}
"""


def make(change, symbol="Sum"):
    return Mutation("wrong", symbol, change, "some_test")


@pytest.fixture(name="tree")
def fixture_tree(tmp_path):
    (tmp_path / "first.cc").write_text(FIRST)
    (tmp_path / "second.h").write_text(SECOND)
    return Tree(tmp_path)


def test_the_one_place_among_all_that_are_called_so(tree):
    path, text = mutated(tree, make(keep_left("+", touches="b", nth=2)))
    assert path.name == "first.cc"
    assert text.decode() == FIRST.replace("a + b + 1", "a + 1")


def test_headers_too(tree):
    path, text = mutated(tree, make(replace_constant("1", "2"), "hall::Sum"))
    assert (path.name, text.decode()) == ("second.h", SECOND.replace("1", "2"))


def test_several_changes(tree):
    change = (replace_name("a", "b"), replace_constant("1", "2"))
    _, text = mutated(tree, make(change, "room::Sum"))
    assert text.decode() == FIRST.replace("a + b + 1", "b + b + 2")


@pytest.mark.parametrize(
    ("mutation", "message"),
    [
        (
            make(force(True), "Summ"),
            r"no definition is called 'Summ'.*similar: .*room::Sum.*`symbol`",
        ),
        (
            make(replace_constant("1", "2")),
            r"(?s)fits 2 places:.*first.cc:3.*second.h:3.*qualify 'Sum'",
        ),
        (
            make(force(True, touches="b"), "Other"),
            r"(?s)fits no place in Other \(first.cc:4\).*a > 1\n",
        ),
        (make(force(True)), "It has none"),
        (make(replace_constant("1", "1"), "hall::Sum"), "changes nothing"),
        (
            make((keep_left("+", nth=1), replace_constant("1", "2")), "room::Sum"),
            "its changes overlap",
        ),
        (
            make((keep_left("+", nth=1), keep_left("-"))),
            "changes both first.cc and second.h",
        ),
    ],
)
def test_what_is_wrong_is_named_with_a_remedy(tree, mutation, message):
    with pytest.raises(Broken, match=message):
        mutated(tree, mutation)


NINJA = """
rule compile
  command = c++ -I{root} -O2 -MD -MF $out.d -o $out -c $in
  depfile = $out.d
  deps = gcc
rule archive
  command = ar rcs $out $in
rule link
  command = : && c++ $in -o $out && :
build library.o: compile {root}/room/library.cc
build other.o: compile {root}/room/other.cc
build library.a: archive library.o other.o
build tests/unit/CMakeFiles/sum_test.dir/sum_test.o: compile {root}/tests/sum_test.cc
build tests/unit/sum_test: link tests/unit/CMakeFiles/sum_test.dir/sum_test.o library.a
"""


@pytest.fixture(name="project")
def fixture_project(tmp_path):
    """A program that prints the header's number as its library and as itself see it."""
    root, folder = tmp_path / "root", tmp_path / "folder"
    for path in (root / "room", root / "tests", folder):
        path.mkdir(parents=True)
    (root / "room" / "number.h").write_text("inline int Number() { return 1; }\n")
    (root / "room" / "library.cc").write_text(
        '#include "room/number.h"\nint InLibrary() { return 10 * Number(); }\n'
    )
    (root / "room" / "other.cc").write_text("int Other() { return 100; }\n")
    (root / "tests" / "sum_test.cc").write_text(
        '#include <cstdio>\n#include "room/number.h"\nint InLibrary();\nint Other();\n'
        'int main() { std::printf("%d", InLibrary() + Number() + Other()); }\n'
    )
    (folder / "build.ninja").write_text(NINJA.format(root=root))
    database = subprocess.run(
        ["ninja", "-t", "compdb", "compile"], cwd=folder, capture_output=True, check=True
    )
    (folder / "compile_commands.json").write_bytes(database.stdout)
    subprocess.run(["ninja"], cwd=folder, capture_output=True, check=True)
    return Build(folder, "ninja", root), Tree(root)


@pytest.mark.parametrize(
    ("symbol", "old", "new", "printed"),
    [
        ("Number", "1", "2", "122"),
        ("InLibrary", "10", "20", "121"),
        ("Other", "100", "200", "211"),
    ],
)
def test_a_program_has_the_change_wherever_the_file_is_in_it(
    project, tmp_path, symbol, old, new, printed
):
    build, tree = project
    path, text = mutated(tree, make(replace_constant(old, new), symbol))
    program = build.make("sum_test", path, text, tmp_path)
    assert pathlib.Path(program).parent == tmp_path
    assert subprocess.run([program], capture_output=True, text=True, check=True).stdout == printed
    unchanged = subprocess.run(
        [build.program("sum_test")], capture_output=True, text=True, check=True
    )
    assert unchanged.stdout == "111"


def test_programs_that_are_not_there_are_named(project):
    build, _ = project
    assert build.knows_test("sum_test")
    assert not build.knows_test("sub_test")
    with pytest.raises(Broken, match="sub_test is not built"):
        build.program("sub_test")
