"""Traces: which are kept, what their spans say of one another, and what becomes of them on the way to a collector."""

from mutation import Mutation
from operators import (
    choose,
    delete_statement,
    force,
    replace_constant,
    replace_name,
    replace_operator,
    unwrap,
)

_SAMPLING = (
    Mutation(
        "traces: the whole low word decides about sampling",
        "RatioSampler::Keeps",
        replace_name("kRandomBits", "~uint64_t{0}"),
        "sampling_test",
    ),
    Mutation(
        "traces: a ratio of 0 keeps the highest id",
        "RatioSampler::RatioSampler",
        replace_constant("56", "55", touches="uint64_t"),
        "sampling_test",
    ),
    Mutation(
        "traces: what a parent says of sampling is not heeded",
        "Tracer::Begin",
        force(False, touches="parent_based"),
        "tracer_test",
    ),
    Mutation(
        "traces: what is not sampled tells a threshold",
        "Tracer::Begin",
        force(True, touches=("keeps", "parent")),
        "tracer_test",
    ),
    Mutation(
        "traces: a key may come twice in tracestate",
        "IsValidTracestate",
        force(False, touches=("find", "keys")),
        "trace_context_test",
    ),
    Mutation(
        "traces: version ff of traceparent is read",
        "ParseTraceparent",
        force(False, touches="0xff"),
        "trace_context_test",
    ),
)

_KEEPING = (
    Mutation(
        "keep: a retry is not worth keeping",
        "expertmesh::tracing::KeepFor",
        force(False, touches="retried"),
        "keep_policy_test",
    ),
    Mutation(
        "keep: as slow as allowed is too slow",
        "expertmesh::tracing::KeepFor",
        replace_operator(">", ">=", touches="slow"),
        "keep_policy_test",
    ),
    Mutation(
        "keep: an hour of rest allows an hour's burst",
        "KeepLimit::Take",
        unwrap("min", within="left_"),
        "keep_policy_test",
    ),
    Mutation(
        "keep: a batch is kept in part",
        "TraceStage::Decide",
        delete_statement(touches="kOfBatch"),
        "router_trace_test",
    ),
    Mutation(
        "keep: late ones have no limit",
        "TraceStage::Decide",
        force(True, touches="AllowsLate"),
        "router_trace_test",
    ),
    Mutation(
        "keep: the quickest is kept instead of the slowest",
        "TraceStore::DropOldest",
        replace_operator("<=", ">=", touches="longest"),
        "trace_store_test",
    ),
    Mutation(
        "keep: a forgotten trace is still found",
        "TraceStore::Forget",
        delete_statement(touches="remove"),
        "trace_store_test",
    ),
    Mutation(
        "log: a caller's mistake is the router's",
        "RequestLog::Add",
        force(False, touches="IsServersFault"),
        "request_log_test",
    ),
    Mutation(
        "log: lines of requests come without their trace",
        "RequestLog::Add",
        replace_name("span", "parent"),
        "request_log_test",
    ),
)

_SPANS = (
    Mutation(
        "spans: a batch hangs below a request instead of linking to it",
        "SpanMaker::Batch",
        replace_constant("0", "first.span.span_id", within="span"),
        "router_trace_test",
    ),
    Mutation(
        "spans: calls hang below the request, past its dispatch",
        "SpanMaker::AddCall",
        replace_name("dispatch", "span.span_id", touches="request"),
        "router_trace_test",
    ),
    Mutation(
        "spans: a request does not know its batch",
        "SpanMaker::AddDispatch",
        delete_statement(touches="Link"),
        "router_trace_test",
    ),
    Mutation(
        "spans: links that are left out are not counted",
        "SpanMaker::Batch",
        delete_statement(touches="DroppedLinks"),
        "router_trace_test",
    ),
    Mutation(
        "spans: every call has spans of its node",
        "SpanMaker::AddCall",
        force(True, touches="kOk", nth=2),
        "router_trace_test",
    ),
    Mutation(
        "spans: a caller's error is the router's",
        "IsServersFault",
        replace_constant("false", "true"),
        "router_trace_test",
    ),
)

_EXPORT = (
    Mutation(
        "export: a full collector without a delay is asked again",
        "RetryDelayOf",
        force(False, touches="kRetryInfo"),
        "retry_test",
    ),
    Mutation(
        "export: a collector may hold spans up for hours",
        "RetryDelayOf",
        unwrap("clamp"),
        "retry_test",
    ),
    Mutation(
        "export: pauses do not grow",
        "Backoff::Next",
        delete_statement(within="next_"),
        "retry_test",
    ),
    Mutation(
        "export: the collector's delay is not heeded",
        "OtlpExporter::Settle",
        replace_name("max", "min", touches="delay"),
        "otlp_exporter_retry_test",
    ),
    Mutation(
        "export: what is refused counts as tried too often",
        "OtlpExporter::Settle",
        choose(True),
        "otlp_exporter_retry_test",
    ),
    Mutation(
        "export: spans that a collector rejects count as exported",
        "OtlpExporter::OnAnswer",
        replace_operator("-", "+", touches="rejected", nth=1),
        "otlp_exporter_retry_test",
    ),
    Mutation(
        "export: more can be rejected than were sent",
        "OtlpExporter::OnAnswer",
        unwrap("min"),
        "otlp_exporter_retry_test",
    ),
    Mutation(
        "export: drops of a full queue count as something else",
        "OtlpExporter::Add",
        replace_name("kQueueFull", "kMalformed", nth=2),
        "otlp_exporter_test",
    ),
    Mutation(
        "export: a request has one span less than it may",
        "SpanQueue::TakeBatch",
        replace_operator(">", ">=", touches="batch_spans_"),
        "span_queue_test",
    ),
    Mutation(
        "export: what is too large goes along",
        "CutSpans",
        force(False, touches=("size", "most_bytes"), nth=3),
        "span_cut_test",
    ),
)

MUTATIONS = _SAMPLING + _KEEPING + _SPANS + _EXPORT
