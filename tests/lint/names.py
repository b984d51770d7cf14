"""One name, one thing: no two types of the tree share a qualified name.

Usage: names.py [TREE]

Two types of one name in one program are undefined behaviour, and no compiler says so: the linker takes
the inline functions of either for both. The same holds for inline functions, inline variables and
templates, and for ordinary functions in static libraries, where the linker takes the first it meets.
Even in two programs one name for two things puzzles readers, so the whole tree counts, tests and their
helpers included. What is in an unnamed namespace is the file's own.
"""

import collections

import cpp
import tree

REMEDY = (
    "one name, one thing: rename one, give it the namespace of its room, or, in a .cc file, an unnamed "
    "namespace"
)


def problems(root):
    found = []
    places = collections.defaultdict(list)
    for path in tree.files(root, cpp.SUFFIXES):
        source = cpp.parse(root, path)
        found += source.problems
        for definition in cpp.definitions(source):
            if not definition.name.startswith("main("):
                places[definition.name].append(definition)
    for first, *others in places.values():
        found += [_shared(other, first) for other in others if other.path != first.path]
    return found


def _shared(other, first):
    return tree.Problem(
        other.path,
        other.line,
        f"{other.kind} {other.name} is also defined at {first.path}:{first.line}; {REMEDY}",
    )


if __name__ == "__main__":
    tree.report(problems(tree.root_argument()), "qualified names of types and functions")
