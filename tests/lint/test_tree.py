import pytest
import tree


def test_what_is_made_is_no_file_of_the_tree(written):
    root = written(
        {
            "a/b.cc": "",
            "a/c.h": "",
            "a/d.txt": "",
            "build/e.cc": "",
            "a/build/f.cc": "",
            "a/.cache/g.cc": "",
            "node_modules/h.cc": "",
            "v1/i_pb2.py": "",
            "v1/j.py": "",
        }
    )
    assert tree.files(root, (".cc", ".h", ".py")) == ["a/b.cc", "a/c.h", "v1/j.py"]
    assert tree.files(root, (".cc", ".py"), ("a",)) == ["a/b.cc"]


def test_problems_are_printed_and_fail(capsys):
    problems = [
        tree.Problem("b.h", 2, "is wrong"),
        tree.Problem("a.h", 11, "too"),
        tree.Problem("a.h", 3, "x"),
    ]
    with pytest.raises(SystemExit) as ended:
        tree.report(problems, "names")
    assert ended.value.code == "3 problems; names"
    assert capsys.readouterr().out == "a.h:3: x\na.h:11: too\nb.h:2: is wrong\n"


def test_no_problem_passes(capsys):
    tree.report([], "names")
    assert capsys.readouterr().out == "No problem: names\n"
