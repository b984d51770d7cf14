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
        "retry: a move that may have begun is asked for again",
        "RetryingCall::OnAnswer",
        force(False, touches="kNotTheSame"),
        "client_placement_test",
    ),
    Mutation(
        "retry: a move that the router did not begin is not asked for again",
        "RetryingCall::OnAnswer",
        force(True, touches="IsLostCall", nth=2),
        "client_placement_test",
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
        "WireMillis",
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
        "placement: a watch takes a falling speed for news",
        "ClearAges",
        delete_statement(within="clear_bytes_per_second"),
        "client_placement_test",
    ),
    Mutation(
        "placement: a policy that is not given becomes manual",
        "ToProto",
        force(True, touches="automatic"),
        "client_placement_test",
    ),
    Mutation(
        "placement: an abort moves to what the planner says",
        "Client::AbortPlacement",
        delete_statement(within="set_abort"),
        "client_placement_test",
    ),
    Mutation(
        "layer file: a number beyond 32 bits is taken",
        "ReadFloats",
        force(False, touches="isfinite"),
        "command_bias_file_test",
    ),
    Mutation(
        "layer file: a layer may come twice",
        "ReadLayers",
        force(False, touches="back"),
        "command_bias_file_test",
    ),
    Mutation(
        "plan file: a plan for another model is taken",
        "ReadPlan",
        force(False, touches="read_outline"),
        "command_plan_file_test",
    ),
    Mutation(
        "plan file: a node may hold an expert twice",
        "CheckCopies",
        force(False, touches=("number", "0")),
        "command_plan_file_test",
    ),
    Mutation(
        "plan file: copies may be on nodes that are not there",
        "CheckNodes",
        force(False, touches=("node", "size")),
        "command_plan_file_test",
    ),
    Mutation(
        "move: the end of the one before is taken for its own",
        "Counted",
        force(True, touches=("before", "phase")),
        "command_move_end_test",
    ),
    Mutation(
        "move: a router that forgot it is waited for",
        "MoveEnd::After",
        force(False, touches="phase"),
        "command_move_end_test",
    ),
    Mutation(
        "move: why it was undone is forgotten when a repair begins",
        "MoveEnd::After",
        force(True, touches="last_error"),
        "command_move_end_test",
    ),
)
