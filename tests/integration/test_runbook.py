"""What the runbook of deploy/observability tells people to run can be run."""

import re

from readmes import ROOT, code_spans
from test_readme_facts import flags_in, known_flags, program_of

RUNBOOK = ROOT / "deploy" / "observability" / "runbook.md"


def spans():
    """Code between backticks, also over the end of a line."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", RUNBOOK.read_text())]


def test_its_commands_and_their_flags_exist():
    commands = [span for span in spans() if span.startswith("expertmesh ")]
    assert len(commands) > 10
    for command in commands:
        name = program_of(command)
        assert name not in (None, "expertmesh"), f"there is no such command: {command}"
        assert flags_in(command) <= known_flags()[name], command


def test_flags_of_routers_and_nodes_exist():
    ours = set().union(*known_flags().values())
    alone = [span for span in spans() if span.startswith("--")]
    assert alone
    for span in alone:
        assert flags_in(span) <= ours, span


def test_no_code_is_cut_by_the_end_of_a_line():
    assert len(code_spans(RUNBOOK.read_text())) == len(spans())
