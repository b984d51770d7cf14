#include "client/cpp/decoder/decoder.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "client/cpp/decoder/attention_kernels.h"
#include "common/base/status_macros.h"
#include "common/experts/backend_factory.h"
#include "common/tensor/aligned_buffer.h"
#include "common/tensor/decode_matrix.h"
#include "common/tensor/dtype.h"

namespace expertmesh::decoder {
namespace {

void Add(const std::vector<float>& y, std::vector<float>* x) {
  for (size_t i = 0; i < x->size(); ++i) {
    (*x)[i] += y[i];
  }
}

}  // namespace

// Rows of all inputs, one below the other.
struct Decoder::Batch {
  size_t rows = 0;
  std::vector<uint32_t> tokens;
  std::vector<uint32_t> counts;
  std::vector<RopeAngles> angles;
  std::vector<AttentionSegment> segments;
  // Rows whose logits are wanted.
  std::vector<size_t> wanted;
};

Decoder::Decoder(const DecoderOptions& options)
    : clock_(Clock::Real()), team_(options.threads), threads_(options.threads) {}

absl::StatusOr<std::unique_ptr<Decoder>> Decoder::Open(const std::string& directory,
                                                       const DecoderOptions& options) {
  std::unique_ptr<Decoder> decoder(new Decoder(options));
  RETURN_IF_ERROR(decoder->Load(directory, options.compute_dtype));
  return decoder;
}

const std::vector<std::string>& Decoder::warnings() const { return tensors_->warnings(); }

absl::Status Decoder::Load(const std::string& directory, Dtype compute_dtype) {
  ASSIGN_OR_RETURN(tensors_, ModelTensors::Open(directory));
  ASSIGN_OR_RETURN(config_, ReadDecoderConfig(directory, tensors_->layout()));
  if (config_.dense_width > 0) {
    experts::BackendOptions options;
    options.compute_dtype = compute_dtype;
    options.threads = threads_;
    ASSIGN_OR_RETURN(backend_, experts::MakeBackend("cpu", options));
  }
  ASSIGN_OR_RETURN(embeddings_, tensors_->Embeddings());
  for (uint32_t layer = 0; layer < config_.num_layers; ++layer) {
    ASSIGN_OR_RETURN(Layer loaded, LoadLayer(layer, compute_dtype));
    layers_.push_back(std::move(loaded));
  }
  ASSIGN_OR_RETURN(last_norm_, tensors_->LastNorm());
  ASSIGN_OR_RETURN(const MatrixView head, tensors_->Head());
  ASSIGN_OR_RETURN(head_, experts::Linear::Pack(compute_dtype, {{head}}));
  return tensors_->CheckUnchanged();
}

absl::StatusOr<Decoder::Layer> Decoder::LoadLayer(uint32_t index, Dtype compute_dtype) {
  Layer layer;
  ASSIGN_OR_RETURN(layer.attention_norm, tensors_->Norm(index, "input_layernorm", config_.d_model));
  ASSIGN_OR_RETURN(layer.feed_forward_norm,
                   tensors_->Norm(index, "post_attention_layernorm", config_.d_model));
  if (std::holds_alternative<LatentAttentionOptions>(config_.attention)) {
    ASSIGN_OR_RETURN(layer.attention,
                     MakeLatentAttention(config_, *tensors_, index, compute_dtype));
  } else {
    ASSIGN_OR_RETURN(layer.attention,
                     MakeGroupedAttention(config_, *tensors_, index, compute_dtype));
  }
  if (tensors_->layout().model.FindLayer(index) == nullptr) {
    ExpertOptions options;
    options.d_model = config_.d_model;
    options.intermediate_size = config_.dense_width;
    ASSIGN_OR_RETURN(const ExpertWeights weights,
                     tensors_->FeedForward(index, "mlp", config_.dense_width));
    ASSIGN_OR_RETURN(layer.dense, backend_->Pack(options, weights, {}));
  }
  return layer;
}

absl::StatusOr<Decoder::Batch> Decoder::Assemble(absl::Span<const DecoderInput> inputs) const {
  Batch batch;
  for (const DecoderInput& input : inputs) {
    const size_t before = input.cache->tokens();
    if (input.tokens.empty()) {
      return absl::InvalidArgumentError("a sequence of a batch has no tokens");
    }
    if (before + input.tokens.size() > config_.context_length) {
      return absl::OutOfRangeError(absl::StrCat(
          "a sequence of ", before + input.tokens.size(), " tokens does not fit the context of ",
          config_.context_length, " (max_position_embeddings, stretched as rope_scaling says); ",
          "shorten it"));
    }
    const std::optional<Rope> stretched = config_.rope.StretchedTo(
        std::max<uint64_t>(before + input.tokens.size(), input.known_tokens));
    const Rope& rope = stretched ? *stretched : config_.rope;
    for (const uint32_t token : input.tokens) {
      if (token >= config_.vocab_size) {
        return absl::InvalidArgumentError(
            absl::StrCat("token ", token, " is outside the vocabulary of ", config_.vocab_size));
      }
      batch.tokens.push_back(token);
      const size_t position = before + batch.angles.size() - batch.rows;
      batch.angles.emplace_back(rope, static_cast<uint32_t>(position));
    }
    batch.counts.push_back(static_cast<uint32_t>(input.tokens.size()));
    batch.segments.push_back({input.cache, batch.rows, input.tokens.size()});
    for (size_t i = input.all_rows ? 0 : input.tokens.size() - 1; i < input.tokens.size(); ++i) {
      batch.wanted.push_back(batch.rows + i);
    }
    batch.rows += input.tokens.size();
  }
  return batch;
}

void Decoder::Normalise(const std::vector<float>& weight, absl::Span<const float> x,
                        float* out) const {
  const AttentionKernels& kernels = GetAttentionKernels();
  for (size_t begin = 0; begin < x.size(); begin += weight.size()) {
    kernels.rms_norm(x.data() + begin, weight.data(), config_.norm_epsilon, weight.size(),
                     out + begin);
  }
}

absl::Status Decoder::Dense(const experts::PackedExpert& dense, absl::Span<const float> x,
                            float* y) {
  const Dtype dtype = backend_->compute_dtype();
  AlignedBuffer hidden(x.size() * BytesOf(dtype));
  ConvertElements(Dtype::kF32, x.data(), dtype, hidden.data(), x.size());
  experts::GroupedBatch batch;
  batch.hidden_states = hidden.data();
  batch.rows = x.size() / config_.d_model;
  batch.d_model = config_.d_model;
  std::vector<uint32_t> row_begin(batch.rows + 1);
  for (uint32_t row = 0; row <= batch.rows; ++row) {
    row_begin[row] = row;
  }
  const std::vector<const experts::PackedExpert*> experts(batch.rows, &dense);
  const std::vector<float> weights(batch.rows, 1.0f);
  batch.row_begin = row_begin;
  batch.experts = experts;
  batch.weights = weights;
  batch.partials = y;
  return experts::Compute(*backend_, batch);
}

absl::Status Decoder::FeedForward(uint32_t layer, const Batch& batch, absl::Span<const float> x,
                                  MoeLayers* moe, DecoderObserver* observer,
                                  std::vector<float>* y) {
  if (layers_[layer].dense != nullptr) {
    return Dense(*layers_[layer].dense, x, y->data());
  }
  MoeCall call;
  call.layer = layer;
  call.hidden = x;
  call.tokens = batch.rows;
  call.token_ids = batch.tokens;
  call.group_sizes = batch.counts;
  const absl::Time begin = clock_->Now();
  ASSIGN_OR_RETURN(MoeResult result, moe->Compute(call));
  if (observer != nullptr) {
    observer->OnMoe(layer, batch.rows, clock_->Now() - begin, result);
  }
  *y = std::move(result.output);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<float>> Decoder::Forward(absl::Span<const DecoderInput> inputs,
                                                    MoeLayers* moe, DecoderObserver* observer) {
  const absl::Time begin = clock_->Now();
  ASSIGN_OR_RETURN(const Batch batch, Assemble(inputs));
  if (batch.rows == 0) {
    return std::vector<float>();
  }
  const size_t d_model = config_.d_model;
  std::vector<float> x(batch.rows * d_model);
  std::vector<float> normed(x.size());
  std::vector<float> y(x.size());
  for (size_t row = 0; row < batch.rows; ++row) {
    DecodeRow(embeddings_, batch.tokens[row], 0, d_model, x.data() + row * d_model);
  }
  // These stay where they are in the checkpoint; all else was packed.
  RETURN_IF_ERROR(tensors_->CheckUnchanged(embeddings_));
  const AttentionBatch attended = {batch.segments, batch.rows, batch.angles};
  absl::Duration attention;
  for (uint32_t layer = 0; layer < config_.num_layers; ++layer) {
    const absl::Time attention_begin = clock_->Now();
    Normalise(layers_[layer].attention_norm, x, normed.data());
    layers_[layer].attention->Attend(layer, attended, normed.data(), &team_, y.data());
    Add(y, &x);
    Normalise(layers_[layer].feed_forward_norm, x, normed.data());
    attention += clock_->Now() - attention_begin;
    RETURN_IF_ERROR(FeedForward(layer, batch, normed, moe, observer, &y));
    Add(y, &x);
  }
  for (const AttentionSegment& segment : batch.segments) {
    segment.cache->Advance(segment.count);
  }
  std::vector<float> last(batch.wanted.size() * d_model);
  for (size_t i = 0; i < batch.wanted.size(); ++i) {
    Normalise(last_norm_, absl::MakeConstSpan(x).subspan(batch.wanted[i] * d_model, d_model),
              last.data() + i * d_model);
  }
  if (observer != nullptr) {
    observer->OnForward(attention, clock_->Now() - begin);
  }
  return last;
}

std::vector<float> Decoder::Logits(absl::Span<const float> rows) {
  const size_t count = rows.size() / config_.d_model;
  std::vector<float> logits(count * config_.vocab_size);
  team_.Multiply(*head_, count, rows.data(), logits.data());
  return logits;
}

}  // namespace expertmesh::decoder
