"""What is read from checkpoints, and what digests say of it."""

from mutation import Mutation
from operators import (
    choose,
    delete_statement,
    force,
    keep_right,
    replace_argument,
    replace_constant,
    replace_name,
    replace_operator,
)

STORAGE = (
    Mutation(
        "the model's type is that of its gates",
        "ReadStoredDtype",
        replace_argument("FindType", 2, "{NamesOfBlock(*layout, chosen)[1]}", touches="kEmbedding"),
        "moe_checkpoint_test",
    ),
    Mutation(
        "shared experts left out in silence",
        "CheckNothingIgnored",
        force(False, touches="shared_intermediate_size"),
        "moe_checkpoint_test",
    ),
    Mutation(
        "experts left out in silence",
        "CheckNothingIgnored",
        force(False, touches="kPerExpert"),
        "moe_checkpoint_test",
    ),
    Mutation(
        "swiglu_alpha of config.json ignored",
        "Read",
        replace_constant('"swiglu_alpha"', '"swiglu_none"'),
        "family_options_test",
    ),
    Mutation(
        "even and odd rows swapped",
        "RangeOf",
        replace_constant("1", "0", within="kOdd"),
        "storage_test",
    ),
    Mutation(
        "the second half is the first",
        "RangeOf",
        replace_name("outputs", "0", within="kSecondHalf"),
        "storage_test",
    ),
    Mutation(
        "transposed weights read as they lie",
        "TensorFinder::Matrix",
        choose(False, touches="transposed", within="col_stride"),
        "storage_test",
    ),
    Mutation(
        "every expert is the first",
        "TensorFinder::Matrix",
        keep_right("+", touches="expert"),
        "storage_test",
    ),
    Mutation(
        "MXFP4 scales of the row before",
        "TensorFinder::Mxfp4",
        keep_right("*", touches=("step", "blocks")),
        "quantised_test",
    ),
)

DIGESTS = (
    Mutation(
        "digests leave scales out",
        "Digest::Add",
        delete_statement(touches="AddScales"),
        "expert_digest_test",
    ),
    Mutation(
        "digests depend on how a matrix is stored",
        "Digest::Add",
        (
            replace_name("row_stride", "rows", within="adjacent"),
            replace_operator("==", "!=", touches=("row_stride", "BitsOf")),
        ),
        "expert_digest_test",
    ),
    Mutation(
        "kept digests are of any version of the files",
        "DigestCache::Load",
        force(False, touches="identity_"),
        "expert_digest_test",
    ),
)

MUTATIONS = STORAGE + DIGESTS
