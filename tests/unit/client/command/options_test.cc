#include "client/cpp/command/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace expertmesh::command {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

CommandSpec Spec() {
  return {"try",
          "Tries.",
          "DIR",
          {{.name = "router", .value = "ADDR", .help = "where", .required = true},
           {.name = "tokens",
            .kind = OptionKind::kWhole,
            .value = "N",
            .help = "how many",
            .fallback = "16",
            .min = 1},
           {.name = "wait", .kind = OptionKind::kDuration, .value = "SECONDS", .help = "how long"},
           {.name = "tolerance", .kind = OptionKind::kNumber, .value = "X", .help = "how much"},
           {.name = "layers", .kind = OptionKind::kLayers, .value = "LIST", .help = "which"},
           {.name = "dtype",
            .kind = OptionKind::kChoice,
            .value = "TYPE",
            .help = "what",
            .choices = {"f32", "bf16"}},
           {.name = "json", .kind = OptionKind::kSwitch, .help = "as JSON"}}};
}

absl::StatusOr<Options> Parse(const std::vector<std::string>& arguments) {
  return ParseOptions(Spec(), arguments);
}

std::string ErrorOf(const std::vector<std::string>& arguments) {
  return std::string(Parse(arguments).status().message());
}

TEST(OptionsTest, TakesBothWaysToWriteAValueInAnyOrder) {
  const auto options = Parse({"--router", "a:1", "dir", "--tokens=3", "--json"});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->Text("router"), "a:1");
  EXPECT_EQ(options->Whole("tokens"), 3u);
  EXPECT_TRUE(options->Has("json"));
  EXPECT_EQ(options->argument(), "dir");
  EXPECT_FALSE(options->help());
}

TEST(OptionsTest, FallbacksCountAsGivenAndOthersDoNot) {
  const auto options = Parse({"--router=a:1", "dir"});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->Whole("tokens"), 16u);
  EXPECT_FALSE(options->Has("wait"));
  EXPECT_FALSE(options->Has("json"));
  EXPECT_TRUE(options->Layers("layers").empty());
}

TEST(OptionsTest, ReadsEveryKind) {
  const auto options = Parse({"--router", "a=b:1", "dir", "--wait", "0.2", "--tolerance", "1e-5",
                              "--layers", "4,0-2", "--dtype", "bf16"});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->Text("router"), "a=b:1");
  EXPECT_EQ(options->Duration("wait"), absl::Milliseconds(200));
  EXPECT_EQ(options->Number("tolerance"), 1e-5);
  EXPECT_THAT(options->Layers("layers"), ElementsAre(0, 1, 2, 4));
  EXPECT_EQ(options->Text("dtype"), "bf16");
  EXPECT_EQ(Parse({"--router=a:1", "dir", "--wait=1m"})->Duration("wait"), absl::Minutes(1));
}

TEST(OptionsTest, AfterTwoHyphensEverythingIsAnArgument) {
  const auto options = Parse({"--router=a:1", "--", "--json"});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->argument(), "--json");
  EXPECT_FALSE(options->Has("json"));
}

TEST(OptionsTest, NamesWhatIsWrong) {
  EXPECT_THAT(ErrorOf({"dir"}), HasSubstr("--router ADDR is missing"));
  EXPECT_THAT(ErrorOf({"--router=a:1"}), HasSubstr("DIR is missing"));
  EXPECT_THAT(ErrorOf({"--router=a:1", "dir", "more"}), HasSubstr("unexpected argument 'more'"));
  EXPECT_THAT(ErrorOf({"--frobnicate=1"}), HasSubstr("unknown option --frobnicate"));
  EXPECT_THAT(ErrorOf({"-x"}), HasSubstr("unknown option -x"));
  EXPECT_THAT(ErrorOf({"-router=a:1"}), HasSubstr("unknown option -router"));
  EXPECT_THAT(ErrorOf({"dir", "--router"}), HasSubstr("--router needs a value, ADDR"));
  EXPECT_THAT(ErrorOf({"--json=1"}), HasSubstr("--json takes no value"));
}

TEST(OptionsTest, RefusesValuesOfTheWrongKind) {
  EXPECT_THAT(ErrorOf({"--router="}), HasSubstr("must be not empty"));
  EXPECT_THAT(ErrorOf({"--tokens=0"}), HasSubstr("'0'; it must be a whole number from 1"));
  EXPECT_THAT(ErrorOf({"--tokens=-3"}), HasSubstr("'-3'"));
  EXPECT_THAT(ErrorOf({"--tokens", "3x"}), HasSubstr("'3x'"));
  EXPECT_THAT(ErrorOf({"--tolerance=inf"}), HasSubstr("'inf'"));
  EXPECT_THAT(ErrorOf({"--wait=-1"}), HasSubstr("'-1'"));
  EXPECT_THAT(ErrorOf({"--wait=soon"}), HasSubstr("such as 1.5"));
  EXPECT_THAT(ErrorOf({"--layers=3-1"}), HasSubstr("0-3,7"));
  EXPECT_THAT(ErrorOf({"--layers=65536"}), HasSubstr("numbers below 65536"));
  EXPECT_THAT(ErrorOf({"--dtype=f64"}), HasSubstr("one of f32, bf16"));
}

TEST(OptionsTest, HelpNeedsNothingElse) {
  const auto options = Parse({"--tokens=x", "--help"});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_TRUE(options->help());
}

TEST(OptionsTest, UsageListsEveryOptionWithItsDefault) {
  const std::string usage = Usage(Spec());
  EXPECT_THAT(usage, HasSubstr("usage: expertmesh try --router ADDR DIR [option]..."));
  for (const OptionSpec& option : Spec().options) {
    EXPECT_THAT(usage, HasSubstr("--" + option.name));
  }
  EXPECT_THAT(usage, HasSubstr("how many (default 16)"));
  EXPECT_THAT(usage, HasSubstr("f32, bf16"));
}

}  // namespace
}  // namespace expertmesh::command
