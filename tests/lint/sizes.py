"""No file over 400 lines, no function over 60.

Usage: sizes.py [TREE]

A function counts from its signature to its closing brace; in Python to its last line, without its
docstring.
"""

import ast

import cpp
import tree

MOST_FILE_LINES = 400
MOST_FUNCTION_LINES = 60

CPP_FOLDERS = ("router_service", "expert_service", "common", "client/cpp")
PYTHON_FOLDERS = ("client", "deploy", "findings", "tests/bench", "tests/lint")


def problems(root):
    found = []
    for path in tree.files(root, cpp.SUFFIXES, CPP_FOLDERS):
        found += _file(root, path)
        source = cpp.parse(root, path)
        found += source.problems
        for function in cpp.descendants(source.root, "function_definition"):
            name = cpp.function_name(function)
            found += _function(path, name, cpp.first_line(function), cpp.last_line(function))
    for path in tree.files(root, (".py",), PYTHON_FOLDERS):
        found += _file(root, path)
        for node in ast.walk(ast.parse(tree.read(root, path), path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.lineno + _docstring_lines(node)
                found += _function(path, node.name, first, node.end_lineno)
    return found


def _docstring_lines(function):
    if ast.get_docstring(function) is None:
        return 0
    docstring = function.body[0]
    return docstring.end_lineno - docstring.lineno + 1


def _file(root, path):
    lines = len(tree.read(root, path).splitlines())
    if lines > MOST_FILE_LINES:
        yield tree.Problem(
            path,
            lines,
            f"the file has {lines} lines, {MOST_FILE_LINES} are allowed: split it where its ideas part",
        )


def _function(path, name, first, last):
    lines = last - first + 1
    if lines > MOST_FUNCTION_LINES:
        yield tree.Problem(
            path,
            first,
            f"the function {name} has {lines} lines, {MOST_FUNCTION_LINES} are allowed: name its steps, "
            "and give each a function",
        )


if __name__ == "__main__":
    tree.report(problems(tree.root_argument()), "lengths of files and functions")
