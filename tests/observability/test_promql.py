import promql
import pytest


def test_what_an_expression_names():
    read = promql.read('histogram_quantile(0.9, sum by (le, node) (rate(a_bucket{x="}", y=~"b"}[5m]))) > 0.1 or c')
    assert [(s.name, set(s.labels), s.within) for s in read.selectors] == [
        ("a_bucket", {"x", "y"}, ("histogram_quantile", "sum", "rate")),
        ("c", set(), ()),
    ]
    assert read.grouped == {"le", "node"}
    assert read.functions == {"histogram_quantile", "sum", "rate"}
    assert read.ranges == ["[5m]"]


@pytest.mark.parametrize(
    ("text", "names", "grouped"),
    [
        ("sum(a) by (x) / on (y) group_left (z) b:c:d", ["a", "b:c:d"], {"x", "y", "z"}),
        ("a unless a offset 10m and on () vector(1)", ["a", "a"], set()),
        ('{__name__="a"}', [""], set()),
        ("0 * a - 1e-3 + topk(3, b)", ["a", "b"], set()),
    ],
)
def test_names_and_groups(text, names, grouped):
    read = promql.read(text)
    assert [selector.name for selector in read.selectors] == names
    assert read.grouped == grouped


def test_comparisons_are_left_out():
    assert promql.without_comparisons("a > 0.1 and on (x) sum(b) >= 3") == "a and on (x) sum(b)"
    assert promql.without_comparisons("a == bool 2 / b < 5m") == "a / b < 5m"


def test_what_is_no_promql():
    with pytest.raises(AssertionError, match="no PromQL"):
        promql.read("a ? b")
