"""The C++ of the tree as syntax trees, and its functions, methods and constants by name.

Headers are read like sources, and no compiler flags are needed: the grammar is tree-sitter's. It
does not expand macros; those that would confuse it are blanked first, at the same length, so that
every place in the syntax tree is also one in the text.
"""

import collections
import dataclasses
import difflib
import functools
import os
import pathlib
import re

try:
    import tree_sitter
    import tree_sitter_cpp
except ImportError as error:
    raise SystemExit(f"{error}: deploy/venv.sh installs it into build/venv") from error

SUFFIXES = (".cc", ".cu", ".h", ".inc")
# Top folders without code that tests are about.
SKIPPED = ("build", "tests")
MOST_SIMILAR = 5

_PARSER = tree_sitter.Parser(tree_sitter.Language(tree_sitter_cpp.language()))

# What is no code (comments, text, preprocessor lines), or a macro's name.
_TOKEN = re.compile(
    rb"""//[^\n]*|/\*.*?\*/
    |R"(?P<fence>[^(\s]*)\(.*?\)(?P=fence)"
    |"(?:\\.|[^"\\\n])*"
    |(?<![0-9a-zA-Z_])'(?:\\.|[^'\\\n])+'
    |^[ \t]*\#(?:\\\n|[^\n])*
    |(?P<macro>\b[A-Z][A-Z0-9]*_[A-Z0-9_]+\b)""",
    re.DOTALL | re.MULTILINE | re.VERBOSE,
)
# Words of CUDA that are no C++.
_CUDA = re.compile(
    rb"__(?:global|device|host|forceinline|noinline|shared|constant)__|__launch_bounds__\([^()]*\)"
)
_SPACE_AND_NAME = re.compile(rb"\s+[A-Za-z_]")
_BRACKETS = re.compile(rb"[()\[\]{},]")

_SCOPES = ("namespace_definition", "class_specifier", "struct_specifier", "union_specifier")
_DECLARATORS = (
    "pointer_declarator",
    "reference_declarator",
    "array_declarator",
    "init_declarator",
    "function_declarator",
    "parenthesized_declarator",
    "attributed_declarator",
)


def _blank(text, begin, end):
    text[begin:end] = re.sub(rb"[^\n]", b" ", text[begin:end])


def _arguments(code, begin):
    """Where the parenthesis at `begin` has its first own comma, if any, and where it ends."""
    depth, comma = 0, None
    for match in _BRACKETS.finditer(code, begin):
        bracket = match.group()
        if bracket in b"([{":
            depth += 1
        elif bracket in b")]}":
            depth -= 1
            if depth == 0:
                return comma, match.start()
        elif depth == 1 and comma is None:
            comma = match.start()
    return comma, len(code) - 1


def without_macros(text):
    """The text with macros blanked that no grammar of C++ knows, every other byte where it was."""
    code, macros = bytearray(text), []
    for match in _TOKEN.finditer(text):
        if match.group("macro"):
            macros.append(match)
        elif not match.group().lstrip().startswith(b"#"):
            _blank(code, match.start(), match.end())
    parsed = bytearray(text)
    for match in _CUDA.finditer(code):
        _blank(parsed, match.start(), match.end())
    for match in macros:
        begin, end, name = match.start(), match.end(), match.group()
        if code[end : end + 1] == b"(":
            comma, close = _arguments(code, end)
            if name == b"ASSIGN_OR_RETURN" and comma is not None:
                # A declaration or an assignment.
                _blank(parsed, begin, end + 1)
                parsed[comma : comma + 1] = b"="
                _blank(parsed, close, close + 1)
            elif name.startswith(b"ABSL_") or text[begin - 1 : begin] in (b"", b"\n"):
                _blank(parsed, begin, close + 1)
        elif _SPACE_AND_NAME.match(code, end):
            _blank(parsed, begin, end)
    return bytes(parsed)


@dataclasses.dataclass(frozen=True)
class Symbol:
    """A definition: of a function, or of a variable outside of functions."""

    path: pathlib.Path
    # ("Planner", "Plan"); namespaces included, unnamed ones left out.
    parts: tuple
    node: tree_sitter.Node = dataclasses.field(compare=False)
    # In the #else of a condition, so that it is compiled where the first branch is not.
    is_alternative: bool

    def __str__(self):
        return "::".join(self.parts)


class Source:
    def __init__(self, path, text):
        self.path = path
        self.text = text
        self.symbols = []
        self._collect(_PARSER.parse(without_macros(text)).root_node, (), False)

    def line(self, node):
        return node.start_point[0] + 1

    def _collect(self, node, scope, is_alternative):
        for child in node.named_children:
            if child.type == "function_definition":
                self._add(child, scope, is_alternative)
            elif child.type in ("declaration", "field_declaration") and _has_value(child):
                self._add(child, scope, is_alternative)
                # The variable's type may be defined right there.
                self._collect(child, scope, is_alternative)
            elif child.type in _SCOPES:
                name = child.child_by_field_name("name")
                inner = scope + (_split(name.text) if name is not None else ())
                body = child.child_by_field_name("body")
                if body is not None:
                    self._collect(body, inner, is_alternative)
            elif child.type.startswith("preproc_el"):
                self._collect(child, scope, True)
            else:
                self._collect(child, scope, is_alternative)

    def _add(self, node, scope, is_alternative):
        if parts := _declared_name(node):
            self.symbols.append(Symbol(self.path, scope + parts, node, is_alternative))


def _has_value(declaration):
    return declaration.child_by_field_name("default_value") is not None or any(
        child.type == "init_declarator" for child in declaration.named_children
    )


def _declared_name(definition):
    node = definition.child_by_field_name("declarator")
    while node is not None and node.type in _DECLARATORS:
        inner = node.child_by_field_name("declarator")
        node = inner if inner is not None else next(iter(node.named_children), None)
    return _split(node.text) if node is not None else ()


def _split(name):
    """Parts of a name as written, without template arguments: "A<B>::c" is ("A", "c")."""
    text = name.decode()
    depth, plain = 0, ""
    for at, character in enumerate(text):
        if text.startswith("operator", at):
            # Operators may be made of angle brackets.
            plain += "".join(text[at:].split()) if depth == 0 else ""
            break
        depth += {"<": 1, ">": -1}.get(character, 0)
        plain += character if depth == 0 and character != ">" else ""
    return tuple(part.strip() for part in plain.split("::") if part.strip())


class Tree:
    """All C++ under a folder. Files are parsed when a symbol may be in them."""

    def __init__(self, root):
        self.root = pathlib.Path(root)
        self._texts = {}
        for path in _files(self.root):
            self._texts[path] = path.read_bytes()
        self.source = functools.cache(lambda path: Source(path, self._texts[path]))

    def find(self, symbol):
        """Definitions whose qualified name ends with the symbol: "Planner::Plan", "Plan"."""
        parts = _split(symbol.encode())
        word = parts[-1].removeprefix("operator").removeprefix("~").encode()
        found = [
            candidate
            for path, text in self._texts.items()
            if word in text
            for candidate in self.source(path).symbols
            if candidate.parts[-len(parts) :] == parts
        ]
        first = [candidate for candidate in found if not candidate.is_alternative]
        return first or found

    def similar(self, symbol):
        """Qualified names whose last part is nearly the symbol's."""
        names = collections.defaultdict(set)
        for path in self._texts:
            for definition in self.source(path).symbols:
                names[definition.parts[-1]].add(str(definition))
        close = difflib.get_close_matches(_split(symbol.encode())[-1], names, MOST_SIMILAR)
        return [name for last in close for name in sorted(names[last])][:MOST_SIMILAR]


def _files(root):
    for folder, folders, names in os.walk(root):
        top = pathlib.Path(folder) == root
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and not (top and name in SKIPPED)
        )
        for name in sorted(names):
            if name.endswith(SUFFIXES):
                yield pathlib.Path(folder, name)
