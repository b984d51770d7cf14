"""Plain English in comments and messages.

Usage: wording.py [TREE]

A comment says who does what: none begins "Of ...". Words that puzzle readers stay out of comments, logs
and errors.
"""

import re

import comments
import tree

PUZZLING = {
    "anew": 'write "again", or what is done',
    "nobody": 'say who does not: "no client", "no thread"',
    "whoever": 'say who does: "the caller", "users"',
}
WORD = re.compile(rf"\b(?:{'|'.join(PUZZLING)})\b", re.IGNORECASE)
# Where strings are messages of programs; those of tests may be anything.
PROGRAMS = ("common/", "expert_service/", "router_service/", "client/", "deploy/")
TESTS = ("client/python/tests/",)
# Has to spell the words out.
THESE = "tests/lint/"


def problems(root):
    found = []
    for path in tree.files(root, comments.SUFFIXES):
        if path.startswith(THESE):
            continue
        text = tree.read(root, path)
        for comment in comments.comments(path, text):
            found += _opening(path, comment)
            found += _words(path, comment, "comment")
        if path.startswith(PROGRAMS) and not path.startswith(TESTS):
            for string in comments.strings(path, text):
                found += _words(path, string, "message")
    return found


def _opening(path, comment):
    if comment.text.startswith("Of "):
        fault = 'the comment begins "Of": make it a sentence that says who does what'
        yield tree.Problem(path, comment.line, fault)


def _words(path, piece, kind):
    for match in WORD.finditer(piece.text):
        line = piece.line + piece.text.count("\n", 0, match.start())
        word = match.group(0)
        yield tree.Problem(path, line, f'"{word}" in a {kind}: {PUZZLING[word.lower()]}')


if __name__ == "__main__":
    tree.report(problems(tree.root_argument()), "wording of comments and messages")
