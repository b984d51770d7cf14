import pytest
import stale_names

HOUSE = {
    "router_service/metrics.cc": 'Counter("expertmesh_router_retried_assignments_total");\n'
    'Histogram("expertmesh_router_queue_duration_seconds");\n',
    "common/base/clock.h": "",
}


def found(written, path, text):
    return [f"{p.line} {p.text.split(':')[0]}" for p in stale_names.problems(written(HOUSE | {path: text}))]


@pytest.mark.parametrize(
    "text",
    [
        "expertmesh_router_retried_assignments_total{code}",
        "`..._retried_assignments_total` counts them",
        "expertmesh_router_queue_duration_seconds_bucket",
        "See common/base/clock.h, common/base and clock.h.",
        "Tests of X/y.h are in tests/unit/X/y_test.cc; common/base/family_NAME.cc; <omp.h>",
        "built by expertmesh_library, into build/release/common/gone.cc and common/*/gone.cc",
    ],
)
def test_names_that_exist(written, text):
    assert found(written, "README.md", text) == []
    assert found(written, "a.cc", f"// {text}\n") == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("expertmesh_router_retries_total counts", "no metric is called expertmesh_router_retries_total"),
        ("`retries_total`", "no metric is called retries_total"),
        ("expertmesh_router_wait_seconds_bucket", "no metric is called expertmesh_router_wait_seconds"),
        ("see common/base/gone.h", "there is no common/base/gone.h"),
        ("(router_service/gate).", "there is no router_service/gate"),
        ("`gone_test.cc`", "no file is called gone_test.cc"),
    ],
)
def test_names_of_what_is_gone(written, text, fault):
    assert found(written, "a.cc", f"int a;\n// Here.\n// {text}\n") == [f"3 {fault}"]
    assert found(written, "a.cc", "") == []
    assert found(written, "a.py", f'def f():\n    """Here\n    {text}\n    """\n') == [f"3 {fault}"]
    assert found(written, "a.py", "") == []
    assert found(written, "README.md", f"# A\n{text}\n") == [f"2 {fault}"]


def test_code_is_not_read(written):
    assert found(written, "a.cc", 'int retries_total = Open("common/base/gone.h");\n') == []
