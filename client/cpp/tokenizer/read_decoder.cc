// "decoder" of a tokenizer.json.
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "client/cpp/tokenizer/tokenizer_json.h"
#include "common/base/status_macros.h"

namespace expertmesh::tokenizer {
namespace {

constexpr absl::string_view kOrder =
    "Replace, Strip and Metaspace; after them ByteFallback; after it Fuse, or ByteLevel alone; "
    "after that Strip";

constexpr uint32_t kMaxStrip = 1u << 20;

// Reads steps one by one. Their order is limited so that text can be shown as it comes: first what
// is done to each token, then bytes, then what is done to the text.
class PlanReader {
 public:
  absl::Status Add(const JsonReader& object) {
    const absl::StatusOr<std::string> type = object.String("type");
    RETURN_IF_ERROR(type.status());
    if (plan_.join == DecoderPlan::Join::kSpaces) {
      plan_.join = DecoderPlan::Join::kConcatenate;
    }
    if (*type == "Sequence") {
      RETURN_IF_ERROR(AddAll(object));
    } else {
      RETURN_IF_ERROR(AddOne(*type, object));
    }
    return object.Done();
  }

  DecoderPlan Take() { return std::move(plan_); }

 private:
  absl::Status AddAll(const JsonReader& object) {
    ASSIGN_OR_RETURN(const std::vector<JsonReader> steps, object.Objects("decoders"));
    for (const JsonReader& step : steps) {
      RETURN_IF_ERROR(Add(step));
    }
    return absl::OkStatus();
  }

  absl::Status AddOne(absl::string_view type, const JsonReader& object) {
    if (type == "Replace" || type == "Metaspace") {
      return AddTokenStep(type, object);
    }
    if (type == "Strip") {
      return AddStrip(object);
    }
    if (type == "Fuse") {
      fused_ = true;
    } else if (type == "ByteFallback" && !plan_.byte_fallback && !fused_) {
      plan_.byte_fallback = true;
    } else if (type == "ByteLevel" && !plan_.byte_fallback && !fused_) {
      for (const absl::string_view key : {"add_prefix_space", "trim_offsets", "use_regex"}) {
        object.Ignore(key);  // Matters to encoding only.
      }
      plan_.join = DecoderPlan::Join::kByteLevel;
      fused_ = true;
    } else {
      return object.Refuse("type", kOrder);
    }
    return absl::OkStatus();
  }

  absl::Status AddTokenStep(absl::string_view type, const JsonReader& object) {
    if (plan_.byte_fallback || fused_) {
      return object.Refuse("type", kOrder);
    }
    if (type == "Replace") {
      ASSIGN_OR_RETURN(Replacement replacement, ReadReplacement(object));
      plan_.token_steps.push_back(std::move(replacement));
      return absl::OkStatus();
    }
    MetaspaceDecoder metaspace;
    ASSIGN_OR_RETURN(metaspace.replacement, ReadCharacter(object, "replacement"));
    ASSIGN_OR_RETURN(const std::string scheme, object.StringOr({"prepend_scheme"}, "always"));
    if (scheme != "always" && scheme != "first" && scheme != "never") {
      return object.Refuse("prepend_scheme", "always, first, never");
    }
    ASSIGN_OR_RETURN(const bool add_prefix_space, object.BoolOr({"add_prefix_space"}, true));
    if (!add_prefix_space && scheme != "never") {
      return object.Refuse("add_prefix_space", "true, or false with the prepend_scheme never");
    }
    metaspace.prepended = scheme != "never";
    object.Ignore("str_rep");
    object.Ignore("split");  // Matters to encoding only.
    plan_.token_steps.push_back(std::move(metaspace));
    return absl::OkStatus();
  }

  absl::Status AddStrip(const JsonReader& object) {
    StripDecoder strip;
    ASSIGN_OR_RETURN(strip.character, ReadCharacter(object, "content"));
    ASSIGN_OR_RETURN(strip.start, object.Whole("start", kMaxStrip));
    ASSIGN_OR_RETURN(strip.stop, object.Whole("stop", kMaxStrip));
    if (fused_) {
      plan_.text_steps.push_back(std::move(strip));
    } else if (plan_.byte_fallback) {
      return object.Refuse("type", kOrder);
    } else {
      plan_.token_steps.push_back(std::move(strip));
    }
    return absl::OkStatus();
  }

  DecoderPlan plan_;
  // All tokens are one text.
  bool fused_ = false;
};

}  // namespace

absl::StatusOr<DecoderPlan> ReadDecoder(const JsonReader& file) {
  PlanReader reader;
  if (file.Has("decoder")) {
    ASSIGN_OR_RETURN(const JsonReader object, file.Object("decoder"));
    RETURN_IF_ERROR(reader.Add(object));
  }
  return reader.Take();
}

}  // namespace expertmesh::tokenizer
