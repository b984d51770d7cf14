// Keys and certificates that tests make for themselves.
#ifndef EXPERTMESH_TESTS_SUPPORT_TLS_IDENTITY_H_
#define EXPERTMESH_TESTS_SUPPORT_TLS_IDENTITY_H_

#include <gtest/gtest.h>
#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <functional>
#include <memory>
#include <string>

namespace expertmesh {

inline std::string ToPem(const std::function<int(BIO*)>& write) {
  const std::unique_ptr<BIO, decltype(&BIO_free)> memory(BIO_new(BIO_s_mem()), &BIO_free);
  EXPECT_EQ(write(memory.get()), 1);
  char* data = nullptr;
  const auto size = static_cast<size_t>(BIO_get_mem_data(memory.get(), &data));
  return std::string(data, size);
}

// A key, and a certificate that it has signed for itself.
struct TlsIdentity {
  std::string key;
  std::string certificate;
};

// `names` as OpenSSL writes them: "DNS:router.test,IP:127.0.0.1".
inline TlsIdentity MakeTlsIdentity(const std::string& common_name, const std::string& names) {
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
                             reinterpret_cast<const unsigned char*>(common_name.c_str()), -1, -1,
                             0);
  X509_set_issuer_name(made.get(), subject);
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

}  // namespace expertmesh

#endif  // EXPERTMESH_TESTS_SUPPORT_TLS_IDENTITY_H_
