// The client against a router behind TLS, with keys and certificates made here.
#include <gmock/gmock.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <gtest/gtest.h>
#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "client/cpp/expertmesh/client.h"
#include "expertmesh/v1/router.grpc.pb.h"

namespace expertmesh::client {
namespace {

using testing::HasSubstr;

std::string ToPem(const std::function<int(BIO*)>& write) {
  const std::unique_ptr<BIO, decltype(&BIO_free)> memory(BIO_new(BIO_s_mem()), &BIO_free);
  EXPECT_EQ(write(memory.get()), 1);
  char* data = nullptr;
  const auto size = static_cast<size_t>(BIO_get_mem_data(memory.get(), &data));
  return std::string(data, size);
}

// A key, and a certificate that it has signed for itself.
struct Identity {
  std::string key;
  std::string certificate;
};

Identity MakeIdentity(const std::string& name) {
  const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key(EVP_EC_gen("P-256"),
                                                                &EVP_PKEY_free);
  const std::unique_ptr<X509, decltype(&X509_free)> made(X509_new(), &X509_free);
  X509_set_version(made.get(), X509_VERSION_3);
  ASN1_INTEGER_set(X509_get_serialNumber(made.get()), 1);
  X509_gmtime_adj(X509_getm_notBefore(made.get()), -24 * 3600);
  X509_gmtime_adj(X509_getm_notAfter(made.get()), 24 * 3600);
  X509_set_pubkey(made.get(), key.get());
  X509_NAME* const subject = X509_get_subject_name(made.get());
  X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
  X509_set_issuer_name(made.get(), subject);
  const std::string names = "DNS:" + name;
  X509_EXTENSION* const extension =
      X509V3_EXT_conf_nid(nullptr, nullptr, NID_subject_alt_name, names.c_str());
  X509_add_ext(made.get(), extension, -1);
  X509_EXTENSION_free(extension);
  EXPECT_GT(X509_sign(made.get(), key.get(), EVP_sha256()), 0);
  return {ToPem([&](BIO* to) {
            return PEM_write_bio_PrivateKey(to, key.get(), nullptr, nullptr, 0, nullptr, nullptr);
          }),
          ToPem([&](BIO* to) { return PEM_write_bio_X509(to, made.get()); })};
}

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

  const Identity router_ = MakeIdentity("router.test");
  const Identity caller_ = MakeIdentity("caller.test");
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
