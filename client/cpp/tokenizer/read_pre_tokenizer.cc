// "pre_tokenizer" and "post_processor" of a tokenizer.json.
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "client/cpp/tokenizer/tokenizer_json.h"
#include "common/base/status_macros.h"
#include "nlohmann/json.hpp"

namespace expertmesh::tokenizer {
namespace {

using nlohmann::json;

absl::StatusOr<SplitBehavior> ReadBehavior(const JsonReader& object) {
  constexpr std::pair<absl::string_view, SplitBehavior> kNames[] = {
      {"Removed", SplitBehavior::kRemoved},
      {"Isolated", SplitBehavior::kIsolated},
      {"MergedWithPrevious", SplitBehavior::kMergedWithPrevious},
      {"MergedWithNext", SplitBehavior::kMergedWithNext},
      {"Contiguous", SplitBehavior::kContiguous},
  };
  ASSIGN_OR_RETURN(const std::string text, object.String("behavior"));
  for (const auto& [name, behavior] : kNames) {
    if (name == text) {
      return behavior;
    }
  }
  return object.Refuse("behavior",
                       "Removed, Isolated, MergedWithPrevious, MergedWithNext, Contiguous");
}

absl::StatusOr<PreTokenizer::Step> ReadSplit(const JsonReader& object) {
  ASSIGN_OR_RETURN(Regex pattern, ReadPattern(object));
  ASSIGN_OR_RETURN(const SplitBehavior behavior, ReadBehavior(object));
  ASSIGN_OR_RETURN(const bool invert, object.Bool("invert"));
  return PreTokenizer::Split{std::move(pattern), behavior, invert};
}

absl::StatusOr<PreTokenizer::Step> ReadDigits(const JsonReader& object) {
  ASSIGN_OR_RETURN(const bool individual, object.Bool("individual_digits"));
  ASSIGN_OR_RETURN(Regex digit, Regex::Compile("\\p{N}"));
  return PreTokenizer::Split{std::move(digit),
                             individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous};
}

absl::StatusOr<PreTokenizer::Step> ReadByteLevel(const JsonReader& object) {
  PreTokenizer::ByteLevel step;
  ASSIGN_OR_RETURN(step.add_prefix_space, object.Bool("add_prefix_space"));
  ASSIGN_OR_RETURN(const bool use_regex, object.BoolOr({"use_regex"}, true));
  object.Ignore("trim_offsets");  // Matters only to where tokens lie in the text.
  if (use_regex) {
    step.split.push_back({Gpt2Pattern(), SplitBehavior::kIsolated});
  }
  return step;
}

absl::StatusOr<PreTokenizer::Step> ReadMetaspace(const JsonReader& object) {
  PreTokenizer::Metaspace step;
  using Prepend = PreTokenizer::Metaspace::Prepend;
  ASSIGN_OR_RETURN(step.replacement, ReadCharacter(object, "replacement"));
  object.Ignore("str_rep");  // The same again, in old files.
  ASSIGN_OR_RETURN(const std::string scheme, object.StringOr({"prepend_scheme"}, "always"));
  if (scheme == "first") {
    step.prepend = Prepend::kFirst;
  } else if (scheme == "never") {
    step.prepend = Prepend::kNever;
  } else if (scheme != "always") {
    return object.Refuse("prepend_scheme", "always, first, never");
  }
  ASSIGN_OR_RETURN(const bool add_prefix_space, object.BoolOr({"add_prefix_space"}, true));
  if (!add_prefix_space && step.prepend != Prepend::kNever) {
    return object.Refuse("add_prefix_space", "true, or false with the prepend_scheme never");
  }
  ASSIGN_OR_RETURN(const bool split, object.BoolOr({"split"}, true));
  if (split) {
    ASSIGN_OR_RETURN(Regex pattern, Regex::Literal(step.replacement));
    step.split.push_back({std::move(pattern), SplitBehavior::kMergedWithNext});
  }
  return step;
}

absl::Status AddPreTokenizer(const JsonReader& object, PreTokenizer* pre_tokenizer) {
  ASSIGN_OR_RETURN(const std::string type, object.String("type"));
  if (type == "Sequence") {
    ASSIGN_OR_RETURN(const std::vector<JsonReader> steps, object.Objects("pretokenizers"));
    for (const JsonReader& step : steps) {
      RETURN_IF_ERROR(AddPreTokenizer(step, pre_tokenizer));
    }
    return object.Done();
  }
  absl::StatusOr<PreTokenizer::Step> step =
      type == "Split"       ? ReadSplit(object)
      : type == "Digits"    ? ReadDigits(object)
      : type == "ByteLevel" ? ReadByteLevel(object)
      : type == "Metaspace"
          ? ReadMetaspace(object)
          : object.Refuse("type", "ByteLevel, Split, Digits, Metaspace, Sequence");
  RETURN_IF_ERROR(step.status());
  // Only before anything is cut or rewritten is it known whether a piece is the first.
  const auto* metaspace = std::get_if<PreTokenizer::Metaspace>(&*step);
  if (metaspace != nullptr && metaspace->prepend == PreTokenizer::Metaspace::Prepend::kFirst &&
      !pre_tokenizer->empty()) {
    return object.Refuse("prepend_scheme", "first, where no other pre-tokenizer comes before");
  }
  pre_tokenizer->Add(*std::move(step));
  return object.Done();
}

absl::StatusOr<TextTemplate::Part> ReadPart(const JsonReader& post_processor,
                                            const JsonReader& item) {
  TextTemplate::Part part;
  part.is_text = item.Has("Sequence");
  if (part.is_text == item.Has("SpecialToken")) {
    return post_processor.Refuse("single", "a list of SpecialToken and of Sequence A");
  }
  ASSIGN_OR_RETURN(const JsonReader content,
                   item.Object(part.is_text ? "Sequence" : "SpecialToken"));
  ASSIGN_OR_RETURN(const std::string id, content.String("id"));
  content.Ignore("type_id");  // Models of one sequence do not use it.
  RETURN_IF_ERROR(content.Done());
  RETURN_IF_ERROR(item.Done());
  if (part.is_text) {
    if (id != "A") {
      return content.Refuse("id", "A");
    }
    return part;
  }
  ASSIGN_OR_RETURN(const JsonReader tokens, post_processor.Object("special_tokens"));
  ASSIGN_OR_RETURN(const JsonReader token, tokens.Object(id));
  ASSIGN_OR_RETURN(const json* const ids, token.Array("ids"));
  for (const json& value : *ids) {
    if (!value.is_number_unsigned() || value.get<uint64_t>() > kMaxTokenId) {
      return token.Refuse("ids", absl::StrCat("whole numbers from 0 to ", kMaxTokenId));
    }
    part.ids.push_back(value.get<uint32_t>());
  }
  return part;
}

absl::Status AddPostProcessor(const JsonReader& object, bool* has_template, TextTemplate* around) {
  ASSIGN_OR_RETURN(const std::string type, object.String("type"));
  if (type == "Sequence") {
    ASSIGN_OR_RETURN(const std::vector<JsonReader> steps, object.Objects("processors"));
    for (const JsonReader& step : steps) {
      RETURN_IF_ERROR(AddPostProcessor(step, has_template, around));
    }
  } else if (type == "ByteLevel") {
    // All that it does is about where tokens lie in the text.
    for (const absl::string_view key : {"add_prefix_space", "trim_offsets", "use_regex"}) {
      object.Ignore(key);
    }
  } else if (type == "TemplateProcessing" && !*has_template) {
    *has_template = true;
    around->parts.clear();
    ASSIGN_OR_RETURN(const std::vector<JsonReader> items, object.Objects("single"));
    for (const JsonReader& item : items) {
      ASSIGN_OR_RETURN(TextTemplate::Part part, ReadPart(object, item));
      around->parts.push_back(std::move(part));
    }
    object.Ignore("special_tokens");
    object.Ignore("pair");  // For two texts at once.
  } else {
    return object.Refuse("type", "ByteLevel, TemplateProcessing (once), Sequence");
  }
  return object.Done();
}

}  // namespace

absl::StatusOr<PreTokenizer> ReadPreTokenizer(const JsonReader& file) {
  PreTokenizer pre_tokenizer;
  if (file.Has("pre_tokenizer")) {
    ASSIGN_OR_RETURN(const JsonReader object, file.Object("pre_tokenizer"));
    RETURN_IF_ERROR(AddPreTokenizer(object, &pre_tokenizer));
  }
  return pre_tokenizer;
}

absl::StatusOr<TextTemplate> ReadPostProcessor(const JsonReader& file) {
  TextTemplate around;
  if (file.Has("post_processor")) {
    ASSIGN_OR_RETURN(const JsonReader object, file.Object("post_processor"));
    bool has_template = false;
    RETURN_IF_ERROR(AddPostProcessor(object, &has_template, &around));
  }
  return around;
}

}  // namespace expertmesh::tokenizer
