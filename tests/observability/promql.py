"""Which metrics, labels and functions a PromQL expression names. Whether it is PromQL at all, promtool says."""

import dataclasses
import re

TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    |(?P<range>\[[^\]]*\])
    |(?P<number>\d[\w.]*)
    |(?P<word>[a-zA-Z_:][\w:]*)
    |(?P<sign>=~|!~|==|!=|>=|<=|[-+*/%^(){},=<>@]))""",
    re.VERBOSE,
)
LABEL_LISTS = {"by", "without", "on", "ignoring", "group_left", "group_right"}
AGGREGATIONS = {"sum", "avg", "min", "max", "count", "topk", "bottomk", "quantile", "stddev", "group"}
KEYWORDS = {"and", "or", "unless", "bool", "offset", "inf", "nan"}
# What a comparison keeps is what is asked for without it.
COMPARISON = re.compile(r"\s*(?:==|!=|>=|<=|>|<)\s*(?:bool\s+)?[\d.]+(?![\w.])")


@dataclasses.dataclass(frozen=True)
class Selector:
    """A metric in an expression. within: the functions and aggregations around it."""

    name: str
    labels: frozenset
    within: tuple


@dataclasses.dataclass
class Expression:
    selectors: list = dataclasses.field(default_factory=list)
    grouped: set = dataclasses.field(default_factory=set)
    functions: set = dataclasses.field(default_factory=set)
    ranges: list = dataclasses.field(default_factory=list)


def tokens(text):
    at, found = 0, []
    while text[at:].strip():
        match = TOKEN.match(text, at)
        assert match, f"no PromQL from {text[at:]!r} on"
        found.append((match.lastgroup, match[match.lastgroup]))
        at = match.end()
    return found


def read(text):
    """The Expression that a text is."""
    left = tokens(text) + [("end", "")]
    made, around, callee, at = Expression(), [], "", 0
    while left[at][0] != "end":
        kind, value = left[at]
        following = left[at + 1][1]
        at += 1
        if kind == "range":
            made.ranges.append(value)
        elif kind == "word" and value in LABEL_LISTS:
            inside, at = _until(left, at, ")")
            made.grouped.update(word for kind, word in inside if kind == "word")
        elif kind == "word" and value in KEYWORDS:
            pass
        elif kind == "word" and (following == "(" or value in AGGREGATIONS):
            callee = value
            made.functions.add(value)
        elif kind == "word" or value == "{":
            labels = []
            if value == "{" or following == "{":
                labels, at = _until(left, at, "}")
            names = frozenset(word for kind, word in labels if kind == "word")
            made.selectors.append(Selector("" if value == "{" else value, names, tuple(around)))
        elif value == "(":
            around.append(callee)
            callee = ""
        elif value == ")":
            around.pop()
    return made


def _until(left, at, end):
    """Tokens up to `end`, and where those after it begin."""
    begin = at
    while left[at][1] != end:
        assert left[at][0] != "end", f"{end} is missing"
        at += 1
    return left[begin:at], at + 1


def without_comparisons(text):
    return COMPARISON.sub("", text)
