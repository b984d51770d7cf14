"""Measures of balance, recordings of routing, and what replays them."""

from mutation import Mutation
from operators import delete_statement, force, keep_left, replace_operator, replace_return

MEASURES = (
    Mutation(
        "measures: MaxVio is the largest load, not what it has above the mean",
        "MaxViolation",
        keep_left("-", touches="mean"),
        "measures_test",
    ),
    Mutation(
        "measures: batches without assignments count",
        "MaxViolationMeter::Add",
        force(False, touches=("sum", "0")),
        "measures_test",
    ),
    Mutation(
        "measures: the fewest tokens make an expert dead",
        "FindCollapse",
        replace_operator(">=", "<=", touches="dead_mean"),
        "measures_test",
    ),
    Mutation(
        "measures: logsumexp forgets the largest logit",
        "ScoreAccumulator::AddLogSumExp",
        replace_operator("+", "-", touches="largest"),
        "measures_golden_test",
    ),
    Mutation(
        "measures: an expert's own noise is what it has to beat",
        "NoisyTopKLoad",
        replace_operator(">", "<", touches="sorted"),
        "measures_golden_test",
    ),
    Mutation(
        "measures: conventions of Switch's f are swapped",
        "SwitchLoss",
        replace_operator("==", "!=", touches="kPerSlot"),
        "measures_golden_test",
    ),
)

RECORD = (
    Mutation(
        "recording: what a batch says is believed unchecked",
        "DecodeBlock",
        force(False, touches=("Checksum", "body")),
        "routing_record_test",
    ),
    Mutation(
        "recording: the size of a batch is believed unchecked",
        "DecodeBlockPrefix",
        force(False, touches="PrefixCheck"),
        "routing_record_test",
    ),
    Mutation(
        "recording: a slot without expert is expert 0 of 256",
        "EncodeBlock",
        replace_operator("==", "!=", touches="256"),
        "routing_record_test",
    ),
    Mutation(
        "recording: half a batch stays after a write that failed",
        "RoutingRecordWriter::Write",
        delete_statement(touches="ftruncate"),
        "routing_record_test",
    ),
    Mutation(
        "recording: any file is replaced",
        "CheckReplaceable",
        force(False, touches="IsInvalidArgument"),
        "routing_record_test",
    ),
    Mutation(
        "recording: a file without a batch takes the older one's place",
        "HasBatch",
        replace_return("true"),
        "routing_record_test",
    ),
    Mutation(
        "recording: never turned over",
        "RoutingRecordWriter::Add",
        force(False, touches=("size_", "most")),
        "routing_record_test",
    ),
)

MUTATIONS = MEASURES + RECORD
