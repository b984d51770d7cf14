#include "client/cpp/command/text_printer.h"

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace expertmesh::command {
namespace {

absl::Status Write(absl::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) {
    return absl::UnavailableError(
        absl::StrCat("standard output cannot be written: ", std::strerror(errno)));
  }
  return absl::OkStatus();
}

}  // namespace

TextPrinter::TextPrinter(const tokenizer::Tokenizer& tokenizer, size_t sequences)
    : texts_(sequences), lines_(sequences) {
  for (size_t i = 0; i < sequences; ++i) {
    streams_.push_back(tokenizer.NewStream());
  }
}

absl::Status TextPrinter::Start(size_t sequence, absl::string_view prompt,
                                absl::Span<const uint32_t> tokens, bool echo) {
  for (const uint32_t token : tokens) {
    streams_[sequence]->Push(token);
  }
  return echo ? Print(sequence, prompt) : absl::OkStatus();
}

absl::Status TextPrinter::Add(size_t sequence, uint32_t token) {
  const std::string text = streams_[sequence]->Push(token);
  texts_[sequence] += text;
  return Print(sequence, text);
}

absl::Status TextPrinter::Print(size_t sequence, absl::string_view text) {
  if (lines_.size() == 1) {
    return Write(text);
  }
  std::string& line = lines_[sequence];
  absl::StrAppend(&line, text);
  const size_t end = line.rfind('\n');
  if (end == std::string::npos) {
    return absl::OkStatus();
  }
  std::string whole;
  for (size_t begin = 0; begin <= end;) {
    const size_t next = line.find('\n', begin) + 1;
    absl::StrAppend(&whole, "[", sequence + 1, "] ",
                    absl::string_view(line).substr(begin, next - begin));
    begin = next;
  }
  line.erase(0, end + 1);
  return Write(whole);
}

absl::Status TextPrinter::Finish() {
  absl::Status status;
  for (size_t i = 0; i < streams_.size(); ++i) {
    const std::string text = streams_[i]->Finish();
    texts_[i] += text;
    status.Update(Print(i, text));
    if (lines_.size() > 1 && !lines_[i].empty()) {
      status.Update(Print(i, "\n"));
    }
  }
  if (lines_.size() == 1) {
    status.Update(Write("\n"));
  }
  return status;
}

}  // namespace expertmesh::command
