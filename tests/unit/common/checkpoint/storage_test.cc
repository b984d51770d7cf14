// Where every family's weights are, written down here a second time, index by index, as the
// transformers library computes with them; and the other ways the same weights may be stored.

#include <array>
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/tensor/decode_matrix.h"
#include "nlohmann/json.hpp"
#include "tests/support/compare_rows.h"
#include "tests/unit/common/checkpoint/checkpoint_test_util.h"
#include "tests/unit/common/checkpoint/made_checkpoint.h"

namespace expertmesh::checkpoint {
namespace {

using absl::StatusCode;

constexpr uint64_t kWidth = 16;  // Width of an expert; d_model is 32.

// Element `index` of a tensor.
float At(const OwnedTensors& tensors, const std::string& name, std::vector<uint64_t> index) {
  const auto found = tensors.find(name);
  if (found == tensors.end()) {
    ADD_FAILURE() << "no tensor " << name;
    return 0.0f;
  }
  uint64_t flat = 0;
  for (size_t i = 0; i < index.size(); ++i) {
    EXPECT_LT(index[i], found->second.shape[i]) << name;
    flat = flat * found->second.shape[i] + index[i];
  }
  EXPECT_EQ(index.size(), found->second.shape.size()) << name;
  return found->second.Floats()[flat];
}

// One element of an expert's matrix, or of a bias (`in` is 0 then).
struct Place {
  std::string name;  // {e}: the expert.
  std::function<std::vector<uint64_t>(uint64_t e, uint64_t out, uint64_t in)> index;
};

std::vector<uint64_t> OutIn(uint64_t, uint64_t out, uint64_t in) { return {out, in}; }
std::vector<uint64_t> ExpertOutIn(uint64_t e, uint64_t out, uint64_t in) { return {e, out, in}; }
std::vector<uint64_t> ExpertInOut(uint64_t e, uint64_t out, uint64_t in) { return {e, in, out}; }

struct FamilyPlaces {
  std::string family;
  uint32_t layer;  // By number in the model.
  std::string block;
  std::string gate;
  Place expert_gate;
  Place expert_up;
  Place expert_down;
};

void PrintTo(const FamilyPlaces& places, std::ostream* out) { *out << places.family; }

FamilyPlaces PerExpert(const std::string& family, const std::string& block, const std::string& gate,
                       const std::array<std::string, 3>& names, uint32_t layer = 1) {
  const auto place = [](const std::string& name) { return Place{name, OutIn}; };
  return {family, layer, block, gate, place(names[0]), place(names[1]), place(names[2])};
}

const std::array<std::string, 3> kProjections = {
    "experts.{e}.gate_proj.weight", "experts.{e}.up_proj.weight", "experts.{e}.down_proj.weight"};
const std::array<std::string, 3> kNumbered = {"experts.{e}.w1.weight", "experts.{e}.w3.weight",
                                              "experts.{e}.w2.weight"};

FamilyPlaces Granite(const std::string& family) {
  return {family,
          1,
          "model.layers.1.block_sparse_moe.",
          "router.layer.weight",
          {"input_linear.weight", ExpertOutIn},
          {"input_linear.weight",
           [](uint64_t e, uint64_t out, uint64_t in) {
             return std::vector<uint64_t>{e, kWidth + out, in};
           }},
          {"output_linear.weight", ExpertOutIn}};
}

std::vector<FamilyPlaces> AllPlaces() {
  const std::string mlp = "model.layers.1.mlp.";
  const std::string sparse = "model.layers.1.block_sparse_moe.";
  const std::string forward = "model.layers.1.feed_forward.";
  return {
      PerExpert("mixtral", sparse, "gate.weight", kNumbered),
      PerExpert("phimoe", sparse, "gate.weight", kNumbered),
      PerExpert("minimax_m2", sparse, "gate.weight", kNumbered),
      PerExpert("deepseek_moe", mlp, "gate.weight", kProjections),
      PerExpert("deepseek_v2", mlp, "gate.weight", kProjections),
      PerExpert("deepseek_v3", mlp, "gate.weight", kProjections),
      PerExpert("glm4_moe", mlp, "gate.weight", kProjections),
      PerExpert("qwen2_moe", mlp, "gate.weight", kProjections),
      PerExpert("qwen3_moe", mlp, "gate.weight", kProjections),
      PerExpert("olmoe", mlp, "gate.weight", kProjections),
      PerExpert("ernie4_5_moe", mlp, "gate.weight", kProjections),
      PerExpert("jamba", forward, "router.weight", kProjections),
      PerExpert("lfm2_moe", forward, "gate.weight", kNumbered),
      // Not gated: up and down only. One layer in each stack: layer 1 is the decoder's 0.
      PerExpert("switch_transformers", "decoder.block.0.layer.2.mlp.", "router.classifier.weight",
                {"", "experts.expert_{e}.wi.weight", "experts.expert_{e}.wo.weight"}),
      PerExpert("nllb_moe", "model.decoder.layers.0.ffn.", "router.classifier.weight",
                {"", "experts.expert_{e}.fc1.weight", "experts.expert_{e}.fc2.weight"}),
      Granite("granitemoe"),
      Granite("granitemoeshared"),
      {"gpt_oss",
       1,
       mlp,
       "router.weight",
       {"experts.gate_up_proj",
        [](uint64_t e, uint64_t out, uint64_t in) {
          return std::vector<uint64_t>{e, in, 2 * out};
        }},
       {"experts.gate_up_proj",
        [](uint64_t e, uint64_t out, uint64_t in) {
          return std::vector<uint64_t>{e, in, 2 * out + 1};
        }},
       {"experts.down_proj", ExpertInOut}},
      {"llama4",
       1,
       forward,
       "router.weight",
       {"experts.gate_up_proj", ExpertInOut},
       {"experts.gate_up_proj",
        [](uint64_t e, uint64_t out, uint64_t in) {
          return std::vector<uint64_t>{e, in, kWidth + out};
        }},
       {"experts.down_proj", ExpertInOut}},
      {"dbrx",
       1,
       "transformer.blocks.1.ffn.",
       "router.layer.weight",
       {"experts.mlp.w1",
        [](uint64_t e, uint64_t out, uint64_t in) {
          return std::vector<uint64_t>{e * kWidth + out, in};
        }},
       {"experts.mlp.v1",
        [](uint64_t e, uint64_t out, uint64_t in) {
          return std::vector<uint64_t>{e * kWidth + out, in};
        }},
       {"experts.mlp.w2",
        [](uint64_t e, uint64_t out, uint64_t in) {
          return std::vector<uint64_t>{e * kWidth + in, out};
        }}},
  };
}

void ExpectPlaced(const MatrixView& matrix, size_t outputs, size_t inputs, const Place& place,
                  const std::string& block, uint64_t expert, const OwnedTensors& tensors) {
  if (place.name.empty()) {
    EXPECT_TRUE(matrix.empty());
    return;
  }
  ASSERT_EQ(matrix.rows, outputs);
  ASSERT_EQ(matrix.cols, inputs);
  const std::string name = block + absl::StrReplaceAll(place.name, {{"{e}", absl::StrCat(expert)}});
  const std::vector<float> values = DecodeMatrix(matrix);
  // Corners and a line through the middle say where a matrix is.
  for (size_t out : {size_t{0}, size_t{1}, outputs / 2, outputs - 1}) {
    for (size_t in : {size_t{0}, size_t{1}, inputs / 2, inputs - 1}) {
      EXPECT_EQ(values[out * inputs + in], At(tensors, name, place.index(expert, out, in)))
          << name << " " << out << ", " << in;
    }
  }
}

class StorageTest : public testing::TestWithParam<FamilyPlaces> {
 protected:
  TemporaryFolder folder_;
};

TEST_P(StorageTest, WeightsAreWhereTheFamilyHasThem) {
  const FamilyPlaces& places = GetParam();
  SyntheticOptions options = Small(places.family);
  ASSERT_EQ(options.intermediate_size, kWidth);
  const auto checkpoint = Make(folder_ / "m", options);
  ASSERT_NE(checkpoint, nullptr);
  const OwnedTensors tensors = Tensors(folder_ / "m");
  const auto gate = checkpoint->Gate(places.layer);
  ASSERT_TRUE(gate.ok()) << gate.status();
  EXPECT_TRUE(SameRows(DecodeMatrix(gate->weight), tensors.at(places.block + places.gate).Floats(),
                       gate->weight.cols));
  for (const uint32_t e : {0u, 3u}) {
    const auto expert = checkpoint->Expert(places.layer, e);
    ASSERT_TRUE(expert.ok()) << expert.status();
    ExpectPlaced(expert->gate, kWidth, 32, places.expert_gate, places.block, e, tensors);
    ExpectPlaced(expert->up, kWidth, 32, places.expert_up, places.block, e, tensors);
    ExpectPlaced(expert->down, 32, kWidth, places.expert_down, places.block, e, tensors);
  }
}

INSTANTIATE_TEST_SUITE_P(Families, StorageTest, testing::ValuesIn(AllPlaces()),
                         [](const auto& info) { return info.param.family; });

TEST(Storage, BiasesOfGptOssAreInterleaved) {
  TemporaryFolder folder;
  const auto checkpoint = Make(folder / "m", Small("gpt_oss"));
  ASSERT_NE(checkpoint, nullptr);
  const OwnedTensors tensors = Tensors(folder / "m");
  const ExpertWeights expert = *checkpoint->Expert(1, 2);
  const std::string block = "model.layers.1.mlp.";
  const std::vector<float> gate = DecodeMatrix(expert.gate_bias);
  const std::vector<float> up = DecodeMatrix(expert.up_bias);
  const std::vector<float> down = DecodeMatrix(expert.down_bias);
  std::vector<float> even, odd, plain;
  for (uint64_t i = 0; i < kWidth; ++i) {
    even.push_back(At(tensors, block + "experts.gate_up_proj_bias", {2, 2 * i}));
    odd.push_back(At(tensors, block + "experts.gate_up_proj_bias", {2, 2 * i + 1}));
  }
  for (uint64_t i = 0; i < 32; ++i) {
    plain.push_back(At(tensors, block + "experts.down_proj_bias", {2, i}));
  }
  EXPECT_TRUE(SameRows(gate, even, kWidth));
  EXPECT_TRUE(SameRows(up, odd, kWidth));
  EXPECT_TRUE(SameRows(down, plain, 32));
  EXPECT_TRUE(SameRows(DecodeMatrix(checkpoint->Gate(1)->logit_bias),
                       tensors.at(block + "router.bias").Floats(), 1));
  EXPECT_EQ(checkpoint->ExpertBytes(1, 2), 2 * (3 * 16 * 32 + 2 * 16 + 32));
}

TEST(Storage, BiasesOfNllb) {
  TemporaryFolder folder;
  const auto checkpoint = Make(folder / "m", Small("nllb_moe"));
  ASSERT_NE(checkpoint, nullptr);
  const OwnedTensors tensors = Tensors(folder / "m");
  const ExpertWeights expert = *checkpoint->Expert(0, 1);
  const std::string name = "model.encoder.layers.0.ffn.experts.expert_1.";
  EXPECT_TRUE(expert.gate_bias.empty());
  EXPECT_TRUE(SameRows(DecodeMatrix(expert.up_bias), tensors.at(name + "fc1.bias").Floats(), 1));
  EXPECT_TRUE(SameRows(DecodeMatrix(expert.down_bias), tensors.at(name + "fc2.bias").Floats(), 1));
}

TEST(Storage, SharedExpertsAndTheirGate) {
  TemporaryFolder folder;
  const auto qwen = Make(folder / "qwen", Small("qwen2_moe"));
  const OwnedTensors tensors = Tensors(folder / "qwen");
  const std::string block = "model.layers.1.mlp.";
  EXPECT_EQ(DecodeMatrix(qwen->Shared(1)->up),
            tensors.at(block + "shared_expert.up_proj.weight").Floats());
  EXPECT_EQ(DecodeMatrix(qwen->Gate(1)->shared_gate),
            tensors.at(block + "shared_expert_gate.weight").Floats());

  const auto granite = Make(folder / "granite", Small("granitemoeshared"));
  const OwnedTensors fused = Tensors(folder / "granite");
  const std::vector<float> both =
      fused.at("model.layers.0.shared_mlp.input_linear.weight").Floats();
  std::vector<float> joined = DecodeMatrix(granite->Shared(0)->gate);
  const std::vector<float> up = DecodeMatrix(granite->Shared(0)->up);
  joined.insert(joined.end(), up.begin(), up.end());
  EXPECT_EQ(joined, both);

  const auto llama = Make(folder / "llama", Small("llama4"));
  EXPECT_EQ(DecodeMatrix(llama->Shared(1)->down),
            Tensors(folder / "llama")
                .at("model.layers.1.feed_forward.shared_expert.down_proj.weight")
                .Floats());
}

TEST(Storage, SelectBiases) {
  TemporaryFolder folder;
  for (const auto& [family, name] : std::vector<std::pair<std::string, std::string>>{
           {"deepseek_v3", "mlp.gate.e_score_correction_bias"},
           {"glm4_moe", "mlp.gate.e_score_correction_bias"},
           {"minimax_m2", "block_sparse_moe.e_score_correction_bias"},
           {"lfm2_moe", "feed_forward.expert_bias"},
           {"ernie4_5_moe", "mlp.moe_statics.e_score_correction_bias"}}) {
    const auto checkpoint = Make(folder / family, Small(family));
    ASSERT_NE(checkpoint, nullptr);
    EXPECT_EQ(DecodeMatrix(checkpoint->Gate(1)->select_bias),
              Tensors(folder / family).at("model.layers.1." + name).Floats())
        << family;
  }
}

// Every weight of two checkpoints is the same.
void ExpectSameWeights(const MoeCheckpoint& a, const MoeCheckpoint& b) {
  for (const MoeLayerDescription& layer : a.model().layers) {
    EXPECT_EQ(DecodeMatrix(a.Gate(layer.layer)->weight), DecodeMatrix(b.Gate(layer.layer)->weight));
    for (uint32_t e = 0; e < layer.routing.num_experts; ++e) {
      const ExpertWeights x = *a.Expert(layer.layer, e);
      const ExpertWeights y = *b.Expert(layer.layer, e);
      EXPECT_EQ(DecodeMatrix(x.gate), DecodeMatrix(y.gate));
      EXPECT_EQ(DecodeMatrix(x.up), DecodeMatrix(y.up));
      EXPECT_EQ(DecodeMatrix(x.down), DecodeMatrix(y.down));
      EXPECT_EQ(a.ExpertBytes(layer.layer, e), b.ExpertBytes(layer.layer, e));
    }
  }
}

// What version 5 of transformers keeps in memory: gate and up of all experts in one tensor.
void FuseLayer(const std::string& layer, const std::array<std::string, 3>& names,
               const std::string& fused, OwnedTensors* tensors) {
  OwnedTensor gate_up = {Dtype::kBF16, {4, 2 * kWidth, 32}, ""};
  OwnedTensor down = {Dtype::kBF16, {4, 32, kWidth}, ""};
  for (uint64_t e = 0; e < 4; ++e) {
    const auto take = [&](const std::string& name) {
      const std::string full = layer + absl::StrReplaceAll(name, {{"{e}", absl::StrCat(e)}});
      return tensors->extract(full).mapped().bytes;
    };
    gate_up.bytes += take(names[0]);
    gate_up.bytes += take(names[1]);
    down.bytes += take(names[2]);
  }
  (*tensors)[layer + fused + "gate_up_proj"] = std::move(gate_up);
  (*tensors)[layer + fused + "down_proj"] = std::move(down);
}

void Rename(const std::string& from, const std::string& to, OwnedTensors* tensors) {
  auto node = tensors->extract(from);
  ASSERT_FALSE(node.empty()) << from;
  node.key() = to;
  tensors->insert(std::move(node));
}

struct Fusion {
  std::string family;
  std::string block;
  std::array<std::string, 3> names;
  std::string fused_block;
  // Tensors beside the experts: from, to.
  std::vector<std::pair<std::string, std::string>> moved;
};

TEST(Storage, FusedExpertsOfVersion5) {
  const std::vector<std::pair<std::string, std::string>> gate_moves = {
      {"block_sparse_moe.gate.weight", "mlp.gate.weight"}};
  const std::vector<Fusion> fusions = {
      {"qwen3_moe", "mlp.", kProjections, "mlp.experts.", {}},
      {"qwen2_moe", "mlp.", kProjections, "mlp.experts.", {}},
      {"olmoe", "mlp.", kProjections, "mlp.experts.", {}},
      {"deepseek_v3", "mlp.", kProjections, "mlp.experts.", {}},
      {"glm4_moe", "mlp.", kProjections, "mlp.experts.", {}},
      {"jamba", "feed_forward.", kProjections, "feed_forward.experts.", {}},
      {"lfm2_moe", "feed_forward.", kNumbered, "feed_forward.experts.", {}},
      {"mixtral", "block_sparse_moe.", kNumbered, "mlp.experts.", gate_moves},
      {"phimoe",
       "block_sparse_moe.",
       kNumbered,
       "mlp.experts.",
       {{"block_sparse_moe.gate.weight", "mlp.router.weight"}}},
  };
  for (const Fusion& fusion : fusions) {
    SCOPED_TRACE(fusion.family);
    TemporaryFolder folder;
    const auto plain = Make(folder / "plain", Small(fusion.family));
    ASSERT_NE(Make(folder / "fused", Small(fusion.family)), nullptr);
    Rewrite(folder / "fused", [&](OwnedTensors* tensors) {
      for (const std::string layer : {"model.layers.0.", "model.layers.1."}) {
        std::array<std::string, 3> names = fusion.names;
        for (std::string& name : names) {
          name = fusion.block + name;
        }
        FuseLayer(layer, names, fusion.fused_block, tensors);
        for (const auto& [from, to] : fusion.moved) {
          Rename(layer + from, layer + to, tensors);
        }
      }
    });
    const auto fused = MoeCheckpoint::Open(folder / "fused");
    ASSERT_TRUE(fused.ok()) << fused.status();
    ExpectSameWeights(*plain, **fused);
  }
}

TEST(Storage, SplitExpertsOfLlama4) {
  TemporaryFolder folder;
  const auto fused = Make(folder / "fused", Small("llama4"));
  ASSERT_NE(Make(folder / "split", Small("llama4")), nullptr);
  Rewrite(folder / "split", [&](OwnedTensors* tensors) {
    for (uint32_t layer = 0; layer < 2; ++layer) {
      const std::string block = absl::StrCat("model.layers.", layer, ".feed_forward.experts.");
      tensors->erase(block + "gate_up_proj");
      tensors->erase(block + "down_proj");
      for (uint32_t e = 0; e < 4; ++e) {
        const ExpertWeights expert = *fused->Expert(layer, e);
        const auto put = [&](const std::string& name, const MatrixView& matrix) {
          const std::vector<float> values = DecodeMatrix(matrix);
          OwnedTensor tensor = {Dtype::kBF16, {matrix.rows, matrix.cols}, ""};
          tensor.bytes.resize(2 * values.size());
          ConvertElements(Dtype::kF32, values.data(), Dtype::kBF16, tensor.bytes.data(),
                          values.size());
          (*tensors)[absl::StrCat(block, e, ".", name, ".weight")] = std::move(tensor);
        };
        put("gate_proj", expert.gate);
        put("up_proj", expert.up);
        put("down_proj", expert.down);
      }
    }
  });
  const auto split = MoeCheckpoint::Open(folder / "split");
  ASSERT_TRUE(split.ok()) << split.status();
  ExpectSameWeights(*fused, **split);
}

TEST(Storage, PrefixesOfTransformers) {
  for (const std::string prefix : {"", "language_model.model.", "model.language_model."}) {
    for (const std::string family : {"llama4", "deepseek_v3", "nllb_moe"}) {
      TemporaryFolder folder;
      const auto plain = Make(folder / "plain", Small(family));
      ASSERT_NE(Make(folder / "m", Small(family)), nullptr);
      Rewrite(folder / "m", [&](OwnedTensors* tensors) {
        OwnedTensors renamed;
        for (auto& [name, tensor] : *tensors) {
          const bool inside = name.starts_with("model.");
          renamed[inside ? prefix + name.substr(6) : name] = tensor;
        }
        *tensors = std::move(renamed);
      });
      const auto opened = MoeCheckpoint::Open(folder / "m");
      ASSERT_TRUE(opened.ok()) << opened.status();
      ExpectSameWeights(*plain, **opened);
    }
  }
}

TEST(Storage, LanguageModelInsideAModelOfSeveralInputs) {
  TemporaryFolder folder;
  const auto plain = Make(folder / "plain", Small("llama4"));
  ASSERT_NE(Make(folder / "m", Small("llama4")), nullptr);
  nlohmann::json text = nlohmann::json::parse(ReadFile(folder / "m/config.json"));
  text.erase("torch_dtype");
  text.erase("architectures");
  WriteFile(folder / "m/config.json",
            nlohmann::json{{"model_type", "llama4"}, {"dtype", "bfloat16"}, {"text_config", text}}
                .dump());
  const auto opened = MoeCheckpoint::Open(folder / "m");
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ((*opened)->model().family, "llama4");
  EXPECT_EQ((*opened)->model().dtype, Dtype::kBF16);
  EXPECT_EQ((*opened)->fingerprint(), plain->fingerprint());
}

TEST(Storage, NamesWhatIsMissingOrWrongInFusedTensors) {
  for (const std::string family : {"gpt_oss", "granitemoe", "llama4", "dbrx", "nllb_moe"}) {
    TemporaryFolder folder;
    ASSERT_NE(Make(folder / "m", Small(family)), nullptr);
    const OwnedTensors tensors = Tensors(folder / "m");
    for (const auto& entry : tensors) {
      const auto& name = entry.first;
      const bool routed = name.find("expert") != std::string::npos ||
                          name.find("put_linear") != std::string::npos ||
                          name.find("router") != std::string::npos;
      if (!routed) {
        continue;
      }
      Rewrite(folder / "m", [&](OwnedTensors* all) {
        *all = tensors;
        all->erase(name);
      });
      ExpectError(MoeCheckpoint::Open(folder / "m").status(), StatusCode::kNotFound, name);
      Rewrite(folder / "m", [&](OwnedTensors* all) {
        *all = tensors;
        all->at(name).shape.insert(all->at(name).shape.begin(), 1);
        // A vector may have a leading 1.
        all->at(name).shape.insert(all->at(name).shape.begin(), 1);
      });
      ExpectError(MoeCheckpoint::Open(folder / "m").status(), StatusCode::kInvalidArgument,
                  "model.safetensors", name, "[1, 1, ");
      Rewrite(folder / "m", [&](OwnedTensors* all) {
        *all = tensors;
        all->at(name).dtype = Dtype::kI16;
      });
      ExpectError(MoeCheckpoint::Open(folder / "m").status(), StatusCode::kInvalidArgument,
                  "model.safetensors", name, "I16");
    }
  }
}

}  // namespace
}  // namespace expertmesh::checkpoint
