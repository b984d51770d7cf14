"""A deliberately wrong variant of the code: how it is addressed, and how it is made."""

import dataclasses
import functools
import pathlib

import operators
import source

ROOT = pathlib.Path(__file__).resolve().parents[2]
MOST_SHOWN = 6


class Broken(Exception):
    """The check itself cannot be made."""


@dataclasses.dataclass(frozen=True)
class Mutation:
    name: str
    # The definition that is wrong, by the end of its qualified name: "Planner::Plan", "ScoreRow",
    # "kRounder". It is searched for in the whole tree, headers included. Where several definitions
    # have that name, all of them are looked through for the one place.
    symbol: str
    # One operator, or several at once.
    change: operators.Operator | tuple
    # Test program, and those of its tests that are to notice (a filter of GoogleTest).
    test: str
    tests: str = "*"
    # The instruction set that the code is for; on a CPU without it no test can notice.
    isa: str = ""
    # Code for narrower sets than the machine's is tested with EXPERTMESH_MAX_CPU_ISA at that.
    isa_at_most: str = ""

    @property
    def changes(self):
        return self.change if isinstance(self.change, tuple) else (self.change,)


@functools.cache
def tree_here():
    return source.Tree(ROOT)


def mutated(tree, mutation):
    """The file that changes, and its text afterwards."""
    definitions = tree.find(mutation.symbol)
    if not definitions:
        similar = ", ".join(tree.similar(mutation.symbol)) or "nothing"
        raise Broken(
            f"no definition is called {mutation.symbol!r} any more (similar: {similar}). "
            "Give its present name as `symbol`, or drop the mutation with the code."
        )
    path, edits = None, []
    for operator in mutation.changes:
        definition, node = _place(tree, mutation, operator, definitions)
        if path not in (None, definition.path):
            raise Broken(
                f"changes both {_shown_path(tree, path)} and {_shown_path(tree, definition.path)}. "
                "Make it two mutations."
            )
        path = definition.path
        edits += operator.edits(node, tree.source(path).text)
    before = tree.source(path).text
    if operators.overlap(edits):
        raise Broken("its changes overlap. Make them one, or two mutations.")
    after = operators.applied(before, edits)
    if after == before:
        raise Broken("changes nothing. Give an operator that does, or drop the mutation.")
    return path, after


def _place(tree, mutation, operator, definitions):
    found = [
        (definition, node)
        for definition in definitions
        for node in operator.places(definition.node)
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise Broken(
            f"{operator} fits {len(found)} places:{_listed(tree, found)}\n"
            "Name what only the right one holds (touches=) or belongs to (within=), count (nth=), "
            f"or qualify {mutation.symbol!r}."
        )
    anywhere = dataclasses.replace(operator, touches=(), within="", nth=0)
    kind = [
        (definition, node)
        for definition in definitions
        for node in anywhere.places(definition.node)
    ]
    where = ", ".join(
        f"{_shown_path(tree, definition.path)}:{tree.source(definition.path).line(definition.node)}"
        for definition in definitions[:MOST_SHOWN]
    )
    there = f"Places of the operator's kind there:{_listed(tree, kind)}" if kind else "It has none."
    raise Broken(
        f"{operator} fits no place in {mutation.symbol} ({where}). {there}\n"
        "Name what the right one holds now, or the symbol that has it now, or drop the mutation."
    )


def _listed(tree, places):
    lines = []
    for definition, node in places[:MOST_SHOWN]:
        text = " ".join(node.text.decode().split())
        lines.append(
            f"\n  {_shown_path(tree, definition.path)}:{tree.source(definition.path).line(node)} "
            f"in {definition}: {text[:100]}"
        )
    if len(places) > MOST_SHOWN:
        lines.append(f"\n  and {len(places) - MOST_SHOWN} more")
    return "".join(lines)


def _shown_path(tree, path):
    return path.relative_to(tree.root)
