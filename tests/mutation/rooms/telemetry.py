"""Metrics as they are read: texts, exemplars, and how they travel."""

from mutation import Mutation
from operators import (
    delete_statement,
    force,
    keep_left,
    replace_call,
    replace_constant,
    replace_operator,
)

MUTATIONS = (
    Mutation(
        "metrics: quotes in labels are not escaped",
        "expertmesh::telemetry::Escaped",
        keep_left("&&", touches="quotes"),
        "exposition_test",
    ),
    Mutation(
        "metrics: a backslash is not escaped",
        "expertmesh::telemetry::Escaped",
        replace_constant('"\\\\\\\\"', '"\\\\"'),
        "exposition_test",
    ),
    Mutation(
        "metrics: a series may come twice",
        "Writer::Write",
        force(True, touches="insert", evaluated=True),
        "exposition_test",
    ),
    Mutation(
        "metrics: OpenMetrics has bounds without a point",
        "Bound",
        force(False, touches="kOpenMetrics"),
        "exposition_test",
    ),
    Mutation(
        "metrics: OpenMetrics has no end",
        "Writer::Take",
        force(False, touches="kOpenMetrics"),
        "exposition_test",
    ),
    Mutation(
        "metrics: plain text has exemplars",
        "Writer::ExemplarsOf",
        force(True, touches="open_metrics"),
        "exposition_test",
    ),
    Mutation(
        "metrics: a client that wants no OpenMetrics gets it",
        "ChooseExposition",
        replace_operator(">=", "<", touches="text"),
        "exposition_test",
    ),
    Mutation(
        "exemplars: one at a bucket's bound is in the next bucket",
        "ExemplarSlots::Put",
        replace_call("lower_bound", "std::upper_bound"),
        "exemplars_test",
    ),
    Mutation(
        "exemplars: one without a trace is shown",
        "ExemplarSlots::Put",
        force(True, touches="valid"),
        "exemplars_test",
    ),
    Mutation(
        "exemplars: a series that is gone keeps its own",
        "Exemplars::Remove",
        delete_statement(touches="remove_if"),
        "exemplars_test",
    ),
    Mutation(
        "experts: those that were busy once are shown for ever",
        "ExpertSeries::Baseline",
        force(False, touches="kOfLate"),
        "expert_series_test",
    ),
    Mutation(
        "http: who refuses gzip gets it",
        "AcceptsGzip",
        replace_operator(">", ">=", nth=1),
        "gzip_test",
    ),
    Mutation(
        "http: caches mix up what is compressed and what is not",
        "expertmesh::telemetry::Encode",
        delete_statement(touches="Vary"),
        "http_server_test",
    ),
    Mutation(
        "http: the tag of compressed bytes is that of the text",
        "expertmesh::telemetry::Encode",
        force(False, touches="ETag"),
        "http_server_test",
    ),
    Mutation(
        "http: a handler's header can hold another",
        "expertmesh::telemetry::Write",
        force(True, touches="IsHeaderText", nth=1),
        "http_server_test",
    ),
    Mutation(
        "logs: lines after a trace are of it",
        "LogTrace::~LogTrace",
        delete_statement(touches="current_trace"),
        "telemetry_test",
    ),
    Mutation(
        "logs: a quote ends a text of JSON",
        "JsonString",
        delete_statement(nth=1),
        "telemetry_test",
    ),
)
