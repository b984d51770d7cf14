// How the one call looks to a server that is gRPC's own, with settings read from environment
// variables.
#include "common/otlp/trace_service.h"

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <cstdlib>
#include <fstream>
#include <map>
#include <memory>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/net/grpc_runtime.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/call_recorders.h"
#include "tests/support/tls_identity.h"

namespace expertmesh::otlp {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Pair;
using ::testing::StartsWith;

// What one call was.
struct Seen {
  std::string method;
  std::multimap<std::string, std::string> metadata;
  std::string request;
};

// Takes any call and answers with `answer`.
class AnyService final : public grpc::CallbackGenericService {
 public:
  explicit AnyService(std::string answer) : answer_(std::move(answer)) {}

  grpc::ServerGenericBidiReactor* CreateReactor(
      grpc::GenericCallbackServerContext* context) override {
    return new Reactor(this, context);
  }
  std::optional<Seen> seen() const {
    absl::MutexLock lock(&mutex_);
    return seen_;
  }

 private:
  class Reactor final : public grpc::ServerGenericBidiReactor {
   public:
    Reactor(AnyService* service, grpc::GenericCallbackServerContext* context) : service_(service) {
      seen_.method = context->method();
      for (const auto& [key, value] : context->client_metadata()) {
        seen_.metadata.emplace(std::string(key.data(), key.size()),
                               std::string(value.data(), value.size()));
      }
      StartRead(&request_);
    }
    void OnReadDone(bool ok) override {
      if (!ok) {
        Finish(grpc::Status::CANCELLED);
        return;
      }
      grpc::Slice slice;
      EXPECT_TRUE(request_.DumpToSingleSlice(&slice).ok());
      seen_.request.assign(reinterpret_cast<const char*>(slice.begin()), slice.size());
      {
        absl::MutexLock lock(&service_->mutex_);
        service_->seen_ = seen_;
      }
      const grpc::Slice answer(service_->answer_);
      answer_ = grpc::ByteBuffer(&answer, 1);
      StartWriteAndFinish(&answer_, {}, grpc::Status::OK);
    }
    void OnDone() override { delete this; }

   private:
    AnyService* const service_;
    Seen seen_;
    grpc::ByteBuffer request_;
    grpc::ByteBuffer answer_;
  };

  const std::string answer_;
  mutable absl::Mutex mutex_;
  std::optional<Seen> seen_ ABSL_GUARDED_BY(mutex_);
};

class TraceServiceTest : public testing::Test {
 protected:
  ~TraceServiceTest() override {
    if (server_ != nullptr) {
      server_->Shutdown();
    }
  }

  void Serve(const std::shared_ptr<grpc::ServerCredentials>& credentials =
                 grpc::InsecureServerCredentials(),
             bool gzip = true) {
    grpc::ServerBuilder builder;
    builder.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_GZIP, gzip);
    builder.AddListeningPort("127.0.0.1:0", credentials, &port_);
    builder.RegisterCallbackGenericService(&service_);
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
  }
  void ServeTls(const std::string& clients = "") {
    grpc::SslServerCredentialsOptions ssl(
        clients.empty() ? GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE
                        : GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
    ssl.pem_key_cert_pairs = {{collector_.key, collector_.certificate}};
    ssl.pem_root_certs = clients;
    Serve(grpc::SslServerCredentials(ssl));
  }
  std::string File(const std::string& name, const std::string& content) {
    const std::string path = absl::StrCat(testing::TempDir(), "/trace_service_test_", name);
    std::ofstream(path) << content;
    return path;
  }

  absl::StatusOr<Frame> Export(const std::string& scheme, std::map<std::string, std::string> more,
                               const std::string& request = "request") {
    more["ENDPOINT"] = absl::StrCat(scheme, "127.0.0.1:", port_);
    std::vector<std::string> warnings;
    const absl::StatusOr<TracingSettings> settings = ReadTracingSettings(
        [&more](const std::string& name) {
          const std::string prefix = "OTEL_EXPORTER_OTLP_";
          const auto found =
              name.rfind(prefix, 0) == 0 ? more.find(name.substr(prefix.size())) : more.end();
          return found == more.end() ? std::string() : found->second;
        },
        &warnings);
    if (!settings.ok()) {
      return settings.status();
    }
    net::UnaryRecorder recorder;
    const auto service = MakeTraceService(&runtime_, *settings->exporter);
    service->Export(Frame(request), absl::Seconds(60), recorder.done());
    return recorder.Await();
  }

  const TlsIdentity collector_ = MakeTlsIdentity("collector.test", "IP:127.0.0.1");
  const TlsIdentity mesh_ = MakeTlsIdentity("mesh.test", "DNS:mesh.test");
  AnyService service_{"answer"};
  int port_ = 1;
  std::unique_ptr<grpc::Server> server_;
  net::GrpcRuntime runtime_;
};

TEST_F(TraceServiceTest, CallsTheMethodOfTheProtocolWithItsHeaders) {
  Serve();
  const auto answer =
      Export("http://", {{"HEADERS", "Authorization=Bearer%20x,tenant=a,tenant=b"}});
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->Flatten(), "answer");
  const Seen seen = service_.seen().value();
  EXPECT_EQ(seen.method, "/opentelemetry.proto.collector.trace.v1.TraceService/Export");
  EXPECT_EQ(seen.request, "request");
  EXPECT_THAT(seen.metadata, Contains(Pair("authorization", "Bearer x")));
  EXPECT_THAT(seen.metadata, Contains(Pair("tenant", "a")));
  EXPECT_THAT(seen.metadata, Contains(Pair("tenant", "b")));
  EXPECT_THAT(
      seen.metadata,
      Contains(Pair("user-agent",
                    StartsWith("expertmesh/unknown OTel-OTLP-Exporter-cpp/unknown grpc-"))));
}

TEST_F(TraceServiceTest, CompressesWhenAsked) {
  const std::string spans(1'000'000, 's');
  Serve();
  ASSERT_TRUE(Export("http://", {{"COMPRESSION", "gzip"}}, spans).ok());
  EXPECT_EQ(service_.seen()->request, spans);
}

// A server that cannot read it tells that it was compressed.
TEST_F(TraceServiceTest, WhatIsCompressedIsCompressedOnTheWire) {
  const std::string spans(1'000'000, 's');
  Serve(grpc::InsecureServerCredentials(), /*gzip=*/false);
  EXPECT_EQ(Export("http://", {{"COMPRESSION", "gzip"}}, spans).status().code(),
            absl::StatusCode::kUnimplemented);
  EXPECT_TRUE(Export("http://", {}, spans).ok());
}

TEST_F(TraceServiceTest, ACollectorThatIsTrusted) {
  ServeTls();
  const std::string certificate = File("collector.pem", collector_.certificate);
  const auto answer = Export("https://", {{"CERTIFICATE", certificate}});
  EXPECT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(
      Export("https://", {{"CERTIFICATE", File("mesh.pem", mesh_.certificate)}}).status().code(),
      absl::StatusCode::kUnavailable);
  EXPECT_EQ(Export("https://", {}).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(Export("http://", {}).status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(TraceServiceTest, TheMeshShowsItsCertificate) {
  ServeTls(mesh_.certificate);
  const std::string certificate = File("collector.pem", collector_.certificate);
  EXPECT_EQ(Export("https://", {{"CERTIFICATE", certificate}}).status().code(),
            absl::StatusCode::kUnavailable);
  const auto answer =
      Export("https://", {{"CERTIFICATE", certificate},
                          {"CLIENT_KEY", File("mesh_key.pem", mesh_.key)},
                          {"CLIENT_CERTIFICATE", File("mesh.pem", mesh_.certificate)}});
  EXPECT_TRUE(answer.ok()) << answer.status();
  EXPECT_THAT(
      Export("https://", {{"CLIENT_KEY", File("mesh_key.pem", mesh_.key)}}).status().message(),
      HasSubstr("CLIENT_CERTIFICATE"));
}

TEST_F(TraceServiceTest, ProxiesOfTheEnvironmentAreNotUsed) {
  Serve();
  // Where no proxy is.
  ASSERT_EQ(setenv("http_proxy", "http://127.0.0.1:1", 1), 0);
  ASSERT_EQ(setenv("grpc_proxy", "http://127.0.0.1:1", 1), 0);
  EXPECT_TRUE(Export("http://", {}).ok());
  unsetenv("http_proxy");
  unsetenv("grpc_proxy");
}

TEST_F(TraceServiceTest, AnAnswerIsReadUpToItsBound) {
  const AnyService large(std::string(5 << 20, 'a'));
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
  builder.RegisterCallbackGenericService(const_cast<AnyService*>(&large));
  server_ = builder.BuildAndStart();
  EXPECT_EQ(Export("http://", {}).status().code(), absl::StatusCode::kResourceExhausted);
  server_->Shutdown();
}

TEST_F(TraceServiceTest, WhereNothingListensTheCallFailsAtOnce) {
  Serve();
  server_->Shutdown();
  EXPECT_EQ(Export("http://", {}).status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace expertmesh::otlp
