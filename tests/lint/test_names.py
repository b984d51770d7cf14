import names
import pytest


def found(tree):
    return [f"{p.path}:{p.line} {p.text.split(';')[0]}" for p in names.problems(tree)]


def within(code):
    return f"namespace mesh {{\n{code}\n}}  // namespace mesh\n"


def test_a_type_defined_in_two_headers(written):
    tree = written(
        {
            "common/experts/plan.h": within("struct BatchPlan { int rows = 0; };"),
            "router/planner.h": within("\nclass BatchPlan {\n public:\n  void Clear();\n};"),
        }
    )
    assert found(tree) == [
        "router/planner.h:3 class mesh::BatchPlan is also defined at common/experts/plan.h:2"
    ]


@pytest.mark.parametrize(
    ("first", "second", "name"),
    [
        ("struct Foo { int a; };", "struct Foo { int a; };", "struct mesh::Foo"),
        ("enum class Foo { kA };", "using Foo = int;", "alias mesh::Foo"),
        ("typedef int Foo;", "union Foo { int a; };", "union mesh::Foo"),
        ("class Foo : public Bar { int a; };", "template <class T>\nstruct Foo {};", "struct mesh::Foo"),
        ("struct Client::Impl { int a; };", "struct Client::Impl { int b; };", "struct mesh::Client::Impl"),
        ("struct Foo { int a; } foo;", "struct Foo { int b; };", "struct mesh::Foo"),
        (
            "class ABSL_LOCKABLE Foo { int a ABSL_GUARDED_BY(mutex_) = 0; };",
            "struct Foo {};",
            "struct mesh::Foo",
        ),
    ],
)
def test_types_of_one_name_in_two_sources(written, first, second, name):
    tree = written({"a.cc": within(first), "b.cc": within(second)})
    assert [problem.split(" is also")[0].split(" ", 1)[1] for problem in found(tree)] == [name]


@pytest.mark.parametrize(
    "code",
    [
        "inline int Twice(int x) { return 2 * x; }",
        "constexpr int Twice(int x) { return 2 * x; }",
        "template <typename T>\nT Twice(T x) { return x + x; }",
        "inline constexpr int kTwo = 2;",
        "template <typename T>\nconstexpr T kTwo = 2;",
        "const std::string* Twice(const Foo<int>& x, int = 2) {\n  RETURN_IF_ERROR(x);\n  return 0;\n}",
    ],
)
def test_functions_and_variables_of_one_name(written, code):
    assert len(found(written({"a.h": within(code), "b.h": within(code)}))) == 1


def test_names_of_parameters_do_not_make_two_functions(written):
    tree = written(
        {
            "a.h": within("inline int Twice(const Foo & x, int* y = nullptr) { return 0; }"),
            "b.h": within("inline int Twice(const Foo& value,\n    int *) { return 1; }"),
        }
    )
    assert len(found(tree)) == 1


@pytest.mark.parametrize(
    ("first", "second"),
    [
        # Two rooms.
        ("namespace gate { struct Foo {}; }", "namespace plan { struct Foo {}; }"),
        # Private to a file.
        ("namespace { struct Foo {}; }", "namespace { struct Foo {}; }"),
        ("namespace { struct Foo {}; }", "struct Foo {};"),
        ("static int Twice(int x) { return x; }", "static int Twice(int x) { return x; }"),
        ("constexpr int kTwo = 2;", "constexpr int kTwo = 3;"),
        # Not a definition.
        ("struct Foo;", "struct Foo {};"),
        ("enum class Foo : int;", "enum class Foo : int { kA };"),
        ("int Twice(int x);", "int Twice(int x) { return x; }"),
        # Overloads and specialisations.
        ("inline int Twice(int x) { return x; }", "inline int Twice(long x) { return x; }"),
        ("template <typename T>\nstruct Foo {};", "template <>\nstruct Foo<int> {};"),
        ("template <typename T>\nvoid F(int x) {}", "template <int kT>\nvoid F(int x) {}"),
        ("int A::F() { return 1; }", "int A::F() const { return 1; }"),
        # Of another class, or of a function.
        ("struct Foo { struct Inner {}; };", "struct Bar { struct Inner {}; };"),
        ("void F() { struct Foo {}; }", "void G() { struct Foo {}; }"),
    ],
)
def test_these_are_different_things(written, first, second):
    assert found(written({"a.cc": within(first), "b.cc": within(second)})) == []


def test_each_program_has_a_main(written):
    main = "int main(int argc, char** argv) { return 0; }\n"
    assert found(written({"a.cc": main, "b.cc": main})) == []


def test_nothing_is_lost_behind_macros_and_directives(written):
    code = """\
#define EXPERTMESH_INLINE \\
  inline __attribute__((always_inline))
EXPERTMESH_INLINE void Store(float* __restrict to, const Options& options = {}) {
  ASSIGN_OR_RETURN(const Foo foo, Open(") {", EXPERTMESH_SIZE(2)));
}
ABSL_FLAG(int, size, EXPERTMESH_SIZE(2), ")");
#if defined(X)
using Method = void (Owner::*)(bool);
#endif
const char* const kText = "EXPERTMESH_TEXT(";  // Not a macro: EXPERTMESH_COMMENT(
struct Foo {};
"""
    tree = written({"a.h": within(code), "b.h": within("\nstruct Foo {};")})
    assert found(tree) == ["b.h:3 struct mesh::Foo is also defined at a.h:12"]


def test_strange_code_in_a_function_hides_nothing(written):
    code = "void F() {\n  STRANGE(struct Bar, const Foo& x = y;\n}\nstruct Foo {};"
    tree = written({"a.h": within(code), "b.h": within("struct Foo {};")})
    assert found(tree) == ["b.h:2 struct mesh::Foo is also defined at a.h:5"]


def test_what_cannot_be_read_is_said(written):
    problems = names.problems(written({"a.h": within("STRANGE(struct) Foo {{;")}))
    assert problems and "name its macro in MACROS of tests/lint/cpp.py" in problems[0].text
