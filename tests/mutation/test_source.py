"""Definitions are found by the end of their qualified names, wherever they are."""

import pytest

from source import Source, Tree, without_macros

HEADER = b"""
#define SOME_INLINE inline __attribute__((always_inline))
namespace outer::room {
template <typename T>
class Queue {
 public:
  T Pop() { return T(); }
  void Push(T value);
  bool operator==(const Queue& other) const { return true; }
  ~Queue() { Close(); }

 private:
  struct Entry {
    int Size() const { return 1; }
  };
  struct { int Depth() { return 2; } } most_ ABSL_GUARDED_BY(mutex_) = {};
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};
template <typename T>
SOME_INLINE float Load(const T* from) { return *from; }
}  // namespace outer::room
"""

SOURCE = b"""
namespace outer {
namespace {
constexpr float kLimit = 1.0f, *kNothing = nullptr;
const char* const kText = "namespace nowhere { void Pop() {} }";
SOME_KERNELS(Generic, )
#if defined(__x86_64__)
uint8_t* Choose(int a) { return nullptr; }
#else
uint8_t* Choose(int a) { return nullptr; }
int Alternative() { return 0; }
#endif
}  // namespace
namespace other {
absl::Status Queue::Pop(int a) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
  ASSIGN_OR_RETURN(const std::vector<int> rows, Read({a, 2}, "x, )"));
  RETURN_IF_ERROR(Check(rows));
  return absl::OkStatus();
}
template <>
void Queue::Kernel<float, 4>::Tile() {}
}  // namespace other
}  // namespace outer
"""


@pytest.fixture(name="tree")
def fixture_tree(tmp_path):
    (tmp_path / "room" / "deep").mkdir(parents=True)
    (tmp_path / "room" / "queue.h").write_bytes(HEADER)
    (tmp_path / "room" / "deep" / "queue.cc").write_bytes(SOURCE)
    for elsewhere in ("build", "tests", ".hidden"):
        (tmp_path / elsewhere).mkdir()
        (tmp_path / elsewhere / "queue.cc").write_bytes(SOURCE)
    return Tree(tmp_path)


def found(tree, symbol):
    return sorted((definition.path.name, str(definition)) for definition in tree.find(symbol))


@pytest.mark.parametrize(
    ("symbol", "definitions"),
    [
        (
            "Pop",
            [("queue.cc", "outer::other::Queue::Pop"), ("queue.h", "outer::room::Queue::Pop")],
        ),
        ("room::Queue::Pop", [("queue.h", "outer::room::Queue::Pop")]),
        ("other::Queue::Pop", [("queue.cc", "outer::other::Queue::Pop")]),
        ("Queue::operator==", [("queue.h", "outer::room::Queue::operator==")]),
        ("Queue::~Queue", [("queue.h", "outer::room::Queue::~Queue")]),
        ("Entry::Size", [("queue.h", "outer::room::Queue::Entry::Size")]),
        ("Queue::Depth", [("queue.h", "outer::room::Queue::Depth")]),
        ("Load", [("queue.h", "outer::room::Load")]),
        ("kLimit", [("queue.cc", "outer::kLimit")]),
        ("kText", [("queue.cc", "outer::kText")]),
        ("closed_", [("queue.h", "outer::room::Queue::closed_")]),
        ("Kernel::Tile", [("queue.cc", "outer::other::Queue::Kernel::Tile")]),
        # Only declared.
        ("Push", []),
        ("ueue::Pop", []),
        ("op", []),
    ],
)
def test_find(tree, symbol, definitions):
    assert found(tree, symbol) == definitions


def test_of_two_branches_of_a_condition_the_first_counts(tree):
    (definition,) = tree.find("Choose")
    assert definition.node.start_point[0] == 7
    assert len(tree.find("Alternative")) == 1


def test_a_name_that_is_gone_has_neighbours(tree):
    assert "outer::room::Load" in tree.similar("Queue::Loads")


def test_macros_leave_every_byte_where_it_was():
    for text in (HEADER, SOURCE):
        without = without_macros(text)
        assert len(without) == len(text)
        assert without.count(b"\n") == text.count(b"\n")
        assert all(b in (a, ord(" "), ord("=")) for a, b in zip(text, without, strict=True))
    (line,) = (
        line
        for line in without_macros(SOURCE).splitlines()
        if b"rows = " in line or b"rows=" in line
    )
    assert line.split() == b'const std::vector<int> rows= Read({a, 2}, "x, )") ;'.split()


def test_after_macros_the_grammar_knows_everything():
    for text in (HEADER, SOURCE):
        for symbol in Source(None, text).symbols:
            assert not symbol.node.has_error, symbol
