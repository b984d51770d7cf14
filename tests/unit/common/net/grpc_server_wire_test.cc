// What a server sends on the wire, seen by a client that forgives nothing.

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/net/grpc_server.h"
#include "tests/support/call_recorders.h"
#include "tests/support/raw_http2_client.h"
#include "tests/support/scripted_watch.h"

namespace expertmesh::net {
namespace {

constexpr char kEcho[] = "/test.Service/Echo";
constexpr char kNeverAnswered[] = "/test.Service/NeverAnswered";
constexpr char kStream[] = "/test.Service/Stream";
constexpr char kFlood[] = "/test.Service/Flood";
constexpr char kWatch[] = "/test.Service/Watch";

// Answers each frame with as many bytes as it is asked for.
class FloodHandler final : public StreamHandler {
 public:
  explicit FloodHandler(std::shared_ptr<FrameSink> sink) : sink_(std::move(sink)) {}
  void OnFrame(Frame frame) override {
    for (int left = std::stoi(frame.Flatten()); left > 0; left -= 1 << 15) {
      sink_->Send(Frame(std::string(1 << 15, 'f'))).IgnoreError();
    }
  }

 private:
  const std::shared_ptr<FrameSink> sink_;
};

class GrpcServerWireTest : public testing::Test {
 protected:
  void SetUp() override {
    GrpcServerSpec spec;
    spec.address = "127.0.0.1:0";
    spec.unary = {{kEcho, [](Frame request, const CallContextPtr&,
                             UnaryResponder respond) { respond(std::move(request)); }},
                  {kNeverAnswered, [this](Frame, const CallContextPtr&, UnaryResponder respond) {
                     kept_.push_back(std::move(respond));
                   }}};
    spec.streams = {{kStream,
                     [this](std::shared_ptr<FrameSink> sink, const CallContextPtr&) {
                       sinks_.push_back(sink);
                       return std::make_unique<EchoHandler>(std::move(sink));
                     }},
                    {kFlood, [](std::shared_ptr<FrameSink> sink, const CallContextPtr&) {
                       return std::make_unique<FloodHandler>(std::move(sink));
                     }}};
    spec.send_queue_bytes = 1 << 20;
    spec.watches = {UnchangedWatch(kWatch)};
    auto server = GrpcServer::Start(std::move(spec));
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  ~GrpcServerWireTest() override {
    if (server_ != nullptr) {
      server_->Shutdown(absl::ZeroDuration());
    }
  }

  std::vector<UnaryResponder> kept_;
  std::vector<std::shared_ptr<FrameSink>> sinks_;
  std::unique_ptr<GrpcServer> server_;
};

TEST_F(GrpcServerWireTest, ADeadlineThatPassesEndsItsStreamOnce) {
  RawHttp2Client client(server_->port());
  for (const std::string method : {kNeverAnswered, kStream, kWatch}) {
    for (int i = 0; i < 20; ++i) {
      const uint32_t stream = client.Call(method, "", {{"grpc-timeout", "5m"}});
      ASSERT_TRUE(client.AwaitEnd(stream)) << method;
      ASSERT_TRUE(client.Catch()) << method;
      EXPECT_EQ(client.heard(stream).ends, 1) << method;
      EXPECT_LE(client.heard(stream).headers, 2) << method;
    }
  }
  const uint32_t stream = client.Call(kEcho, "still served", {{"grpc-timeout", "1H"}});
  ASSERT_TRUE(client.AwaitEnd(stream));
  EXPECT_EQ(client.heard(stream).ends, 1);
}

TEST_F(GrpcServerWireTest, AReaderThatNeverReadsIsEndedOnce) {
  for (const std::string timeout : {"1H", "5m"}) {
    const std::string bytes = timeout == "1H" ? "4000000" : "500000";
    RawHttp2Client client(server_->port());
    const uint32_t stream = client.Call(kFlood, bytes, {{"grpc-timeout", timeout}});
    ASSERT_TRUE(client.AwaitEnd(stream)) << timeout;
    ASSERT_TRUE(client.Catch()) << timeout;
    EXPECT_LE(client.heard(stream).ends, 1) << timeout;
  }
}

TEST_F(GrpcServerWireTest, MuchMetadataHarmsNoNeighbour) {
  RawHttp2Client client(server_->port());
  const uint32_t neighbour = client.Call(kNeverAnswered, "", {});
  for (const size_t kilobytes : {1, 20, 60, 100, 900}) {
    const uint32_t stream = client.Call(kEcho, "", {{"much", std::string(kilobytes << 10, 'm')}});
    ASSERT_TRUE(client.AwaitEnd(stream)) << kilobytes;
    ASSERT_TRUE(client.Catch()) << kilobytes;
    EXPECT_EQ(client.heard(stream).ends, 1) << kilobytes;
  }
  EXPECT_EQ(client.heard(neighbour).ends, 0);
}

}  // namespace
}  // namespace expertmesh::net
