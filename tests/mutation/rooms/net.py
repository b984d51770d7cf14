"""Connections: streams that are opened again."""

from mutation import Mutation
from operators import (
    delete_statement,
    force,
    replace_name,
    replace_operator,
)

MUTATIONS = (
    Mutation(
        "streams: what comes of a former attempt is heard",
        "ReconnectingStreams::Post",
        force(True, touches=("attempt", "attempt_")),
        "reconnecting_streams_test",
    ),
    Mutation(
        "streams: pauses between attempts do not grow",
        "ReconnectingStreams::Fail",
        delete_statement(within="backoff_"),
        "reconnecting_streams_test",
    ),
    Mutation(
        "streams: the others stay when one ends",
        "ReconnectingStreams::Fail",
        delete_statement(touches="CancelStreams"),
        "reconnecting_streams_test",
    ),
    Mutation(
        "streams: a pause of this process is the peer's silence",
        "ReconnectingStreams::CheckSilence",
        replace_name("max", "min", touches="awake_since"),
        "reconnecting_streams_test",
    ),
    Mutation(
        "streams: pauses excuse a peer for ever",
        "ReconnectingStreams::CheckSilence",
        replace_operator("<=", ">", touches="kMostExcuses"),
        "reconnecting_streams_test",
    ),
)
