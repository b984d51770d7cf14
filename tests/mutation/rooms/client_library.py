"""The C++ client: what is sent again, when, and that each request is answered once."""

from mutation import Mutation
from operators import delete_statement, force, unwrap

MUTATIONS = (
    Mutation(
        "retry: any error without a reason is tried again",
        "PauseAfter",
        force(True, touches="IsLostCall"),
        "client_retry_test",
    ),
    Mutation(
        "retry: retries cost nothing",
        "RetryPolicy::Spend",
        delete_statement(within="budget_"),
        "client_retry_test",
    ),
    Mutation(
        "retry: what waits is forgotten when the client goes",
        "RetryTimers::Close",
        delete_statement(within="resume"),
        "client_retry_test",
    ),
    Mutation(
        "stream: the next call sends nothing again",
        "StreamRequests::Open",
        delete_statement(within="push_back"),
        "client_retry_test",
    ),
    Mutation(
        "stream: a request may be sent without end",
        "StreamRequests::JudgeEnd",
        force(False, touches="max_attempts"),
        "client_retry_test",
    ),
    Mutation(
        "stream: heartbeats come though something was sent, and only then",
        "StreamRequests::Beat",
        force(False, touches="sent_something_"),
        "client_retry_test",
    ),
    Mutation(
        "watch: that time passes is news",
        "ClearAges",
        delete_statement(within="clear_since_tick_ms"),
        "client_balance_test",
    ),
    Mutation(
        "watch: the age of a report is news",
        "ClearAges",
        delete_statement(within="clear_age_ms"),
        "client_balance_test",
    ),
    Mutation(
        "watch: what was told is told again",
        "Watch",
        force(False, touches="bytes"),
        "client_balance_test",
    ),
    Mutation(
        "load: a window below a millisecond is taken for none",
        "WindowMillis",
        unwrap("Ceil"),
        "client_balance_test",
    ),
    Mutation(
        "balance: a budget that is not given becomes 0",
        "ToProto",
        force(True, touches="quality_budget"),
        "client_balance_test",
    ),
    Mutation(
        "bias file: a number beyond 32 bits is taken",
        "ReadLayer",
        force(False, touches="isfinite"),
        "command_bias_file_test",
    ),
    Mutation(
        "bias file: a layer may come twice",
        "Read",
        force(False, touches="back"),
        "command_bias_file_test",
    ),
)
