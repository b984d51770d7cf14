#include "client/cpp/tokenizer/pre_tokenizer.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_replace.h"
#include "client/cpp/tokenizer/byte_level.h"
#include "common/base/status_macros.h"

namespace expertmesh::tokenizer {
namespace {

// A part of a piece, and whether the pattern matched it.
struct Part {
  ByteRange range;
  bool matched = false;
};

// Adjacent parts that make up the whole of `text`.
std::vector<Part> PartsOf(absl::string_view text, const std::vector<ByteRange>& matches,
                          bool invert) {
  std::vector<Part> parts;
  size_t end = 0;
  for (const ByteRange& match : matches) {
    if (match.begin != end) {
      parts.push_back({{end, match.begin}, invert});
    }
    parts.push_back({match, !invert});
    end = match.end;
  }
  if (end != text.size()) {
    parts.push_back({{end, text.size()}, invert});
  }
  return parts;
}

// What `behavior` makes of the parts, in order.
std::vector<ByteRange> Behave(const std::vector<Part>& parts, SplitBehavior behavior) {
  std::vector<ByteRange> ranges;
  if (behavior == SplitBehavior::kMergedWithNext) {
    bool later_matched = false;
    for (size_t i = parts.size(); i-- > 0;) {
      if (parts[i].matched && !later_matched && !ranges.empty()) {
        ranges.back().begin = parts[i].range.begin;
      } else {
        ranges.push_back(parts[i].range);
      }
      later_matched = parts[i].matched;
    }
    std::reverse(ranges.begin(), ranges.end());
    return ranges;
  }
  bool earlier_matched = false;
  for (const Part& part : parts) {
    const bool joins =
        (behavior == SplitBehavior::kContiguous && part.matched == earlier_matched) ||
        (behavior == SplitBehavior::kMergedWithPrevious && part.matched && !earlier_matched);
    if (joins && !ranges.empty()) {
      ranges.back().end = part.range.end;
    } else if (behavior != SplitBehavior::kRemoved || !part.matched) {
      ranges.push_back(part.range);
    }
    earlier_matched = part.matched;
  }
  return ranges;
}

absl::Status ApplySplit(const PreTokenizer::Split& split, Pieces* pieces) {
  std::vector<ByteRange> ranges;
  std::vector<ByteRange> matches;
  for (const ByteRange& piece : pieces->ranges) {
    const absl::string_view text = piece.Of(pieces->text);
    RETURN_IF_ERROR(split.pattern.FindAll(text, &matches));
    for (const ByteRange& range : Behave(PartsOf(text, matches, split.invert), split.behavior)) {
      if (range.size() > 0) {
        ranges.push_back({piece.begin + range.begin, piece.begin + range.end});
      }
    }
  }
  pieces->ranges = std::move(ranges);
  return absl::OkStatus();
}

absl::Status ApplySplits(const std::vector<PreTokenizer::Split>& splits, Pieces* pieces) {
  for (const PreTokenizer::Split& split : splits) {
    RETURN_IF_ERROR(ApplySplit(split, pieces));
  }
  return absl::OkStatus();
}

// Replaces each piece by what `rewrite` appends for it.
template <typename Rewrite>
void RewritePieces(const Rewrite& rewrite, Pieces* pieces) {
  std::string text;
  text.reserve(pieces->text.size() + pieces->text.size() / 4);
  for (ByteRange& piece : pieces->ranges) {
    const size_t begin = text.size();
    rewrite(piece.Of(pieces->text), &text);
    piece = {begin, text.size()};
  }
  pieces->text = std::move(text);
}

absl::Status ApplyByteLevel(const PreTokenizer::ByteLevel& step, Pieces* pieces) {
  if (step.add_prefix_space) {
    RewritePieces(
        [](absl::string_view piece, std::string* out) {
          if (!absl::StartsWith(piece, " ")) {
            out->push_back(' ');
          }
          out->append(piece.data(), piece.size());
        },
        pieces);
  }
  RETURN_IF_ERROR(ApplySplits(step.split, pieces));
  RewritePieces(
      [](absl::string_view piece, std::string* out) {
        for (const char c : piece) {
          AppendByteCharacter(static_cast<uint8_t>(c), out);
        }
      },
      pieces);
  return absl::OkStatus();
}

absl::Status ApplyMetaspace(const PreTokenizer::Metaspace& step, Pieces* pieces) {
  using Prepend = PreTokenizer::Metaspace::Prepend;
  bool first = pieces->at_start;
  RewritePieces(
      [&step, &first](absl::string_view piece, std::string* out) {
        const std::string replaced = absl::StrReplaceAll(piece, {{" ", step.replacement}});
        const bool wanted =
            step.prepend == Prepend::kAlways || (step.prepend == Prepend::kFirst && first);
        if (wanted && !absl::StartsWith(replaced, step.replacement)) {
          out->append(step.replacement);
        }
        out->append(replaced);
        first = false;
      },
      pieces);
  return ApplySplits(step.split, pieces);
}

}  // namespace

absl::Status PreTokenizer::Apply(Pieces* pieces) const {
  for (const Step& step : steps_) {
    if (const auto* split = std::get_if<Split>(&step)) {
      RETURN_IF_ERROR(ApplySplit(*split, pieces));
    } else if (const auto* byte_level = std::get_if<ByteLevel>(&step)) {
      RETURN_IF_ERROR(ApplyByteLevel(*byte_level, pieces));
    } else {
      RETURN_IF_ERROR(ApplyMetaspace(std::get<Metaspace>(step), pieces));
    }
  }
  return absl::OkStatus();
}

bool PreTokenizer::IsByteLevel() const {
  return std::any_of(steps_.begin(), steps_.end(),
                     [](const Step& step) { return std::holds_alternative<ByteLevel>(step); });
}

Regex Gpt2Pattern() {
  return Regex::Compile(
             "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+")
      .value();
}

}  // namespace expertmesh::tokenizer
