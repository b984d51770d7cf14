#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/cpp/command/commands.h"
#include "client/cpp/command/generate_bench.h"
#include "client/cpp/command/generation_report.h"
#include "client/cpp/command/text_model.h"
#include "client/cpp/command/text_printer.h"
#include "client/cpp/decoder/generator.h"
#include "client/cpp/decoder/sampler.h"
#include "common/base/clock.h"
#include "common/base/status_macros.h"
#include "common/checkpoint/safetensors_writer.h"
#include "common/json/json_text.h"
#include "nlohmann/json.hpp"

namespace expertmesh::command {
namespace {

constexpr size_t kMaxPromptBytes = size_t{64} << 20;
constexpr uint64_t kMaxSequences = 1024;

// The prompts of all sequences, none empty.
absl::StatusOr<std::vector<std::string>> ReadPrompts(const Options& options) {
  if (options.Has("prompt") == options.Has("prompt-file")) {
    return absl::InvalidArgumentError("give --prompt TEXT or --prompt-file FILE");
  }
  std::vector<std::string> prompts;
  if (options.Has("prompt")) {
    prompts.push_back(options.Text("prompt"));
  } else {
    const std::string& path = options.Text("prompt-file");
    ASSIGN_OR_RETURN(std::string text, ReadSmallFile(path, kMaxPromptBytes));
    if (!text.empty() && text.back() == '\n') {
      text.pop_back();
    }
    prompts = absl::StrSplit(text, '\n');
    for (size_t i = 0; i < prompts.size(); ++i) {
      if (prompts[i].empty()) {
        return absl::InvalidArgumentError(
            absl::StrCat(path, ": line ", i + 1, " is empty; each line is a prompt"));
      }
    }
  }
  const uint64_t copies = options.Has("sequences") ? options.Whole("sequences") : 1;
  if (copies > kMaxSequences / prompts.size()) {
    return absl::InvalidArgumentError(absl::StrCat("--sequences is ", copies, " for ",
                                                   prompts.size(), " prompts; at most ",
                                                   kMaxSequences, " texts are written at once"));
  }
  const size_t given = prompts.size();
  for (uint64_t copy = 1; copy < copies; ++copy) {
    for (size_t i = 0; i < given; ++i) {
      prompts.push_back(prompts[i]);
    }
  }
  return prompts;
}

// Sequences that are ready to grow, one for each prompt.
struct Texts {
  std::vector<std::string> prompts;
  std::vector<std::unique_ptr<decoder::Sequence>> sequences;
  std::vector<decoder::Sequence*> pointers;
  std::vector<std::vector<uint32_t>> written;
};

absl::StatusOr<Texts> StartTexts(const Options& options, const TextModel& model,
                                 const decoder::SamplingOptions& sampling, TextPrinter* printer) {
  Texts texts;
  ASSIGN_OR_RETURN(texts.prompts, ReadPrompts(options));
  *printer = TextPrinter(*model.tokenizer, texts.prompts.size());
  texts.written.resize(texts.prompts.size());
  std::vector<std::vector<uint32_t>> tokens;
  for (size_t i = 0; i < texts.prompts.size(); ++i) {
    decoder::SamplingOptions own = sampling;
    own.seed += i;
    texts.sequences.push_back(std::make_unique<decoder::Sequence>(*model.decoder, own));
    texts.pointers.push_back(texts.sequences.back().get());
    ASSIGN_OR_RETURN(tokens.emplace_back(), model.tokenizer->Encode(texts.prompts[i]));
    RETURN_IF_ERROR(
        texts.sequences.back()->Prompt(*model.decoder, tokens.back(), options.Whole("max-tokens")));
  }
  // Nothing is printed before all prompts are known to be good.
  for (size_t i = 0; i < texts.prompts.size(); ++i) {
    RETURN_IF_ERROR(printer->Start(i, texts.prompts[i], tokens[i], options.Has("echo")));
  }
  return texts;
}

absl::Status WriteJson(const std::string& path, const Texts& texts, const TextPrinter& printer,
                       nlohmann::json json) {
  json["sequences"] = nlohmann::json::array();
  for (size_t i = 0; i < texts.prompts.size(); ++i) {
    const bool by_token = texts.sequences[i]->ended() == decoder::Ended::kEndToken;
    json["sequences"].push_back({{"prompt", texts.prompts[i]},
                                 {"text", printer.text(i)},
                                 {"tokens", texts.written[i]},
                                 {"ended", by_token ? "end_token" : "max_tokens"}});
  }
  // A prompt may be any bytes.
  const std::string text =
      json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  return checkpoint::WriteFileAtomically(path, text, checkpoint::Durability::kRename);
}

// Everything that was asked for goes on from its prompt, and is printed as it comes.
absl::Status Write(const Options& options, TextModel* model,
                   const decoder::SamplingOptions& sampling,
                   const decoder::GeneratorOptions& generation) {
  TextPrinter printer(*model->tokenizer, 0);
  ASSIGN_OR_RETURN(Texts texts, StartTexts(options, *model, sampling, &printer));
  const bool watched = options.Has("report") || options.Has("json");
  ASSIGN_OR_RETURN(const std::unique_ptr<decoder::MoeLayers> experts,
                   Experts(model, options, watched));
  GenerationReport report(model->checkpoint->model());
  decoder::Generator generator(model->decoder.get(), experts.get(), watched ? &report : nullptr,
                               generation);
  uint64_t tokens = 0;
  const absl::Time begin = Clock::Real()->Now();
  absl::Status status = generator.Run(texts.pointers, [&](size_t sequence, uint32_t token) {
    ++tokens;
    texts.written[sequence].push_back(token);
    return printer.Add(sequence, token);
  });
  const absl::Duration took = Clock::Real()->Now() - begin;
  status.Update(printer.Finish());
  if (!status.ok()) {
    return absl::Status(status.code(), absl::StrCat("the text above is not whole, it ends after ",
                                                    tokens, " tokens: ", status.message()));
  }
  if (options.Has("report")) {
    std::printf("\n%s", report.Text(tokens, took).c_str());
  }
  return options.Has("json")
             ? WriteJson(options.Text("json"), texts, printer, report.Json(tokens, took))
             : absl::OkStatus();
}

// A text that its reader and the model write in turns.
class Conversation {
 public:
  Conversation(const TextModel& model, const decoder::SamplingOptions& sampling,
               uint64_t max_tokens)
      : model_(model), sampling_(sampling), max_tokens_(max_tokens) {
    Forget();
  }

  // The reader's line, behind all that was written so far; OUT_OF_RANGE when that is too much.
  absl::Status Say(const std::string& line) {
    // What belongs before a text is not repeated inside it.
    ASSIGN_OR_RETURN(const std::vector<uint32_t> tokens,
                     model_.tokenizer->Encode(fresh_ ? line : absl::StrCat("\n", line),
                                              {.add_special_tokens = fresh_}));
    RETURN_IF_ERROR(sequence_->Prompt(*model_.decoder, tokens, max_tokens_));
    fresh_ = false;
    return printer_->Start(0, line, tokens, /*echo=*/false);
  }

  absl::Status Answer(decoder::Generator* generator) {
    absl::Status status = generator->Run({sequence_.get()}, [&](size_t sequence, uint32_t token) {
      return printer_->Add(sequence, token);
    });
    status.Update(printer_->Finish());
    return status;
  }

  void Forget() {
    sequence_ = std::make_unique<decoder::Sequence>(*model_.decoder, sampling_);
    printer_ = std::make_unique<TextPrinter>(*model_.tokenizer, 1);
    fresh_ = true;
  }
  bool fresh() const { return fresh_; }

 private:
  const TextModel& model_;
  const decoder::SamplingOptions sampling_;
  const uint64_t max_tokens_;
  std::unique_ptr<decoder::Sequence> sequence_;
  std::unique_ptr<TextPrinter> printer_;
  bool fresh_ = true;
};

absl::Status Chat(const Options& options, TextModel* model,
                  const decoder::SamplingOptions& sampling,
                  const decoder::GeneratorOptions& generation) {
  ASSIGN_OR_RETURN(const std::unique_ptr<decoder::MoeLayers> experts,
                   Experts(model, options, false));
  decoder::Generator generator(model->decoder.get(), experts.get(), nullptr, generation);
  Conversation conversation(*model, sampling, options.Whole("max-tokens"));
  const bool asks = isatty(STDIN_FILENO) != 0;
  std::string line;
  while (true) {
    if (asks) {
      std::fputs("> ", stdout);
      std::fflush(stdout);
    }
    if (!std::getline(std::cin, line)) {
      return absl::OkStatus();
    }
    if (line.empty()) {
      continue;
    }
    absl::Status said = conversation.Say(line);
    if (absl::IsOutOfRange(said) && !conversation.fresh()) {
      std::fputs("(the context is full; what was written so far is forgotten)\n", stderr);
      conversation.Forget();
      said = conversation.Say(line);
    }
    if (absl::IsInvalidArgument(said) || absl::IsOutOfRange(said)) {
      // The line is at fault, and the next one may be better.
      std::fprintf(stderr, "%s\n", std::string(said.message()).c_str());
      continue;
    }
    RETURN_IF_ERROR(said);
    RETURN_IF_ERROR(conversation.Answer(&generator));
  }
}

// INVALID_ARGUMENT for options that would have no effect.
absl::Status CheckTogether(const Options& options) {
  const auto refuse = [&](const std::string& with, std::initializer_list<const char*> others) {
    for (const char* other : others) {
      if (options.Has(with) && options.Has(other)) {
        return absl::InvalidArgumentError(
            absl::StrCat("--", other, " has no effect with --", with, "; leave one of them out"));
      }
    }
    return absl::OkStatus();
  };
  RETURN_IF_ERROR(refuse("chat", {"prompt", "prompt-file", "sequences", "echo", "report", "json"}));
  return refuse("bench", {"chat", "prompt-file", "sequences", "echo", "report", "local"});
}

absl::Status Run(const Options& options) {
  decoder::SamplingOptions sampling;
  sampling.temperature = options.Number("temperature");
  sampling.top_k = static_cast<uint32_t>(std::min<uint64_t>(options.Whole("top-k"), UINT32_MAX));
  sampling.top_p = options.Number("top-p");
  sampling.seed = options.Whole("seed");
  RETURN_IF_ERROR(decoder::CheckSampling(sampling));
  RETURN_IF_ERROR(CheckTogether(options));
  decoder::GeneratorOptions generation;
  generation.ignore_end = options.Has("ignore-end");
  ASSIGN_OR_RETURN(TextModel model, OpenTextModel(options));
  if (options.Has("bench")) {
    return BenchGeneration(options, &model);
  }
  return options.Has("chat") ? Chat(options, &model, sampling, generation)
                             : Write(options, &model, sampling, generation);
}

OptionSpec Number(const std::string& name, const std::string& help, const std::string& fallback) {
  return {
      .name = name, .kind = OptionKind::kNumber, .value = "X", .help = help, .fallback = fallback};
}

OptionSpec Switch(const std::string& name, const std::string& help) {
  return {.name = name, .kind = OptionKind::kSwitch, .help = help};
}

}  // namespace

Command GenerateCommand() {
  std::vector<OptionSpec> specs = TextModelOptions();
  for (OptionSpec& spec : std::vector<OptionSpec>{
           {.name = "prompt", .value = "TEXT", .help = "what to go on from"},
           {.name = "prompt-file",
           .value = "FILE",
           .help = "a prompt on each line, each a sequence of its own"},
           CountOption("sequences", "so many texts from each prompt, with seeds that count up", ""),
           CountOption("max-tokens", "new tokens of each sequence", "200"),
           Number("temperature", "0: always the likeliest token", "0"),
           CountOption("top-k", "only the so many likeliest tokens; 0: all", "0", 0),
           Number("top-p", "only the likeliest tokens that reach this probability", "1"),
           CountOption("seed", "of the sampling", "0", 0),
           Switch("ignore-end", "go on past the model's end tokens"),
           Switch("echo", "print the prompts, too"),
           Switch("chat",
                  "read prompts from standard input, a line each, and go on from all of it"),
           Switch("report", "show where the time went and what the experts had to do"),
           {.name = "json", .value = "FILE", .help = "write texts, tokens and figures there"},
           Switch("bench",
                  "tokens/s of 1, 4 and 16 sequences, prompts included, by the mesh and with the "
                  "experts in this process"),
           CountOption("rounds", "--bench: runs of each, of which the median counts", "3")}) {
    specs.push_back(std::move(spec));
  }
  return {{"generate", "Writes on from a prompt: the model runs here, its experts in the mesh.", "",
           std::move(specs)},
          &Run};
}

}  // namespace expertmesh::command
