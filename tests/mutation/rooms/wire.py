"""Messages: how they are split, copied, converted and checked."""

from mutation import Mutation
from operators import (
    delete_statement,
    drop_last_argument,
    force,
    replace_argument,
    set_value,
)

MUTATIONS = (
    Mutation(
        "wire: any number is a status code",
        "StatusFromPeer",
        set_value("known", "true"),
        "status_test",
    ),
    Mutation(
        "wire: groups are refused",
        "Cursor::SkipValue",
        force(False, touches="kMaxGroups"),
        "message_codec_property_test",
    ),
    Mutation(
        "wire: the last of several tensors counts alone",
        "SplitOff",
        force(True, touches="is_message"),
        "message_codec_property_test",
    ),
    Mutation(
        "wire: several data fields are joined",
        "SplitOff",
        force(False, touches="is_message"),
        "message_codec_property_test",
    ),
    Mutation(
        "wire: a tag may be of any length",
        "Cursor::ReadTag",
        drop_last_argument("ReadVarint"),
        "message_codec_property_test",
    ),
    Mutation(
        "wire: rows are always copied together",
        "SelectRows",
        force(True, touches="kShareFrom"),
        "router_copies_test",
    ),
    Mutation(
        "wire: slices of one owner are all its first one",
        "ShareOwner",
        delete_statement(within="bytes"),
        "byte_buffer_test",
    ),
    Mutation(
        "int8: any number of scales is accepted",
        "CheckScales",
        force(False, touches="expected"),
        "message_codec_test",
    ),
    Mutation(
        "int8: a piece ends a block",
        "BlockConverter::Add",
        set_value("left_of_block_", "size == 0 ? left_of_block_ : count", touches="count"),
        "message_codec_test",
    ),
    Mutation(
        "int8: parts have the scales of the first rows",
        "RowsOf",
        replace_argument("Sub", 1, "0", touches="scales"),
        "tensor_encode_test",
    ),
    Mutation(
        "checksums leave weights out",
        "ChecksumOf",
        delete_statement(touches="expert_weights"),
        "frame_checksum_test",
    ),
)
