"""What each operator makes of a piece of C++, and how its place is told from others."""

import pytest

import operators
from operators import (
    call_to_operator,
    choose,
    delete_statement,
    drop_last_argument,
    drop_parentheses,
    drop_unary,
    force,
    keep_left,
    keep_right,
    negate,
    off_by_one,
    operator_to_call,
    replace_argument,
    replace_call,
    replace_condition,
    replace_constant,
    replace_name,
    replace_operator,
    replace_return,
    replace_statement,
    set_value,
    swap_arguments,
    swap_branches,
    swap_loops,
    unwrap,
)
from source import Source


def places(body, operator):
    text = f"void F() {{ {body} }}".encode()
    source = Source(None, text)
    (symbol,) = source.symbols
    return text, operator.places(symbol.node)


def changed(body, operator):
    text, (place,) = places(body, operator)
    after = operators.applied(text, operator.edits(place, text)).decode()
    return after.removeprefix("void F() { ").removesuffix(" }")


@pytest.mark.parametrize(
    ("operator", "before", "after"),
    [
        (replace_operator("/", "*"), "x = a / b;", "x = a * b;"),
        (replace_operator("+=", "-="), "x += a;", "x -= a;"),
        (replace_operator("<", "<="), "while (a < b) {}", "while (a <= b) {}"),
        (keep_left("-"), "x = a - (b + c);", "x = a;"),
        (keep_right("||"), "x = a || b && c;", "x = b && c;"),
        (drop_unary("-"), "x = -a;", "x = a;"),
        (drop_parentheses(), "x = a * (b + c);", "x = a * b + c;"),
        (force(True), "if (a == b) {}", "if (true) {}"),
        (force(False), "while (a) {}", "while (false) {}"),
        (force(False), "for (; a;) {}", "for (; false;) {}"),
        (force(True), "x = a ? b : c;", "x = true ? b : c;"),
        (force(False), "f(a > 0);", "f(false);"),
        (force(False, touches="b"), "return a && !b;", "return a && false;"),
        (force(True, touches=("a", "b")), "if (c || (a && b)) {}", "if (c || (true)) {}"),
        (force(False, evaluated=True), "if (!f(a)) {}", "if ((!f(a), false)) {}"),
        (replace_condition("n > 1"), "if (a == b) {}", "if (n > 1) {}"),
        (negate(), "if (!a) {}", "if (a) {}"),
        (negate(), "if (a) {}", "if (!a) {}"),
        (negate(), "if (a < b) {}", "if (!(a < b)) {}"),
        (choose(True), "x = c ? a : b;", "x = a;"),
        (choose(False), "x = c ? a : b;", "x = b;"),
        (swap_branches(), "x = c ? a.y : b;", "x = c ? b : a.y;"),
        (delete_statement(), "f(x);", ""),
        (delete_statement(), "if (a) f(x);", "if (a) ;"),
        (delete_statement(touches="b"), "a = 1; b = 2;", "a = 1; "),
        (replace_statement("g();"), "f(x);", "g();"),
        (replace_return("0"), "return a + b;", "return 0;"),
        (
            swap_loops("i", "j"),
            "for (int i = 0; i < n; ++i) { for (int j = 1; j < m; ++j) { f(i, j); } }",
            "for (int j = 1; j < m; ++j) { for (int i = 0; i < n; ++i) { f(i, j); } }",
        ),
        (replace_call("min", "std::max"), "x = std::min(a, b);", "x = std::max(a, b);"),
        (replace_call("push_back", "Drop"), "v->push_back(a);", "Drop(a);"),
        (replace_call("cast", "f"), "x = std::cast<T>(a);", "x = f(a);"),
        (unwrap("sqrt"), "x = std::sqrt(a);", "x = a;"),
        (unwrap("sqrt"), "x = 2 * std::sqrt(a + b);", "x = 2 * (a + b);"),
        (call_to_operator("max", "+"), "x = std::max(a, b - c);", "x = a + (b - c);"),
        (operator_to_call("+", "std::max"), "x = a + b.c;", "x = std::max(a, b.c);"),
        (replace_argument("f", 2, "0"), "f(a, /*why=*/b, c);", "f(a, /*why=*/0, c);"),
        (drop_last_argument("f"), "f(a, b);", "f(a);"),
        (drop_last_argument("f"), "f(a);", "f();"),
        (swap_arguments("f", 1, 3), "f(a, b, c[0]);", "f(c[0], b, a);"),
        (replace_constant("7u", "8u"), "x = a & 7u;", "x = a & 8u;"),
        (replace_constant('"a"', '"b"'), 'f({"a"});', 'f({"b"});'),
        (replace_name("a", "b"), "x = y.a[i];", "x = y.b[i];"),
        (
            replace_name("a", "0", touches="b"),
            "int a = 1; f(a); g(a + b);",
            "int a = 1; f(a); g(0 + b);",
        ),
        (off_by_one("a"), "x = y->a[i] % n;", "x = (y->a[i] + 1) % n;"),
        (off_by_one("i"), "x = a[i];", "x = a[(i + 1)];"),
        (off_by_one("a"), "x = uint32_t{a} << 2;", "x = (uint32_t{a} + 1) << 2;"),
        (set_value("a", "true"), "const bool a = b || c;", "const bool a = true;"),
        (set_value("a", "1.0f"), "x.a[i] *= b;", "x.a[i] *= 1.0f;"),
        (
            set_value("a", "0"),
            "ASSIGN_OR_RETURN(const int a, f(b, c));",
            "ASSIGN_OR_RETURN(const int a, 0);",
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, operators.Operator) else "",
)
def test_changes(operator, before, after):
    assert changed(before, operator) == after


def texts(body, operator):
    return [node.text.decode() for node in places(body, operator)[1]]


def test_of_places_inside_each_other_the_innermost_counts():
    assert texts("x = (a + b) + c;", keep_left("+", touches="a")) == ["a + b"]
    assert texts("x = (a + b) + c;", keep_left("+", touches=("a", "c"))) == ["(a + b) + c"]


def test_nth_counts_in_the_order_of_the_text_outer_ones_first():
    body = "x = -log(-log(u)); y = -u;"
    found = [texts(body, drop_unary("-", nth=number)) for number in (1, 2, 3, 4)]
    assert found == [["-log(-log(u))"], ["-log(u)"], ["-u"], []]


def test_all_that_fit_are_places():
    assert texts("if (a) { f(1); } while (b) { f(2); }", force(True)) == ["a", "b"]


@pytest.mark.parametrize(
    ("within", "found"),
    [
        ("f", ["1"]),
        ("x", ["2"]),
        ("y", ["3"]),
        ("kB", ["4"]),
        ("z", []),
    ],
)
def test_within_a_call_an_assignment_a_declaration_or_a_case(within, found):
    body = """
      g.f<int>(h(1)); p->x[0] += 2; const int y = 3;
      switch (a) { case K::kA: return; case K::kB: return 4; }
    """
    numbers = [replace_constant(str(number), "9", within=within) for number in (1, 2, 3, 4)]
    assert sum((texts(body, operator) for operator in numbers), []) == found


def test_words_of_a_word_are_those_of_the_expression_around_its_value():
    body = "f(s.n[i] + a, s.n[i] + b);"
    assert len(texts(body, replace_name("n", "m"))) == 2
    assert len(texts(body, replace_name("n", "m", touches="b"))) == 1
    assert texts(body, replace_name("n", "m", touches="c")) == []


def test_names_in_comments_and_texts_are_no_places():
    assert texts('f("a");  // a + b\n', replace_name("a", "b")) == []
    assert texts("f(1);  // a + b\n", keep_left("+")) == []


def test_an_unknown_way_to_name_a_place_is_refused():
    with pytest.raises(TypeError, match="touching; known"):
        force(True, touching="a")


def test_an_operator_shows_how_it_is_written():
    assert str(force(True, touches="a", nth=2)) == "force(True, touches='a', nth=2)"


def test_overlap():
    edit = operators.Edit
    assert operators.overlap([edit(5, 9, ""), edit(0, 6, "")])
    assert not operators.overlap([edit(5, 9, ""), edit(0, 5, "")])
