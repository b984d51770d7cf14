#include "client/cpp/decoder/decoder.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/cpp/decoder/generator.h"
#include "common/checkpoint/safetensors.h"
#include "common/checkpoint/safetensors_writer.h"
#include "common/checkpoint/synthetic.h"
#include "common/experts/backend_factory.h"
#include "nlohmann/json.hpp"
#include "tests/support/compare_rows.h"

namespace expertmesh::decoder {
namespace {

using Tokens = std::vector<uint32_t>;

// A small random model of `family`, with `changes` to its config.json.
class Model {
 public:
  explicit Model(const std::string& family, const nlohmann::json& changes = {})
      : directory_(absl::StrCat(testing::TempDir(), "/decoder_test_",
                                testing::UnitTest::GetInstance()->current_test_info()->name(), "_",
                                family)) {
    std::filesystem::remove_all(directory_);
    checkpoint::SyntheticOptions options;
    options.family = family;
    options.dtype = Dtype::kF32;
    options.d_model = 64;
    options.num_layers = 3;
    options.num_experts = 8;
    options.intermediate_size = 32;
    options.vocab_size = 96;
    if (family.starts_with("deepseek")) {
      options.dense_layers = 1;
    }
    EXPECT_TRUE(checkpoint::MakeSyntheticCheckpoint(directory_, options).ok());
    Change(changes);
  }
  ~Model() { std::filesystem::remove_all(directory_); }

  const std::string& directory() const { return directory_; }

  void Change(const nlohmann::json& changes) {
    const std::string path = directory_ + "/config.json";
    nlohmann::json config = nlohmann::json::parse(std::ifstream(path));
    config.update(changes.is_null() ? nlohmann::json::object() : changes);
    std::ofstream(path) << config;
  }

  void Open() {
    auto opened = Decoder::Open(directory_, {.threads = 2});
    ASSERT_TRUE(opened.ok()) << opened.status();
    decoder = *std::move(opened);
    experts.reset();
    experts::BackendOptions options;
    options.compute_dtype = Dtype::kF32;
    options.threads = 1;
    backend_ = experts::MakeBackend("cpu", options).value();
    experts =
        MakeLocalMoeLayers(checkpoint::MoeCheckpoint::Open(directory_).value(), backend_.get(), 1)
            .value();
  }

  // Logits of every token, in one piece.
  std::vector<float> Logits(const Tokens& tokens) {
    KvCache cache = decoder->NewCache();
    return LogitsOf({{&cache, tokens, true}}).value();
  }

  absl::StatusOr<std::vector<float>> LogitsOf(const std::vector<DecoderInput>& inputs) {
    const auto rows = decoder->Forward(inputs, experts.get(), nullptr);
    return rows.ok() ? decoder->Logits(*rows) : rows;
  }

 private:
  const std::string directory_;
  // Outlives the experts.
  std::unique_ptr<experts::Backend> backend_;

 public:
  std::unique_ptr<Decoder> decoder;
  std::unique_ptr<MoeLayers> experts;
};

Tokens Text(size_t count, uint32_t seed) {
  Tokens tokens;
  for (uint32_t i = 0; i < count; ++i) {
    tokens.push_back((seed + i * i * 31 + i * 7) % 96);
  }
  return tokens;
}

class DecoderFamilyTest : public testing::TestWithParam<std::string> {};

TEST_P(DecoderFamilyTest, ATextInPiecesHasTheSameBits) {
  Model model(GetParam());
  model.Open();
  const Tokens text = Text(23, 1);
  const std::vector<float> whole = model.Logits(text);
  KvCache cache = model.decoder->NewCache();
  std::vector<float> pieces;
  size_t begin = 0;
  for (const size_t count : {1, 9, 1, 12}) {
    const auto logits =
        model.LogitsOf({{&cache, absl::MakeConstSpan(text).subspan(begin, count), true}});
    ASSERT_TRUE(logits.ok()) << logits.status();
    pieces.insert(pieces.end(), logits->begin(), logits->end());
    begin += count;
  }
  EXPECT_EQ(cache.tokens(), text.size());
  EXPECT_TRUE(SameBits(pieces, whole, 96));
}

TEST_P(DecoderFamilyTest, ATextBesideOthersHasTheSameBits) {
  Model model(GetParam());
  model.Open();
  const Tokens texts[] = {Text(5, 1), Text(17, 2), Text(1, 3)};
  std::vector<KvCache> caches(3, model.decoder->NewCache());
  std::vector<DecoderInput> inputs;
  std::vector<float> alone;
  for (size_t i = 0; i < 3; ++i) {
    inputs.push_back({&caches[i], texts[i], true});
    const std::vector<float> logits = model.Logits(texts[i]);
    alone.insert(alone.end(), logits.begin(), logits.end());
  }
  const auto together = model.LogitsOf(inputs);
  ASSERT_TRUE(together.ok()) << together.status();
  EXPECT_TRUE(SameBits(*together, alone, 96));
}

INSTANTIATE_TEST_SUITE_P(Families, DecoderFamilyTest,
                         testing::Values("mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "glm4_moe",
                                         "deepseek_v2", "deepseek_v3"),
                         [](const auto& info) { return info.param; });

TEST(DecoderTest, LogitsOfTheLastTokenOnlyUnlessAllAreWanted) {
  Model model("qwen3_moe");
  model.Open();
  const Tokens text = Text(6, 4);
  const std::vector<float> all = model.Logits(text);
  KvCache cache = model.decoder->NewCache();
  const auto last = model.LogitsOf({{&cache, text}});
  ASSERT_TRUE(last.ok());
  EXPECT_TRUE(SameBits(*last, absl::MakeConstSpan(all).last(96), 96));
}

TEST(DecoderTest, AWindowHidesWhatIsBeforeIt) {
  // Three layers of windows of 4 see at most 9 tokens back.
  Model model("mixtral", {{"sliding_window", 4}});
  model.Open();
  Tokens a = Text(20, 1);
  Tokens b = a;
  b[0] = (b[0] + 1) % 96;
  const std::vector<float> of_a = model.Logits(a);
  const std::vector<float> of_b = model.Logits(b);
  const auto row = [](const std::vector<float>& logits, size_t token) {
    return absl::MakeConstSpan(logits).subspan(token * 96, 96);
  };
  EXPECT_FALSE(SameRows(row(of_a, 3), row(of_b, 3), 96));
  EXPECT_TRUE(SameRows(row(of_a, 10), row(of_b, 10), 96));
  EXPECT_TRUE(SameRows(row(of_a, 19), row(of_b, 19), 96));
}

TEST(DecoderTest, RefusesWhatDoesNotFit) {
  Model model("olmoe", {{"max_position_embeddings", 8}});
  model.Open();
  KvCache cache = model.decoder->NewCache();
  const auto forward = [&](const Tokens& tokens) {
    return model.LogitsOf({{&cache, tokens}}).status();
  };
  EXPECT_EQ(forward(Text(9, 1)).code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(forward({96}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(forward({}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(forward(Text(8, 1)).ok());
  const absl::Status full = forward({1});
  EXPECT_EQ(full.code(), absl::StatusCode::kOutOfRange);
  EXPECT_NE(full.message().find("context of 8"), std::string::npos) << full;
}

// Frequencies follow the length of each sequence by itself, and a prompt in parts is one prompt.
TEST(DecoderTest, DynamicRopeFollowsTheLengthOfTheSequence) {
  Model model("mixtral", {{"max_position_embeddings", 8},
                          {"rope_scaling", {{"rope_type", "dynamic"}, {"factor", 4.0}}}});
  model.Open();
  EXPECT_EQ(model.decoder->config().context_length, 32u);
  const Tokens text = Text(20, 1);
  const Tokens other = Text(31, 2);
  const std::vector<float> whole = model.Logits(text);
  std::vector<KvCache> caches(3, model.decoder->NewCache());
  const auto beside = model.LogitsOf({{&caches[0], text, true}, {&caches[1], other}});
  ASSERT_TRUE(beside.ok()) << beside.status();
  EXPECT_TRUE(SameBits(absl::MakeConstSpan(*beside).first(whole.size()), whole, 96));
  std::vector<float> pieces;
  for (const size_t begin : {0, 5}) {
    const auto part = absl::MakeConstSpan(text).subspan(begin, begin == 0 ? 5 : 15);
    const auto logits = model.LogitsOf({{&caches[2], part, true, text.size()}});
    ASSERT_TRUE(logits.ok()) << logits.status();
    pieces.insert(pieces.end(), logits->begin(), logits->end());
  }
  EXPECT_TRUE(SameBits(pieces, whole, 96));
  // It matters: the first tokens alone turn less.
  const std::vector<float> first = model.Logits(Text(5, 1));
  EXPECT_FALSE(SameRows(first, absl::MakeConstSpan(whole).first(first.size()), 96));
}

// As transformers 5: the head that a checkpoint has counts, whatever config.json says.
TEST(DecoderTest, ATiedModelUsesTheHeadThatItHas) {
  Model model("mixtral");
  model.Open();
  EXPECT_TRUE(model.decoder->warnings().empty());
  const std::vector<float> own = model.Logits(Text(7, 1));
  model.Change({{"tie_word_embeddings", true}});
  model.Open();
  EXPECT_EQ(model.Logits(Text(7, 1)), own);
  ASSERT_EQ(model.decoder->warnings().size(), 1u);
  EXPECT_NE(model.decoder->warnings()[0].find("tie_word_embeddings"), std::string::npos);
  EXPECT_NE(model.decoder->warnings()[0].find("lm_head.weight"), std::string::npos);
}

// Saved with a copy of the embeddings, or with none: nothing to say.
TEST(DecoderTest, ATiedModelUsesItsEmbeddings) {
  Model model("mixtral", {{"tie_word_embeddings", true}});
  const auto rewrite = [&](bool keep) {
    const auto reader = checkpoint::SafetensorsReader::OpenFolder(model.directory()).value();
    std::vector<checkpoint::TensorToWrite> tensors;
    for (const auto& [name, view] : reader->tensors()) {
      const bool head = name == "lm_head.weight";
      const checkpoint::TensorView* from =
          head ? reader->Find("model.embed_tokens.weight").value() : &view;
      if (keep || !head) {
        tensors.push_back({name, view.dtype, view.shape, {from->data, from->bytes}});
      }
    }
    // Not into the file that the reader has mapped.
    const std::string path = model.directory() + "/model.safetensors";
    ASSERT_TRUE(checkpoint::WriteSafetensors(path + ".new", tensors).ok());
    std::filesystem::rename(path + ".new", path);
  };
  std::vector<std::vector<float>> logits;
  for (const bool keep : {true, false}) {
    rewrite(keep);
    model.Open();
    EXPECT_TRUE(model.decoder->warnings().empty());
    logits.push_back(model.Logits(Text(7, 1)));
  }
  EXPECT_EQ(logits[0], logits[1]);
}

TEST(DecoderTest, RefusesFamiliesItCannotDecode) {
  Model model("gpt_oss");
  const absl::Status status = Decoder::Open(model.directory(), {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_NE(status.message().find("gpt_oss"), std::string::npos) << status;
  EXPECT_NE(status.message().find("deepseek_v3"), std::string::npos) << status;
}

TEST(DecoderTest, RefusesWrongConfigurations) {
  Model model("deepseek_v3");
  const auto open_with = [&](const nlohmann::json& changes) {
    model.Change(changes);
    return Decoder::Open(model.directory(), {}).status();
  };
  EXPECT_EQ(open_with({{"eos_token_id", 96}}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(open_with({{"eos_token_id", "x"}}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(open_with({{"eos_token_id", {3, 4}}}).ok());
  EXPECT_EQ(open_with({{"max_position_embeddings", 0}}).code(), absl::StatusCode::kInvalidArgument);
}

TEST(DecoderTest, ReadsALanguageModelInsideALargerOne) {
  Model plain("mixtral");
  plain.Open();
  const std::vector<float> expected = plain.Logits(Text(7, 1));
  Model nested("mixtral");
  const std::string path = nested.directory() + "/config.json";
  const nlohmann::json inner = nlohmann::json::parse(std::ifstream(path));
  std::ofstream(path) << nlohmann::json(
      {{"model_type", "sees"}, {"num_attention_heads", 3}, {"text_config", inner}});
  nested.Open();
  EXPECT_TRUE(SameBits(nested.Logits(Text(7, 1)), expected, 96));
}

TEST(DecoderTest, TheErrorOfASinkEndsTheText) {
  Model model("olmoe");
  model.Open();
  Sequence sequence(*model.decoder, {});
  ASSERT_TRUE(sequence.Prompt(*model.decoder, Text(3, 1), 10).ok());
  Generator generator(model.decoder.get(), model.experts.get(), nullptr, {});
  size_t tokens = 0;
  const absl::Status status = generator.Run({&sequence}, [&](size_t, uint32_t) {
    return ++tokens == 3 ? absl::AbortedError("nobody reads") : absl::OkStatus();
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kAborted);
  EXPECT_EQ(tokens, 3u);
}

// --- Generator ---

// Counts calls, and fails from some call on.
class FailingMoeLayers final : public MoeLayers {
 public:
  FailingMoeLayers(MoeLayers* inner, int good_calls) : inner_(inner), left_(good_calls) {}
  absl::StatusOr<MoeResult> Compute(const MoeCall& call) override {
    if (left_-- <= 0) {
      return absl::UnavailableError("the router went away");
    }
    return inner_->Compute(call);
  }

 private:
  MoeLayers* const inner_;
  int left_;
};

absl::StatusOr<std::vector<Tokens>> Grow(Model* model, const std::vector<Tokens>& prompts,
                                         uint64_t max_tokens, const GeneratorOptions& options = {},
                                         const SamplingOptions& sampling = {}) {
  std::vector<std::unique_ptr<Sequence>> sequences;
  std::vector<Sequence*> pointers;
  for (const Tokens& prompt : prompts) {
    sequences.push_back(std::make_unique<Sequence>(*model->decoder, sampling));
    const absl::Status status = sequences.back()->Prompt(*model->decoder, prompt, max_tokens);
    if (!status.ok()) {
      return status;
    }
    pointers.push_back(sequences.back().get());
  }
  std::vector<Tokens> grown(prompts.size());
  Generator generator(model->decoder.get(), model->experts.get(), nullptr, options);
  const absl::Status status = generator.Run(pointers, [&](size_t i, uint32_t token) {
    grown[i].push_back(token);
    return absl::OkStatus();
  });
  if (!status.ok()) {
    return status;
  }
  return grown;
}

TEST(GeneratorTest, GreedyTextIsTheLikeliestTokenEachTime) {
  Model model("qwen3_moe");
  model.Open();
  const Tokens prompt = Text(5, 9);
  const auto grown = Grow(&model, {prompt}, 6);
  ASSERT_TRUE(grown.ok()) << grown.status();
  Tokens text = prompt;
  for (const uint32_t token : (*grown)[0]) {
    const std::vector<float> logits = model.Logits(text);
    const auto best = std::max_element(logits.end() - 96, logits.end());
    EXPECT_EQ(token, static_cast<uint32_t>(best - (logits.end() - 96)));
    text.push_back(token);
  }
  EXPECT_EQ(text.size(), 11u);
}

TEST(GeneratorTest, SequencesTogetherAreSequencesAlone) {
  Model model("deepseek_v3");
  model.Open();
  const std::vector<Tokens> prompts = {Text(3, 1), Text(40, 2), Text(11, 3)};
  const SamplingOptions sampling = {.temperature = 1.0, .seed = 5};
  // Small batches: prompts go through in pieces, beside sequences that already grow.
  const auto together = Grow(&model, prompts, 8, {.max_batch_tokens = 7}, sampling);
  ASSERT_TRUE(together.ok()) << together.status();
  for (size_t i = 0; i < prompts.size(); ++i) {
    const auto alone = Grow(&model, {prompts[i]}, 8, {}, sampling).value()[0];
    EXPECT_TRUE(SameRows(alone, (*together)[i], 1)) << i;
  }
}

TEST(GeneratorTest, EndsAtTheModelsEndTokens) {
  Model model("olmoe");
  model.Open();
  const Tokens free = Grow(&model, {Text(4, 6)}, 12).value()[0];
  ASSERT_EQ(free.size(), 12u);
  // The fifth token of that text now ends it.
  const auto at = static_cast<size_t>(std::find(free.begin(), free.end(), free[4]) - free.begin());
  model.Change({{"eos_token_id", free[4]}});
  model.Open();
  const auto ended = Grow(&model, {Text(4, 6)}, 12);
  EXPECT_EQ(ended.value()[0], Tokens(free.begin(), free.begin() + static_cast<ptrdiff_t>(at)));
  EXPECT_EQ(Grow(&model, {Text(4, 6)}, 12, {.ignore_end = true}).value()[0], free);
}

TEST(GeneratorTest, RefusesWhatWouldOverflowTheContext) {
  Model model("olmoe", {{"max_position_embeddings", 10}});
  model.Open();
  EXPECT_EQ(Grow(&model, {Tokens{}}, 3).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Grow(&model, {{3, 96}}, 3).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Grow(&model, {Text(11, 1)}, 1).status().code(), absl::StatusCode::kOutOfRange);
  const absl::Status status = Grow(&model, {Text(6, 1)}, 6).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kOutOfRange);
  EXPECT_NE(status.message().find("at most 5"), std::string::npos) << status;
  EXPECT_EQ(Grow(&model, {Text(6, 1)}, 5).value()[0].size(), 5u);
}

TEST(GeneratorTest, PromptsGoOnFromWhatIsThere) {
  Model model("deepseek_v2");
  model.Open();
  Sequence sequence(*model.decoder, {});
  Generator generator(model.decoder.get(), model.experts.get(), nullptr, {});
  Tokens text = Text(4, 2);
  const Tokens more = Text(3, 5);
  for (const Tokens& prompt : {text, more}) {
    if (prompt == more) {
      text.insert(text.end(), more.begin(), more.end());
    }
    ASSERT_TRUE(sequence.Prompt(*model.decoder, prompt, 5).ok());
    Tokens grown;
    const auto add = [&](size_t, uint32_t token) {
      grown.push_back(token);
      return absl::OkStatus();
    };
    ASSERT_TRUE(generator.Run({&sequence}, add).ok());
    EXPECT_EQ(grown, Grow(&model, {text}, 5).value()[0]);
    text.insert(text.end(), grown.begin(), grown.end());
  }
}

TEST(GeneratorTest, StopsAtTheFirstErrorOfTheExperts) {
  Model model("qwen3_moe");
  model.Open();
  FailingMoeLayers failing(model.experts.get(), 7);
  Sequence sequence(*model.decoder, {});
  ASSERT_TRUE(sequence.Prompt(*model.decoder, Text(4, 1), 10).ok());
  Generator generator(model.decoder.get(), &failing, nullptr, {});
  size_t tokens = 0;
  const absl::Status status = generator.Run({&sequence}, [&](size_t, uint32_t) {
    ++tokens;
    return absl::OkStatus();
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  // Three layers: two tokens went through.
  EXPECT_EQ(tokens, 2u);
}

}  // namespace
}  // namespace expertmesh::decoder
