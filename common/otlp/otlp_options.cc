#include "common/otlp/otlp_options.h"

#include <algorithm>
#include <array>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/base/address.h"
#include "common/base/peer_text.h"
#include "common/base/status_macros.h"
#include "common/otlp/environment_reader.h"

namespace expertmesh::otlp {
namespace {

using Variable = EnvironmentReader::Variable;

constexpr char kDefaultPort[] = "4317";
constexpr uint64_t kMostSpans = 10'000'000;

// Where to, as gRPC takes it.
struct Endpoint {
  std::string target;
  bool tls = false;
};

absl::Status Refused(const Variable& endpoint, absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat(
      endpoint.name, " ", why,
      "; set it to http://HOST:PORT (no encryption), https://HOST:PORT or unix:/PATH"));
}

// "host" or "host:port", with or without a path.
absl::StatusOr<std::string> TargetOf(const Variable& endpoint, absl::string_view authority,
                                     EnvironmentReader* reader) {
  const size_t slash = std::min(authority.find('/'), authority.size());
  if (slash + 1 < authority.size()) {
    reader->Warn(endpoint, "its path has no meaning for OTLP over gRPC and is left out");
  }
  authority = authority.substr(0, slash);
  if (absl::StrContains(authority, '@')) {
    // Not shown: a password may stand before it.
    return Refused(endpoint,
                   "has an \"@\", and gRPC knows no users in an address; put what proves who "
                   "you are into OTEL_EXPORTER_OTLP_HEADERS");
  }
  std::string target(authority);
  const size_t bracket = authority.rfind(']');
  const bool has_port =
      absl::StrContains(authority.substr(bracket == absl::string_view::npos ? 0 : bracket), ':');
  if (!target.empty() && !has_port) {
    target = absl::StrCat(target, ":", kDefaultPort);
  }
  if (const absl::Status status = CheckAddress(target); !status.ok()) {
    return Refused(endpoint, absl::StrCat("cannot be used (", status.message(), ")"));
  }
  return target;
}

absl::StatusOr<Endpoint> ParseEndpoint(const Variable& endpoint, EnvironmentReader* reader) {
  const absl::string_view text = endpoint.value;
  for (const bool tls : {false, true}) {
    const absl::string_view scheme = tls ? "https://" : "http://";
    if (absl::StartsWithIgnoreCase(text, scheme)) {
      ASSIGN_OR_RETURN(const std::string target,
                       TargetOf(endpoint, text.substr(scheme.size()), reader));
      return Endpoint{target, tls};
    }
  }
  const Variable insecure = reader->Otlp("INSECURE");
  const bool tls = insecure.set() && absl::EqualsIgnoreCase(insecure.value, "false");
  if (absl::StartsWith(text, "unix:") || absl::StartsWith(text, "dns:")) {
    return Endpoint{endpoint.value, tls};
  }
  if (absl::StrContains(text, "://")) {
    return Refused(endpoint,
                   absl::StrCat("has the scheme ", PeerText(text.substr(0, text.find("://")), 32),
                                ", which is not known"));
  }
  ASSIGN_OR_RETURN(const std::string target, TargetOf(endpoint, text, reader));
  if (!insecure.set()) {
    reader->Warn(endpoint,
                 "it has no scheme: spans are sent without encryption; write http:// or "
                 "https:// before it");
  }
  return Endpoint{target, tls};
}

absl::StatusOr<net::TlsOptions> ReadTls(const EnvironmentReader& reader) {
  net::TlsOptions tls;
  ASSIGN_OR_RETURN(tls.root_certificates, reader.File(reader.Otlp("CERTIFICATE")));
  ASSIGN_OR_RETURN(tls.private_key, reader.File(reader.Otlp("CLIENT_KEY")));
  ASSIGN_OR_RETURN(tls.certificate_chain, reader.File(reader.Otlp("CLIENT_CERTIFICATE")));
  if (const absl::Status status = net::CheckTlsOptions(tls); !status.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the files of OTEL_EXPORTER_OTLP_CERTIFICATE (root_certificates), _CLIENT_KEY "
                     "(private_key) and "
                     "_CLIENT_CERTIFICATE (certificate_chain) cannot be used: ",
                     status.message()));
  }
  return tls;
}

void WarnOfUnusedTls(EnvironmentReader* reader) {
  for (const char* const suffix : {"CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE"}) {
    if (const Variable variable = reader->Otlp(suffix); variable.set()) {
      reader->Warn(variable,
                   "it is not used, since the endpoint is without encryption; write "
                   "https:// before that");
    }
  }
}

absl::Status CheckProtocol(const Variable& protocol) {
  if (!protocol.set() || protocol.value == "grpc") {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(protocol.name, " is ",
                                                 PeerText(protocol.value, 64),
                                                 ", but spans are exported over gRPC only; set it "
                                                 "to grpc, and the endpoint to the collector's "
                                                 "port for gRPC (",
                                                 kDefaultPort, ")"));
}

absl::StatusOr<OtlpOptions> ReadExporter(const Variable& endpoint, EnvironmentReader* reader) {
  RETURN_IF_ERROR(CheckProtocol(reader->Otlp("PROTOCOL")));
  ASSIGN_OR_RETURN(const Endpoint where, ParseEndpoint(endpoint, reader));
  OtlpOptions options;
  options.target = where.target;
  if (where.tls) {
    ASSIGN_OR_RETURN(options.tls, ReadTls(*reader));
  } else {
    WarnOfUnusedTls(reader);
  }
  options.headers = reader->Headers(reader->Otlp("HEADERS"));
  options.gzip = reader->Word(reader->Otlp("COMPRESSION"), {"none", "gzip"}) == "gzip";
  options.timeout = reader->Millis(reader->Otlp("TIMEOUT"), 1, options.timeout);
  options.export_timeout =
      reader->Millis(reader->Get("OTEL_BSP_EXPORT_TIMEOUT"), 1, options.export_timeout);
  options.schedule_delay =
      reader->Millis(reader->Get("OTEL_BSP_SCHEDULE_DELAY"), 0, options.schedule_delay);
  options.max_queue_spans = reader->Number(reader->Get("OTEL_BSP_MAX_QUEUE_SIZE"), 1, kMostSpans,
                                           options.max_queue_spans);
  const Variable batch = reader->Get("OTEL_BSP_MAX_EXPORT_BATCH_SIZE");
  options.max_batch_spans = reader->Number(batch, 1, kMostSpans, options.max_batch_spans);
  if (options.max_batch_spans > options.max_queue_spans) {
    if (batch.set()) {
      reader->Warn(batch, absl::StrCat("it is more than OTEL_BSP_MAX_QUEUE_SIZE; ",
                                       options.max_queue_spans, " counts instead"));
    }
    options.max_batch_spans = options.max_queue_spans;
  }
  return options;
}

std::optional<SamplerOptions> ReadSampler(EnvironmentReader* reader) {
  constexpr std::array<absl::string_view, 6> kSamplers = {
      "parentbased_always_on",  "always_on",    "always_off",
      "parentbased_always_off", "traceidratio", "parentbased_traceidratio"};
  const Variable variable = reader->Get("OTEL_TRACES_SAMPLER");
  if (!variable.set()) {
    return std::nullopt;
  }
  const std::string word = reader->Word(variable, kSamplers);
  absl::string_view name = word;
  SamplerOptions sampler;
  sampler.parent_based = absl::ConsumePrefix(&name, "parentbased_");
  if (name == "traceidratio") {
    sampler.ratio = reader->Ratio(reader->Get("OTEL_TRACES_SAMPLER_ARG"));
  } else {
    sampler.ratio = name == "always_on" ? 1 : 0;
  }
  return sampler;
}

}  // namespace

absl::StatusOr<TracingSettings> ReadTracingSettings(const Environment& environment,
                                                    std::vector<std::string>* warnings) {
  EnvironmentReader reader(&environment, warnings);
  TracingSettings settings;
  settings.disabled = reader.Flag(reader.Get("OTEL_SDK_DISABLED"));
  if (settings.disabled) {
    return settings;
  }
  settings.sampler = ReadSampler(&reader);
  const Variable exporter = reader.Get("OTEL_TRACES_EXPORTER");
  if (reader.Word(exporter, {"otlp", "none"}) == "none") {
    return settings;
  }
  const Variable endpoint = reader.Otlp("ENDPOINT");
  if (endpoint.set()) {
    ASSIGN_OR_RETURN(settings.exporter, ReadExporter(endpoint, &reader));
  } else if (exporter.set()) {
    reader.Warn(exporter, "spans are not exported, since OTEL_EXPORTER_OTLP_ENDPOINT is not set");
  }
  return settings;
}

}  // namespace expertmesh::otlp
