"""Comments and string literals of the languages of the tree, with the lines that they begin on."""

import ast
import dataclasses
import io
import re
import tokenize

# Whose comments begin with //.
SLASHES = (".h", ".cc", ".cu", ".inc", ".proto", ".go", ".java", ".ts")
# Whose comments begin with #.
HASHES = (".sh", ".cmake", "CMakeLists.txt")
PYTHON = (".py",)
SUFFIXES = SLASHES + HASHES + PYTHON

SLASHES_TOKEN = re.compile(
    r'(?P<raw>R"(?P<end>\w*)\((?:.|\n)*?\)(?P=end)")|(?P<string>"(?:[^"\\\n]|\\.)*")|\'(?:[^\'\\\n]|\\.)+\''
    r"|(?P<comment>//[^\n]*|/\*(?:.|\n)*?\*/)"
)
HASH_COMMENT = re.compile(r"(?:^|(?<=\s))#(?!!)[^\n]*", re.MULTILINE)
MARKERS = re.compile(r"^[ \t]*(?://+!?|/\*+|\*/?|#+)[ \t]?", re.MULTILINE)


@dataclasses.dataclass
class Piece:
    line: int
    text: str
    # Of a line that has nothing else: the next such line goes on with the same comment.
    whole_lines: bool = False

    @property
    def next_line(self):
        return self.line + self.text.count("\n") + 1


def comments(path, text):
    """Comments without their markers; lines of comments that follow each other are one comment."""
    if path.endswith(PYTHON):
        return _joined(_python_comments(text)) + list(_docstrings(text))
    if path.endswith(SLASHES):
        found = ((m.start(), m.group(0)) for m in SLASHES_TOKEN.finditer(text) if m.group("comment"))
    else:
        found = ((m.start(), m.group(0)) for m in HASH_COMMENT.finditer(text))
    return _joined(_placed(text, found))


def strings(path, text):
    """String literals, without docstrings; none of languages whose strings are not read."""
    if path.endswith(PYTHON):
        tree = ast.parse(text, path)
        docstrings = {piece.line for piece in _docstrings(text)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                if node.lineno not in docstrings:
                    yield Piece(node.lineno, node.value)
    elif path.endswith(SLASHES):
        for match in SLASHES_TOKEN.finditer(text):
            if match.group("string") or match.group("raw"):
                yield Piece(text.count("\n", 0, match.start()) + 1, match.group(0))


def _placed(text, found):
    for start, comment in found:
        begin = text.rfind("\n", 0, start) + 1
        whole = not text[begin:start].strip()
        yield Piece(text.count("\n", 0, start) + 1, MARKERS.sub("", comment), whole)


def _python_comments(text):
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            whole = not token.line[: token.start[1]].strip()
            yield Piece(token.start[0], MARKERS.sub("", token.string), whole)


def _docstrings(text):
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, kinds) and ast.get_docstring(node):
            first = node.body[0]
            yield Piece(first.lineno, first.value.value)


def _joined(pieces):
    joined = []
    for piece in pieces:
        last = joined[-1] if joined else None
        if last and last.whole_lines and piece.whole_lines and last.next_line == piece.line:
            last.text += "\n" + piece.text
        else:
            joined.append(piece)
    return joined
