#include "client/cpp/decoder/generator.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace expertmesh::decoder {

absl::Status Sequence::Prompt(const Decoder& decoder, absl::Span<const uint32_t> tokens,
                              uint64_t max_tokens) {
  const uint64_t given = cache_.tokens() + pending_.size() + tokens.size();
  const uint64_t context = decoder.config().context_length;
  if (tokens.empty()) {
    return absl::InvalidArgumentError("the prompt has no tokens; give some text to go on from");
  }
  for (const uint32_t token : tokens) {
    if (token >= decoder.config().vocab_size) {
      return absl::InvalidArgumentError(
          absl::StrCat("token ", token, " of the prompt is outside the model's vocabulary of ",
                       decoder.config().vocab_size, "; is the tokenizer another model's?"));
    }
  }
  // The last token is never read by the model.
  if (given > context || max_tokens > context - given + 1) {
    return absl::OutOfRangeError(absl::StrCat(
        "the model's context is ", context, " tokens, and ", given, " are there already: with ",
        max_tokens, " new ones it overflows. Give a shorter prompt",
        given <= context ? absl::StrCat(", or ask for at most ", context - given + 1) : ""));
  }
  pending_.insert(pending_.end(), tokens.begin(), tokens.end());
  cache_.Expect(given + max_tokens);
  max_tokens_ = max_tokens;
  grown_ = 0;
  ended_ = max_tokens == 0 ? Ended::kMaxTokens : Ended::kNot;
  return absl::OkStatus();
}

bool Generator::EndsText(uint32_t token) const {
  const std::vector<uint32_t>& ends = decoder_->config().end_tokens;
  return !options_.ignore_end && std::binary_search(ends.begin(), ends.end(), token);
}

absl::Status Generator::Run(absl::Span<Sequence* const> sequences, const TokenSink& on_token) {
  const auto going = [](const Sequence* sequence) { return sequence->ended() == Ended::kNot; };
  while (std::any_of(sequences.begin(), sequences.end(), going)) {
    RETURN_IF_ERROR(Step(sequences, on_token));
  }
  return absl::OkStatus();
}

absl::Status Generator::Step(absl::Span<Sequence* const> sequences, const TokenSink& on_token) {
  std::vector<DecoderInput> inputs;
  std::vector<size_t> indices;
  size_t room = std::max<size_t>(1, options_.max_batch_tokens);
  // Sequences that only have their newest token left go first: they do not wait for prompts.
  for (const bool prompts : {false, true}) {
    for (size_t i = 0; i < sequences.size() && room > 0; ++i) {
      Sequence& sequence = *sequences[i];
      if (sequence.ended_ != Ended::kNot || (sequence.pending_.size() > 1) != prompts) {
        continue;
      }
      const size_t count = std::min(room, sequence.pending_.size());
      DecoderInput& input = inputs.emplace_back();
      input.cache = &sequence.cache_;
      input.tokens = absl::MakeConstSpan(sequence.pending_).first(count);
      input.known_tokens = sequence.cache_.tokens() + sequence.pending_.size();
      indices.push_back(i);
      room -= count;
    }
  }
  ASSIGN_OR_RETURN(const std::vector<float> rows, decoder_->Forward(inputs, moe_, observer_));
  const std::vector<float> logits = decoder_->Logits(rows);
  const size_t vocabulary = decoder_->config().vocab_size;
  for (size_t i = 0; i < inputs.size(); ++i) {
    Sequence& sequence = *sequences[indices[i]];
    const auto done = static_cast<ptrdiff_t>(inputs[i].tokens.size());
    sequence.pending_.erase(sequence.pending_.begin(), sequence.pending_.begin() + done);
    if (!sequence.pending_.empty()) {
      continue;
    }
    const auto row = absl::MakeConstSpan(logits).subspan(i * vocabulary, vocabulary);
    ASSIGN_OR_RETURN(const uint32_t token, sequence.sampler_.Next(row));
    // The last token too: the decoder needs it when the caller adds another prompt.
    sequence.pending_.push_back(token);
    ++sequence.grown_;
    if (EndsText(token)) {
      sequence.ended_ = Ended::kEndToken;
      continue;
    }
    if (sequence.grown_ == sequence.max_tokens_) {
      sequence.ended_ = Ended::kMaxTokens;
    }
    RETURN_IF_ERROR(on_token(indices[i], token));
  }
  return absl::OkStatus();
}

}  // namespace expertmesh::decoder
