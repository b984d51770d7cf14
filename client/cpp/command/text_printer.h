// Texts of several sequences on standard output, as they come.
#ifndef EXPERTMESH_CLIENT_CPP_COMMAND_TEXT_PRINTER_H_
#define EXPERTMESH_CLIENT_CPP_COMMAND_TEXT_PRINTER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "client/cpp/tokenizer/tokenizer.h"

namespace expertmesh::command {

// One sequence is printed token by token; several line by line, each with its number in front.
// UNAVAILABLE when standard output cannot be written any more.
class TextPrinter {
 public:
  // `tokenizer` must outlive it.
  TextPrinter(const tokenizer::Tokenizer& tokenizer, size_t sequences);

  // What a sequence goes on from: its tokens decide how the next ones are written. Printed with
  // `echo` only.
  absl::Status Start(size_t sequence, absl::string_view prompt, absl::Span<const uint32_t> tokens,
                     bool echo);
  absl::Status Add(size_t sequence, uint32_t token);
  // Prints what is left, and ends the last line.
  absl::Status Finish();

  // What a sequence has grown by, prompts left out.
  const std::string& text(size_t sequence) const { return texts_[sequence]; }

 private:
  absl::Status Print(size_t sequence, absl::string_view text);

  std::vector<std::unique_ptr<tokenizer::TextStream>> streams_;
  std::vector<std::string> texts_;
  // With several sequences: the unfinished line of each.
  std::vector<std::string> lines_;
};

}  // namespace expertmesh::command

#endif  // EXPERTMESH_CLIENT_CPP_COMMAND_TEXT_PRINTER_H_
