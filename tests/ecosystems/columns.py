"""What each ecosystem is asked, and how its check says what it found: one line for each column on standard output,

    unary yes
    errors no: the trailers have no details
    compile n/a: nothing is compiled
"""

import contextlib
import re
import subprocess

COLUMNS = (
    "generate",
    "compile",
    "unary",
    "stream",
    "watch",
    "health",
    "reflection",
    "big",
    "errors",
    "bits",
)
BIG_BYTES = 60_000_000
# What a request with a layer that the model has not, and one that accepts an answer of 1 byte, must be told.
LAYER_REASON, LIMIT_REASON = "INVALID_FIELD", "ANSWER_TOO_LARGE"
NO_LAYER = 4096
SERVICES = ("expertmesh.v1.Router", "expertmesh.v1.Control")
LINE = re.compile(rf"({'|'.join(COLUMNS)}) (yes|no|n/a)(?:: (.*))?")


class NotApplicable(Exception):
    """An ecosystem has nothing that the column asks for. The text says why."""


def say(column, word, why=""):
    why = " ".join(str(why).split())[:300]
    print(f"{column} {word}" + (f": {why}" if why else ""), flush=True)


@contextlib.contextmanager
def column(name):
    """Says what became of the block: `yes`, or why not."""
    try:
        yield
    except NotApplicable as reason:
        say(name, "n/a", reason)
    except Exception as error:  # pylint: disable=broad-exception-caught
        say(name, "no", str(error) or type(error).__name__)
    else:
        say(name, "yes")


def expect(true, text):
    if not true:
        raise ValueError(text)


def parse(text):
    """{column: (word, why)} of what a check printed."""
    return {
        match[1]: (match[2], match[3] or "")
        for match in map(LINE.fullmatch, text.splitlines())
        if match
    }


def run(*argv, text=None, seconds=600, **options):
    """Runs a program; raises ValueError with its last words when it fails."""
    argv = [str(argument) for argument in argv]
    done = subprocess.run(
        argv, input=text, capture_output=True, text=True, timeout=seconds, check=False, **options
    )
    if done.returncode != 0:
        raise ValueError(f"{argv[0].rsplit('/', 1)[-1]}: {(done.stderr or done.stdout).strip()[-250:]}")
    return done.stdout
