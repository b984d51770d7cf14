#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cpp/command/commands.h"
#include "client/cpp/command/generation_report.h"
#include "client/cpp/command/numbers.h"
#include "client/cpp/command/progress.h"
#include "client/cpp/command/text_model.h"
#include "client/cpp/decoder/sampler.h"
#include "common/base/clock.h"
#include "common/base/status_macros.h"
#include "common/checkpoint/safetensors_writer.h"
#include "common/json/json_text.h"
#include "nlohmann/json.hpp"

namespace expertmesh::command {
namespace {

constexpr size_t kMaxTextBytes = size_t{256} << 20;
// Rows that go through the decoder together, and rows whose logits are held together.
constexpr size_t kBatchTokens = 1024;
constexpr size_t kLogitRows = 64;
// Most memory that --logits may take.
constexpr size_t kMaxLogitBytes = size_t{4} << 30;

// -log2 of the probability of `token`.
double Bits(absl::Span<const float> logits, uint32_t token) {
  const double highest = *std::max_element(logits.begin(), logits.end());
  double sum = 0.0;
  for (const float logit : logits) {
    sum += std::exp(static_cast<double>(logit) - highest);
  }
  return (std::log(sum) + highest - static_cast<double>(logits[token])) / std::log(2.0);
}

// A text cut into windows; each token but a window's first is predicted from those before it.
// Windows overlap by one token, so that all but the text's first are predicted once.
class Evaluation {
 public:
  Evaluation(TextModel* model, decoder::MoeLayers* experts, GenerationReport* report,
             std::vector<uint32_t> tokens, size_t window, bool keep_logits)
      : model_(model),
        experts_(experts),
        report_(report),
        tokens_(std::move(tokens)),
        window_(window),
        keep_logits_(keep_logits) {}

  absl::Status Run() {
    const size_t predicted = tokens_.size() - 1;
    const size_t together = std::max<size_t>(1, kBatchTokens / window_);
    Progress progress("Reading", predicted);
    for (size_t begin = 0; begin < predicted;) {
      const size_t end = std::min(predicted, begin + together * window_);
      RETURN_IF_ERROR(ReadWindows(begin, end));
      progress.Add(end - begin);
      begin = end;
    }
    return absl::OkStatus();
  }

  double bits() const { return bits_; }
  // [predicted, vocab_size]
  const std::vector<float>& logits() const { return logits_; }

 private:
  // Predicts tokens (begin, end]. A window that is longer than a batch is read in parts.
  absl::Status ReadWindows(size_t begin, size_t end) {
    const size_t windows = (end - begin + window_ - 1) / window_;
    std::vector<decoder::KvCache> caches(windows, model_->decoder->NewCache());
    const size_t part = std::min(window_, kBatchTokens);
    for (size_t offset = 0; offset < window_ && begin + offset < end; offset += part) {
      std::vector<decoder::DecoderInput> inputs;
      std::vector<uint32_t> next;
      for (size_t i = 0; i < windows; ++i) {
        const size_t from = begin + i * window_ + offset;
        const size_t window_end = std::min(end, begin + (i + 1) * window_);
        const size_t to = std::min(window_end, from + part);
        if (from < to) {
          const auto tokens = absl::MakeConstSpan(tokens_);
          inputs.push_back({&caches[i], tokens.subspan(from, to - from), true,
                            window_end - begin - i * window_});
          const auto predicted = tokens.subspan(from + 1, to - from);
          next.insert(next.end(), predicted.begin(), predicted.end());
        }
      }
      ASSIGN_OR_RETURN(const std::vector<float> rows,
                       model_->decoder->Forward(inputs, experts_, report_));
      RETURN_IF_ERROR(Score(rows, next));
    }
    return absl::OkStatus();
  }

  // Adds up what the tokens `next` cost, each after its row.
  absl::Status Score(absl::Span<const float> rows, absl::Span<const uint32_t> next) {
    const size_t d_model = model_->decoder->config().d_model;
    const size_t vocabulary = model_->decoder->config().vocab_size;
    for (size_t begin = 0; begin < next.size(); begin += kLogitRows) {
      const size_t count = std::min(kLogitRows, next.size() - begin);
      const std::vector<float> logits =
          model_->decoder->Logits(rows.subspan(begin * d_model, count * d_model));
      RETURN_IF_ERROR(decoder::CheckLogits(logits));
      for (size_t i = 0; i < count; ++i) {
        bits_ +=
            Bits(absl::MakeConstSpan(logits).subspan(i * vocabulary, vocabulary), next[begin + i]);
      }
      if (keep_logits_) {
        logits_.insert(logits_.end(), logits.begin(), logits.end());
      }
    }
    return absl::OkStatus();
  }

  TextModel* const model_;
  decoder::MoeLayers* const experts_;
  GenerationReport* const report_;
  const std::vector<uint32_t> tokens_;
  const size_t window_;
  const bool keep_logits_;
  double bits_ = 0.0;
  std::vector<float> logits_;
};

absl::Status WriteLogits(const std::string& path, const std::vector<float>& logits,
                         size_t vocabulary) {
  const std::vector<checkpoint::TensorToWrite> tensors = {
      {"logits",
       Dtype::kF32,
       {logits.size() / vocabulary, vocabulary},
       {reinterpret_cast<const uint8_t*>(logits.data()), logits.size() * sizeof(float)}}};
  return checkpoint::WriteSafetensors(path, tensors, checkpoint::Durability::kRename);
}

// The tokens of --text or --tokens, and the bytes that all but the first of them stand for.
absl::StatusOr<std::vector<uint32_t>> ReadTokens(const Options& options, const TextModel& model,
                                                 size_t* bytes) {
  if (options.Has("text") == options.Has("tokens")) {
    return absl::InvalidArgumentError("give --text FILE or --tokens LIST");
  }
  std::vector<uint32_t> tokens;
  if (options.Has("tokens")) {
    ASSIGN_OR_RETURN(tokens, ParseNumbers(options.Text("tokens")));
  } else {
    ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(options.Text("text"), kMaxTextBytes));
    ASSIGN_OR_RETURN(tokens, model.tokenizer->Encode(text));
    const size_t first = tokens.empty() ? 0
                                        : model.tokenizer
                                              ->Decode(absl::MakeConstSpan(tokens).first(1),
                                                       {.skip_special_tokens = true})
                                              .size();
    *bytes = text.size() - std::min(first, text.size());
  }
  if (tokens.size() < 2) {
    return absl::InvalidArgumentError(
        absl::StrCat("the text has ", tokens.size(), " tokens; at least 2 are needed"));
  }
  const uint32_t vocabulary = model.decoder->config().vocab_size;
  for (const uint32_t token : tokens) {
    if (token >= vocabulary) {
      return absl::InvalidArgumentError(
          absl::StrCat("token ", token, " is outside the vocabulary of ", vocabulary));
    }
  }
  return tokens;
}

absl::Status Run(const Options& options) {
  ASSIGN_OR_RETURN(TextModel model, OpenTextModel(options, options.Has("text")));
  size_t bytes = 0;
  ASSIGN_OR_RETURN(std::vector<uint32_t> tokens, ReadTokens(options, model, &bytes));
  const size_t predicted = tokens.size() - 1;
  const uint32_t context = model.decoder->config().context_length;
  const uint64_t window =
      options.Has("window") ? options.Whole("window") : std::min<uint64_t>(512, context);
  if (window > context) {
    return absl::InvalidArgumentError(
        absl::StrCat("--window is ", window, "; the model's context is ", context, " tokens"));
  }
  const size_t logit_bytes = predicted * model.decoder->config().vocab_size * sizeof(float);
  if (options.Has("logits") && logit_bytes > kMaxLogitBytes) {
    return absl::InvalidArgumentError(absl::StrCat("--logits would be ", logit_bytes, " bytes of ",
                                                   predicted, " tokens; at most ", kMaxLogitBytes,
                                                   " are kept. Give a shorter text"));
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<decoder::MoeLayers> experts,
                   Experts(&model, options, true));
  GenerationReport report(model.checkpoint->model());
  Evaluation evaluation(&model, experts.get(), &report, std::move(tokens), window,
                        options.Has("logits"));
  const absl::Time begin = Clock::Real()->Now();
  RETURN_IF_ERROR(evaluation.Run());
  const absl::Duration took = Clock::Real()->Now() - begin;
  const double bits = evaluation.bits();
  std::printf("%zu tokens predicted: %.4f bits per token", predicted,
              bits / static_cast<double>(predicted));
  if (bytes > 0) {
    std::printf(", %.4f bits per byte", bits / static_cast<double>(bytes));
  }
  std::printf("\n%s", report.Text(predicted, took).c_str());
  if (options.Has("logits")) {
    RETURN_IF_ERROR(WriteLogits(options.Text("logits"), evaluation.logits(),
                                model.decoder->config().vocab_size));
  }
  if (!options.Has("json")) {
    return absl::OkStatus();
  }
  nlohmann::json json = report.Json(predicted, took);
  json["window"] = window;
  json["bytes"] = bytes;
  json["bits_per_token"] = bits / static_cast<double>(predicted);
  if (bytes > 0) {
    json["bits_per_byte"] = bits / static_cast<double>(bytes);
  }
  return checkpoint::WriteFileAtomically(options.Text("json"), json.dump(2) + "\n",
                                         checkpoint::Durability::kRename);
}

}  // namespace

Command EvaluateCommand() {
  std::vector<OptionSpec> specs = TextModelOptions();
  for (OptionSpec& spec : std::vector<OptionSpec>{
           {.name = "text", .value = "FILE", .help = "text to predict"},
           {.name = "tokens", .value = "LIST", .help = "or its tokens, such as 17,4,256"},
           {.name = "window",
           .kind = OptionKind::kWhole,
           .value = "N",
           .help = "tokens that are read together (default 512, or the model's context)",
           .min = 1},
           {.name = "logits",
           .value = "FILE",
           .help = "write them there: safetensors, F32 [tokens - 1, vocabulary]"},
           {.name = "json", .value = "FILE", .help = "write the figures there"}}) {
    specs.push_back(std::move(spec));
  }
  return {{"evaluate",
           "How well the model predicts a text: bits per byte, and what the experts had to do.", "",
           std::move(specs)},
          &Run};
}

}  // namespace expertmesh::command
