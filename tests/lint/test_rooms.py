import rooms
import pytest

CMAKE = "add_subdirectory(common)\nadd_subdirectory(expert_service)\nadd_subdirectory(router_service)\n"
BASE = "expertmesh_library(base\n  SOURCES clock.cc  # (time)\n  PUBLIC clock.h\n  DEPS absl::time)\n"

HOUSE = {
    "CMakeLists.txt": CMAKE,
    "common/CMakeLists.txt": "add_subdirectory(base)\nadd_subdirectory(wire)\n",
    "common/base/CMakeLists.txt": BASE,
    "common/base/clock.h": '#include "common/base/ticks.h"\n',
    "common/base/clock.cc": '#include "common/base/clock.h"\n',
    "common/base/ticks.h": "",
    "common/wire/CMakeLists.txt": "expertmesh_library(wire SOURCES frame.cc PUBLIC frame.h DEPS x)\n",
    "common/wire/frame.h": '#include "common/base/clock.h"\n#include "absl/time/time.h"\n',
    "common/wire/frame.cc": '#include "common/wire/frame.h"\n',
    "expert_service/CMakeLists.txt": "expertmesh_library(node SOURCES node.cc DEPS x)\n",
    "expert_service/node.h": '#include "common/wire/frame.h"\n',
    "expert_service/node.cc": '#include "expert_service/node.h"\n',
    "router_service/CMakeLists.txt": (
        "expertmesh_library(router SOURCES router.cc PUBLIC router.h)\n"
        "add_subdirectory(serve)\n"
        "expertmesh_binary(expertmesh-router SOURCES main.cc)\n"
    ),
    "router_service/router.h": "",
    "router_service/router.cc": '#include "common/wire/frame.h"\n',
    "router_service/main.cc": '#include "router_service/serve/server.h"\n',
    "router_service/serve/CMakeLists.txt": (
        "expertmesh_library(serve\n  SOURCES server.cc\n  PUBLIC server.h)\n"
    ),
    "router_service/serve/server.h": '#include "router_service/router.h"\n',
    "router_service/serve/server.cc": "",
    "tests/unit/expert_service/node_test.cc": '#include "expert_service/node.h"\n',
}


def found(written, changes):
    house = rooms.House(written(HOUSE | changes))
    return [f"{p.path}:{p.line} {p.text}" for p in sorted(rooms.problems(house))]


def test_a_house_in_order(written):
    assert found(written, {}) == []


@pytest.mark.parametrize("include", ['"common/base/ticks.h"', '"ticks.h"'])
def test_a_room_may_include_its_private_headers(written, include):
    assert found(written, {"common/base/more.cc": f"#include {include}\n"}) == []


def test_a_private_header_from_another_room(written):
    changes = {"router_service/router.cc": '\n#include "common/base/ticks.h"\n'}
    assert found(written, changes) == [
        "router_service/router.cc:2 common/base/ticks.h is private to common/base: use one of its public "
        "headers (clock.h), or add it to PUBLIC in common/base/CMakeLists.txt"
    ]


def test_a_private_header_by_a_relative_path(written):
    (problem,) = found(written, {"common/wire/frame.cc": '#include "../base/ticks.h"\n'})
    assert problem.startswith("common/wire/frame.cc:1 common/base/ticks.h is private to common/base")


def test_parts_of_the_cuda_backend_are_rooms(written):
    changes = {
        "common/CMakeLists.txt": HOUSE["common/CMakeLists.txt"] + "add_subdirectory(cuda)\nadd_subdirectory(module)\n",
        "common/cuda/CMakeLists.txt": "expertmesh_cuda_sources(\n  HOST a.cc KERNELS b.cu\n  PUBLIC a.h)\n",
        "common/cuda/a.h": "",
        "common/cuda/b.h": "",
        "common/cuda/b.cu": '#include "common/cuda/b.h"\n#include "common/base/ticks.h"\n',
        "common/module/CMakeLists.txt": "expertmesh_cuda_library(all DEPS x)\n",
        "common/module/main.cc": '#include "common/cuda/a.h"\n#include "common/cuda/b.h"\n',
    }
    assert [problem.split(" is private")[0] for problem in found(written, changes)] == [
        "common/cuda/b.cu:2 common/base/ticks.h",
        "common/module/main.cc:2 common/cuda/b.h",
    ]


@pytest.mark.parametrize("path", ["tests/unit/common/wire/frame_test.cc", "tests/bench/main.cc"])
def test_a_private_header_from_tests_of_something_else(written, path):
    (problem,) = found(written, {path: '#include "common/base/ticks.h"\n'})
    assert problem.startswith(f"{path}:1 common/base/ticks.h is private to common/base")


def test_tests_mirror_rooms_without_cpp(written):
    changes = {
        "CMakeLists.txt": CMAKE + "add_subdirectory(client/cpp)\n",
        "client/cpp/CMakeLists.txt": "add_subdirectory(decoder)\n",
        "client/cpp/decoder/CMakeLists.txt": "expertmesh_library(decoder SOURCES rope.cc)\n",
        "client/cpp/decoder/rope.h": "",
        "tests/unit/client/decoder/rope_test.cc": '#include "client/cpp/decoder/rope.h"\n',
    }
    assert found(written, changes) == []


def test_a_public_header_that_nothing_needs(written):
    changes = {"common/base/CMakeLists.txt": BASE.replace("clock.h", "clock.h ticks.h gone.h")}
    assert found(written, changes) == [
        "common/base/CMakeLists.txt:1 common/base/gone.h of PUBLIC in base does not exist: take it off the "
        "list",
        "common/base/CMakeLists.txt:1 common/base/ticks.h of PUBLIC in base is included by nothing outside "
        "of the room: take it off the list",
    ]


def test_a_public_header_of_another_room(written):
    changes = {
        "router_service/CMakeLists.txt": HOUSE["router_service/CMakeLists.txt"].replace(
            "PUBLIC router.h", "PUBLIC router.h serve/server.h"
        )
    }
    (problem,) = found(written, changes)
    assert "serve/server.h of PUBLIC in router is of the room router_service/serve" in problem


def test_services_that_include_each_other(written):
    changes = {
        "expert_service/CMakeLists.txt": "expertmesh_library(node SOURCES node.cc PUBLIC node.h)\n",
        "router_service/router.cc": '#include "expert_service/node.h"\n#include "common/wire/frame.h"\n',
    }
    assert found(written, changes) == [
        "router_service/router.cc:1 router_service includes expert_service/node.h, but may include only "
        "common and itself: move what both need to common"
    ]


def test_common_includes_no_service(written):
    changes = {"common/wire/frame.cc": '#include "router_service/router.h"\n'}
    assert any("common includes router_service/router.h" in problem for problem in found(written, changes))


def test_only_tests_include_tests(written):
    changes = {
        "CMakeLists.txt": CMAKE + "add_subdirectory(tests/support)\n",
        "tests/support/CMakeLists.txt": "expertmesh_library(fakes SOURCES fake.cc)\n",
        "tests/support/fake.h": "",
        "tests/unit/common/base/clock_test.cc": '#include "tests/support/fake.h"\n',
    }
    assert found(written, changes) == []
    changes["common/base/clock.cc"] = '#include "tests/support/fake.h"\n'
    (problem,) = found(written, changes)
    assert problem.startswith("common/base/clock.cc:1 common includes tests/support/fake.h")


def test_a_cycle(written):
    changes = {
        "common/base/clock.cc": '#include "common/wire/frame.h"\n',
    }
    assert found(written, changes) == [
        "common/base/clock.cc:1 base includes common/wire/frame.h, but CMake adds wire after base: move "
        "what it needs to a room before both or, if wire does not need base, change their order in "
        "CMakeLists.txt"
    ]


def test_a_cycle_inside_a_service(written):
    changes = {"router_service/router.cc": '#include "router_service/serve/server.h"\n'}
    (problem,) = [p for p in found(written, changes) if "CMake adds" in p]
    assert problem.startswith("router_service/router.cc:1 router includes router_service/serve/server.h")


def test_what_is_suggested_is_accepted(written):
    bare = {
        path: text.replace("PUBLIC clock.h", "").replace("PUBLIC frame.h", "PUBLIC gone.h")
        for path, text in HOUSE.items()
        if path.endswith("CMakeLists.txt")
    }
    bare["router_service/router.cc"] = '#include "common/base/ticks.h"\n'
    tree = written(HOUSE | bare)
    assert rooms.problems(rooms.House(tree))
    rooms.write(rooms.House(tree))
    assert rooms.problems(rooms.House(tree)) == []
    assert (tree / "common/base/CMakeLists.txt").read_text() == BASE.replace(
        "  PUBLIC clock.h\n", "  PUBLIC clock.h ticks.h\n"
    )
    written_once = {path: (tree / path).read_text() for path in bare}
    rooms.write(rooms.House(tree))
    assert {path: (tree / path).read_text() for path in bare} == written_once


def test_suggestions_are_printed(written, capsys):
    rooms.suggest(rooms.House(written(HOUSE)))
    printed = capsys.readouterr().out
    assert "common/base/CMakeLists.txt: expertmesh_library(base\n  PUBLIC clock.h\n" in printed
