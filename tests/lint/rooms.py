"""Rooms: who may include which header.

Usage: rooms.py [TREE]             checks
       rooms.py [TREE] --suggest   prints, for each room, the PUBLIC that its includes need
       rooms.py [TREE] --write     writes that into the CMakeLists.txt files

A room is a folder whose CMakeLists.txt declares an expertmesh_library or expertmesh_binary, or a part of the CUDA backend; folders below
belong to it unless they are rooms themselves.

 1. Outside of a room, only the headers under PUBLIC of its libraries are included. Its tests, in the
    folder of tests/unit that mirrors it, may include the others.
 2. PUBLIC names no header that is missing or that nothing outside includes.
 3. A library or program of a room includes only libraries of other rooms that CMake adds before it, so
    that there are no cycles.
 4. common includes only common; the others include common and themselves, never one another. Nothing
    but tests includes what is in tests.
"""

import collections
import dataclasses
import pathlib
import posixpath
import re
import sys

import cmake
import cpp
import tree

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+"([^"]+)"')
SHARED = "common"
TESTS = "tests"
LINE_WIDTH = 100


@dataclasses.dataclass(frozen=True)
class Include:
    path: str
    line: int
    header: str


def includes(root):
    """Includes of the tree's own headers."""
    for path in tree.files(root, cpp.SUFFIXES):
        for line, text in enumerate(tree.read(root, path).splitlines(), 1):
            match = INCLUDE.match(text)
            if match:
                beside = posixpath.normpath(posixpath.join(posixpath.dirname(path), match.group(1)))
                for header in (match.group(1), beside):
                    if (root / header).is_file():
                        yield Include(path, line, header)
                        break


class House:
    """The rooms of a tree, and which file is in which."""

    def __init__(self, root):
        self.root = root
        # What tests share with one another is no room.
        self.rooms = {f: room for f, room in cmake.rooms(root).items() if not f.startswith(TESTS)}
        self.includes = list(includes(root))

    def room_of(self, path):
        """The room of a file, None if it is in none."""
        for folder in pathlib.PurePosixPath(path).parents:
            if folder.as_posix() in self.rooms and folder.as_posix() != ".":
                return folder.as_posix()
        return None

    def tested_by(self, path):
        """The room that a file of tests/unit tests: tests/unit/client/decoder tests client/cpp/decoder."""
        for folder in pathlib.PurePosixPath(path).parents:
            for room in self.rooms:
                if folder.as_posix() == mirror(room):
                    return room
        return None

    def from_outside(self):
        """Includes that cross into a room from outside of it and of its tests."""
        for include in self.includes:
            room = self.room_of(include.header)
            if room and room not in (self.room_of(include.path), self.tested_by(include.path)):
                yield include, room


def mirror(room):
    parts = [part for part in pathlib.PurePosixPath(room).parts if part != "cpp"]
    return "/".join((TESTS, "unit", *parts))


def problems(house):
    return [
        *_private_includes(house),
        *_wrong_publics(house),
        *_wrong_directions(house),
    ]


def _private_includes(house):
    for include, room in house.from_outside():
        if include.header not in house.rooms[room].public:
            yield tree.Problem(
                include.path,
                include.line,
                f"{include.header} is private to {room}: use one of its public headers "
                f"({_names(house.rooms[room].public)}), or add it to PUBLIC in {room}/CMakeLists.txt",
            )


def _names(headers):
    return ", ".join(sorted(pathlib.PurePosixPath(header).name for header in headers)) or "it has none"


def _wrong_publics(house):
    used = {include.header for include, _ in house.from_outside()}
    for folder, room in house.rooms.items():
        for target in room.targets:
            for header in target.public:
                if not (house.root / header).is_file():
                    fault = "does not exist"
                elif house.room_of(header) != folder:
                    fault = f"is of the room {house.room_of(header)}"
                elif header not in used:
                    fault = "is included by nothing outside of the room"
                else:
                    continue
                yield tree.Problem(
                    f"{folder}/CMakeLists.txt",
                    target.line,
                    f"{header} of PUBLIC in {target.name} {fault}: take it off the list",
                )


def _wrong_directions(house):
    for include in house.includes:
        top, user_top = (each.split("/")[0] for each in (include.header, include.path))
        if user_top != TESTS and top not in (user_top, SHARED):
            yield tree.Problem(
                include.path,
                include.line,
                f"{user_top} includes {include.header}, but may include only {SHARED} and itself: "
                f"move what both need to {SHARED}",
            )
    for include, room in house.from_outside():
        user = house.room_of(include.path)
        if user is None:
            continue
        needed = house.rooms[room].target_of(include.header)
        needing = house.rooms[user].target_of(include.path)
        if needed.position > needing.position:
            yield tree.Problem(
                include.path,
                include.line,
                f"{needing.name} includes {include.header}, but CMake adds {needed.name} after "
                f"{needing.name}: move what it needs to a room before both or, if {needed.name} does not "
                f"need {needing.name}, change their order in CMakeLists.txt",
            )


def suggestions(house):
    """For each room, the headers that are included from outside, by the library that has their sources."""
    headers = collections.defaultdict(set)
    for include, room in house.from_outside():
        headers[room].add(include.header)
    for folder, room in house.rooms.items():
        libraries = [target for target in room.targets if target.is_library]
        public = {target.name: [] for target in libraries}
        for header in sorted(headers[folder]):
            if not libraries:
                sys.exit(f"{header} is included from outside, but {folder} declares no library")
            owner = room.target_of(header)
            name = pathlib.PurePosixPath(header).relative_to(folder).as_posix()
            public[owner.name if owner.is_library else libraries[0].name].append(name)
        yield folder, public


def _wrapped(names):
    lines = ["  PUBLIC"]
    for name in names:
        if len(lines[-1]) + 1 + len(name) > LINE_WIDTH:
            lines.append(" " * len("  PUBLIC"))
        lines[-1] += f" {name}"
    return "\n".join(lines)


def suggest(house):
    for folder, public in suggestions(house):
        for library, names in public.items():
            print(f"{folder}/CMakeLists.txt: expertmesh_library({library}")
            print(_wrapped(names) if names else "  (all private)")


def write(house):
    for folder, public in suggestions(house):
        path = house.root / folder / "CMakeLists.txt"
        text = path.read_text()
        for target in reversed(house.rooms[folder].targets):
            if target.is_library:
                start, end = target.span
                text = text[:start] + _with_public(text[start:end], public[target.name]) + text[end:]
        path.write_text(text)


def _with_public(declaration, names):
    """PUBLIC comes before DEPS or, where there is none, last."""
    bare = re.sub(r"\s+PUBLIC\b.*?(?=\s+DEPS\b|\s+SOURCES\b|\s*\)$)", "", declaration, flags=re.DOTALL)
    if not names:
        return bare
    rest = re.search(r"\s+DEPS\b|\s*\)$", bare).start()
    gap = "" if bare[rest:].strip() == ")" else "\n  "
    return f"{bare[:rest]}\n{_wrapped(names)}{gap}{bare[rest:].lstrip()}"


if __name__ == "__main__":
    HOUSE = House(tree.root_argument())
    if "--suggest" in sys.argv:
        suggest(HOUSE)
    elif "--write" in sys.argv:
        write(HOUSE)
    else:
        tree.report(problems(HOUSE), "includes between rooms")
