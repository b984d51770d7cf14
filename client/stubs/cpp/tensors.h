// Packs and unpacks the contract's tensors, and compares them. It must run on a little-endian
// machine, as the contract's tensors are little endian.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

// float32, little endian.
inline std::string PackF32(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

inline std::vector<float> UnpackF32(const std::string& data) {
  std::vector<float> values(data.size() / sizeof(float));
  std::memcpy(values.data(), data.data(), values.size() * sizeof(float));
  return values;
}

// The upper half of each float32, rounded to nearest, ties to even; little endian.
inline std::string PackBf16(const std::vector<float>& values) {
  std::string data(values.size() * sizeof(uint16_t), '\0');
  for (size_t i = 0; i < values.size(); ++i) {
    uint32_t bits;
    std::memcpy(&bits, &values[i], sizeof(bits));
    // Rounding would carry a NaN with few bits into an infinity.
    const uint32_t rounded =
        std::isnan(values[i]) ? bits | 0x400000 : bits + 0x7fff + (bits >> 16 & 1);
    const uint16_t half = static_cast<uint16_t>(rounded >> 16);
    std::memcpy(&data[i * sizeof(half)], &half, sizeof(half));
  }
  return data;
}

inline std::vector<float> UnpackBf16(const std::string& data) {
  std::vector<float> values(data.size() / sizeof(uint16_t));
  for (size_t i = 0; i < values.size(); ++i) {
    uint16_t half;
    std::memcpy(&half, &data[i * sizeof(half)], sizeof(half));
    const uint32_t bits = static_cast<uint32_t>(half) << 16;
    std::memcpy(&values[i], &bits, sizeof(bits));
  }
  return values;
}

inline std::vector<float> ReadF32(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    throw std::runtime_error("cannot read " + path);
  }
  return UnpackF32({std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()});
}

struct Worst {
  size_t token = 0;
  double error = 0;  // Norm of the difference over norm of the expected row.
};

inline Worst WorstError(const std::vector<float>& actual, const std::vector<float>& expected,
                        size_t d_model) {
  Worst worst;
  for (size_t token = 0; token < expected.size() / d_model; ++token) {
    double difference = 0, norm = 0;
    for (size_t i = token * d_model; i < (token + 1) * d_model; ++i) {
      difference += std::pow(static_cast<double>(actual[i]) - expected[i], 2);
      norm += std::pow(static_cast<double>(expected[i]), 2);
    }
    const double error = std::sqrt(difference / norm);
    if (std::isnan(error)) {
      return {token, error};
    }
    if (error > worst.error) {
      worst = {token, error};
    }
  }
  return worst;
}
