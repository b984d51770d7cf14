import pytest
import sizes


def found(tree):
    return [f"{p.path}:{p.line} {p.text.split(',')[0]}" for p in sizes.problems(tree)]


def lines(count, line="x();"):
    return f"{line}\n" * count


def test_files_of_400_lines_pass_and_longer_ones_fail(written):
    tree = written(
        {
            "common/base/fits.h": lines(400, "//"),
            "client/cpp/long.cc": lines(401, "//"),
            "client/python/long.py": lines(401, "#"),
            "tests/unit/long.cc": lines(401, "//"),
        }
    )
    assert found(tree) == [
        "client/cpp/long.cc:401 the file has 401 lines",
        "client/python/long.py:401 the file has 401 lines",
    ]


@pytest.mark.parametrize(
    ("signature", "name"),
    [
        ("void Run() {\n", "Run"),
        ("absl::Status Router::Run(const Job& job) const {\n", "Router::Run"),
        ("const Node* Router::Find() ABSL_LOCKS_EXCLUDED(mutex_) {\n", "Router::Find"),
        ("Router::Router() : a_(1) {\n", "Router::Router"),
        ("bool operator==(const A& a, const A& b) {\n", "operator=="),
    ],
)
def test_functions_of_60_lines_pass_and_longer_ones_fail(written, signature, name):
    fits = f"namespace a {{\n{signature}{lines(58)}}}\n}}\n"
    long = f"namespace a {{\n{signature}{lines(59)}}}\n}}\n"
    tree = written({"router_service/fits.cc": fits, "router_service/long.cc": long})
    assert found(tree) == [f"router_service/long.cc:2 the function {name} has 61 lines"]


def test_lines_of_a_signature_count(written):
    code = f"void Run(int a,\n         int b) {{\n{lines(58)}}}\n"
    assert found(written({"common/a.cc": code})) == ["common/a.cc:1 the function Run has 61 lines"]


def test_kernels_count(written):
    kernel = "template <bool kUp>\n__global__ void __launch_bounds__(kThreads) Add(P p) {\n"
    code = f"namespace a {{\n{kernel}  __shared__ __align__(16) float x[8];\n{lines(58)}}}\n}}\n"
    assert found(written({"common/a.cu": code})) == ["common/a.cu:3 the function Add has 61 lines"]


def test_methods_in_classes_and_templates(written):
    code = f"template <typename T>\nclass A {{\n  T Run() {{\n{lines(59)}  }}\n}};\n"
    assert found(written({"common/a.h": code})) == ["common/a.h:3 the function Run has 61 lines"]


def test_functions_in_python_count_without_their_docstrings(written):
    docstring = f'    """Says.\n{lines(9, "    more")}    """\n'
    fits = f"def run():\n{docstring}{lines(59, '    x()')}"
    long = f"async def run():\n{docstring}{lines(60, '    x()')}"
    tree = written({"deploy/fits.py": fits, "deploy/long.py": long})
    assert [problem.split(" ", 1)[1] for problem in found(tree)] == ["the function run has 61 lines"]


def test_code_that_cannot_be_read_is_said(written):
    (problem,) = sizes.problems(written({"common/a.cc": "STRANGE(struct) Foo {{;\n"}))[:1]
    assert "name its macro in MACROS" in problem.text
