#include "common/net/tls_options.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace expertmesh::net {
namespace {

using Bio = std::unique_ptr<BIO, decltype(&BIO_free)>;
using Certificate = std::unique_ptr<X509, decltype(&X509_free)>;
using PrivateKey = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;

Bio Reader(const std::string& pem) {
  return Bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())), &BIO_free);
}

// Instead of OpenSSL's own, which would ask at the terminal.
int NoPassword(char*, int, int, void*) { return -1; }

absl::Status Refuse(absl::string_view field, absl::string_view what) {
  ERR_clear_error();
  return absl::InvalidArgumentError(absl::StrCat(field, " ", what));
}

// The first certificate of `pem`, null when there is none.
Certificate FirstCertificate(const std::string& pem) {
  return {PEM_read_bio_X509(Reader(pem).get(), nullptr, &NoPassword, nullptr), &X509_free};
}

absl::Status CheckOwnCertificate(const TlsOptions& options) {
  if (options.private_key.empty()) {
    return Refuse("private_key",
                  "is missing, but certificate_chain is given; give both or neither");
  }
  if (options.certificate_chain.empty()) {
    return Refuse("certificate_chain",
                  "is missing, but private_key is given; give both or neither");
  }
  const Certificate certificate = FirstCertificate(options.certificate_chain);
  if (certificate == nullptr) {
    return Refuse("certificate_chain", "holds no certificate in PEM");
  }
  const PrivateKey key(
      PEM_read_bio_PrivateKey(Reader(options.private_key).get(), nullptr, &NoPassword, nullptr),
      &EVP_PKEY_free);
  if (key == nullptr) {
    return Refuse("private_key", "holds no private key in PEM without a password");
  }
  if (X509_check_private_key(certificate.get(), key.get()) != 1) {
    return Refuse("private_key", "does not belong to the first certificate of certificate_chain");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckTlsOptions(const TlsOptions& options) {
  if (!options.root_certificates.empty() &&
      FirstCertificate(options.root_certificates) == nullptr) {
    return Refuse("root_certificates", "holds no certificate in PEM");
  }
  if (!options.private_key.empty() || !options.certificate_chain.empty()) {
    return CheckOwnCertificate(options);
  }
  return absl::OkStatus();
}

}  // namespace expertmesh::net
