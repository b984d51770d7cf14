"""The text that the demo model learns: the King James Bible, of Debian's package bible-kjv-text.

Its copyright has expired, as the package says. Verses become lines, chapters become documents. Every
sixteenth chapter is held out, so that nothing of what is evaluated was seen in training.
"""

import re
import shutil
import subprocess

HELD_OUT_EVERY = 16
# "1Ki1:7 And he conferred with Joab ..."
_VERSE = re.compile(r"(\w+?)(\d+):\d+ (.*)")


def chapters():
    """Every chapter in order, a str of its verses, one a line. RuntimeError without the package."""
    if not shutil.which("bible"):
        raise RuntimeError("no program `bible` here; run deploy/packages.sh install --training")
    printed = subprocess.run(
        ["bible", "-f", "-l100000", "Gen1:1-Rev22:21"], capture_output=True, text=True, check=True
    ).stdout
    found = {}
    for line in printed.splitlines():
        book, chapter, text = _VERSE.match(line).groups()
        found.setdefault((book, chapter), []).append(text.strip())
    if len(found) != 1189:
        raise RuntimeError(f"`bible` printed {len(found)} chapters; there are 1189")
    return ["\n".join(verses) + "\n" for verses in found.values()]


def split(texts):
    """(those to learn, those held out)."""
    learned = [
        text for number, text in enumerate(texts) if number % HELD_OUT_EVERY != HELD_OUT_EVERY - 1
    ]
    return learned, texts[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]
