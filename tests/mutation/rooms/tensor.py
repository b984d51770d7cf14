"""How numbers are stored: formats of weights, and types of the wire."""

from mutation import Mutation
from operators import (
    choose,
    delete_statement,
    off_by_one,
    replace_constant,
    replace_name,
    replace_operator,
    set_value,
)

FORMATS = (
    Mutation(
        "scales in float16 read as bfloat16",
        "ScaleAt",
        choose(True, touches="FloatFromF16"),
        "decode_matrix_test",
    ),
    Mutation(
        "nibbles swapped",
        "DecodeF4",
        set_value("pairs", "static_cast<uint16_t>((byte >> 4) | (byte & 15u) << 8)"),
        "decode_matrix_test",
    ),
    Mutation(
        "e8m0 off by one",
        "FromE8M0",
        off_by_one("byte", within="bit_cast"),
        "decode_matrix_test",
    ),
    Mutation(
        "MXFP4's 6 is 5",
        "FromF4",
        replace_constant("0xc8643210u", "0xa8643210u"),
        "decode_matrix_test",
    ),
    Mutation(
        "MXFP4 without its sign",
        "FromF4",
        replace_constant("8u", "0u"),
        "decode_matrix_test",
    ),
    Mutation(
        "FP8's smallest numbers too small",
        "FromF8E4M3",
        choose(False, touches="normal"),
        "decode_matrix_test",
    ),
    Mutation(
        "FP8's exponent off by one",
        "FromF8E4M3",
        replace_constant("120u", "121u"),
        "decode_matrix_test",
    ),
    Mutation(
        "scales of the wrong rows",
        "ScaleAt",
        replace_name("block_rows", "block_cols", within="index"),
        "decode_matrix_test",
    ),
    Mutation(
        "scales divide",
        "DecodeF8",
        replace_operator("*", "/", touches="FromF8E4M3"),
        "decode_matrix_test",
    ),
    Mutation(
        "a slice's scales begin with the whole matrix's",
        "ColumnsOf",
        delete_statement(within="col_offset"),
        "decode_tile_test",
    ),
)

OF_THE_WIRE = (
    Mutation(
        "int8: the largest value is not 127",
        "kLargestInteger",
        replace_constant("127.0f", "126.0f"),
        "int8_blocks_test",
    ),
    Mutation(
        "int8: a block with NaN becomes finite",
        "Quantise",
        set_value("finite", "true"),
        "int8_blocks_test",
    ),
    Mutation(
        "int8: rounds towards zero",
        "Quantise",
        replace_name(
            "scaled", "static_cast<float>(static_cast<int32_t>(scaled))", touches="kRounder"
        ),
        "int8_blocks_test",
    ),
    Mutation(
        "f16: what rounds to infinity fits",
        "kBeyondF16",
        replace_constant("0x477ff000", "0x47800000"),
        "compute_response_test",
    ),
)

MUTATIONS = FORMATS + OF_THE_WIRE
