"""Every README of the tree: its blocks, headings, links and what it names."""

import dataclasses
import fnmatch
import os
import pathlib
import re

ROOT = pathlib.Path(__file__).parents[2]


def tree(*patterns):
    """Files of the tree whose name fits one of the patterns, without what was built; sorted."""
    found = []
    for folder, inner, names in os.walk(ROOT):
        inner[:] = [name for name in inner if name[0] != "." and name not in ("build", "node_modules")]
        fitting = [name for name in names if any(fnmatch.fnmatch(name, each) for each in patterns)]
        found += [pathlib.Path(folder) / name for name in fitting]
    return sorted(found)


def readmes():
    """Paths from the root, as text: the front page first."""
    names = [path.relative_to(ROOT).as_posix() for path in tree("README.md")]
    return sorted(names, key=lambda name: (name != "README.md", name))


@dataclasses.dataclass
class Block:
    line: int
    text: str
    language: str = "bash"
    kind: str = ""
    words: str = ""
    file: str = "README.md"

    def __str__(self):
        return f"{self.file}:{self.line}"


def parse(text, file="README.md"):
    """The fenced blocks of a Markdown text."""
    blocks, marker = [], ("", "")
    lines = iter(enumerate(text.splitlines(), 1))
    for number, line in lines:
        if match := re.fullmatch(r"<!-- test: (\w+)(.*?) *-->", line.strip()):
            marker = (match[1], match[2].strip())
            marker = (marker[0], re.sub(r'^(after )?"(.*)"$', r"\2", marker[1]))
        elif line.startswith("```"):
            body = []
            for _, inside in lines:
                if inside.startswith("```"):
                    break
                body.append(inside)
            blocks.append(Block(number, "\n".join(body), line.strip()[3:], *marker, file))
            marker = ("", "")
        elif line.strip():
            marker = ("", "")
    return blocks


def blocks_of(file):
    return parse((ROOT / file).read_text(), file)


def commands_of(file):
    return [block for block in blocks_of(file) if block.language == "bash"]


def prose(text):
    """The text without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def code_spans(text):
    """What stands between backticks in the prose."""
    return re.findall(r"`([^`\n]+)`", prose(text))


def headings(text):
    return re.findall(r"^#+ (.+)$", prose(text), flags=re.MULTILINE)


def anchors(text):
    """What `#...` of a link may be, as GitHub makes them of headings."""
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
        for heading in headings(text)
    }


def links(text):
    return re.findall(r"\[[^\]\n]*\]\(([^)\s]+)\)", prose(text))


def section(text, heading):
    """What stands below a heading of the second level; fails when there is none."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2]))[heading]


def rows(text):
    """Cells of the rows of the tables in a text, without their headings."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]
    return cells[1:]


def programs(block):
    """First word of each command line of a block, without its folder and what is set for it alone."""
    text = re.sub(r"\\\n *", " ", block.text)
    text = re.sub(r"^(?:\w+=\S* +)+", "", text, flags=re.MULTILINE)
    names = [line.split()[0] for line in text.splitlines() if line.strip() and line[0] not in " #"]
    return {pathlib.PurePath(name).name for name in names}
