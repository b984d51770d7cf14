"""Measures of balance, recordings of routing, and what replays them."""

from mutation import Mutation
from operators import (
    delete_statement,
    force,
    keep_left,
    replace_operator,
    replace_return,
    set_value,
)

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
        replace_operator("<", ">", touches="least_mean"),
        "measures_test",
    ),
    Mutation(
        "measures: logsumexp forgets the largest logit",
        "ScoreAccumulator::AddLogSumExp",
        replace_operator("+", "-", touches="largest"),
        "measures_golden_test",
    ),
    Mutation(
        "measures: second places are of what the first has, too",
        "ScoreAccumulator::AddSecondChoice",
        delete_statement(touches=("values_", "first"), nth=2),
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

SIMULATION = (
    Mutation(
        "simulation: copies count before they are loaded",
        "PlacementRun::Settle",
        force(False, touches=("ready_s", "now_s")),
        "replay_simulation_test",
    ),
    Mutation(
        "simulation: a node loads all copies at once",
        "PlacementRun::Begin",
        replace_operator("+=", "=", touches=("free_at", "load_s")),
        "replay_simulation_test",
    ),
    Mutation(
        "simulation: what was loaded for an ended plan is used",
        "PlacementRun::Fail",
        delete_statement(touches="pending_"),
        "replay_simulation_test",
    ),
    Mutation(
        "simulation: the next plan is made of all loads so far",
        "PolicyRun::Plan",
        set_value("fresh_", "false"),
        "replay_simulation_test",
    ),
    Mutation(
        "simulation: load without a node is not lost",
        "Divide",
        delete_statement(touches="lost"),
        "replay_layer_figures_test",
    ),
    Mutation(
        "simulation: what a failed copy had goes nowhere",
        "Divide",
        keep_left("/", touches="all"),
        "replay_layer_figures_test",
    ),
    Mutation(
        "simulation: a row is sent once for each expert",
        "ComputingOf",
        set_value("rows", "part.assignments * share", touches="expm1"),
        "replay_layer_figures_test",
    ),
    Mutation(
        "simulation: the bias is not told what it changed",
        "LayerRun::CountForBias",
        delete_statement(touches=("window", "changed")),
        "replay_layer_run_test",
    ),
    Mutation(
        "simulation: a bias moves counts alone",
        "LayerRun::Run",
        keep_left("||", touches=("kFrozen", "log_weights")),
        "replay_layer_run_test",
    ),
    Mutation(
        "simulation: experts that move together change tokens",
        "ChangedShare",
        keep_left("-", touches="density_times_bias"),
        "replay_expert_choice_test",
    ),
    Mutation(
        "simulation: drift makes a load flatter or steeper",
        "SyntheticLoad::Move",
        delete_statement(touches=("walk", "kept", "fresh")),
        "replay_synthetic_load_test",
    ),
    Mutation(
        "simulation: any node will do as the slowest",
        "LatencyMixture::ShareWithin",
        replace_operator("*=", "=", touches="erfc"),
        "replay_latency_mixture_test",
    ),
    Mutation(
        "simulation: an older recording of another model is mixed in",
        "RecordedLoad::ReadFile",
        force(False, touches="fingerprint"),
        "replay_recorded_load_test",
    ),
)

FIT = (
    Mutation(
        "fit: an expert is read for each of its tokens",
        "BatchReader::Keep",
        set_value("used_", "false"),
        "replay_service_time_fit_test",
    ),
    Mutation(
        "fit: batches that were held up count like others",
        "FitServiceTimes",
        set_value("weights", "1", touches="kLeastError"),
        "replay_service_time_fit_test",
    ),
    Mutation(
        "fit: the first node stands for the slowest",
        "FactorsOf",
        replace_operator(">=", "<", touches="alone"),
        "replay_service_time_fit_test",
    ),
    Mutation(
        "simulation: nodes never wait for each other's cores",
        "TimesOf",
        force(False, touches=("parallel_nodes", "size")),
        "replay_layer_figures_test",
    ),
)

CAPACITY = (
    Mutation(
        "capacity: room for further copies forgets those that must be there",
        "PlanCapacity",
        keep_left("-", touches=("needed", "nodes")),
        "replay_capacity_plan_test",
    ),
    Mutation(
        "capacity: any number of nodes is fast enough",
        "NodesForSpeed",
        keep_left("&&", touches="target"),
        "replay_capacity_plan_test",
    ),
    Mutation(
        "capacity: biases take no memory",
        "ShapesOf",
        force(False, touches=("options", "bias")),
        "command_packed_bytes_test",
    ),
    Mutation(
        "simulation: the planner is told speeds in another unit than links",
        "PlacementRun::MakeInput",
        keep_left("/", touches=("assignment_us", "mesh_")),
        "replay_simulation_test",
    ),
)

MUTATIONS = MEASURES + RECORD + SIMULATION + FIT + CAPACITY
