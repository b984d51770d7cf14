#include "common/checkpoint/synthetic_tensor.h"

#include <cmath>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/checkpoint/random_tensor.h"
#include "common/checkpoint/safetensors_header.h"

namespace expertmesh::checkpoint {
namespace {

using Content = SyntheticTensor::Content;

// Large enough to matter beside sigmoid scores, small enough that the corrected scores of good
// experts stay positive: some readers mask the other groups with 0 instead of minus infinity.
constexpr float kSelectBiasDeviation = 0.05f;
// Small beside the sums they are added to, and large enough to be missed.
constexpr float kBiasDeviation = 0.05f;

constexpr uint64_t kFp8Block = 128;
// A standard normal value times this is rounded to FP8, so that few are subnormal and none is too
// large.
constexpr float kFp8Spread = 64.0f;
constexpr uint64_t kFp4Block = 32;
constexpr float kFp4Spread = 2.0f;

float DeviationOf(const TensorDeclaration& declaration) {
  switch (declaration.kind) {
    case TensorKind::kLinear:
    case TensorKind::kPlainLinear:
      return static_cast<float>(1.0 / std::sqrt(static_cast<double>(declaration.inputs)));
    case TensorKind::kEmbedding:
      return 1.0f;
    case TensorKind::kSelectBias:
      return kSelectBiasDeviation;
    case TensorKind::kBias:
      return kBiasDeviation;
    case TensorKind::kNorm:
      return 0.0f;
  }
  return 0.0f;
}

SyntheticTensor Stored(std::string name, Dtype dtype, std::vector<uint64_t> shape, Content content,
                       float deviation) {
  SyntheticTensor tensor;
  tensor.bytes = TensorBytes(dtype, shape).value_or(0);
  tensor.elements = tensor.bytes / BytesOf(dtype);
  tensor.spec = {std::move(name), dtype, std::move(shape)};
  tensor.content = content;
  tensor.deviation = deviation;
  return tensor;
}

// To the nearest of 4 exponent bits (bias 7) and 3 mantissa bits, ties to even; |value| < 448.
uint8_t F8E4M3FromFloat(float value) {
  constexpr int kLowestExponent = -6;
  const float magnitude = std::abs(value);
  const int exponent = magnitude < 0x1p-6f ? kLowestExponent : std::ilogb(magnitude);
  // In eighths of the exponent's power: below 8 subnormal, 16 is the next exponent's 8.
  const int mantissa = static_cast<int>(std::nearbyint(std::ldexp(magnitude, 3 - exponent)));
  const int bits = (exponent - kLowestExponent) * 8 + mantissa;
  return static_cast<uint8_t>(bits | (std::signbit(value) ? 0x80 : 0));
}

// To the nearest of 0, 0.5, 1, 1.5, 2, 3, 4 and 6.
uint8_t F4FromFloat(float value) {
  constexpr float kBetween[] = {0.25f, 0.75f, 1.25f, 1.75f, 2.5f, 3.5f, 5.0f};
  uint8_t bits = 0;
  for (const float bound : kBetween) {
    bits += std::abs(value) > bound ? 1 : 0;
  }
  return static_cast<uint8_t>(bits | (std::signbit(value) ? 8 : 0));
}

// One of `count` numbers, from a normal value.
int Scattered(float normal, int count) {
  return static_cast<int>(std::abs(normal) * 1000.0f) % count;
}

// Four bits of mantissa: times a value of FP8, that fits the eight of BF16.
float Fp8Scale(float deviation, float normal) {
  const int exponent = std::ilogb(deviation / kFp8Spread);
  return std::ldexp(1.0f + static_cast<float>(Scattered(normal, 8)) / 8.0f, exponent);
}

uint8_t Fp4Scale(float deviation, float normal) {
  const int exponent = static_cast<int>(std::lround(std::log2(deviation / kFp4Spread)));
  return static_cast<uint8_t>(127 + exponent + Scattered(normal, 3) - 1);
}

}  // namespace

std::vector<SyntheticTensor> StoredTensors(const TensorDeclaration& declaration,
                                           const SyntheticOptions& options) {
  const std::string& name = declaration.name;
  const float deviation = DeviationOf(declaration);
  std::vector<uint64_t> shape = declaration.shape;
  if (declaration.encoding == Encoding::kMxfp4) {
    shape.back() /= kFp4Block;
    SyntheticTensor scales =
        Stored(absl::StrCat(name, "_scales"), Dtype::kU8, shape, Content::kFp4Scale, deviation);
    shape.push_back(kFp4Block / 2);
    return {Stored(absl::StrCat(name, "_blocks"), Dtype::kU8, std::move(shape), Content::kFp4Pair,
                   deviation),
            std::move(scales)};
  }
  if (options.quantise == Quantisation::kFp8 && declaration.kind == TensorKind::kLinear) {
    const std::vector<uint64_t> grid = {(shape[0] + kFp8Block - 1) / kFp8Block,
                                        (shape[1] + kFp8Block - 1) / kFp8Block};
    return {
        Stored(name, Dtype::kF8E4M3, std::move(shape), Content::kFp8, deviation),
        Stored(absl::StrCat(name, "_scale_inv"), Dtype::kF32, grid, Content::kFp8Scale, deviation)};
  }
  const Dtype dtype = declaration.kind == TensorKind::kSelectBias ? Dtype::kF32 : options.dtype;
  const Content content = declaration.kind == TensorKind::kNorm ? Content::kOnes : Content::kNormal;
  return {Stored(name, dtype, std::move(shape), content, deviation)};
}

void FillSynthetic(const SyntheticTensor& tensor, uint64_t seed, uint64_t begin, uint64_t count,
                   void* target) {
  const NormalSequence sequence(seed, tensor.spec.name);
  if (tensor.content == Content::kNormal) {
    sequence.Fill(begin, count, tensor.deviation, tensor.spec.dtype, target);
    return;
  }
  if (tensor.content == Content::kOnes) {
    const std::vector<float> ones(count, 1.0f);
    ConvertElements(Dtype::kF32, ones.data(), tensor.spec.dtype, target, count);
    return;
  }
  const uint64_t values_per_element = tensor.content == Content::kFp4Pair ? 2 : 1;
  std::vector<float> normal(count * values_per_element);
  sequence.Fill(begin * values_per_element, normal.size(), 1.0f, Dtype::kF32, normal.data());
  uint8_t* const bytes = static_cast<uint8_t*>(target);
  float* const floats = static_cast<float*>(target);
  for (uint64_t i = 0; i < count; ++i) {
    switch (tensor.content) {
      case Content::kFp8:
        bytes[i] = F8E4M3FromFloat(normal[i] * kFp8Spread);
        break;
      case Content::kFp8Scale:
        floats[i] = Fp8Scale(tensor.deviation, normal[i]);
        break;
      case Content::kFp4Pair:
        bytes[i] = static_cast<uint8_t>(F4FromFloat(normal[2 * i] * kFp4Spread) |
                                        F4FromFloat(normal[2 * i + 1] * kFp4Spread) << 4);
        break;
      case Content::kFp4Scale:
        bytes[i] = Fp4Scale(tensor.deviation, normal[i]);
        break;
      case Content::kNormal:
      case Content::kOnes:
        break;
    }
  }
}

}  // namespace expertmesh::checkpoint
