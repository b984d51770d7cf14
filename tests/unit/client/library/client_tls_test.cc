// The client against a router behind TLS, with keys and certificates made here.
#include <gmock/gmock.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "client/cpp/expertmesh/client.h"
#include "expertmesh/v1/router.grpc.pb.h"
#include "tests/support/tls_identity.h"

namespace expertmesh::client {
namespace {

using testing::HasSubstr;

class EchoRouter final : public v1::Router::Service {
 public:
  grpc::Status Forward(grpc::ServerContext*, const v1::ForwardRequest* request,
                       v1::ForwardResponse* response) override {
    *response->mutable_output() = request->hidden_states();
    return grpc::Status::OK;
  }
  grpc::Status DescribeModel(grpc::ServerContext*, const v1::DescribeModelRequest*,
                             v1::DescribeModelResponse* response) override {
    response->set_family("mixtral");
    response->set_activation_dtype(v1::DTYPE_BF16);
    return grpc::Status::OK;
  }
};

class ClientTlsTest : public testing::Test {
 protected:
  // `clients`: whose certificate clients must show; empty: none.
  void Serve(const std::string& clients = "") {
    grpc::SslServerCredentialsOptions ssl(
        clients.empty() ? GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE
                        : GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
    ssl.pem_key_cert_pairs = {{router_.key, router_.certificate}};
    ssl.pem_root_certs = clients;
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::SslServerCredentials(ssl), &port_);
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
  }

  // What a call says: "" when it is answered.
  std::string Ask(const std::optional<TlsOptions>& tls) const {
    ClientOptions options;
    options.tls = tls;
    const auto client = Client::Connect("127.0.0.1:" + std::to_string(port_), options);
    if (!client.ok()) {
      return client.status().ToString();
    }
    const auto model = (*client)->DescribeModel();
    const auto result = (*client)->Forward(0, Matrix::Take(1, 2, {1, 2}));
    EXPECT_EQ(model.status().code(), result.status().code()) << "both connections are alike";
    if (result.ok()) {
      EXPECT_THAT(result->output.ToFloats(), testing::ElementsAre(1, 2));
    }
    return result.ok() ? "" : result.status().ToString();
  }

  TlsOptions Trusting() const {
    TlsOptions tls;
    tls.root_certificates = router_.certificate;
    tls.server_name = "router.test";
    return tls;
  }

  const TlsIdentity router_ = MakeTlsIdentity("router.test", "DNS:router.test");
  const TlsIdentity caller_ = MakeTlsIdentity("caller.test", "DNS:caller.test");
  EchoRouter service_;
  int port_ = 1;
  std::unique_ptr<grpc::Server> server_;
};

TEST_F(ClientTlsTest, ARouterWhoseCertificateIsTrustedAnswers) {
  Serve();
  EXPECT_EQ(Ask(Trusting()), "");
}

TEST_F(ClientTlsTest, NothingIsSentToARouterThatIsNotTrusted) {
  Serve();
  TlsOptions tls = Trusting();
  tls.root_certificates = caller_.certificate;
  EXPECT_THAT(Ask(tls), HasSubstr("UNAVAILABLE"));
  // Signed by the right authority, for another name: that of the address.
  tls = Trusting();
  tls.server_name.clear();
  EXPECT_THAT(Ask(tls), HasSubstr("UNAVAILABLE"));
  EXPECT_THAT(Ask(TlsOptions()), HasSubstr("UNAVAILABLE"));
  EXPECT_THAT(Ask(std::nullopt), HasSubstr("UNAVAILABLE"));
}

TEST_F(ClientTlsTest, TheClientShowsItsCertificate) {
  Serve(caller_.certificate);
  TlsOptions tls = Trusting();
  EXPECT_THAT(Ask(tls), HasSubstr("UNAVAILABLE"));
  tls.private_key = caller_.key;
  tls.certificate_chain = caller_.certificate;
  EXPECT_EQ(Ask(tls), "");
}

TEST_F(ClientTlsTest, KeysAndCertificatesThatCannotBeUsedAreNamed) {
  const auto refused = [this](const std::function<void(TlsOptions&)>& change) {
    TlsOptions tls = Trusting();
    tls.private_key = caller_.key;
    tls.certificate_chain = caller_.certificate;
    change(tls);
    return Ask(tls);
  };
  EXPECT_THAT(refused([](TlsOptions& tls) { tls.root_certificates = "ca.pem"; }),
              HasSubstr("INVALID_ARGUMENT: root_certificates holds no certificate"));
  EXPECT_THAT(refused([](TlsOptions& tls) { tls.private_key.clear(); }),
              HasSubstr("INVALID_ARGUMENT: private_key is missing"));
  EXPECT_THAT(refused([](TlsOptions& tls) { tls.certificate_chain.clear(); }),
              HasSubstr("INVALID_ARGUMENT: certificate_chain is missing"));
  EXPECT_THAT(refused([](TlsOptions& tls) { tls.certificate_chain = tls.private_key; }),
              HasSubstr("INVALID_ARGUMENT: certificate_chain holds no certificate"));
  EXPECT_THAT(refused([](TlsOptions& tls) { tls.private_key = tls.certificate_chain; }),
              HasSubstr("INVALID_ARGUMENT: private_key holds no private key"));
  EXPECT_THAT(refused([this](TlsOptions& tls) { tls.private_key = router_.key; }),
              HasSubstr("INVALID_ARGUMENT: private_key does not belong"));
}

}  // namespace
}  // namespace expertmesh::client
