"""Connections: streams that are opened again, and what a server ends."""

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
    Mutation(
        "connections: whether there are calls is not asked",
        "ConnectionTable::EndIdle",
        force(False, touches=("nameless_busy", "contains"), evaluated=True),
        "connection_table_test",
    ),
    Mutation(
        "connections: one that was idle once is idle",
        "ConnectionTable::EndIdle",
        delete_statement(within="idle_since", touches="InfiniteFuture"),
        "connection_table_test",
    ),
)
