#include "client/cpp/tokenizer/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <memory>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace expertmesh::tokenizer {
namespace {

absl::Status ToNfc(std::string* text) {
  const auto is_ascii = [](char c) { return static_cast<unsigned char>(c) < 0x80; };
  if (std::all_of(text->begin(), text->end(), is_ascii)) {
    return absl::OkStatus();
  }
  utf8proc_uint8_t* composed = nullptr;
  const utf8proc_ssize_t size =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text->data()),
                   static_cast<utf8proc_ssize_t>(text->size()), &composed,
                   static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(composed, &std::free);
  if (size < 0) {
    return absl::InternalError(
        absl::StrCat("Unicode normalisation failed: ", utf8proc_errmsg(size)));
  }
  text->assign(reinterpret_cast<const char*>(composed), static_cast<size_t>(size));
  return absl::OkStatus();
}

}  // namespace

absl::Status Replacement::Apply(std::string* text) const {
  std::vector<ByteRange> matches;
  RETURN_IF_ERROR(pattern.FindAll(*text, &matches));
  if (matches.empty()) {
    return absl::OkStatus();
  }
  std::string replaced;
  size_t copied = 0;
  for (const ByteRange& match : matches) {
    replaced.append(*text, copied, match.begin - copied);
    replaced += content;
    copied = match.end;
  }
  replaced.append(*text, copied);
  *text = std::move(replaced);
  return absl::OkStatus();
}

absl::Status Normalizer::Apply(std::string* text) const {
  for (const Step& step : steps_) {
    if (std::holds_alternative<Nfc>(step)) {
      RETURN_IF_ERROR(ToNfc(text));
    } else if (const auto* prepend = std::get_if<Prepend>(&step)) {
      if (!text->empty()) {
        text->insert(0, prepend->prefix);
      }
    } else {
      RETURN_IF_ERROR(std::get<Replacement>(step).Apply(text));
    }
  }
  return absl::OkStatus();
}

}  // namespace expertmesh::tokenizer
