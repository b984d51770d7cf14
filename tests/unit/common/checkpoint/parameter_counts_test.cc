// Parameters of the real models, by the numbers that their authors and model cards give
// (tests/golden/configs holds their config.json).

#include <cstdint>
#include <optional>
#include <string>

#include "common/checkpoint/model_config.h"
#include "tests/unit/common/checkpoint/checkpoint_test_util.h"

namespace expertmesh::checkpoint {
namespace {

struct Counts {
  std::string model;
  std::string family;
  uint64_t total = 0;
  std::optional<uint64_t> active;
  // What the published active count leaves out: the input embedding.
  uint64_t not_counted = 0;
};

void PrintTo(const Counts& counts, std::ostream* out) { *out << counts.model; }

constexpr uint64_t kGptOssEmbedding = uint64_t{201088} * 2880;

const Counts kCounts[] = {
    {"mixtral-8x7b", "mixtral", 46'702'792'704, 12'879'925'248},
    {"mixtral-8x22b", "mixtral", 140'630'071'296, 39'161'468'928},
    {"deepseek-moe-16b", "deepseek_moe", 16'375'728'128, 2'828'650'496},
    {"deepseek-v2-lite", "deepseek_v2", 15'706'484'224, 2'661'150'208},
    {"deepseek-v2", "deepseek_v2", 235'741'434'880, 21'375'800'320},
    {"deepseek-v3", "deepseek_v3", 671'026'419'200, 37'552'297'472},
    {"qwen1.5-moe-a2.7b", "qwen2_moe", 14'315'784'192, 2'689'173'504},
    {"qwen2-57b-a14b", "qwen2_moe", 57'408'658'944, 14'249'270'784},
    {"qwen3-30b-a3b", "qwen3_moe", 30'532'122'624, 3'353'032'704},
    {"qwen3-235b-a22b", "qwen3_moe", 235'093'634'560, 22'190'763'520},
    {"olmoe-1b-7b", "olmoe", 6'919'161'856, 1'282'017'280},
    {"glm-4.5-air", "glm4_moe", 106'852'251'264, 13'424'129'664},
    {"glm-4.5", "glm4_moe", 352'797'829'024, 33'632'266'144},
    {"phi-3.5-moe", "phimoe", 41'873'153'344, 6'640'999'744},
    {"dbrx", "dbrx", 131'596'523'520, 36'469'708'800},
    {"granite-3-1b-a400m", "granitemoe", 1'334'628'352, 428'658'688},
    {"granite-3-3b-a800m", "granitemoe", 3'298'793'472, 882'874'368},
    {"gpt-oss-120b", "gpt_oss", 116'829'156'672, 5'132'849'472, kGptOssEmbedding},
    {"gpt-oss-20b", "gpt_oss", 20'914'757'184, 3'608'307'264, kGptOssEmbedding},
    {"llama-4-scout", "llama4", 107'769'861'120, 17'172'894'720},
    {"llama-4-maverick", "llama4", 400'711'848'960, 17'184'691'200},
    {"jamba-v0.1", "jamba", 51'570'323'328, 12'110'311'296},
    {"switch-base-8", "switch_transformers", 619'339'008, 222'977'280},
    {"switch-base-16", "switch_transformers", 1'072'397'568, std::nullopt},
    {"switch-base-32", "switch_transformers", 1'978'514'688, std::nullopt},
    {"switch-base-64", "switch_transformers", 3'790'748'928, std::nullopt},
    {"switch-base-128", "switch_transformers", 7'415'217'408, std::nullopt},
    {"switch-base-256", "switch_transformers", 14'664'154'368, std::nullopt},
    {"switch-large-128", "switch_transformers", 26'309'291'008, std::nullopt},
    {"nllb-moe-54b", "nllb_moe", 54'500'569'088, 3'750'785'024},
};

class ParameterCountsTest : public testing::TestWithParam<Counts> {};

TEST_P(ParameterCountsTest, AreThePublishedOnes) {
  const auto model = ReadModelDescription(std::string(EXPERTMESH_SOURCE_DIR) +
                                          "/tests/golden/configs/" + GetParam().model);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->family, GetParam().family);
  EXPECT_EQ(model->parameters.total, GetParam().total);
  if (GetParam().active.has_value()) {
    EXPECT_EQ(model->parameters.active - GetParam().not_counted, *GetParam().active);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, ParameterCountsTest, testing::ValuesIn(kCounts),
                         [](const auto& info) {
                           std::string name = info.param.model;
                           for (char& c : name) {
                             c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
                           }
                           return name;
                         });

}  // namespace
}  // namespace expertmesh::checkpoint
