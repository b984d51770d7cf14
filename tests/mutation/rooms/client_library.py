"""The C++ client: what is sent again, when, and that each request is answered once."""

from mutation import Mutation
from operators import delete_statement, force, replace_return, set_value

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
)
