#include "client/cpp/decoder/rope.h"

#include <cmath>
#include <fstream>
#include <numbers>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace expertmesh::decoder {
namespace {

absl::StatusOr<Rope> Read(const std::string& json, uint32_t dimensions) {
  const absl::StatusOr<JsonReader> config = JsonReader::FromText(json, "config.json");
  EXPECT_TRUE(config.ok()) << config.status();
  return ReadRope(*config, dimensions);
}

// Relative; powers of float32 differ by a few units in the last place between libraries.
void ExpectFrequencies(const absl::StatusOr<Rope>& rope, const std::vector<float>& expected) {
  ASSERT_TRUE(rope.ok()) << rope.status();
  ASSERT_EQ(rope->inverse_frequencies.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_NEAR(rope->inverse_frequencies[i] / expected[i], 1.0f, 1e-6f) << i;
  }
}

// Every kind, and every length of a sequence that grows.
TEST(RopeTest, TurnsAsTransformersDoes) {
  std::ifstream file(std::string(EXPERTMESH_SOURCE_DIR) + "/tests/golden/rope/transformers.json");
  const nlohmann::json cases = nlohmann::json::parse(file);
  EXPECT_EQ(cases.size(), 12u);
  for (const nlohmann::json& one : cases) {
    SCOPED_TRACE(one["name"].get<std::string>());
    const auto rope = Read(one["config"].dump(), one["head_dim"].get<uint32_t>());
    ASSERT_TRUE(rope.ok()) << rope.status();
    for (const nlohmann::json& step : one["steps"]) {
      SCOPED_TRACE(step["length"].dump());
      const std::optional<Rope> stretched = rope->StretchedTo(step["length"].get<uint64_t>());
      const Rope& used = stretched ? *stretched : *rope;
      ExpectFrequencies(used, step["inverse_frequencies"].get<std::vector<float>>());
      EXPECT_NEAR(used.magnitude, step["magnitude"].get<float>(), 1e-6f);
    }
  }
}

TEST(RopeTest, SaysHowLongASequenceMayBe) {
  const auto context = [](const std::string& scaling) {
    return Read(R"({"max_position_embeddings": 4096, "rope_scaling": )" + scaling + "}", 8)
        ->context;
  };
  EXPECT_EQ(context("null"), 4096u);
  EXPECT_EQ(context(R"({"type": "linear", "factor": 4})"), 16384u);
  EXPECT_EQ(context(R"({"type": "dynamic", "factor": 2.5})"), 10240u);
  // Without the original context, max_position_embeddings is that, as transformers assumes.
  EXPECT_EQ(context(R"({"type": "yarn", "factor": 4})"), 16384u);
  EXPECT_EQ(context(R"({"type": "yarn", "factor": 4, "original_max_position_embeddings": 2048})"),
            8192u);
  EXPECT_EQ(context(R"({"type": "yarn", "factor": 4, "original_max_position_embeddings": 1024})"),
            4096u);
  EXPECT_EQ(context(R"({"type": "yarn", "factor": 2, "original_max_position_embeddings": 1024})"),
            4096u);
  EXPECT_EQ(context(R"({"type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4,
                       "original_max_position_embeddings": 512})"),
            4096u);
}

// Expected values of this test are those of transformers 4.57.6 (modeling_rope_utils).
TEST(RopeTest, Plain) {
  const std::vector<float> expected = {1.0f,
                                       0.3162277638912201f,
                                       0.10000000149011612f,
                                       0.03162277862429619f,
                                       0.009999999776482582f,
                                       0.003162277862429619f,
                                       0.0010000000474974513f,
                                       0.0003162277862429619f};
  ExpectFrequencies(Read(R"({"rope_theta": 10000})", 16), expected);
  ExpectFrequencies(Read(R"({"rope_scaling": null})", 16), expected);
  ExpectFrequencies(
      Read(R"({"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}})", 16),
      expected);
}

TEST(RopeTest, Linear) {
  const auto rope = Read(R"({"rope_scaling": {"type": "linear", "factor": 4.0}})", 4);
  ExpectFrequencies(rope, {0.25f, 0.0025f});
}

TEST(RopeTest, YarnOfDeepseek) {
  const auto rope = Read(R"({"rope_theta": 10000.0, "max_position_embeddings": 163840,
      "rope_scaling": {"type": "yarn", "factor": 40, "beta_fast": 32, "beta_slow": 1,
                       "mscale": 1.0, "mscale_all_dim": 0.707,
                       "original_max_position_embeddings": 4096}})",
                         16);
  ExpectFrequencies(rope, {1.0f, 0.3162277638912201f, 0.10000000149011612f, 0.023914724588394165f,
                           0.005124999675899744f, 0.0008498621755279601f, 2.499999936844688e-05f,
                           7.905694474175107e-06f});
  EXPECT_NEAR(rope->magnitude, 1.0857263992561355f, 1e-6f);
  // mscale of 0.707 and factor 40: 1.260804, squared 1.589626 (DeepSeek-V2's own code).
  EXPECT_NEAR(rope->scale, 1.589626f, 1e-5f);
}

TEST(RopeTest, Llama3) {
  const auto rope = Read(R"({"rope_theta": 500000.0, "max_position_embeddings": 131072,
      "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                       "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}})",
                         16);
  ExpectFrequencies(rope, {1.0f, 0.193922758102417f, 0.03760603070259094f, 0.00729266507551074f,
                           0.0005248460220173001f, 3.428102354519069e-05f, 6.647869668086059e-06f,
                           1.289173155782919e-06f});
}

TEST(RopeTest, RefusesWhatItDoesNotKnow) {
  const auto unknown = Read(R"({"rope_scaling": {"rope_type": "longrope"}})", 8);
  EXPECT_EQ(unknown.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_NE(unknown.status().message().find("longrope"), std::string::npos);
  for (const char* json : {R"({"rope_scaling": {"type": "linear"}})", R"({"rope_theta": 0})",
                           R"({"rope_scaling": {"type": "yarn", "factor": -1}})",
                           R"({"rope_scaling": {"type": "dynamic"}})",
                           R"({"rope_scaling": {"type": "dynamic", "factor": 0.5}})"}) {
    EXPECT_EQ(Read(json, 8).status().code(), absl::StatusCode::kInvalidArgument) << json;
  }
  EXPECT_EQ(Read(R"({"partial_rotary_factor": 2})", 8).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Read("{}", 7).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(RopeTest, TurnsAPartOfAHead) {
  EXPECT_EQ(Read(R"({"partial_rotary_factor": 0.25})", 16)->dimensions(), 4u);
  EXPECT_EQ(Read(R"({"partial_rotary_factor": 0.25,
                     "rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}})",
                 16)
                ->dimensions(),
            8u);
}

TEST(RopeTest, TurnsNeighboursOrHalves) {
  Rope rope;
  rope.inverse_frequencies = {std::numbers::pi_v<float> / 2, 0.0f};
  rope.magnitude = 2.0f;
  float halves[] = {1, 2, 3, 4, 9};
  RopeAngles(rope, 1).Turn(halves);
  // A quarter turn takes (1, 3) to (-3, 1); the second pair stands still; the rest is not touched.
  const float expected_halves[] = {-6, 4, 2, 8, 9};
  rope.interleaved = true;
  float pairs[] = {1, 2, 3, 4, 9};
  RopeAngles(rope, 1).Turn(pairs);
  const float expected_pairs[] = {-4, 2, 6, 8, 9};
  for (size_t i = 0; i < 5; ++i) {
    EXPECT_NEAR(halves[i], expected_halves[i], 1e-5f) << i;
    EXPECT_NEAR(pairs[i], expected_pairs[i], 1e-5f) << i;
  }
}

}  // namespace
}  // namespace expertmesh::decoder
