// The C++ client of an Expertmesh router: hidden states of one MoE layer in, its output back.
//
//   auto client = expertmesh::client::Client::Connect("127.0.0.1:50050");
//   std::vector<float> rows = ...;                                     // [tokens, d_model]
//   auto hidden = Matrix::Take(tokens, d_model, std::move(rows));
//   auto result = (*client)->Forward(layer, hidden);
//   if (!result.ok()) ...                                              // absl::Status, DetailsOf()
//   const float* output = result->output.As<float>();                  // [tokens, d_model]
//
// Three ways to call: Forward waits; ForwardAsync calls back; a ForwardStream keeps many requests
// of any layers in flight on one stream. All give the same bits.
//
// CMake: find_package(expertmesh), link expertmesh::client. This header needs Abseil and nothing
// else; it includes control.h, the types of what operators ask for. A program must not link both
// this library and its own generated code of expertmesh/v1/*.proto: protobuf refuses to register
// the same file twice.
#ifndef EXPERTMESH_CLIENT_H_
#define EXPERTMESH_CLIENT_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "control.h"

#define EXPERTMESH_CLIENT_EXPORT __attribute__((visibility("default")))

namespace expertmesh::client {

// With the numbers of the wire (proto/expertmesh/v1/tensor.proto).
enum class Dtype { kFloat32 = 1, kBFloat16 = 2, kFloat16 = 3 };

// Bytes of one element.
constexpr size_t BytesOf(Dtype dtype) { return dtype == Dtype::kFloat32 ? 4 : 2; }

// A row-major matrix whose bytes are shared, little endian and never change. Copying a Matrix
// shares the bytes. Immutable, hence thread-safe.
class EXPERTMESH_CLIENT_EXPORT Matrix {
 public:
  Matrix() = default;

  // Takes over `values`, rows * cols of them; sending does not copy them.
  static Matrix Take(size_t rows, size_t cols, std::vector<float> values);
  // Takes over `bytes`, rows * cols elements of `dtype`.
  static Matrix Take(Dtype dtype, size_t rows, size_t cols, std::string bytes);
  // Bytes that `owner` keeps alive. They must not change while this matrix, a copy of it or a
  // request that carries it exists; a request may outlive its answer for a moment, so give an owner
  // and do not borrow. Any alignment.
  static Matrix Share(Dtype dtype, size_t rows, size_t cols, absl::Span<const uint8_t> bytes,
                      std::shared_ptr<const void> owner);
  // Copies `bytes`.
  static Matrix Copy(Dtype dtype, size_t rows, size_t cols, absl::Span<const uint8_t> bytes);

  Dtype dtype() const { return dtype_; }
  size_t rows() const { return rows_; }
  size_t cols() const { return cols_; }
  // Whether there are exactly rows * cols elements is checked when the matrix is sent.
  absl::Span<const uint8_t> bytes() const { return bytes_; }
  const std::shared_ptr<const void>& owner() const { return owner_; }

  // The elements as T, which must have the size of the dtype's elements; the bytes must be aligned
  // for T, as those of results are (to 64 bytes).
  template <typename T>
  const T* As() const {
    return reinterpret_cast<const T*>(bytes_.data());
  }
  // The elements as float, converted and copied.
  std::vector<float> ToFloats() const;

 private:
  Dtype dtype_ = Dtype::kFloat32;
  size_t rows_ = 0;
  size_t cols_ = 0;
  absl::Span<const uint8_t> bytes_;
  std::shared_ptr<const void> owner_;
};

// What an error carries for programs, as proto/expertmesh/v1/errors.proto says. Empty where it
// carries nothing: it comes from gRPC, from a proxy or from this library.
struct ErrorDetails {
  // "EXPERTS_MISSING", "QUEUE_FULL", ...
  std::string reason;
  // The keys that the reason names.
  std::map<std::string, std::string> metadata;
  // Zero: not told.
  absl::Duration retry_delay;
  // With INVALID_FIELD: path of the field, and what is wrong with it.
  std::vector<std::pair<std::string, std::string>> field_violations;
};

EXPERTMESH_CLIENT_EXPORT ErrorDetails DetailsOf(const absl::Status& status);

struct ForwardOptions {
  // From the call until the answer; then DEADLINE_EXCEEDED, also when no router answers. Zero or
  // negative: already past.
  absl::Duration timeout = absl::InfiniteDuration();
  // W3C trace context of this request. An invalid one is ignored.
  std::string traceparent;
  std::string tracestate;
  // Fill in ForwardResult::routing.
  bool return_routing = false;
  // Type of the output; unset: that of the hidden states. Not together with int8_output.
  std::optional<Dtype> output_dtype;
  // Let rows travel as int8, in blocks of 128 values with a float32 scale each: about half the
  // bytes of the 16-bit types, and lossy (router_service/README.md, Types on the wire). Their
  // encoding and decoding is this library's; an output that came so is kFloat32.
  bool int8_hidden_states = false;
  bool int8_output = false;
  // Tokens of each group (a sequence, say), in the order of the tokens; they add up to the tokens.
  // Routing that looks at more than one token (capacity, expert choice) looks at one group. Empty:
  // all tokens are one group.
  std::vector<uint32_t> group_sizes;
  // One for each token; needed by layers routed by hash.
  std::vector<uint32_t> token_ids;
  // Seeds everything random in routing; unset: the router's own seed. The same request with the
  // same seed has the same answer.
  std::optional<uint64_t> routing_seed;
  // Choose experts with the checkpoint's own bias, whatever balancing made of it.
  bool checkpoint_bias = false;
};

// Which experts were used for each token, and with which weights.
struct Routing {
  // 0 where it is not the same for all tokens; assignments_per_token tells then.
  size_t experts_per_token = 0;
  // [tokens * experts_per_token], or as many as assignments_per_token add up to; token by token,
  // best first.
  std::vector<uint32_t> expert_ids;
  std::vector<float> expert_weights;
  // [tokens], or empty when every token has experts_per_token.
  std::vector<uint32_t> assignments_per_token;
};

// A token was to go to an expert and did not, since the expert had no room left (capacity).
struct DroppedAssignment {
  // Row of the hidden states.
  uint32_t token = 0;
  uint32_t expert = 0;
};

// Where the time went, in microseconds, by the router's clock except where said.
struct ForwardTiming {
  uint64_t queue_us = 0;
  uint64_t route_us = 0;
  uint64_t experts_us = 0;
  uint64_t combine_us = 0;
  // Tokens of the batch that the request was part of, and nodes that batch was sent to.
  uint32_t batch_tokens = 0;
  uint32_t nodes = 0;
  // Time of a batch in its node, by the node's clock: waiting and computing, of the answer with the
  // largest sum of the two among the nodes' answers that were used; 0 when there is none.
  // experts_us less both is about what the wire took, unless the router's shared experts took
  // longer or a lost batch was retried.
  uint64_t node_queue_us = 0;
  uint64_t node_compute_us = 0;
};

struct ForwardResult {
  // [tokens, d_model]; owns its bytes, aligned to 64.
  Matrix output;
  // Empty unless ForwardOptions::return_routing.
  Routing routing;
  // Always complete, ascending by token; empty unless the layer's routing has a capacity.
  std::vector<DroppedAssignment> dropped;
  // Version of bias and placement that served the request.
  uint64_t epoch = 0;
  ForwardTiming timing;
};

// Called exactly once, on a thread of the library (on the caller's, when nothing could be sent).
// Must not block, nor destroy the client or stream it came from; may send further requests.
using ForwardCallback = std::function<void(absl::StatusOr<ForwardResult>)>;

// Many requests in flight, answered in any order. A stream that ends for no fault of theirs (the
// router left, a connection broke, a proxy thought it idle) is opened again, and what has no answer
// is sent again; heartbeats keep it alive. Thread-safe. Must not outlive its client.
class EXPERTMESH_CLIENT_EXPORT ForwardStream {
 public:
  // Requests in flight get CANCELLED. No callback runs afterwards.
  virtual ~ForwardStream();

  // Errors as for Client::Forward; an error of one request leaves the others alone. Besides,
  //   UNAVAILABLE         the stream is broken: ClientOptions::max_attempts to open it again
  //   brought
  //                       no answer. Every request in flight gets this once; open another stream.
  //   RESOURCE_EXHAUSTED  ClientOptions::stream_window_bytes wait to be sent already.
  virtual void Send(uint32_t layer, const Matrix& hidden, const ForwardOptions& options,
                    ForwardCallback done) = 0;

  // Requests that are not answered yet.
  virtual size_t InFlight() const = 0;

  // UNAVAILABLE once the stream is broken, with the reason.
  virtual absl::Status status() const = 0;
};

struct LayerInfo {
  uint32_t layer = 0;
  uint32_t num_experts = 0;
  uint32_t experts_per_token = 0;
  // Width of one expert, and of the shared experts together (0: none).
  uint32_t intermediate_size = 0;
  uint32_t shared_intermediate_size = 0;
  // The routing options in force, as JSON in the form that expertmesh-router --routing takes; empty
  // when the router is too old to tell.
  std::string routing;
};

struct ModelInfo {
  std::string family;
  // 64 hex digits; "partial:" and the outline when the router has not all files of its checkpoint.
  std::string fingerprint;
  uint32_t d_model = 0;
  // Type that activations have inside the mesh.
  Dtype activation_dtype = Dtype::kFloat32;
  // Ascending by `layer`.
  std::vector<LayerInfo> layers;
  // Largest request accepted, in bytes.
  uint64_t max_message_bytes = 0;
  // 64 hex digits, compared where a fingerprint is partial. Empty: the router is too old to tell.
  std::string outline;
};

// How a connection is encrypted. Keys and certificates are texts in PEM.
struct TlsOptions {
  // Authorities that may have signed the router's certificate; empty: the system's.
  std::string root_certificates;
  // What this client shows of itself, where routers ask for it: both or neither.
  std::string private_key;
  std::string certificate_chain;
  // The name that the router's certificate must have; empty: the host in the address.
  std::string server_name;
};

struct ClientOptions {
  // Largest message sent or accepted.
  size_t max_message_bytes = size_t{64} << 20;
  // Bytes that may wait to be sent on one ForwardStream.
  size_t stream_window_bytes = size_t{64} << 20;
  // For the calls that describe (not Forward).
  absl::Duration describe_timeout = absl::Seconds(10);
  // Times that a request is sent at most, when it fails for a reason that the same request may not
  // meet again (errors.proto says which), or its connection is lost; 1: once. Later attempts wait
  // longer, within the timeout of the request. What is sent again comes to the same as once:
  // Forward changes nothing, and what sets something (SetBias, SetBalance, SetPlacement, DrainNode)
  // sets it to the same. ApplyPlacement and AbortPlacement do not, and are not sent again when it
  // is not known what became of them.
  uint32_t max_attempts = 5;
  // Unset: no encryption.
  std::optional<TlsOptions> tls;
};

// A connection to one router. Thread-safe. Destroying it cancels what is under way (CANCELLED) and
// waits for callbacks; not from a callback.
class EXPERTMESH_CLIENT_EXPORT Client {
 public:
  // `address` is host:port or unix:/path. Does not wait: the connection is made by the first call,
  // which is UNAVAILABLE when there is no router, and made again when it breaks.
  //   INVALID_ARGUMENT  no such address is possible, or a key or certificate cannot be used; the
  //                     message names it.
  static absl::StatusOr<std::unique_ptr<Client>> Connect(const std::string& address,
                                                         const ClientOptions& options = {});
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  // Computes the MoE block of `layer` (its index in the model) for hidden states [tokens, d_model];
  // tokens may be 0.
  //   INVALID_ARGUMENT    wrong layer, d_model, dtype, byte count, group_sizes or token_ids; the
  //                       message names it.
  //   DEADLINE_EXCEEDED   the timeout passed.
  //   UNAVAILABLE         no router, or no ready node holds an expert that is needed; retry later.
  //   RESOURCE_EXHAUSTED  the layer's queue is full, or the message is over the limit.
  //   OUT_OF_RANGE        a finite value of the output is beyond its type; the message names it.
  absl::StatusOr<ForwardResult> Forward(uint32_t layer, const Matrix& hidden,
                                        const ForwardOptions& options = {});

  // The same without waiting.
  void ForwardAsync(uint32_t layer, const Matrix& hidden, const ForwardOptions& options,
                    ForwardCallback done);

  // Never null; whether there is a router shows with the first answer.
  std::unique_ptr<ForwardStream> OpenStream();

  // What the router serves.
  absl::StatusOr<ModelInfo> DescribeModel();

  // Nodes, what each holds, the types on each link, and what is missing.
  absl::StatusOr<client::Topology> Topology();

  // Calls `on_change` with the topology now and after every change, on this thread, until it
  // returns false (OK) or the connection is lost and cannot be made again (the error).
  absl::Status WatchTopology(const std::function<bool(const client::Topology&)>& on_change);

  // Tokens of each layer and assignments of each expert.
  absl::StatusOr<Load> GetLoad(const LoadOptions& options = {});

  // How load is balanced over experts, and whether the balancing is alive.
  absl::StatusOr<Balance> GetBalance();

  // As WatchTopology; that the counts of load have changed is told when the router looks at them.
  absl::Status WatchBalance(const std::function<bool(const Balance&)>& on_change);

  // Changes policies; the answer is how it is once that is in force.
  //   INVALID_ARGUMENT     no such layer, or an impossible value; nothing is changed.
  //   FAILED_PRECONDITION  a layer cannot be steered, or the router follows another one: ask that
  //                        one, `authority` in ErrorDetails::metadata.
  absl::StatusOr<Balance> SetBalance(const BalanceChange& change);

  // The bias of all layers that can be steered at `epoch`; 0: now.
  //   NOT_FOUND  the epoch is later than the present one, or older than what is remembered.
  absl::StatusOr<Bias> GetBias(uint64_t epoch = 0);

  // Puts a bias in force; policies go on from there. Errors as SetBalance, and FAILED_PRECONDITION
  // when it is for another model.
  absl::StatusOr<Balance> SetBias(const Bias& bias);

  // Which copies of experts are planned, why, and how far their moves are.
  absl::StatusOr<PlacementState> GetPlacement();

  // As WatchTopology.
  absl::Status WatchPlacement(const std::function<bool(const PlacementState&)>& on_change);

  // Changes how copies are planned; the answer is how it is once that is in force. Errors as
  // SetBalance.
  absl::StatusOr<PlacementState> SetPlacement(const PlacementChange& change);

  // What the planner would do now, if its policy were changed so: nothing of it is done.
  //   RESOURCE_EXHAUSTED  nodes have no room for the copies that there must be.
  //   UNAVAILABLE         there is nothing to plan by yet.
  absl::StatusOr<PlacementProposal> PlanPlacement(const PlacementChange& change = {});

  // Begins to move copies to `plan`; unset: to what the planner says now. New copies are loaded
  // first, then routers follow them, then old ones are freed: GetPlacement tells how far that is.
  // Errors as SetBalance and PlanPlacement, and
  //   INVALID_ARGUMENT     a plan that cannot be, or exceeds a node's memory; nothing is moved.
  //   FAILED_PRECONDITION  another move is under way.
  // An answer that is lost on the way is UNAVAILABLE: GetPlacement tells whether the move began.
  absl::StatusOr<PlacementState> ApplyPlacement(const std::optional<PlacementPlan>& plan = {});

  // Undoes the move that is under way. FAILED_PRECONDITION: none is, or it is too late.
  absl::StatusOr<PlacementState> AbortPlacement();

  // The spans of a trace that the router still has, as the bytes of an
  // OTLP TracesData.
  //   NOT_FOUND            it was not kept, or is forgotten.
  //   FAILED_PRECONDITION  the router does not trace.
  absl::StatusOr<std::string> GetTrace(const std::string& trace_id);

  // At most `limit` of the traces that GetTrace finds: the newest first, or the longest first.
  absl::StatusOr<std::vector<TraceSummary>> ListTraces(uint32_t limit = 20, bool slowest = false);

  // Stops sending new batches to the node of `address`, as listed in the topology, or resumes it.
  // What only this node holds goes on being sent there. The answer is the node as it is now:
  // batches that were sent before may still be in flight.
  //   NOT_FOUND  the router knows no node of that address.
  absl::StatusOr<NodeInfo> DrainNode(const std::string& address, bool resume = false);

  // Whether `service` ("": all of the process) is SERVING, by grpc.health.v1; works against nodes,
  // too. NOT_FOUND: the process knows no such service.
  absl::StatusOr<bool> Health(const std::string& service = "");

 private:
  struct Impl;
  explicit Client(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace expertmesh::client

#endif  // EXPERTMESH_CLIENT_H_
