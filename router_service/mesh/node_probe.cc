#include "router_service/mesh/node_probe.h"

#include <string>

#include "absl/types/span.h"
#include "common/tensor/aligned_buffer.h"
#include "common/wire/frame_checksum.h"
#include "common/wire/message_codec.h"
#include "common/wire/tensor_encode.h"
#include "expertmesh/internal/v1/expert.pb.h"
#include "router_service/mesh/node_link.h"

namespace expertmesh::mesh {

void SendProbe(const ProbeRequest& probe, NodeLink* link, NodeProbe::OnDone on_done) {
  auto batch = std::make_shared<NodeProbe>(std::move(on_done));
  batch->d_model = probe.d_model;
  batch->rows = batch->answer_rows = batch->assignments = probe.rows;
  batch->partials =
      std::make_shared<AlignedBuffer>(size_t{probe.rows} * probe.d_model * sizeof(float));

  internal::v1::ComputeRequest request;
  request.set_batch_id(link->NextBatchId());
  request.set_layer(probe.layer);
  request.set_epoch(probe.epoch);
  request.set_timeout_us(absl::ToInt64Microseconds(probe.timeout));
  request.set_total_rows(probe.rows);
  for (uint32_t row = 0; row < probe.rows; ++row) {
    request.add_assignments_per_row(1);
    request.add_expert_ids(probe.expert);
    request.add_expert_weights(probe.weight);
  }
  request.set_partials_dtype(v1::DTYPE_F32);
  TensorFrame tensor{probe.dtype, probe.rows, probe.d_model, {}};
  tensor.data = Frame(std::string(reinterpret_cast<const char*>(probe.hidden_states),
                                  size_t{probe.rows} * probe.d_model * BytesOf(probe.dtype)));
  if (link->encoding().checksums) {
    request.set_checksum(ChecksumOf(request, tensor));
  }
  Frame frame = EncodeTensorMessage(request, &tensor);
  link->Send(request.batch_id(), std::move(batch), absl::MakeSpan(&frame, 1));
}

}  // namespace expertmesh::mesh
