#include "common/gate/gate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "common/gate/weights.h"
#include "tests/support/compare_rows.h"
#include "tests/support/random_values.h"

namespace expertmesh::gate {
namespace {

using ::testing::HasSubstr;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

RoutingOptions Options(uint32_t experts, uint32_t k) {
  RoutingOptions options;
  options.num_experts = experts;
  options.top_k = k;
  return options;
}

GateWeights Weights(const std::vector<float>& weight, size_t experts) {
  GateWeights weights;
  weights.weight =
      MatrixView::RowMajor(weight.data(), Dtype::kF32, experts, weight.size() / experts);
  return weights;
}

std::unique_ptr<const Gate> Make(const GateWeights& weights, const RoutingOptions& options,
                                 Dtype model = Dtype::kF32) {
  auto gate = Gate::Create(weights, options, model);
  EXPECT_TRUE(gate.ok()) << gate.status();
  return std::move(gate).value();
}

std::vector<float> Logits(const Gate& gate, const void* x, Dtype dtype, size_t tokens) {
  std::vector<float> logits(tokens * gate.options().num_experts);
  const absl::Status status = gate.Logits(x, dtype, tokens, absl::MakeSpan(logits));
  EXPECT_TRUE(status.ok()) << status;
  return logits;
}

// Makes the last value of every `step`-th row one that bfloat16 does not have.
void WidenRows(size_t step, size_t row_size, std::vector<float>* values) {
  for (size_t end = row_size; end <= values->size(); end += step * row_size) {
    float& value = (*values)[end - 1];
    value *= 1.003f;
  }
}

// Where values that bfloat16 does not have are: these rows or weights are multiplied otherwise.
enum class Wide { kNothing, kSomeRows, kWeights };
constexpr Wide kAllWide[] = {Wide::kNothing, Wide::kSomeRows, Wide::kWeights};

void Widen(Wide wide, size_t d, std::vector<float>* w, std::vector<float>* x) {
  if (wide == Wide::kSomeRows) {
    WidenRows(3, d, x);
  } else if (wide == Wide::kWeights) {
    WidenRows(w->size() / d, d, w);
  }
}

TEST(Gate, LogitsAreTheProduct) {
  for (const auto& [experts, d] : {std::pair<uint32_t, size_t>{8, 64}, {1, 16}, {60, 100}}) {
    for (const Wide wide : kAllWide) {
      std::vector<float> w = NormalBF16Values(experts * d, 1);
      std::vector<float> x = NormalBF16Values(5 * d, 2);
      Widen(wide, d, &w, &x);
      const auto gate = Make(Weights(w, experts), Options(experts, 1));
      EXPECT_EQ(gate->d_model(), d);
      const std::vector<float> logits = Logits(*gate, x.data(), Dtype::kF32, 5);
      std::vector<double> sums;
      std::vector<double> bounds;
      for (size_t token = 0; token < 5; ++token) {
        for (size_t expert = 0; expert < experts; ++expert) {
          double sum = 0;
          double size = 0;
          for (size_t i = 0; i < d; ++i) {
            const double term = static_cast<double>(x[token * d + i]) * w[expert * d + i];
            sum += term;
            size += std::abs(term);
          }
          sums.push_back(sum);
          bounds.push_back(size * 1e-6);
        }
      }
      EXPECT_TRUE(RowsNear(logits, sums, experts, [&](size_t i) { return bounds[i]; }));
    }
  }
}

TEST(Gate, ARowsBitsDoNotDependOnTheBatch) {
  constexpr size_t kTokens = 130;
  for (const auto& [experts, d] :
       {std::pair<uint32_t, size_t>{8, 512}, {128, 2048}, {60, 100}, {3, 33}}) {
    for (const Wide wide : kAllWide) {
      std::vector<float> w = NormalBF16Values(experts * d, 3, 0.05f);
      std::vector<float> x = NormalBF16Values(kTokens * d, 4);
      Widen(wide, d, &w, &x);
      const auto gate = Make(Weights(w, experts), Options(experts, 1));
      std::vector<float> alone;
      for (size_t token = 0; token < kTokens; ++token) {
        const std::vector<float> row = Logits(*gate, x.data() + token * d, Dtype::kF32, 1);
        alone.insert(alone.end(), row.begin(), row.end());
      }
      for (size_t tokens = 1; tokens <= kTokens; ++tokens) {
        const std::vector<float> batch = Logits(*gate, x.data(), Dtype::kF32, tokens);
        const auto expected = absl::MakeConstSpan(alone).subspan(0, batch.size());
        ASSERT_TRUE(SameBits(batch, expected, experts)) << tokens << " " << experts;
      }
    }
  }
}

TEST(Gate, TheSameValuesInAnyTypeAndAtAnyAddressGiveTheSameBits) {
  constexpr size_t kDim = 96;
  constexpr size_t kTokens = 70;
  const std::vector<float> w = NormalBF16Values(16 * kDim, 5);
  std::vector<float> x = NormalBF16Values(kTokens * kDim, 6);
  for (float& value : x) {
    value = std::round(value * 16.0f) / 16.0f;  // Exact in bfloat16 and float16.
    value = FloatFromBF16(BF16FromFloat(value));
  }
  const auto gate = Make(Weights(w, 16), Options(16, 1));
  const std::vector<float> wanted = Logits(*gate, x.data(), Dtype::kF32, kTokens);
  for (const Dtype dtype : {Dtype::kF32, Dtype::kBF16, Dtype::kF16}) {
    std::vector<uint8_t> bytes(x.size() * BytesOf(dtype) + 1);
    ConvertElements(Dtype::kF32, x.data(), dtype, bytes.data() + 1, x.size());
    const std::vector<float> logits = Logits(*gate, bytes.data() + 1, dtype, kTokens);
    EXPECT_TRUE(SameBits(logits, wanted, 16)) << NameOf(dtype);
  }
}

TEST(Gate, LogitsAreRoundedToTheModelOnlyWhereTheFamilyDoes) {
  const std::vector<float> w = NormalBF16Values(8 * 64, 7);
  const std::vector<float> x = NormalBF16Values(3 * 64, 8);
  RoutingOptions options = Options(8, 2);
  options.logit_dtype = LogitDtype::kF32;
  const auto wide = Make(Weights(w, 8), options, Dtype::kBF16);
  const std::vector<float> exact = Logits(*wide, x.data(), Dtype::kF32, 3);
  options.logit_dtype = LogitDtype::kModel;
  for (const Dtype model : {Dtype::kBF16, Dtype::kF16, Dtype::kF32}) {
    const auto gate = Make(Weights(w, 8), options, model);
    std::vector<float> wanted = exact;
    RoundTo(model, absl::MakeSpan(wanted));
    EXPECT_TRUE(SameRows(Logits(*gate, x.data(), Dtype::kF32, 3), wanted, 8)) << NameOf(model);
    EXPECT_EQ(wanted != exact, model != Dtype::kF32);
  }
}

TEST(Gate, AWeightWiderThanTheModelIsRoundedOnlyWithItsLogits) {
  const std::vector<float> w = {1.0f + 0x1p-12f, -1.0f};  // As bfloat16: 1 and -1.
  const float x[] = {4096.0f, 4096.0f};
  RoutingOptions options = Options(1, 1);
  options.logit_dtype = LogitDtype::kModel;
  EXPECT_EQ(Logits(*Make(Weights(w, 1), options, Dtype::kBF16), x, Dtype::kF32, 1)[0], 0.0f);
  options.logit_dtype = LogitDtype::kF32;
  EXPECT_EQ(Logits(*Make(Weights(w, 1), options, Dtype::kBF16), x, Dtype::kF32, 1)[0], 1.0f);
}

TEST(Gate, ReadsWeightsOfAnyLayout) {
  constexpr size_t kExperts = 6;
  constexpr size_t kDim = 40;
  const std::vector<float> w = NormalBF16Values(kExperts * kDim, 9);
  const std::vector<float> x = NormalBF16Values(2 * kDim, 10);
  const std::vector<float> wanted =
      Logits(*Make(Weights(w, kExperts), Options(kExperts, 1)), x.data(), Dtype::kF32, 2);

  std::vector<uint16_t> transposed(w.size());  // bfloat16, stored [d_model, num_experts].
  for (size_t expert = 0; expert < kExperts; ++expert) {
    for (size_t i = 0; i < kDim; ++i) {
      transposed[i * kExperts + expert] = BF16FromFloat(w[expert * kDim + i]);
    }
  }
  GateWeights weights;
  weights.weight = {reinterpret_cast<const uint8_t*>(transposed.data()),
                    Dtype::kBF16,
                    kExperts,
                    kDim,
                    1,
                    kExperts};
  EXPECT_TRUE(SameRows(Logits(*Make(weights, Options(kExperts, 1)), x.data(), Dtype::kF32, 2),
                       wanted, kExperts));

  std::vector<float> spaced(kExperts * (kDim + 3), 99.0f);  // A part of a wider tensor.
  for (size_t expert = 0; expert < kExperts; ++expert) {
    std::copy_n(w.begin() + static_cast<ptrdiff_t>(expert * kDim), kDim,
                spaced.begin() + static_cast<ptrdiff_t>(expert * (kDim + 3)));
  }
  weights.weight = {
      reinterpret_cast<const uint8_t*>(spaced.data()), Dtype::kF32, kExperts, kDim, kDim + 3, 1};
  EXPECT_TRUE(SameRows(Logits(*Make(weights, Options(kExperts, 1)), x.data(), Dtype::kF32, 2),
                       wanted, kExperts));
}

TEST(Gate, RoutesWithTheCheckpointsBias) {
  std::vector<float> w(4 * 4, 0.0f);  // The identity: logits are the hidden state.
  for (size_t i = 0; i < 4; ++i) {
    w[i * 5] = 1.0f;
  }
  const std::vector<uint16_t> bias = {0, 0, 0, BF16FromFloat(4.0f)};
  GateWeights weights = Weights(w, 4);
  weights.select_bias = MatrixView::RowMajor(bias.data(), Dtype::kBF16, 1, 4);
  RoutingOptions options = Options(4, 2);
  options.score = ScoreFunction::kIdentity;
  options.select_bias = true;
  const auto gate = Make(weights, options);
  const absl::StatusOr<std::vector<float>> select_bias = ReadSelectBias(weights, options);
  ASSERT_TRUE(select_bias.ok()) << select_bias.status();
  EXPECT_THAT(*select_bias, ::testing::ElementsAre(0, 0, 0, 4));
  GateScratch scratch;
  const float x[] = {1, 3, 2, 0};
  RoutedTokens routed;
  const RequestTokens request{1};
  ASSERT_TRUE(
      gate->Route(x, Dtype::kF32, {&request, 1}, {.checkpoint = *select_bias}, &scratch, &routed)
          .ok());
  EXPECT_THAT(routed.token_begin, ::testing::ElementsAre(0, 2));
  EXPECT_THAT(routed.expert_ids, ::testing::ElementsAre(3, 1));
  EXPECT_THAT(routed.weights, ::testing::ElementsAre(0, 3));
}

TEST(Gate, TheLogitBiasIsAddedBeforeTheOneRounding) {
  const std::vector<float> w = {1.0f, 0.0f};
  const float x[] = {1.0f + 0x1p-7f};
  const std::vector<float> bias = {0x1p-9f, 3.0f};  // The sum rounds up, the product would not.
  GateWeights weights = Weights(w, 2);
  weights.logit_bias = MatrixView::RowMajor(bias.data(), Dtype::kF32, 1, 2);
  RoutingOptions options = Options(2, 1);
  EXPECT_EQ(Logits(*Make(weights, options), x, Dtype::kF32, 1)[1], 0.0f) << "not asked for";
  options.logit_bias = true;
  options.logit_dtype = LogitDtype::kF32;
  EXPECT_THAT(Logits(*Make(weights, options, Dtype::kBF16), x, Dtype::kF32, 1),
              ::testing::ElementsAre(1.0f + 0x1p-7f + 0x1p-9f, 3.0f));
  options.logit_dtype = LogitDtype::kModel;
  const float y[] = {0x1p-9f + 0x1p-16f};
  const std::vector<float> one = {1.0f + 0x1p-7f, 3.0f};
  weights.logit_bias = MatrixView::RowMajor(one.data(), Dtype::kF32, 1, 2);
  // 1 + 2^-7 + 2^-9 + 2^-16 is below the middle to the next bfloat16; 1 + 2^-7 + 2^-8 is on it.
  EXPECT_EQ(Logits(*Make(weights, options, Dtype::kBF16), y, Dtype::kF32, 1)[0], 1.0f + 0x1p-7f);
  const float z[] = {0x1p-8f + 0x1p-18f};
  EXPECT_EQ(Logits(*Make(weights, options, Dtype::kBF16), z, Dtype::kF32, 1)[0], 1.0f + 0x1p-6f);
}

RoutedTokens RouteOne(const Gate& gate, const std::vector<float>& x, const RequestTokens& request) {
  GateScratch scratch;
  RoutedTokens routed;
  const absl::Status status =
      gate.Route(x.data(), Dtype::kF32, {&request, 1}, {}, &scratch, &routed);
  EXPECT_TRUE(status.ok()) << status;
  return routed;
}

TEST(Gate, LearnedNoiseGrowsWithTheNoiseWeight) {
  const std::vector<float> w(4 * 8, 0.0f);  // Logits are nothing but noise.
  const std::vector<float> quiet(4 * 8, -100.0f);
  const std::vector<float> loud(4 * 8, 1.0f);
  const std::vector<float> x(100 * 8, 1.0f);
  RoutingOptions options = Options(4, 4);
  options.score = ScoreFunction::kIdentity;
  options.noise = Noise::kLearnedNormal;
  options.noise_scale = 0.0f;
  const auto spread = [&](const std::vector<float>& noise) {
    GateWeights weights = Weights(w, 4);
    weights.noise = MatrixView::RowMajor(noise.data(), Dtype::kF32, 4, 8);
    double squares = 0;
    for (const float weight : RouteOne(*Make(weights, options), x, {100, {}, {}, 5}).weights) {
      squares += static_cast<double>(weight) * weight;
    }
    return std::sqrt(squares / 400);
  };
  EXPECT_EQ(spread(quiet), 0.0);
  EXPECT_NEAR(spread(loud), 8.0003, 1.0);  // softplus(8)
}

TEST(Gate, JitterMovesLogitsWithinItsBoundsAndLeavesTheRowsAlone) {
  const std::vector<float> w = {1.0f};
  RoutingOptions options = Options(1, 1);
  options.score = ScoreFunction::kIdentity;
  options.noise = Noise::kJitter;
  options.noise_scale = 0.25f;
  const std::vector<float> x(200, 4.0f);
  const auto gate = Make(Weights(w, 1), options);
  const RoutedTokens routed = RouteOne(*gate, x, {200, {}, {}, 5});
  const auto [low, high] = std::minmax_element(routed.weights.begin(), routed.weights.end());
  EXPECT_GE(*low, 3.0f);
  EXPECT_LE(*high, 5.0f);
  EXPECT_LT(*low, 3.2f);
  EXPECT_GT(*high, 4.8f);
  EXPECT_NE(RouteOne(*gate, x, {200, {}, {}, 6}).weights, routed.weights);
  EXPECT_EQ(Logits(*gate, x.data(), Dtype::kF32, 1)[0], 4.0f);
}

TEST(Gate, HashNeedsTokenIdsOnly) {
  RoutingOptions options = Options(4, 1);
  options.choice = Choice::kHash;
  const std::vector<float> w(4 * 8, kNan);
  const uint32_t ids[] = {7, 4, 1};
  const std::vector<float> x(3 * 8, kNan);
  const RoutedTokens routed = RouteOne(*Make(Weights(w, 4), options), x, {3, {}, ids});
  EXPECT_THAT(routed.expert_ids, ::testing::ElementsAre(3, 0, 1));
  EXPECT_THAT(routed.weights, ::testing::ElementsAre(1, 1, 1));
}

TEST(Gate, NonFiniteRowsReachNoOtherRow) {
  constexpr size_t kDim = 64;
  const std::vector<float> w = NormalBF16Values(8 * kDim, 11);
  std::vector<float> x = NormalBF16Values(9 * kDim, 12);
  const auto gate = Make(Weights(w, 8), Options(8, 2));
  const std::vector<float> clean = Logits(*gate, x.data(), Dtype::kF32, 9);
  x[4 * kDim + 7] = kNan;
  x[6 * kDim] = std::numeric_limits<float>::infinity();
  const std::vector<float> dirty = Logits(*gate, x.data(), Dtype::kF32, 9);
  for (size_t token = 0; token < 9; ++token) {
    const auto before = absl::MakeConstSpan(clean).subspan(token * 8, 8);
    const auto after = absl::MakeConstSpan(dirty).subspan(token * 8, 8);
    const testing::AssertionResult same = SameBits(after, before, 8);
    EXPECT_EQ(static_cast<bool>(same), token != 4 && token != 6) << token << ": " << same.message();
  }
  EXPECT_TRUE(std::isnan(dirty[4 * 8]));
}

TEST(Gate, ThreadsShareIt) {
  constexpr size_t kDim = 128;
  constexpr size_t kTokens = 21;
  const std::vector<float> w = NormalBF16Values(32 * kDim, 13);
  const std::vector<float> x = NormalBF16Values(kTokens * kDim, 14);
  const auto gate = Make(Weights(w, 32), Options(32, 4));
  std::vector<RoutedTokens> routed(4);
  std::vector<std::thread> threads;
  for (size_t t = 0; t < routed.size(); ++t) {
    threads.emplace_back([&, t] {
      GateScratch scratch;
      const RequestTokens request{kTokens};
      for (int round = 0; round < 5; ++round) {
        EXPECT_TRUE(
            gate->Route(x.data(), Dtype::kF32, {&request, 1}, {}, &scratch, &routed[t]).ok());
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  for (size_t t = 1; t < routed.size(); ++t) {
    EXPECT_TRUE(SameRows(routed[t].expert_ids, routed[0].expert_ids, 4));
    EXPECT_TRUE(SameRows(routed[t].weights, routed[0].weights, 4));
  }
}

TEST(Gate, IdleThreadsThatHelpChangeNoBits) {
  constexpr size_t kDim = 96;
  constexpr size_t kMost = 400;
  const std::vector<float> w = NormalBF16Values(32 * kDim, 21);
  const std::vector<float> bias = NormalBF16Values(32, 22);
  const std::vector<float> x = NormalBF16Values(kMost * kDim, 23);
  GateWeights weights = Weights(w, 32);
  weights.logit_bias = MatrixView::RowMajor(bias.data(), Dtype::kF32, 1, 32);
  ThreadPool pool(3);
  for (const Noise noise : {Noise::kNone, Noise::kJitter}) {
    RoutingOptions options = Options(32, 4);
    options.logit_bias = true;
    options.noise = noise;
    options.noise_scale = noise == Noise::kJitter ? 0.1f : options.noise_scale;
    options.logit_dtype = LogitDtype::kModel;
    const auto gate = Make(weights, options, Dtype::kBF16);
    for (const size_t tokens : {1, 63, 64, 65, 129, 400}) {
      const RequestTokens requests[] = {{tokens / 3}, {tokens - tokens / 3}};
      GateScratch scratch;
      RoutedTokens alone;
      RoutedTokens shared;
      ASSERT_TRUE(gate->Route(x.data(), Dtype::kF32, requests, {}, &scratch, &alone).ok());
      ASSERT_TRUE(gate->Route(x.data(), Dtype::kF32, requests, {}, &scratch, &shared, &pool).ok());
      EXPECT_TRUE(SameRows(shared.expert_ids, alone.expert_ids, 4)) << tokens;
      EXPECT_TRUE(SameBits(shared.weights, alone.weights, 4)) << tokens;
    }
  }
}

TEST(Gate, NoTokensIsNoWork) {
  const std::vector<float> w = NormalBF16Values(8 * 16, 15);
  const auto gate = Make(Weights(w, 8), Options(8, 2));
  GateScratch scratch;
  RoutedTokens routed;
  EXPECT_TRUE(gate->Route(nullptr, Dtype::kBF16, {}, {}, &scratch, &routed).ok());
  EXPECT_EQ(routed.tokens(), 0u);
  const RequestTokens empty;
  EXPECT_TRUE(gate->Route(nullptr, Dtype::kBF16, {&empty, 1}, {}, &scratch, &routed).ok());
  EXPECT_EQ(routed.tokens(), 0u);
}

TEST(Gate, RefusesWhatDoesNotFit) {
  const std::vector<float> w(8 * 16, 1.0f);
  const auto message = [](const GateWeights& weights, const RoutingOptions& options,
                          Dtype model = Dtype::kF32) {
    const auto gate = Gate::Create(weights, options, model);
    EXPECT_EQ(gate.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(gate.status().message());
  };
  EXPECT_THAT(message(Weights(w, 8), Options(16, 2)), HasSubstr("[8, 16]"));
  EXPECT_THAT(message(Weights(w, 8), Options(8, 9)), HasSubstr("top_k is 9"));
  EXPECT_THAT(message(Weights(w, 8), Options(8, 2), Dtype::kI8),
              HasSubstr("activation_dtype has type I8"));
  GateWeights weights = Weights(w, 8);
  weights.weight.dtype = Dtype::kF8E4M3;
  EXPECT_THAT(message(weights, Options(8, 2)), HasSubstr("F8_E4M3"));
  RoutingOptions biased = Options(8, 2);
  biased.select_bias = true;
  EXPECT_THAT(std::string(ReadSelectBias(Weights(w, 8), biased).status().message()),
              HasSubstr("selection bias is missing, which select_bias needs"));
  RoutingOptions noisy = Options(8, 2);
  noisy.noise = Noise::kLearnedNormal;
  EXPECT_THAT(message(Weights(w, 8), noisy),
              HasSubstr("noise weight is missing, which noise = learned_normal needs"));
  RoutingOptions with_bias = Options(8, 2);
  with_bias.logit_bias = true;
  weights = Weights(w, 8);
  weights.logit_bias = MatrixView::RowMajor(w.data(), Dtype::kF32, 1, 7);
  EXPECT_THAT(message(weights, with_bias), HasSubstr("logit bias is [1, 7]"));
  std::vector<float> bias(8, 0.0f);
  bias[5] = kNan;
  weights = Weights(w, 8);
  weights.select_bias = MatrixView::RowMajor(bias.data(), Dtype::kF32, 1, 8);
  EXPECT_THAT(std::string(ReadSelectBias(weights, biased).status().message()),
              HasSubstr("expert 5 is NaN"));
}

TEST(Gate, RefusesWrongSpansAndTypes) {
  const std::vector<float> w = NormalBF16Values(8 * 16, 16);
  const std::vector<float> x(2 * 16, 1.0f);
  const auto gate = Make(Weights(w, 8), Options(8, 2));
  GateScratch scratch;
  RoutedTokens routed;
  RequestTokens request{2};
  EXPECT_EQ(gate->Route(x.data(), Dtype::kF64, {&request, 1}, {}, &scratch, &routed).code(),
            absl::StatusCode::kInvalidArgument);
  std::vector<float> logits(15);
  EXPECT_THAT(gate->Logits(x.data(), Dtype::kF32, 2, absl::MakeSpan(logits)).message(),
              HasSubstr("logits has room for 15"));
  const uint32_t sizes[] = {1, 2};
  request.group_sizes = sizes;
  EXPECT_THAT(gate->Route(x.data(), Dtype::kF32, {&request, 1}, {}, &scratch, &routed).message(),
              HasSubstr("group_sizes add up to 3; they must add up to the 2 tokens"));
  RoutingOptions biased = Options(8, 2);
  biased.select_bias = true;
  const RequestTokens two{2};
  const float bias[] = {1, 2, 3};
  EXPECT_THAT(Make(Weights(w, 8), biased)
                  ->Route(x.data(), Dtype::kF32, {&two, 1}, {.checkpoint = bias}, &scratch, &routed)
                  .message(),
              HasSubstr("select_bias has room for 3 values; it must be exactly 8"));
}

}  // namespace
}  // namespace expertmesh::gate
