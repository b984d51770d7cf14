// Inside of otlp_options: values of environment variables, as types.
#ifndef EXPERTMESH_COMMON_OTLP_ENVIRONMENT_READER_H_
#define EXPERTMESH_COMMON_OTLP_ENVIRONMENT_READER_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "common/otlp/otlp_options.h"

namespace expertmesh::otlp {

// Warns of each variable that cannot be read, and says what counts instead. Not thread-safe.
class EnvironmentReader {
 public:
  struct Variable {
    std::string name;
    std::string value;  // Without spaces around it.

    bool set() const { return !value.empty(); }
  };

  // Both must outlive it.
  EnvironmentReader(const Environment* environment, std::vector<std::string>* warnings)
      : environment_(environment), warnings_(warnings) {}

  Variable Get(const std::string& name) const;
  // OTEL_EXPORTER_OTLP_TRACES_`suffix`; where that is unset OTEL_EXPORTER_OTLP_`suffix`.
  Variable Otlp(const std::string& suffix) const;

  // `fallback` where the variable is unset or cannot be read.
  uint64_t Number(const Variable& variable, uint64_t least, uint64_t most, uint64_t fallback);
  absl::Duration Millis(const Variable& variable, uint64_t least, absl::Duration fallback);
  double Ratio(const Variable& variable);
  // One of `words`, in lower case; the first of them where the variable is unset or says another.
  std::string Word(const Variable& variable, absl::Span<const absl::string_view> words);
  // "true" in any case; anything else is false.
  bool Flag(const Variable& variable);
  // "key=value,key=value", values percent-encoded. What gRPC could not send is left out.
  std::vector<std::pair<std::string, std::string>> Headers(const Variable& variable);
  // The content of the file that it names; empty where it is unset.
  absl::StatusOr<std::string> File(const Variable& variable) const;

  void Warn(const Variable& variable, absl::string_view what);

 private:
  void WarnOfValue(const Variable& variable, absl::string_view wanted, absl::string_view counts);

  const Environment* const environment_;
  std::vector<std::string>* const warnings_;
};

}  // namespace expertmesh::otlp

#endif  // EXPERTMESH_COMMON_OTLP_ENVIRONMENT_READER_H_
