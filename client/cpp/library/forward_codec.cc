#include "client/cpp/library/forward_codec.h"

#include <limits>
#include <memory>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/tensor/aligned_buffer.h"
#include "common/wire/error_reason.h"
#include "common/wire/message_codec.h"
#include "common/wire/message_size.h"
#include "common/wire/status.h"
#include "common/wire/tensor_copy.h"
#include "common/wire/tensor_encode.h"
#include "common/wire/wire_dtype.h"

namespace expertmesh::client {
namespace {

// Fits rows * cols * bytes(dtype)?
absl::Status CheckMatrix(const Matrix& matrix) {
  const size_t width = BytesOf(matrix.dtype());
  const size_t rows = matrix.rows();
  const size_t cols = matrix.cols();
  const bool overflow = cols > 0 && rows > std::numeric_limits<size_t>::max() / width / cols;
  if (overflow || matrix.bytes().size() != rows * cols * width) {
    return absl::InvalidArgumentError(absl::StrCat(
        "hidden_states: [", rows, ", ", cols, "] with ", width, " bytes an element cannot have ",
        matrix.bytes().size(), " bytes; give rows * cols elements"));
  }
  return absl::OkStatus();
}

// The received pieces, gathered, int8 as float32: the one copy on this side.
Matrix GatherOutput(const TensorFrame& tensor) {
  const bool int8 = tensor.dtype == expertmesh::Dtype::kI8Block128;
  const auto dtype = int8 ? expertmesh::Dtype::kF32 : tensor.dtype;
  auto buffer =
      std::make_shared<AlignedBuffer>(tensor.rows * tensor.cols * expertmesh::BytesOf(dtype));
  DecodeRows(tensor, dtype, buffer->data());
  const absl::Span<const uint8_t> bytes(buffer->data(), buffer->size());
  return Matrix::Share(FromInternal(dtype), tensor.rows, tensor.cols, bytes, std::move(buffer));
}

TensorFrame FrameOf(const Matrix& hidden, bool int8) {
  if (int8) {
    return EncodeRows(ToInternal(hidden.dtype()), hidden.bytes().data(), hidden.rows(),
                      hidden.cols(), expertmesh::Dtype::kI8Block128);
  }
  TensorFrame tensor;
  tensor.dtype = ToInternal(hidden.dtype());
  tensor.rows = hidden.rows();
  tensor.cols = hidden.cols();
  tensor.data.Append(Slice(hidden.bytes().data(), hidden.bytes().size(), hidden.owner()));
  return tensor;
}

absl::Status CheckRouting(const v1::Routing& proto, size_t tokens) {
  uint64_t expected = uint64_t{tokens} * proto.experts_per_token();
  const bool ragged = proto.assignments_per_token_size() > 0;
  if (ragged) {
    expected = std::accumulate(proto.assignments_per_token().begin(),
                               proto.assignments_per_token().end(), uint64_t{0});
  }
  if (ragged && static_cast<size_t>(proto.assignments_per_token_size()) != tokens) {
    return absl::InternalError(absl::StrCat(
        "routing of the answer has ", proto.assignments_per_token_size(),
        " assignments_per_token for ", tokens, " tokens; router and client do not fit together"));
  }
  if (static_cast<uint64_t>(proto.expert_ids_size()) != expected ||
      static_cast<uint64_t>(proto.expert_weights_size()) != expected) {
    return absl::InternalError(
        absl::StrCat("routing of the answer has ", proto.expert_ids_size(), " expert_ids and ",
                     proto.expert_weights_size(), " expert_weights; its ", tokens, " tokens have ",
                     expected, " experts together; router and client do not fit together"));
  }
  return absl::OkStatus();
}

Routing ReadRouting(const v1::Routing& proto) {
  Routing routing;
  routing.experts_per_token = proto.assignments_per_token().empty() ? proto.experts_per_token() : 0;
  routing.expert_ids.assign(proto.expert_ids().begin(), proto.expert_ids().end());
  routing.expert_weights.assign(proto.expert_weights().begin(), proto.expert_weights().end());
  routing.assignments_per_token.assign(proto.assignments_per_token().begin(),
                                       proto.assignments_per_token().end());
  return routing;
}

absl::StatusOr<ForwardResult> ReadResult(const TensorMessage<v1::ForwardResponse>& answer) {
  if (answer.message.status().code() != 0) {
    return FromWire(answer.message.status());
  }
  if (!answer.tensor_status.ok()) {
    return absl::InternalError(
        absl::StrCat("output of the answer is not valid: ", answer.tensor_status.message()));
  }
  if (!answer.has_tensor) {
    return absl::InternalError("the answer has neither an output nor an error");
  }
  ForwardResult result;
  result.output = GatherOutput(answer.tensor);
  if (answer.message.has_routing()) {
    const absl::Status status = CheckRouting(answer.message.routing(), answer.tensor.rows);
    if (!status.ok()) {
      return status;
    }
    result.routing = ReadRouting(answer.message.routing());
  }
  for (const v1::DroppedAssignment& dropped : answer.message.dropped()) {
    if (dropped.token() >= answer.tensor.rows) {
      return absl::InternalError(absl::StrCat("the answer has dropped token ", dropped.token(),
                                              " of ", answer.tensor.rows,
                                              "; router and client do not fit together"));
    }
    result.dropped.push_back({dropped.token(), dropped.expert()});
  }
  result.epoch = answer.message.epoch();
  const v1::ForwardTiming& timing = answer.message.timing();
  result.timing = {timing.queue_us(),      timing.route_us(),       timing.experts_us(),
                   timing.combine_us(),    timing.batch_tokens(),   timing.nodes(),
                   timing.node_queue_us(), timing.node_compute_us()};
  return result;
}

}  // namespace

expertmesh::Dtype ToInternal(Dtype dtype) { return *FindWireDtype(static_cast<v1::Dtype>(dtype)); }

Dtype FromInternal(expertmesh::Dtype dtype) { return static_cast<Dtype>(ToWire(dtype)); }

absl::StatusOr<Frame> EncodeForward(uint64_t request_id, uint32_t layer, const Matrix& hidden,
                                    const ForwardOptions& options, uint64_t max_message_bytes) {
  if (absl::Status status = CheckMatrix(hidden); !status.ok()) {
    return status;
  }
  if (options.int8_output && options.output_dtype.has_value()) {
    return absl::InvalidArgumentError(
        "output_dtype is set and int8_output too, whose output is float32; leave one out");
  }
  v1::ForwardRequest request;
  request.set_request_id(request_id);
  request.set_layer(layer);
  if (options.timeout != absl::InfiniteDuration()) {
    request.set_timeout_us(absl::ToInt64Microseconds(options.timeout));
  }
  request.set_traceparent(options.traceparent);
  request.set_tracestate(options.tracestate);
  request.set_return_routing(options.return_routing);
  request.set_max_response_bytes(max_message_bytes);
  if (options.int8_output) {
    request.set_output_dtype(v1::DTYPE_INT8_BLOCK128);
  } else if (options.output_dtype.has_value()) {
    request.set_output_dtype(ToWire(ToInternal(*options.output_dtype)));
  } else if (options.int8_hidden_states) {
    // The router would take the type that the rows came in.
    request.set_output_dtype(ToWire(ToInternal(hidden.dtype())));
  }
  request.mutable_group_sizes()->Add(options.group_sizes.begin(), options.group_sizes.end());
  request.mutable_token_ids()->Add(options.token_ids.begin(), options.token_ids.end());
  if (options.routing_seed.has_value()) {
    request.set_routing_seed(*options.routing_seed);
  }
  if (options.checkpoint_bias) {
    request.set_select_bias(v1::SELECT_BIAS_CHECKPOINT);
  }
  const TensorFrame tensor = FrameOf(hidden, options.int8_hidden_states);
  Frame frame = EncodeTensorMessage(request, &tensor);
  if (frame.size() > max_message_bytes) {
    const SizedMessage sized = {&request, "hidden_states", tensor.data.size(), frame.size()};
    return ErrorOf(
        v1::ERROR_REASON_MESSAGE_TOO_LARGE,
        absl::StrCat("the request has ", TooLargeText(sized, max_message_bytes),
                     " (max_message_bytes of this client); send fewer tokens at once, "
                     "or raise it here and --max-message-bytes of the router"),
        {{"bytes", absl::StrCat(frame.size())}, {"limit", absl::StrCat(max_message_bytes)}});
  }
  return frame;
}

Frame EncodeHeartbeat() {
  v1::ForwardRequest request;
  request.set_heartbeat(true);
  return Frame(request.SerializeAsString());
}

absl::StatusOr<ForwardAnswer> DecodeForward(const Frame& frame) {
  const absl::StatusOr<TensorMessage<v1::ForwardResponse>> answer =
      DecodeTensorMessage<v1::ForwardResponse>(frame);
  if (!answer.ok()) {
    return absl::InternalError(
        absl::StrCat("the router's answer cannot be read: ", answer.status().message()));
  }
  if (answer->message.heartbeat()) {
    return ForwardAnswer{answer->message.request_id(), /*heartbeat=*/true};
  }
  return ForwardAnswer{answer->message.request_id(), /*heartbeat=*/false, ReadResult(*answer)};
}

}  // namespace expertmesh::client
