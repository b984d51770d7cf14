#include "common/checkpoint/fingerprint.h"

#include <openssl/evp.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "common/base/check.h"
#include "common/model/routing_json.h"

namespace expertmesh::checkpoint {
namespace {

constexpr size_t kGateBytes = 4096;

class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new(), &EVP_MD_CTX_free) {
    EXPERTMESH_CHECK(context_ != nullptr);
    EXPERTMESH_CHECK(EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1);
  }

  // Lengths go in too, so that neighbouring pieces cannot be cut differently.
  void Add(absl::string_view bytes) {
    const std::string length = absl::StrCat(bytes.size(), ":");
    AddRaw(length);
    AddRaw(bytes);
  }

  std::string HexDigest() {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int size = 0;
    EXPERTMESH_CHECK(EVP_DigestFinal_ex(context_.get(), digest, &size) == 1);
    return absl::BytesToHexString(absl::string_view(reinterpret_cast<const char*>(digest), size));
  }

 private:
  void AddRaw(absl::string_view bytes) {
    EXPERTMESH_CHECK(EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()) == 1);
  }

  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

// Every option of a layer; RoutingJson writes floats so that they read back as the same bits.
std::string LayerText(const MoeLayerDescription& layer) {
  const ExpertOptions& expert = layer.expert;
  const auto bits = [](float value) { return absl::Hex(std::bit_cast<uint32_t>(value)); };
  return absl::StrCat("layer ", layer.layer, " ", RoutingJson(layer.routing), " expert ",
                      expert.d_model, " ", expert.intermediate_size, " ",
                      static_cast<int>(expert.activation), " gated ", expert.gated, " bias ",
                      expert.bias, " swiglu ", bits(expert.swiglu_limit), " ",
                      bits(expert.swiglu_alpha)) +
         absl::StrCat(" shared ", layer.shared_intermediate_size, " ", layer.shared_gate);
}

std::string FingerprintOf(const ModelDescription& model, const SafetensorsReader& tensors,
                          absl::Span<const MatrixView> gates) {
  Sha256 hash;
  hash.Add("expertmesh checkpoint 2");
  hash.Add(absl::StrCat(model.family, " d_model ", model.d_model, " layers ", model.num_layers,
                        " dtype ", NameOf(model.dtype)));
  for (const MoeLayerDescription& layer : model.layers) {
    hash.Add(LayerText(layer));
  }
  for (const auto& [name, tensor] : tensors.tensors()) {
    if (tensor.listed) {
      hash.Add(name);
      hash.Add(absl::StrCat(NameOf(tensor.dtype), " [", absl::StrJoin(tensor.shape, ", "), "]"));
    }
  }
  for (const MatrixView& gate : gates) {
    const size_t bytes = gate.rows * gate.cols * BytesOf(gate.dtype);
    hash.Add(
        absl::string_view(reinterpret_cast<const char*>(gate.data), std::min(bytes, kGateBytes)));
  }
  return hash.HexDigest();
}

// Not the model's dtype: it is read from tensors.
std::string OutlineOf(const ModelDescription& model, const SafetensorsReader& tensors) {
  Sha256 hash;
  hash.Add("expertmesh outline 1");
  hash.Add(absl::StrCat(model.family, " d_model ", model.d_model, " layers ", model.num_layers));
  for (const MoeLayerDescription& layer : model.layers) {
    hash.Add(LayerText(layer));
  }
  std::vector<absl::string_view> names;
  for (const auto& [name, tensor] : tensors.tensors()) {
    if (tensor.listed) {
      names.push_back(name);
    }
  }
  for (const auto& [name, file] : tensors.absent()) {
    names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  for (const absl::string_view name : names) {
    hash.Add(name);
  }
  return hash.HexDigest();
}

}  // namespace

ModelIdentity IdentityOf(const ModelDescription& model, const SafetensorsReader& tensors,
                         absl::Span<const MatrixView> gates) {
  ModelIdentity identity;
  identity.outline = OutlineOf(model, tensors);
  identity.fingerprint = tensors.complete() ? FingerprintOf(model, tensors, gates)
                                            : absl::StrCat(kPartialFingerprint, identity.outline);
  return identity;
}

}  // namespace expertmesh::checkpoint
