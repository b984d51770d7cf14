"""Parses C++ with tree-sitter, and lists what a file defines at namespace scope.

Sources are read as they stand: no preprocessor, no compiler flags, no build. Macros that are no C++ to
a parser (annotations, macros that take a declaration) are blanked out first, so that positions stay.
"""

import dataclasses
import re

import tree_sitter
import tree_sitter_cpp

from tree import Problem

SUFFIXES = (".h", ".cc", ".cu", ".inc")

# A macro that the parser stumbles over belongs here. Its arguments are blanked out as well.
MACROS = (
    rb"(?<!= )\b(?:ABSL_[A-Z_]+|HWY_(?:INLINE|NOINLINE|ATTR)|EXPERTMESH_[A-Z0-9_]+|__attribute__"
    rb"|__restrict(?:__)?|__(?:device|host|global|shared|align|forceinline|launch_bounds)__"
    rb"|ASSIGN_OR_RETURN|REAL)(?!\w)"
)
# Both branches of an #if are parsed.
DIRECTIVES = re.compile(rb"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", re.MULTILINE)
# The grammar has no default argument {} after a reference, and no pointers to members.
UNKNOWN_SYNTAX = re.compile(rb"= \{\}(?=[,)])|(?<=\()\w+::(?=\*\))|(?<=->)\*")
LITERALS_AND_COMMENTS = (
    rb'R"(?P<end>\w*)\((?:.|\n)*?\)(?P=end)"|"(?:[^"\\\n]|\\.)*"|\'(?:[^\'\\\n]|\\.[^\'\n]*)\''
    rb"|//[^\n]*|/\*(?:.|\n)*?\*/"
)
TOKENS = re.compile(LITERALS_AND_COMMENTS + rb"|(?P<macro>" + MACROS + rb")|(?P<parenthesis>[()])")

TYPES = {
    "class_specifier": "class",
    "struct_specifier": "struct",
    "union_specifier": "union",
    "enum_specifier": "enum",
    "alias_declaration": "alias",
    "type_definition": "alias",
    "concept_definition": "concept",
}

_UNREADABLE = (
    "the parser of the lints does not understand this, and might miss what follows: write it more "
    "plainly, or name its macro in MACROS of tests/lint/cpp.py"
)

_PARSER = tree_sitter.Parser(tree_sitter.Language(tree_sitter_cpp.language()))


@dataclasses.dataclass(frozen=True)
class Definition:
    kind: str
    # With namespaces; that of a function has the types of its parameters, too.
    name: str
    path: str
    line: int


@dataclasses.dataclass(frozen=True)
class Source:
    path: str
    root: tree_sitter.Node
    problems: list


def parse(root, path):
    code = _blanked((root / path).read_bytes())
    tree = _PARSER.parse(code).root_node
    return Source(path, tree, [Problem(path, line, _UNREADABLE) for line in _errors(tree)])


def descendants(node, kind):
    """Nodes of a kind below `node`, in the order of the text."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if node.type == kind:
            yield node
        waiting.extend(reversed(node.children))


def first_line(node):
    return node.start_point[0] + 1


def last_line(node):
    return node.end_point[0] + 1


def function_name(function):
    """As written: with the class of a member that is defined outside of it."""
    declarator = _function_declarator(function)
    return _text(declarator.child_by_field_name("declarator")) if declarator else "?"


def definitions(source):
    """What a file defines in named namespaces; unnamed ones are the file's own."""
    return list(_definitions(source.path, source.root, (), None))


def _spaces(text):
    return re.sub(rb"[^\n]", b" ", text)


def _blank(match):
    return _spaces(match.group(0))


def _blanked(code):
    """The code without what the grammar does not have; everything else stays where it is."""
    code = DIRECTIVES.sub(_blank, code)
    kept, position = [], 0
    for token in TOKENS.finditer(code):
        if token.group("macro") and token.start() >= position:
            end = _end_of_arguments(code, token.end())
            kept += [code[position : token.start()], _spaces(code[token.start() : end])]
            position = end
    return UNKNOWN_SYNTAX.sub(_blank, b"".join(kept) + code[position:])


def _end_of_arguments(code, start):
    """Behind the closing parenthesis, if one opens at `start`."""
    if code[start : start + 1] != b"(":
        return start
    depth = 0
    for token in TOKENS.finditer(code, start):
        depth += {b"(": 1, b")": -1}.get(token.group("parenthesis"), 0)
        if depth == 0:
            return token.end()
    return len(code)


def _errors(tree):
    """Lines of what could not be parsed. Inside of a function it hides nothing of what is looked for."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if node.type == "ERROR" or node.is_missing:
            yield first_line(node)
        elif node.has_error and node.type != "compound_statement":
            waiting.extend(node.children)


def _text(node):
    return re.sub(r"\s+", " ", node.text.decode())


def _function_declarator(node):
    """Below pointers and references, which belong to what is returned."""
    while node is not None and node.type != "function_declarator":
        inner = node.child_by_field_name("declarator")
        node = inner or next((c for c in node.children if c.type.endswith("_declarator")), None)
    return node


def _identifier(node):
    """The name inside a declarator, or None for a parameter without one."""
    if node.type in ("identifier", "type_identifier", "qualified_identifier", "template_function"):
        return node
    for child in node.named_children:
        if child.type not in ("parameter_list", "argument_list") and (found := _identifier(child)):
            return found
    return None


def _parameter(node):
    """A parameter without its name and default: what two declarations of one function share."""
    end = node.end_byte
    default = node.child_by_field_name("default_value")
    if default:
        end = default.prev_sibling.start_byte
    text = node.text[: end - node.start_byte]
    declarator = node.child_by_field_name("declarator")
    name = _identifier(declarator) if declarator else None
    if name:
        start = name.start_byte - node.start_byte
        text = text[:start] + text[start + len(name.text) :]
    return re.sub(r"\s*([&*<>,:])\s*", r"\1", re.sub(r"\s+", " ", text.decode())).strip()


def _signature(declarator):
    parameters = declarator.child_by_field_name("parameters")
    types = [_parameter(child) for child in parameters.named_children if child.type != "comment"]
    rest = "".join(f" {_text(c)}" for c in declarator.named_children if c.type == "type_qualifier")
    return f"({', '.join(types)}){rest}"


def _named(scope, name):
    return "::".join((*scope, name))


def _definitions(path, node, scope, template):
    for child in node.named_children:
        if child.type == "namespace_definition":
            name = child.child_by_field_name("name")
            if name:
                inner = (*scope, _text(name))
                yield from _definitions(path, child.child_by_field_name("body"), inner, None)
        elif child.type in ("declaration_list", "linkage_specification"):
            yield from _definitions(path, child, scope, None)
        elif child.type == "template_declaration":
            yield from _definitions(path, child, scope, child)
        elif child.type == "template_parameter_list":
            continue
        else:
            yield from _types(path, child, scope)
            yield from _functions_and_variables(path, child, scope, template)


def _types(path, node, scope):
    # "struct Point {...} origin;" has its type inside a declaration.
    inner = node.child_by_field_name("type")
    for each in (node, inner) if inner else (node,):
        kind = TYPES.get(each.type)
        if kind is None or (each.type.endswith("_specifier") and not each.child_by_field_name("body")):
            continue
        field = "declarator" if each.type == "type_definition" else "name"
        name = each.child_by_field_name(field)
        if name:
            yield Definition(kind, _named(scope, _text(name)), path, first_line(each))


def _functions_and_variables(path, node, scope, template):
    if node.type not in ("function_definition", "declaration"):
        return
    words = {_text(c) for c in node.children if c.type in ("storage_class_specifier", "type_qualifier")}
    if "static" in words:
        return
    prefix = _text(template.child_by_field_name("parameters")) + " " if template else ""
    if node.type == "function_definition":
        declarator = _function_declarator(node)
        if declarator is None:
            return
        name = prefix + _named(scope, function_name(node)) + _signature(declarator)
        yield Definition("function", name, path, first_line(node))
    elif template or "inline" in words:
        for child in node.children_by_field_name("declarator"):
            if child.type == "init_declarator":
                name = prefix + _named(scope, _text(child.child_by_field_name("declarator")))
                yield Definition("variable", name, path, first_line(node))
