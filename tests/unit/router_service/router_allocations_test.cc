// Heap allocations of one batch on the router's way, once everything is warm, by stage: none. This
// program alone has its own malloc.

#include <errno.h>
#include <execinfo.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/debugging/symbolize.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/unit/router_service/router_fixture.h"

namespace {

constexpr size_t kMostRecorded = 1 << 16;
constexpr int kMostFrames = 40;

struct Record {
  void* frames[kMostFrames];
  int count;
};

std::atomic<bool> recording{false};
std::atomic<size_t> recorded{0};
Record records[kMostRecorded];
thread_local bool inside = false;  // backtrace() may allocate.

void Note() {
  if (!recording.load(std::memory_order_relaxed) || inside) {
    return;
  }
  inside = true;
  const size_t at = recorded.fetch_add(1, std::memory_order_relaxed);
  if (at < kMostRecorded) {
    records[at].count = backtrace(records[at].frames, kMostFrames);
  }
  inside = false;
}

}  // namespace

// What the C library calls itself; every allocator above it, operator new included, comes here.
extern "C" {
void* __libc_malloc(size_t size);
void* __libc_calloc(size_t count, size_t size);
void* __libc_realloc(void* memory, size_t size);
void* __libc_memalign(size_t alignment, size_t size);

void* malloc(size_t size) {
  Note();
  return __libc_malloc(size);
}
void* calloc(size_t count, size_t size) {
  Note();
  return __libc_calloc(count, size);
}
void* realloc(void* memory, size_t size) {
  Note();
  return __libc_realloc(memory, size);
}
void* aligned_alloc(size_t alignment, size_t size) {
  Note();
  return __libc_memalign(alignment, size);
}
void* memalign(size_t alignment, size_t size) {
  Note();
  return __libc_memalign(alignment, size);
}
int posix_memalign(void** memory, size_t alignment, size_t size) {
  Note();
  *memory = __libc_memalign(alignment, size);
  return *memory == nullptr ? ENOMEM : 0;
}
}

namespace expertmesh::router {
namespace {

constexpr size_t kTogether = 3;

using Counts = std::map<std::string, size_t>;

// Part of a function's name, and the stage it belongs to; the innermost of them on the stack
// counts. Those in brackets are not the router's.
const std::vector<std::pair<std::string, std::string>>& Stages() {
  static const auto* const stages = new std::vector<std::pair<std::string, std::string>>{
      {"::Fake", "(double)"},           {"RouterAllocationsTest", "(test)"},
      {"InProcess", "(transport)"},     {"GatherRows", "gather"},
      {"BatchRun::Route", "route"},     {"BatchRun::Plan", "plan"},
      {"EncodeFrames", "encode"},       {"NodeLink::Send", "send"},
      {"BatchRun::Send", "send"},       {"BatchRun::Dispatch", "dispatch"},
      {"NodeLink::OnFrame", "receive"}, {"OnPartDone", "receive"},
      {"Combine(", "combine"},          {"SumRows", "combine"},
      {"CombineAndAnswer", "answer"},   {"ComputeShared", "shared"},
      {"LayerBatcher", "batcher"},      {"Router::RunBatch", "batcher"},
      {"Router::Forward", "accept"},    {"BatchRun::", "run, rest"},
      {"ThreadPool", "run, rest"},      {"TimerQueue", "timers"},
  };
  return *stages;
}

std::string StageOf(const Record& record) {
  for (int i = 0; i < record.count; ++i) {
    char name[512];
    if (!absl::Symbolize(record.frames[i], name, sizeof(name))) {
      continue;
    }
    for (const auto& [part, stage] : Stages()) {
      if (absl::StrContains(name, part)) {
        return stage;
      }
    }
  }
  return "(other)";
}

std::string Text(const Counts& counts) {
  std::string text;
  for (const auto& [stage, count] : counts) {
    absl::StrAppend(&text, "  ", stage, " ", count);
  }
  return text;
}

class RouterAllocationsTest : public RouterTest {
 protected:
  void Start(const RouterOptions& options, const std::vector<std::vector<uint32_t>>& nodes,
             uint32_t d_model = kModel, bool shared_expert = false) {
    FakeCheckpointOptions checkpoint;
    checkpoint.top_k = 4;
    checkpoint.d_model = d_model;
    checkpoint.shared_expert = shared_expert;
    StartRouter(options, checkpoint);
    for (size_t i = 0; i < nodes.size(); ++i) {
      FakeNodeOptions node;
      node.d_model = d_model;
      node.experts = nodes[i];
      node.shared_expert = checkpoint.num_experts;
      AddNodeWith(absl::StrCat("node:", i + 1), node);
    }
    Connect();
    d_model_ = d_model;
  }

  // Allocations by stage of kTogether requests of `tokens` tokens, one after the other: of what
  // comes after an answer, too. The fewest of several times, since threads that meet otherwise than
  // ever before may need one buffer more.
  Counts Count(size_t tokens, v1::ForwardRequest request = {}) {
    request.set_layer(1);
    std::vector<float> rows(tokens * d_model_);
    for (size_t i = 0; i < rows.size(); ++i) {
      rows[i] = static_cast<float>(i * i % 101) / 50.0f - 1.0f;
    }
    const Frame frame = Encode(request, rows, d_model_);
    for (int i = 0; i < 50; ++i) {
      Run(frame);
    }
    Counts fewest;
    size_t fewest_of_router = ~size_t{0};
    for (int i = 0; i < 10; ++i) {
      if (tracer_ != nullptr) {
        tracer_->Flush();  // Gives the memory of notes back.
      }
      recorded = 0;
      recording = true;
      for (size_t run = 0; run < kTogether; ++run) {
        Run(frame);
      }
      recording = false;
      EXPECT_LE(recorded, kMostRecorded);
      const Counts counts = ByStage(std::min<size_t>(recorded, kMostRecorded));
      if (OfRouter(counts) < fewest_of_router) {
        fewest_of_router = OfRouter(counts);
        fewest = counts;
      }
    }
    return fewest;
  }

  // One token and many, each of `request`.
  void ExpectNone(const v1::ForwardRequest& request = {}) {
    for (const size_t tokens : {1, 512}) {
      const Counts counts = Count(tokens, request);
      std::printf("T = %zu:%s\n", tokens, Text(counts).c_str());
      EXPECT_EQ(OfRouter(counts), 0u) << tokens << " tokens:" << Text(counts);
    }
  }

 private:
  static Counts ByStage(size_t count) {
    Counts found;
    for (size_t i = 0; i < count; ++i) {
      ++found[StageOf(records[i])];
    }
    return found;
  }

  static size_t OfRouter(const Counts& counts) {
    size_t sum = 0;
    for (const auto& [stage, count] : counts) {
      sum += stage.front() == '(' ? 0 : count;
    }
    return sum;
  }

  void Run(const Frame& frame) {
    absl::Notification done;
    router_->Forward(frame, context_,
                     [&done](const v1::ForwardResponse& response, std::optional<TensorFrame>) {
                       EXPECT_EQ(response.status().code(), 0) << response.status().message();
                       done.Notify();
                     });
    done.WaitForNotification();
  }

  const CallContextPtr context_ = Call();
  uint32_t d_model_ = kModel;

 protected:
  // Null: nothing is traced.
  tracing::Tracer* tracer_ = nullptr;
};

RouterOptions OneThread() {
  RouterOptions options;
  options.threads = 1;
  return options;
}

TEST_F(RouterAllocationsTest, OneNode) {
  Start(OneThread(), {{0, 1, 2, 3, 4, 5}});
  ExpectNone();
}

TEST_F(RouterAllocationsTest, TwoNodes) {
  Start(OneThread(), {{0, 1, 2}, {3, 4, 5}});
  ExpectNone();
}

TEST_F(RouterAllocationsTest, SeveralNodesWithReplicas) {
  Start(OneThread(), {{0, 1, 2}, {3, 4, 5}, {0, 2, 4}, {1, 3, 5}});
  ExpectNone();
}

TEST_F(RouterAllocationsTest, RowsThatAreSharedWhereTheyLie) {
  Start(OneThread(), {{0, 1}, {2, 3}, {4, 5}}, 1024);
  ExpectNone();
}

TEST_F(RouterAllocationsTest, ConvertedRows) {
  RouterOptions options = OneThread();
  options.wire_hidden_states = "int8";
  options.wire_partials = "bf16,node:1=int8";
  Start(options, {{0, 1, 2}, {3, 4, 5}}, 256);
  v1::ForwardRequest request;
  request.set_output_dtype(v1::DTYPE_INT8_BLOCK128);
  ExpectNone(request);
}

TEST_F(RouterAllocationsTest, SharedExperts) {
  Start(OneThread(), {{0, 1, 2}, {3, 4, 5}}, kModel, /*shared_expert=*/true);
  ExpectNone();
}

TEST_F(RouterAllocationsTest, SharedExpertsOnNodesAndHere) {
  RouterOptions options = OneThread();
  options.shared_experts = batch::SharedExpertsAt::kBoth;
  Start(options, {{0, 1, 2, 6}, {3, 4, 5}, {6}}, kModel, /*shared_expert=*/true);
  ExpectNone();
}

TEST_F(RouterAllocationsTest, Strict) {
  RouterOptions options = OneThread();
  options.strict = true;
  Start(options, {{0, 1, 2}, {3, 4, 5}});
  ExpectNone();
}

TEST_F(RouterAllocationsTest, WithTraceAndRouting) {
  RouterOptions options = OneThread();
  tracing::Tracer tracer({}, nullptr, Clock::Real());
  options.tracer = &tracer;
  tracer_ = &tracer;
  Start(options, {{0, 1, 2}, {3, 4, 5}});
  v1::ForwardRequest request;
  request.set_traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
  request.set_tracestate("vendor=a-value-that-is-longer-than-a-short-string");
  request.set_return_routing(true);
  ExpectNone(request);
  EXPECT_GT(tracer.counts().kept_sampled, 0u);
  TearDown();  // Before the tracer goes.
}

}  // namespace
}  // namespace expertmesh::router

int main(int argc, char** argv) {
  absl::InitializeSymbolizer(argv[0]);
  void* frame = nullptr;
  backtrace(&frame, 1);  // Loads what it needs.
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
