"""Products of matrices: panels of vectors, and tiles."""

from mutation import Mutation
from operators import force, keep_left, replace_argument, replace_call

MUTATIONS = (
    Mutation(
        "a second tile of rows shares the first one's sums",
        "MultiplyMany",
        replace_argument("_tile_dpbf16ps", 2, "4", touches=("2", "5", "6")),
        "tile_product_test",
        isa="amx",
    ),
    Mutation(
        "both halves of a strip are multiplied by the first",
        "TileProduct::Run",
        keep_left("+", touches="kTileBytes", within="MultiplyMany"),
        "tile_product_test",
        isa="amx",
    ),
    Mutation(
        "a later run of panels replaces the earlier ones",
        "Finish",
        force(False, touches="first"),
        "panel_product_test",
    ),
    Mutation(
        "a further run of a longer sum replaces the earlier ones",
        "RunPanels",
        keep_left("&&", touches=("k", "add")),
        "panel_product_test",
        isa_at_most="avx512",
    ),
    Mutation(
        "each widened run of bf16 panels replaces the earlier ones",
        "RunManyRows",
        force(False, touches=("k", "0")),
        "panel_product_test",
        isa_at_most="avx512",
    ),
    Mutation(
        "both of a pair of widened bf16 weights are the first one",
        "WidenKernel::Tile",
        replace_call("SecondOf", "FirstOf"),
        "panel_product_test",
        isa_at_most="avx512",
    ),
    Mutation(
        "a later run of bf16 panels replaces the earlier ones",
        "DotKernel::Tile",
        force(True, touches="first"),
        "panel_product_test",
        isa="avx512_bf16",
    ),
)
