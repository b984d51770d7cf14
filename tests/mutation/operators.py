"""The catalogue of what a mutation can do to a definition.

Every operator looks for places of its kind in the syntax tree. Names say which one is meant; they
outlive renamed files, moved code and new formatting:

  touches  one name or several that all occur in the place: variables, functions, types, numbers.
           Of an operator that changes a single name or number: in the expression around it.
  within   what the place belongs to: the function that is called, the variable that is assigned or
           declared, or the label of a `case`.
  nth      its number among the places in the text, from 1, an outer one before those inside it.
           Without it, the innermost of places inside each other is meant.

Exactly one place must remain. New code that an operator takes is C++ text.

(mull, which mutates C++ by itself, is in none of Debian 12, PyPI, npm, Go's modules and Maven.)
"""

import dataclasses
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Edit:
    begin: int
    end: int
    text: str


@dataclasses.dataclass(frozen=True)
class Operator:
    # As it is written in the list of mutations.
    text: str
    # Whether a node is such a place.
    is_place: Callable
    # Node and text of the file to the edits.
    edits: Callable
    touches: tuple = ()
    within: str = ""
    nth: int = 0
    # A place that is one word: `touches` speaks of the expression around it.
    is_word: bool = False

    def __str__(self):
        return self.text

    def places(self, definition):
        """Nodes of the definition that are meant: exactly one when all is well."""
        found = [
            node
            for node in _walk(definition)
            if self.is_place(node) and self._touches(node) and self._is_within(node, definition)
        ]
        if self.nth:
            return found[self.nth - 1 : self.nth]
        return [
            node
            for node in found
            if not any(_holds(node, other) for other in found if other is not node)
        ]

    def _touches(self, node):
        if not self.touches:
            return True
        words = _words(_value_of(node).parent if self.is_word else node)
        return all(word in words for word in self.touches)

    def _is_within(self, node, definition):
        if not self.within:
            return True
        while node is not None:
            if self.within in _belongs_to(node):
                return True
            if node.id == definition.id:
                return False
            node = node.parent
        return False


def _walk(node):
    yield node
    for child in node.named_children:
        yield from _walk(child)


def _holds(outer, inner):
    return (
        outer.id != inner.id
        and outer.start_byte <= inner.start_byte
        and inner.end_byte <= outer.end_byte
    )


def _words(node):
    return {leaf.text.decode() for leaf in _walk(node) if not leaf.named_children}


def _last_name(node):
    """The name by which people call an expression: "b" of "a->b", "a.b[i]" or "x::b<T>"."""
    while node is not None:
        if node.type in ("field_expression", "template_function", "template_method"):
            node = node.child_by_field_name("field") or node.child_by_field_name("name")
        elif node.type in ("subscript_expression", "pointer_expression"):
            node = node.child_by_field_name("argument")
        elif node.type in ("qualified_identifier", "dependent_name"):
            node = node.child_by_field_name("name") or node.named_children[-1]
        elif node.type in ("call_expression",):
            node = node.child_by_field_name("function")
        elif node.named_children:
            node = node.named_children[-1]
        else:
            return node.text.decode()
    return ""


def _belongs_to(node):
    """Names that what is inside the node can be said to be within."""
    if node.type == "expression_statement" and node.named_children:
        return _belongs_to(node.named_children[0])
    if node.type == "call_expression":
        return (_last_name(node.child_by_field_name("function")),)
    if node.type == "assignment_expression":
        return (_last_name(node.child_by_field_name("left")),)
    if node.type == "init_declarator":
        return (_last_name(node.child_by_field_name("declarator")),)
    if node.type in ("declaration", "field_declaration"):
        # `const T x(value)` may be parsed as a function.
        declarator = node.child_by_field_name("declarator")
        return (_last_name(declarator),) if declarator is not None else ()
    if node.type == "case_statement" and (value := node.child_by_field_name("value")) is not None:
        return (_last_name(value),)
    return ()


# What a name is the beginning or the end of; what is in brackets has a list of arguments between.
_ACCESSES = ("field_expression", "subscript_expression", "call_expression", "qualified_identifier")
_BRACED = "compound_literal_expression"


def _value_of(name):
    """The expression that is the name's value: `a`, `b.a[i]`, `a(i)` or `T{a}`."""
    node = name
    while node.parent.type in _ACCESSES:
        node = node.parent
    if node.parent.type == "initializer_list" and node.parent.parent.type == _BRACED:
        node = node.parent.parent
    return node


def _source(node, text):
    return text[node.start_byte : node.end_byte].decode()


def _replacing(node, new):
    return [Edit(node.start_byte, node.end_byte, new)]


_PRIMARY = (
    "identifier",
    "field_expression",
    "subscript_expression",
    "call_expression",
    "parenthesized_expression",
    "number_literal",
    "string_literal",
    "qualified_identifier",
    "compound_literal_expression",
    "true",
    "false",
    "this",
)


def _operand(node, text):
    """The expression's text, fit to be an operand of anything."""
    source = _source(node, text)
    return source if node.type in _PRIMARY else f"({source})"


def _make(is_place, edits, where, *arguments, is_word=False):
    known = {"touches", "within", "nth"}
    if not set(where) <= known:
        raise TypeError(f"unknown: {', '.join(sorted(set(where) - known))}; known: {sorted(known)}")
    name = edits.__qualname__.split(".")[0]
    shown = [repr(argument) for argument in arguments]
    shown += [f"{key}={value!r}" for key, value in where.items()]
    touches = where.get("touches", ())
    return Operator(
        f"{name}({', '.join(shown)})",
        is_place,
        edits,
        (touches,) if isinstance(touches, str) else tuple(touches),
        where.get("within", ""),
        where.get("nth", 0),
        is_word,
    )


# Operators with two sides, and with one.


def _has_operator(node, operator, kinds):
    found = node.child_by_field_name("operator") if node.type in kinds else None
    return found is not None and found.text.decode() == operator


_TWO_SIDED = ("binary_expression", "assignment_expression")
_ONE_SIDED = ("unary_expression", "pointer_expression")


def replace_operator(old, new, **where):
    """`a old b` becomes `a new b`; `a old= b` likewise."""

    def edits(node, _):
        return _replacing(node.child_by_field_name("operator"), new)

    return _make(lambda node: _has_operator(node, old, _TWO_SIDED), edits, where, old, new)


def keep_left(operator, **where):
    """`a operator b` becomes `a`."""

    def edits(node, text):
        return _replacing(node, _source(node.child_by_field_name("left"), text))

    return _make(lambda node: _has_operator(node, operator, _TWO_SIDED[:1]), edits, where, operator)


def keep_right(operator, **where):
    """`a operator b` becomes `b`."""

    def edits(node, text):
        return _replacing(node, _source(node.child_by_field_name("right"), text))

    return _make(lambda node: _has_operator(node, operator, _TWO_SIDED[:1]), edits, where, operator)


def drop_unary(operator, **where):
    """`-a` becomes `a`."""

    def edits(node, text):
        return _replacing(node, _source(node.child_by_field_name("argument"), text))

    return _make(lambda node: _has_operator(node, operator, _ONE_SIDED), edits, where, operator)


def drop_parentheses(**where):
    """`a * (b + c)` becomes `a * b + c`."""

    def edits(node, text):
        return _replacing(node, _source(node.named_children[0], text))

    return _make(lambda node: node.type == "parenthesized_expression", edits, where)


# Conditions: of if, while, for and ?:, their parts joined by && and ||, and comparisons anywhere.


def _is_field(node, parent, field):
    value = parent.child_by_field_name(field)
    return value is not None and value.id == node.id


def _is_condition(node):
    parent = node.parent
    if parent is None or node.type in ("comment", "initializer_list", "declaration"):
        return False
    if parent.type == "condition_clause":
        return _is_field(node, parent, "value")
    if parent.type in ("for_statement", "conditional_expression"):
        return _is_field(node, parent, "condition")
    if parent.type == "parenthesized_expression":
        return parent.parent.type == "binary_expression" and _is_condition(parent)
    if parent.type == "binary_expression" and parent.child_by_field_name("operator").type in (
        "&&",
        "||",
    ):
        return True
    comparisons = ("==", "!=", "<", ">", "<=", ">=")
    return (
        node.type == "binary_expression"
        and node.child_by_field_name("operator").type in comparisons
    )


def force(value, evaluated=False, **where):
    """A condition is always true or always false; `evaluated`: its effects remain."""

    def edits(node, text):
        constant = "true" if value else "false"
        return _replacing(node, f"({_source(node, text)}, {constant})" if evaluated else constant)

    shown = (value, evaluated) if evaluated else (value,)
    return _make(_is_condition, edits, where, *shown)


def replace_condition(new, **where):
    """A condition becomes another."""

    def edits(node, _):
        return _replacing(node, new)

    return _make(_is_condition, edits, where, new)


def negate(**where):
    """A condition becomes its opposite."""

    def edits(node, text):
        if _has_operator(node, "!", _ONE_SIDED):
            return _replacing(node, _source(node.child_by_field_name("argument"), text))
        return _replacing(node, f"!{_operand(node, text)}")

    return _make(_is_condition, edits, where)


def choose(first, **where):
    """`c ? a : b` becomes `a`, or with False `b`."""

    def edits(node, text):
        field = "consequence" if first else "alternative"
        return _replacing(node, _source(node.child_by_field_name(field), text))

    return _make(lambda node: node.type == "conditional_expression", edits, where, first)


def swap_branches(**where):
    """`c ? a : b` becomes `c ? b : a`."""

    def edits(node, text):
        a = node.child_by_field_name("consequence")
        b = node.child_by_field_name("alternative")
        return _replacing(a, _source(b, text)) + _replacing(b, _source(a, text))

    return _make(lambda node: node.type == "conditional_expression", edits, where)


# Statements.


def delete_statement(**where):
    """`f(x);` or `a = b;` is gone."""

    def edits(node, _):
        in_block = node.parent.type in ("compound_statement", "case_statement")
        return _replacing(node, "" if in_block else ";")

    return _make(lambda node: node.type == "expression_statement", edits, where)


def replace_statement(new, **where):
    """`f(x);` or `a = b;` becomes something else."""

    def edits(node, _):
        return _replacing(node, new)

    return _make(lambda node: node.type == "expression_statement", edits, where, new)


def replace_return(new, **where):
    """`return a;` becomes `return new;`."""

    def edits(node, _):
        return _replacing(node, f"return {new};")

    return _make(lambda node: node.type == "return_statement", edits, where, new)


def swap_loops(outer, inner):
    """Two loops, the second right inside the first, trade places."""

    def head(loop):
        return loop.start_byte, loop.child_by_field_name("body").start_byte

    def counts(loop, variable):
        start = loop.child_by_field_name("initializer")
        return loop.type == "for_statement" and start is not None and variable in _words(start)

    def second(loop):
        body = loop.child_by_field_name("body")
        inside = body.named_children[:1] if body.type == "compound_statement" else [body]
        return next((node for node in inside if counts(node, inner)), None)

    def edits(node, text):
        (begin, end), (inner_begin, inner_end) = head(node), head(second(node))
        return [
            Edit(begin, end, text[inner_begin:inner_end].decode()),
            Edit(inner_begin, inner_end, text[begin:end].decode()),
        ]

    return _make(
        lambda node: counts(node, outer) and second(node) is not None, edits, {}, outer, inner
    )


# Calls. A function is named by its last part: "max" of "std::max", "push_back" of "a.push_back".


def _is_call(node, function, count=0):
    return (
        node.type == "call_expression"
        and _last_name(node.child_by_field_name("function")) == function
        and len(_arguments(node)) >= count
    )


def _arguments(call):
    listed = call.child_by_field_name("arguments")
    return [node for node in listed.named_children if node.type != "comment"]


def replace_call(old, new, **where):
    """`a.old(x)` becomes `new(x)`."""

    def edits(node, _):
        return _replacing(node.child_by_field_name("function"), new)

    return _make(lambda node: _is_call(node, old), edits, where, old, new)


def unwrap(function, **where):
    """`f(a, b)` becomes `a`."""

    def edits(node, text):
        return _replacing(node, _operand(_arguments(node)[0], text))

    return _make(lambda node: _is_call(node, function, 1), edits, where, function)


def call_to_operator(function, operator, **where):
    """`f(a, b)` becomes `a operator b`."""

    def edits(node, text):
        a, b = _arguments(node)
        return _replacing(node, f"{_operand(a, text)} {operator} {_operand(b, text)}")

    return _make(lambda node: _is_call(node, function, 2), edits, where, function, operator)


def operator_to_call(operator, function, **where):
    """`a operator b` becomes `function(a, b)`."""

    def edits(node, text):
        a = _source(node.child_by_field_name("left"), text)
        b = _source(node.child_by_field_name("right"), text)
        return _replacing(node, f"{function}({a}, {b})")

    return _make(
        lambda node: _has_operator(node, operator, _TWO_SIDED[:1]), edits, where, operator, function
    )


def replace_argument(function, number, new, **where):
    """The argument of that number, from 1, becomes something else: `f(a, new)`."""

    def edits(node, _):
        return _replacing(_arguments(node)[number - 1], new)

    return _make(lambda node: _is_call(node, function, number), edits, where, function, number, new)


def drop_last_argument(function, **where):
    """`f(a, b)` becomes `f(a)`."""

    def edits(node, _):
        given = _arguments(node)
        begin = given[-2].end_byte if len(given) > 1 else given[-1].start_byte
        return [Edit(begin, given[-1].end_byte, "")]

    return _make(lambda node: _is_call(node, function, 1), edits, where, function)


def swap_arguments(function, first, second, **where):
    """`f(a, b)` becomes `f(b, a)`."""

    def edits(node, text):
        given = _arguments(node)
        a, b = given[first - 1], given[second - 1]
        return _replacing(a, _source(b, text)) + _replacing(b, _source(a, text))

    return _make(
        lambda node: _is_call(node, function, max(first, second)),
        edits,
        where,
        function,
        first,
        second,
    )


# Values and names.

_LITERALS = ("number_literal", "string_literal", "char_literal", "true", "false", "nullptr")
_NAMES = ("identifier", "field_identifier", "type_identifier", "namespace_identifier")


def replace_constant(old, new, **where):
    """A number, text or bool as it is written becomes another."""

    def edits(node, _):
        return _replacing(node, new)

    return _make(
        lambda node: node.type in _LITERALS and node.text.decode() == old,
        edits,
        where,
        old,
        new,
        is_word=True,
    )


def _is_used(node):
    """Not where it is declared."""
    return node.parent.type != "reference_declarator" and not _is_field(
        node, node.parent, "declarator"
    )


def replace_name(old, new, **where):
    """A variable, member or type becomes another, or any expression."""

    def edits(node, _):
        return _replacing(node, new)

    return _make(
        lambda node: node.type in _NAMES and node.text.decode() == old and _is_used(node),
        edits,
        where,
        old,
        new,
        is_word=True,
    )


def off_by_one(name, **where):
    """The name's value (`a`, `b.a[i]`, `a(i)`) becomes one more."""

    def edits(node, text):
        value = _value_of(node)
        return _replacing(value, f"({_source(value, text)} + 1)")

    return _make(
        lambda node: node.type in _NAMES and node.text.decode() == name and _is_used(node),
        edits,
        where,
        name,
        is_word=True,
    )


def set_value(name, new, **where):
    """What a variable or member is given, where it is declared or assigned to (also by `+=`)."""

    def value(node):
        if node.type == "init_declarator":
            return node.child_by_field_name("value")
        return node.child_by_field_name("right")

    def edits(node, _):
        return _replacing(value(node), new)

    return _make(
        lambda node: (
            node.type in ("init_declarator", "assignment_expression")
            and _belongs_to(node) == (name,)
        ),
        edits,
        where,
        name,
        new,
    )


def applied(text, edits):
    """The text, with the edits made."""
    for edit in sorted(edits, key=lambda edit: edit.begin, reverse=True):
        text = text[: edit.begin] + edit.text.encode() + text[edit.end :]
    return text


def overlap(edits):
    ordered = sorted(edits, key=lambda edit: edit.begin)
    return any(a.end > b.begin for a, b in zip(ordered, ordered[1:], strict=False))
