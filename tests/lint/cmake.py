"""What CMakeLists.txt files say of rooms: which folders are rooms, in which order, with which headers."""

import dataclasses
import pathlib
import re

COMMAND = re.compile(r"^[ \t]*(\w+)[ \t]*\(([^()]*)\)", re.MULTILINE)
COMMENT = re.compile(r"#[^\n]*")
DECLARATIONS = ("expertmesh_library", "expertmesh_binary", "expertmesh_cuda_sources", "expertmesh_cuda_library")
KEYWORDS = ("SOURCES", "HOST", "KERNELS", "PUBLIC", "DEPS")


@dataclasses.dataclass
class Target:
    """A library or program; its files are paths from the top of the tree."""

    name: str
    is_library: bool
    sources: list
    public: list
    # Where its declaration is in the text, and on which line.
    span: tuple
    line: int
    # CMake adds targets in this order.
    position: int


@dataclasses.dataclass
class Room:
    folder: str
    targets: list

    @property
    def public(self):
        return {header for target in self.targets for header in target.public}

    def target_of(self, path):
        """The target of a source, or of a header through the source of its name; else the room's first."""
        source = str(pathlib.PurePosixPath(path).with_suffix(".cc"))
        return next((t for t in self.targets if source in t.sources), self.targets[0])


def rooms(root):
    """Rooms by folder: those that declare a library or a program."""
    found = {}
    _read(root, "", found)
    return found


def _read(root, folder, found):
    path = root / folder / "CMakeLists.txt"
    if not path.is_file():
        return
    text = COMMENT.sub(lambda comment: " " * len(comment.group(0)), path.read_text())
    for command in COMMAND.finditer(text):
        name, arguments = command.group(1), command.group(2).split()
        if name == "add_subdirectory":
            _read(root, (pathlib.PurePosixPath(folder) / arguments[0]).as_posix(), found)
        elif name in DECLARATIONS:
            if name == "expertmesh_cuda_sources":  # Named after its folder.
                arguments = [pathlib.PurePosixPath(folder).name, *arguments]
            line = text.count("\n", 0, command.start(1)) + 1
            room = found.setdefault(folder, Room(folder, []))
            position = sum(len(each.targets) for each in found.values())
            lists = _lists(folder, arguments[1:])
            room.targets.append(
                Target(
                    name=arguments[0],
                    is_library=name != "expertmesh_binary",
                    sources=[*lists["SOURCES"], *lists["HOST"], *lists["KERNELS"]],
                    public=lists["PUBLIC"],
                    span=(command.start(1), command.end()),
                    line=line,
                    position=position,
                )
            )


def _lists(folder, arguments):
    """The files of each keyword."""
    lists = {keyword: [] for keyword in KEYWORDS}
    keyword = None
    for argument in arguments:
        if argument in KEYWORDS:
            keyword = argument
        elif keyword:
            lists[keyword].append(str(pathlib.PurePosixPath(folder, argument)))
    return lists
