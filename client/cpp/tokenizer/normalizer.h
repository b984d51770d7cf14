// What is done to a text before it is split: the "normalizer" of a tokenizer.json.
#ifndef EXPERTMESH_CLIENT_CPP_TOKENIZER_NORMALIZER_H_
#define EXPERTMESH_CLIENT_CPP_TOKENIZER_NORMALIZER_H_

#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "client/cpp/tokenizer/regex.h"

namespace expertmesh::tokenizer {

// Every match of `pattern` becomes `content`. What an empty pattern matches is an insertion.
struct Replacement {
  Regex pattern;
  std::string content;

  absl::Status Apply(std::string* text) const;
};

// Immutable once filled, hence thread-safe.
class Normalizer {
 public:
  struct Nfc {};
  struct Prepend {
    std::string prefix;
  };
  using Step = std::variant<Nfc, Prepend, Replacement>;

  void Add(Step step) { steps_.push_back(std::move(step)); }

  // `text` is UTF-8.
  absl::Status Apply(std::string* text) const;

  bool empty() const { return steps_.empty(); }

 private:
  std::vector<Step> steps_;
};

}  // namespace expertmesh::tokenizer

#endif  // EXPERTMESH_CLIENT_CPP_TOKENIZER_NORMALIZER_H_
