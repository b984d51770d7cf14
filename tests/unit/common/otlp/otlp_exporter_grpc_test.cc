// The exporter against a real server over loopback, which hangs, refuses, or is flooded.
#include <malloc.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "common/base/thread_cpu_time.h"
#include "common/net/grpc_runtime.h"
#include "common/net/grpc_server.h"
#include "common/otlp/otlp_exporter.h"
#include "common/wire/error_reason.h"
#include "gtest/gtest.h"
#include "tests/support/scripted_trace_service.h"

namespace expertmesh::otlp {
namespace {

// A collector: what it does with the n-th request, and what it has received.
class Collector {
 public:
  using Behaviour = std::function<void(uint64_t request, Frame bytes, net::UnaryResponder respond)>;

  explicit Collector(Behaviour behaviour) : behaviour_(std::move(behaviour)) {
    net::GrpcServerSpec spec;
    spec.address = "127.0.0.1:0";
    spec.unary = {{"/opentelemetry.proto.collector.trace.v1.TraceService/Export",
                   [this](Frame bytes, const CallContextPtr&, net::UnaryResponder respond) {
                     uint64_t number = 0;
                     {
                       absl::MutexLock lock(&mutex_);
                       number = requests_++;
                     }
                     behaviour_(number, std::move(bytes), std::move(respond));
                   }}};
    server_ = *net::GrpcServer::Start(std::move(spec));
  }
  ~Collector() { server_->Shutdown(absl::ZeroDuration()); }

  std::string address() const { return "127.0.0.1:" + std::to_string(server_->port()); }
  uint64_t requests() const {
    absl::MutexLock lock(&mutex_);
    return requests_;
  }
  bool AwaitRequests(uint64_t count) const {
    absl::MutexLock lock(&mutex_);
    const auto reached = [this, count]()
                             ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return requests_ >= count; };
    return mutex_.AwaitWithTimeout(absl::Condition(&reached), kTooLong);
  }

 private:
  const Behaviour behaviour_;
  mutable absl::Mutex mutex_;
  uint64_t requests_ ABSL_GUARDED_BY(mutex_) = 0;
  std::unique_ptr<net::GrpcServer> server_;
};

// Bytes that the program has allocated; 0 where the allocator does not say.
uint64_t HeapBytes() {
  const struct mallinfo2 heap = mallinfo2();
  return heap.uordblks + heap.hblkhd;
}

class OtlpExporterGrpcTest : public testing::Test {
 protected:
  void Begin(const std::string& address) {
    options_.target = address;
    exporter_ = std::make_unique<OtlpExporter>(options_, MakeTraceService(&runtime_, options_),
                                               Clock::Real());
  }
  void Add(uint32_t spans, size_t name_bytes = 4) {
    const trace::SpanGroup group = SpansLike(resource_, spans, name_bytes);
    exporter_->Add({&group, 1});
  }
  uint64_t Shutdown(absl::Duration bound) {
    return exporter_->Shutdown(Clock::Real()->Now() + bound);
  }
  const OtlpCounts& counts() const { return exporter_->counts(); }

  OtlpOptions options_;
  const trace::ResourcePtr resource_ =
      std::make_shared<trace::Resource>(trace::TextAttributes{{"service.name", "router"}});
  net::GrpcRuntime runtime_;
  std::unique_ptr<OtlpExporter> exporter_;
};

TEST_F(OtlpExporterGrpcTest, ACollectorReadsWhatWasSent) {
  absl::Mutex mutex;
  uint64_t spans = 0;
  Collector collector([&](uint64_t, const Frame& bytes, const net::UnaryResponder& respond) {
    internal::otlp::TracesData data;
    EXPECT_TRUE(data.ParseFromString(bytes.Flatten()));
    absl::MutexLock lock(&mutex);
    for (const auto& part : data.resource_spans()) {
      spans += static_cast<uint64_t>(part.scope_spans(0).spans_size());
    }
    respond(Frame());
  });
  Begin(collector.address());
  for (int i = 0; i < 100; ++i) {
    Add(21);
  }
  EXPECT_EQ(Shutdown(kTooLong), 0u);
  EXPECT_EQ(counts().exported, 2100u);
  absl::MutexLock lock(&mutex);
  EXPECT_EQ(spans, 2100u);
}

TEST_F(OtlpExporterGrpcTest, OneThatHangsCostsMemoryUpToTheBoundAndNoTimeOfThoseWhoAdd) {
  absl::Mutex mutex;
  std::vector<net::UnaryResponder> kept;
  Collector collector([&](uint64_t, const Frame&, net::UnaryResponder respond) {
    absl::MutexLock lock(&mutex);
    kept.push_back(std::move(respond));
  });
  Begin(collector.address());
  Add(600);
  ASSERT_TRUE(collector.AwaitRequests(1));
  // 100,000 spans, as a second has them at such a rate, then many more.
  const trace::SpanGroup group = SpansLike(resource_, 10, 300);
  const uint64_t before = HeapBytes();
  for (int i = 0; i < 50'000; ++i) {
    exporter_->Add({&group, 1});
  }
  const uint64_t after = HeapBytes();
  EXPECT_LE(after, before + (32u << 20));
  EXPECT_LE(counts().queue_spans, options_.max_queue_spans);
  EXPECT_LE(counts().queue_bytes, options_.max_queue_bytes);
  EXPECT_GE(counts().Dropped(DropReason::kQueueFull), 500'000 - options_.max_queue_spans);

  const absl::Time begin = Clock::Real()->Now();
  const uint64_t lost = Shutdown(absl::Milliseconds(300));
  EXPECT_LT(Clock::Real()->Now() - begin, absl::Seconds(10));
  EXPECT_EQ(lost, counts().Dropped(DropReason::kShutdown));
  EXPECT_EQ(lost + counts().Dropped(DropReason::kQueueFull), 500'600u);
  EXPECT_EQ(counts().exported, 0u);
  absl::MutexLock lock(&mutex);
  kept.clear();
}

TEST_F(OtlpExporterGrpcTest, AHundredThousandSpansASecondArrive) {
  Collector collector(
      [](uint64_t, const Frame&, const net::UnaryResponder& respond) { respond(Frame()); });
  Begin(collector.address());
  const trace::SpanGroup group = SpansLike(resource_, 20, 100);
  const absl::Duration cpu_before = ThreadCpuTime();
  for (int burst = 0; burst < 50; ++burst) {
    for (int i = 0; i < 50; ++i) {
      exporter_->Add({&group, 1});
    }
    absl::SleepFor(absl::Milliseconds(10));
  }
  const absl::Duration cpu = ThreadCpuTime() - cpu_before;
  EXPECT_EQ(Shutdown(kTooLong), 0u);
  EXPECT_EQ(counts().exported + counts().AllDropped(), 50'000u);
  EXPECT_EQ(counts().exported, 50'000u);
  // The share of who adds; a tenth of this where nothing else slows it.
  EXPECT_LT(cpu / 50'000, absl::Microseconds(2));
}

TEST_F(OtlpExporterGrpcTest, OneThatRefusesIsCounted) {
  Collector collector([](uint64_t, const Frame&, const net::UnaryResponder& respond) {
    respond(absl::PermissionDeniedError("no"));
  });
  Begin(collector.address());
  Add(1000);
  Shutdown(kTooLong);
  EXPECT_EQ(counts().Dropped(DropReason::kRefused), 1000u);
  EXPECT_EQ(counts().retries, 0u);
}

TEST_F(OtlpExporterGrpcTest, OneThatIsFullSaysWhenToComeAgain) {
  Collector collector([](uint64_t request, const Frame&, const net::UnaryResponder& respond) {
    if (request == 0) {
      respond(WithRetryDelay(absl::ResourceExhaustedError("full"), absl::Milliseconds(700)));
    } else if (request == 2) {
      respond(absl::ResourceExhaustedError("full, and never mind"));
    } else {
      respond(Frame());
    }
  });
  Begin(collector.address());
  const absl::Time begin = Clock::Real()->Now();
  Add(1024);
  Shutdown(kTooLong);
  EXPECT_GE(Clock::Real()->Now() - begin, absl::Milliseconds(700));
  EXPECT_EQ(counts().exported, 512u);
  EXPECT_EQ(counts().retries, 1u);
  EXPECT_EQ(counts().Dropped(DropReason::kRefused), 512u);
}

TEST_F(OtlpExporterGrpcTest, OneThatTakesSomeSpansIsNotAskedAgain) {
  Collector collector([](uint64_t, const Frame&, const net::UnaryResponder& respond) {
    internal::otlp::ExportTraceServiceResponse response;
    response.mutable_partial_success()->set_rejected_spans(5);
    response.mutable_partial_success()->set_error_message("too old");
    respond(Frame(response.SerializeAsString()));
  });
  Begin(collector.address());
  Add(512);
  Shutdown(kTooLong);
  EXPECT_EQ(counts().exported, 507u);
  EXPECT_EQ(counts().Dropped(DropReason::kPartial), 5u);
  EXPECT_EQ(collector.requests(), 1u);
}

TEST_F(OtlpExporterGrpcTest, OneThatIsNotThereIsTriedAgainUntilTheEnd) {
  std::string address;
  {
    const Collector gone([](uint64_t, const Frame&, const net::UnaryResponder&) {});
    address = gone.address();
  }
  Begin(address);
  Add(512);
  Add(100);
  const absl::Time begin = Clock::Real()->Now();
  EXPECT_EQ(Shutdown(absl::Milliseconds(900)), 612u);
  EXPECT_LT(Clock::Real()->Now() - begin, absl::Seconds(10));
  EXPECT_EQ(counts().exported, 0u);
}

}  // namespace
}  // namespace expertmesh::otlp
