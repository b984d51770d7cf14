#include "common/telemetry/logging.h"

#include <spdlog/formatter.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <chrono>
#include <cstdio>
#include <ctime>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/base/cpu_features.h"
#include "common/base/utf8.h"

namespace expertmesh::telemetry {
namespace {

thread_local trace::TraceContext current_trace;

std::string JsonString(absl::string_view text) {
  std::string out = "\"";
  for (const char c : ValidUtf8(text)) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      absl::StrAppend(&out, "\\u00", absl::Hex(static_cast<unsigned char>(c), absl::kZeroPad2));
    } else {
      out += c;
    }
  }
  return out + "\"";
}

// One object in each line.
class JsonFormatter final : public spdlog::formatter {
 public:
  explicit JsonFormatter(std::string process) : process_(std::move(process)) {}

  void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& line) override {
    const spdlog::string_view_t level = spdlog::level::to_string_view(message.level);
    std::string text =
        absl::StrCat("{\"ts\":\"",
                     absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::FromChrono(message.time),
                                      absl::UTCTimeZone()),
                     "\",\"level\":\"", absl::string_view(level.data(), level.size()),
                     "\",\"process\":", JsonString(process_), ",\"message\":",
                     JsonString(absl::string_view(message.payload.data(), message.payload.size())));
    if (current_trace.valid()) {
      absl::StrAppend(&text, ",\"trace_id\":\"", trace::ToHex(current_trace.trace_id),
                      "\",\"span_id\":\"", trace::ToHex(current_trace.span_id), "\"");
    }
    text += "}\n";
    line.append(text.data(), text.data() + text.size());
  }

  std::unique_ptr<spdlog::formatter> clone() const override {
    return std::make_unique<JsonFormatter>(process_);
  }

 private:
  const std::string process_;
};

// After what is logged for a trace, in text.
class TraceFlag final : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& /*message*/, const std::tm& /*time*/,
              spdlog::memory_buf_t& line) override {
    if (current_trace.valid()) {
      const std::string text = absl::StrCat(" trace=", trace::ToHex(current_trace.trace_id));
      line.append(text.data(), text.data() + text.size());
    }
  }

  std::unique_ptr<spdlog::custom_flag_formatter> clone() const override {
    return std::make_unique<TraceFlag>();
  }
};

std::unique_ptr<spdlog::formatter> TextFormatter() {
  auto formatter = std::make_unique<spdlog::pattern_formatter>(spdlog::pattern_time_type::utc);
  formatter->add_flag<TraceFlag>('*').set_pattern("%Y-%m-%dT%H:%M:%S.%eZ %l %n: %v%*");
  return formatter;
}

bool logs_json = false;

}  // namespace

absl::Status InitLogging(absl::string_view process, absl::string_view level,
                         absl::string_view format) {
  const std::string name(level);
  const spdlog::level::level_enum parsed = spdlog::level::from_str(name);
  if (parsed == spdlog::level::off && name != "off") {
    return absl::InvalidArgumentError(
        absl::StrCat("--log-level is '", name, "'; use trace, debug, info, warning, error or off"));
  }
  if (format != "text" && format != "json") {
    return absl::InvalidArgumentError(
        absl::StrCat("--log-format is '", format, "'; use text or json"));
  }
  auto logger = std::make_shared<spdlog::logger>(std::string(process),
                                                 std::make_shared<spdlog::sinks::stderr_sink_mt>());
  logs_json = format == "json";
  if (logs_json) {
    logger->set_formatter(std::make_unique<JsonFormatter>(std::string(process)));
  } else {
    logger->set_formatter(TextFormatter());
  }
  logger->set_level(parsed);
  logger->flush_on(spdlog::level::warn);
  spdlog::flush_every(std::chrono::seconds(1));
  spdlog::set_default_logger(std::move(logger));
  spdlog::info("cpu {}, instruction sets up to {}", CpuModelName(),
               std::string(NameOf(UsableCpuIsa())));
  return absl::OkStatus();
}

void ReportFailure(absl::string_view process, const absl::Status& why) {
  const std::string message(why.message());
  if (logs_json) {
    spdlog::critical("{}", message);
  } else {
    std::fprintf(stderr, "%s: %s\n", std::string(process).c_str(), message.c_str());
  }
}

LogTrace::LogTrace(const trace::TraceContext& trace)
    : before_(std::exchange(current_trace, trace)) {}

LogTrace::~LogTrace() { current_trace = before_; }

}  // namespace expertmesh::telemetry
