#include "common/json/json_reader.h"

#include <optional>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace expertmesh {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

JsonReader Reader(absl::string_view text) {
  absl::StatusOr<JsonReader> reader = JsonReader::FromText(text, "f.json");
  EXPECT_TRUE(reader.ok()) << reader.status();
  return *std::move(reader);
}

template <typename T>
std::string ErrorOf(const absl::StatusOr<T>& result) {
  EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument) << result.status();
  return std::string(result.status().message());
}

TEST(JsonReader, ReadsObjectsOnly) {
  EXPECT_EQ(ErrorOf(JsonReader::FromText("[1]", "f.json")),
            "f.json: the content is [1]; supported: an object");
  EXPECT_EQ(ErrorOf(JsonReader::FromText("{", "f.json")), "f.json: not valid JSON at byte 2");
  EXPECT_EQ(ErrorOf(JsonReader::FromText(R"({"a":1,"a":1})", "f.json")),
            "f.json: key 'a' appears twice in one object");
  EXPECT_EQ(JsonReader::FromFile("/nonexistent/f.json").status().code(),
            absl::StatusCode::kNotFound);
}

TEST(JsonReader, ReadsWhatIsThere) {
  const JsonReader reader = Reader(
      R"({"b": true, "s": "x", "w": 0, "p": 7, "f": 1.5, "o": {"k": 1}, "a": [1, 2], "l": ["y"],
          "m": -1, "n": null})");
  EXPECT_EQ(*reader.Bool("b"), true);
  EXPECT_EQ(*reader.BoolOr({"b"}, false), true);
  EXPECT_EQ(*reader.String("s"), "x");
  EXPECT_EQ(*reader.StringOr({"s"}, "y"), "x");
  EXPECT_EQ(*reader.Whole("w"), 0u);
  EXPECT_EQ(*reader.WholeOr({"w"}, 3), 0u);
  EXPECT_EQ(*reader.Positive({"p"}, 7), 7u);
  EXPECT_EQ(*reader.PositiveOr({"p"}, 3), 7u);
  EXPECT_EQ(*reader.FloatOr({"f"}, 0.0f), 1.5f);
  EXPECT_EQ(*reader.FloatOr({"p"}, 0.0f), 7.0f);
  EXPECT_EQ(*reader.Object("o")->Whole("k"), 1u);
  EXPECT_EQ((*reader.Array("a"))->size(), 2u);
  EXPECT_THAT(*reader.WholeNumbers("a"), ElementsAre(1, 2));
  EXPECT_THAT(*reader.OneOrMore("a"), ElementsAre(1, 2));
  EXPECT_THAT(*reader.OneOrMore("p"), ElementsAre(7));
  EXPECT_THAT(*reader.Strings("l"), ElementsAre("y"));
  EXPECT_TRUE(reader.Holds("s", "x"));
  EXPECT_FALSE(reader.Holds("s", "y"));
  EXPECT_FALSE(reader.Holds("w", "x"));
  EXPECT_TRUE(reader.HoldsMinusOne("m"));
  EXPECT_FALSE(reader.HoldsMinusOne("p"));
  EXPECT_TRUE(reader.IsNull("n"));
  EXPECT_FALSE(reader.IsNull("s"));
  EXPECT_FALSE(reader.IsNull("gone"));
}

TEST(JsonReader, NullIsAbsent) {
  for (const char* text : {"{}", R"({"k": null})"}) {
    const JsonReader reader = Reader(text);
    EXPECT_FALSE(reader.Has("k"));
    EXPECT_EQ(*reader.BoolOr({"k"}, true), true);
    EXPECT_EQ(*reader.StringOr({"k"}, "y"), "y");
    EXPECT_EQ(*reader.WholeOr({"k"}, 3), 3u);
    EXPECT_EQ(*reader.PositiveOr({"k"}, 3), 3u);
    EXPECT_EQ(*reader.FloatOr({"k"}, 0.5f), 0.5f);
    EXPECT_THAT(*reader.Strings("k"), IsEmpty());
    EXPECT_THAT(*reader.OneOrMore("k"), IsEmpty());
    EXPECT_FALSE(reader.ObjectOrEmpty("k")->Has("x"));
    const std::string is = reader.IsNull("k") ? "f.json: k is null; " : "f.json: k is missing; ";
    EXPECT_EQ(ErrorOf(reader.Bool("k")), is + "supported: true and false");
    EXPECT_EQ(ErrorOf(reader.String("k")), is + "supported: a string");
    EXPECT_EQ(ErrorOf(reader.Whole("k", 9)), is + "supported: a whole number from 0 to 9");
    EXPECT_EQ(ErrorOf(reader.Positive({"k"}, 9)), is + "supported: a whole number from 1 to 9");
    EXPECT_EQ(ErrorOf(reader.Object("k")), is + "supported: an object");
    EXPECT_EQ(ErrorOf(reader.Array("k")), is + "supported: an array");
  }
}

TEST(JsonReader, RefusesOtherTypesAndRanges) {
  const std::string is = "f.json: k is ";
  const std::string whole = "; supported: a whole number from 0 to 16777216";
  for (const char* value : {"-1", "1.0", "16777217", "\"1\"", "true", "18446744073709551616"}) {
    const JsonReader reader = Reader(absl::StrCat("{\"k\": ", value, "}"));
    const std::string shown = reader.Find("k")->dump();
    EXPECT_EQ(ErrorOf(reader.Whole("k")), is + shown + whole);
    EXPECT_EQ(ErrorOf(reader.WholeOr({"k"}, 1)), is + shown + whole);
  }
  const JsonReader zero = Reader(R"({"k": 0})");
  EXPECT_EQ(ErrorOf(zero.Positive({"k"}, 4)), is + "0; supported: a whole number from 1 to 4");
  EXPECT_EQ(ErrorOf(zero.PositiveOr({"k"}, 2, 4)), is + "0; supported: a whole number from 1 to 4");
  EXPECT_EQ(ErrorOf(zero.BoolOr({"k"}, true)), is + "0; supported: true and false");
  EXPECT_EQ(ErrorOf(zero.StringOr({"k"}, "")), is + "0; supported: a string");
  EXPECT_EQ(ErrorOf(zero.Strings("k")), is + "0; supported: an array of strings");
  EXPECT_EQ(ErrorOf(zero.WholeNumbers("k")), is + "0; supported: an array of whole numbers");
  EXPECT_EQ(ErrorOf(zero.ObjectOrEmpty("k")), is + "0; supported: an object");
  EXPECT_EQ(ErrorOf(Reader(R"({"k": 1e300})").FloatOr({"k"}, 0.0f)),
            is + "1e+300; supported: a finite number");
  EXPECT_EQ(ErrorOf(Reader(R"({"k": [1]})").Strings("k")),
            is + "[1]; supported: an array of strings");
  EXPECT_EQ(ErrorOf(Reader(R"({"k": [-1]})").OneOrMore("k")),
            is + "[-1]; supported: an array of whole numbers");
}

// As transformers reads config.json; what counts must still be a number.
TEST(JsonReader, NumbersThatAreNotFiniteMatterWhereTheyAreAskedFor) {
  for (const char* value : {"NaN", "Infinity", "-Infinity"}) {
    const JsonReader reader = Reader(absl::StrCat(R"({"other": 2.5, "k": )", value, "}"));
    EXPECT_EQ(*reader.FloatOr({"other"}, 0.0f), 2.5f);
    const std::string is = absl::StrCat("f.json: k is ", value, "; supported: ");
    EXPECT_EQ(ErrorOf(reader.FloatOr({"k"}, 0.0f)), is + "a finite number");
    EXPECT_EQ(ErrorOf(reader.Whole("k", 4)), is + "a whole number from 0 to 4");
    EXPECT_EQ(ErrorOf(reader.StringOr({"k"}, "")), is + "a string");
  }
}

TEST(JsonReader, LongValuesAreCut) {
  const std::string error =
      ErrorOf(Reader(absl::StrCat("{\"k\": \"", std::string(1000, 'x'), "\"}")).Bool("k"));
  EXPECT_LT(error.size(), 300u);
  EXPECT_THAT(error, testing::HasSubstr("xxx...; supported: true and false"));
}

TEST(JsonReader, NamesForTheSameThingAgree) {
  const JsonReader reader = Reader(R"({"a": null, "b": 2, "c": 2, "d": 3})");
  EXPECT_EQ(*reader.Positive({"a", "b", "c"}), 2u);
  EXPECT_EQ(reader.NameOf({"a", "b"}), "b");
  EXPECT_EQ(reader.NameOf({"a", "x"}), "a");
  EXPECT_EQ(ErrorOf(reader.Positive({"b", "d"})),
            "f.json: b = 2 contradicts d = 3; keep one of them");
  EXPECT_EQ(ErrorOf(reader.Positive({"x", "y"}, 5)),
            "f.json: x or y is missing; supported: a whole number from 1 to 5");
  EXPECT_EQ(ErrorOf(reader.StringOr({"a", "b"}, "")), "f.json: b is 2; supported: a string");
}

TEST(JsonReader, NestedObjectsNameTheirPath) {
  const JsonReader reader = Reader(R"({"o": {"p": {"k": 1}}, "l": [{}, {"k": 2}], "m": [{}, 3]})");
  const JsonReader inner = *reader.Object("o")->ObjectOrEmpty("p");
  EXPECT_EQ(inner.Place("k"), "f.json: o.p.k");
  EXPECT_EQ(inner.Place(), "f.json: o.p");
  EXPECT_EQ(inner.Source(), "f.json: o.p");
  EXPECT_EQ(inner.Error("odd").message(), "f.json: o.p: odd");
  EXPECT_EQ(reader.Error("odd").message(), "f.json: odd");
  EXPECT_EQ(ErrorOf(inner.Bool("k")), "f.json: o.p.k is 1; supported: true and false");
  const std::vector<JsonReader> list = *reader.Objects("l");
  ASSERT_EQ(list.size(), 2u);
  EXPECT_EQ(ErrorOf(list[0].Bool("k")), "f.json: l[0].k is missing; supported: true and false");
  EXPECT_EQ(*list[1].Whole("k"), 2u);
  EXPECT_EQ(ErrorOf(reader.Objects("m")), "f.json: m[1] is 3; supported: an object");
}

TEST(JsonReader, InheritsWhatIsLacking) {
  const JsonReader reader = Reader(R"({"a": 1, "b": 2, "c": 3, "d": 4, "o": {"a": 5, "b": null}})");
  const JsonReader object = *reader.ObjectOrEmpty("o", {"a", "b", "c", "x"});
  EXPECT_EQ(*object.Whole("a"), 5u);
  EXPECT_EQ(*object.Whole("b"), 2u);
  EXPECT_EQ(*object.Whole("c"), 3u);
  EXPECT_FALSE(object.Has("d"));
  EXPECT_FALSE(object.Has("x"));
  EXPECT_EQ(*reader.ObjectOrEmpty("none", {"d"})->Whole("d"), 4u);
}

TEST(JsonReader, PartsOutliveTheWhole) {
  std::optional<JsonReader> whole = Reader(R"({"o": {"k": "kept"}})");
  const JsonReader object = *whole->Object("o");
  whole.reset();
  EXPECT_EQ(*object.String("k"), "kept");
}

TEST(JsonReader, DoneRefusesUnknownKeys) {
  const JsonReader reader = Reader(R"({"o": {"a": 1, "b": "\u001b", "x\ny": [2]}})");
  const JsonReader object = *reader.Object("o");
  EXPECT_TRUE(reader.Done().ok());
  EXPECT_TRUE(object.Whole("a").ok());
  object.Ignore("b");
  object.Ignore("absent");
  EXPECT_EQ(object.Done().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(object.Done().message(),
            "f.json: o.x\\ny is [2], and what that asks for is unknown here");
  EXPECT_TRUE(object.Has("x\ny"));
  EXPECT_TRUE(object.Done().ok());
}

}  // namespace
}  // namespace expertmesh
