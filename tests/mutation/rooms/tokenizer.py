"""Patterns, the reader of JSON objects and ranges: what comes from files and flags."""

from mutation import Mutation
from operators import choose, delete_statement, force, replace_name, replace_operator

MUTATIONS = (
    Mutation(
        "pattern: the stack of one attempt has no limit",
        "Search::Search",
        delete_statement(within="onig_set_match_stack_limit_size_of_match_param"),
        "tokenizer_test",
        "Regex.*",
    ),
    Mutation(
        "pattern: every place is where the search began",
        "Search::Next",
        choose(True, touches="ONIG_OPTION_NOT_BEGIN_POSITION"),
        "tokenizer_test",
        "Regex.*",
    ),
    Mutation(
        "pattern: a plain string is an expression",
        "Regex::Literal",
        replace_name("ONIG_SYNTAX_ASIS", "ONIG_SYNTAX_ONIGURUMA"),
        "tokenizer_test",
        "Regex.*",
    ),
    Mutation(
        "reader: unknown keys pass",
        "JsonReader::Done",
        force(False),
        "json_reader_test",
    ),
    Mutation(
        "reader: inherited keys replace an object's own",
        "JsonReader::ObjectOrEmpty",
        replace_operator("==", "!=", touches=("own", "end")),
        "json_reader_test",
    ),
    Mutation(
        "reader: names for the same thing may contradict",
        "JsonReader::Value",
        replace_operator("!=", "==", touches=("value", "found")),
        "json_reader_test",
    ),
    Mutation(
        "ranges: the limit itself passes",
        "ParseRanges",
        replace_operator(">=", ">", touches=("last", "limit")),
        "ranges_test",
    ),
)
