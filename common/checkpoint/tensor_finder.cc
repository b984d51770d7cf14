#include "common/checkpoint/tensor_finder.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/checkpoint/families.h"
#include "common/json/json_text.h"

namespace expertmesh::checkpoint {
namespace {

constexpr uint64_t kMxfp4Block = 32;

uint64_t CeilDiv(uint64_t value, uint64_t divisor) { return (value + divisor - 1) / divisor; }

// Outputs of the stored matrix of one expert.
uint64_t StoredOutputs(const TensorPlace& place, uint64_t outputs) {
  return place.halved() ? 2 * outputs : outputs;
}

// Where the meant outputs are among the stored ones, and how far apart.
struct OutputRange {
  uint64_t first = 0;
  uint64_t step = 1;
};

OutputRange RangeOf(Part part, uint64_t outputs) {
  switch (part) {
    case Part::kWhole:
    case Part::kFirstHalf:
      return {0, 1};
    case Part::kSecondHalf:
      return {outputs, 1};
    case Part::kEven:
      return {0, 2};
    case Part::kOdd:
      return {1, 2};
  }
  return {};
}

// `matrix` is one expert's shape; the shape of the tensor that holds it.
std::vector<uint64_t> StackedShape(std::vector<uint64_t> matrix, Stacking stacking,
                                   uint64_t num_experts) {
  if (stacking == Stacking::kLeading) {
    matrix.insert(matrix.begin(), num_experts);
  } else if (stacking == Stacking::kRows) {
    matrix.front() *= num_experts;
  }
  return matrix;
}

}  // namespace

absl::Status TensorFinder::Wrong(const std::string& name, const TensorView& tensor,
                                 absl::string_view what) const {
  return absl::InvalidArgumentError(
      absl::StrCat(tensors_.PathOf(tensor), ": tensor ", Quoted(name), ": ", what));
}

absl::StatusOr<const TensorView*> TensorFinder::Find(const std::string& name,
                                                     const std::vector<uint64_t>& shape) const {
  ASSIGN_OR_RETURN(const TensorView* tensor, tensors_.Find(name));
  if (tensor->shape != shape) {
    return Wrong(name, *tensor,
                 absl::StrCat("shape ", ShapeString(tensor->shape), " must be ", ShapeString(shape),
                              " by config.json"));
  }
  return tensor;
}

absl::StatusOr<MatrixView> TensorFinder::Plain(const std::string& name, uint64_t outputs,
                                               uint64_t inputs) const {
  ASSIGN_OR_RETURN(const TensorView* tensor, Find(name, {outputs, inputs}));
  if (!IsActivationDtype(tensor->dtype)) {
    return Wrong(name, *tensor,
                 absl::StrCat("type ", NameOf(tensor->dtype),
                              " cannot be used; accepted here are F32, F16 and BF16. Convert the "
                              "checkpoint to one of them"));
  }
  return MatrixView::RowMajor(tensor->data, tensor->dtype, outputs, inputs);
}

absl::StatusOr<MatrixView> TensorFinder::Vector(const std::string& name, uint64_t count) const {
  ASSIGN_OR_RETURN(const TensorView* tensor, tensors_.Find(name));
  if (tensor->shape == std::vector<uint64_t>{1, count}) {
    return Plain(name, 1, count);
  }
  static const std::string kNoPrefix;
  return Bias({.name = name}, {kNoPrefix, 0, 1}, count);
}

absl::StatusOr<MatrixView> TensorFinder::Bias(const TensorPlace& place, const Scope& scope,
                                              uint64_t outputs) const {
  if (place.empty()) {
    return MatrixView{};
  }
  const std::string name = TensorName(scope.prefix, place.name, scope.expert);
  const uint64_t stored = StoredOutputs(place, outputs);
  ASSIGN_OR_RETURN(const TensorView* tensor,
                   Find(name, StackedShape({stored}, place.stacking, scope.num_experts)));
  if (!IsActivationDtype(tensor->dtype)) {
    return Wrong(name, *tensor,
                 absl::StrCat("type ", NameOf(tensor->dtype),
                              " cannot be used; accepted here are F32, F16 and BF16"));
  }
  const OutputRange range = RangeOf(place.part, outputs);
  const uint64_t expert = place.stacking == Stacking::kPerExpert ? 0 : scope.expert;
  MatrixView view =
      MatrixView::RowMajor(tensor->data + (expert * stored + range.first) * BytesOf(tensor->dtype),
                           tensor->dtype, 1, outputs);
  view.row_stride = stored;
  view.col_stride = range.step;
  return view;
}

absl::StatusOr<BlockScales> TensorFinder::Fp8Scales(const std::string& name,
                                                    const TensorPlace& place, const Scope& scope,
                                                    uint64_t outputs, uint64_t inputs) const {
  const std::string scales_name = absl::StrCat(name, "_scale_inv");
  const uint64_t block_rows = layout_.fp8_block_rows;
  const uint64_t block_cols = layout_.fp8_block_cols;
  const OutputRange range = RangeOf(place.part, outputs);
  ASSIGN_OR_RETURN(const TensorView* weight, tensors_.Find(name));
  if (place.transposed || place.stacking == Stacking::kRows || range.step != 1 ||
      range.first % block_rows != 0) {
    return Wrong(name, *weight,
                 "type F8_E4M3 cannot be used where blocks of scales do not begin with the matrix; "
                 "convert it to BF16");
  }
  if (!tensors_.Knows(scales_name)) {
    return absl::NotFoundError(absl::StrCat(tensors_.PathOf(*weight), ": tensor ", Quoted(name),
                                            " of type F8_E4M3 has no scales; expected tensor ",
                                            Quoted(scales_name)));
  }
  const uint64_t grid_rows = CeilDiv(StoredOutputs(place, outputs), block_rows);
  const uint64_t grid_cols = CeilDiv(inputs, block_cols);
  ASSIGN_OR_RETURN(
      const TensorView* tensor,
      Find(scales_name, StackedShape({grid_rows, grid_cols}, place.stacking, scope.num_experts)));
  BlockScales scales;
  // Some writers have no type for exponents, and call them bytes.
  scales.dtype = tensor->dtype == Dtype::kU8 ? Dtype::kF8E8M0 : tensor->dtype;
  if (!IsScaleDtype(scales.dtype)) {
    return Wrong(scales_name, *tensor,
                 absl::StrCat("type ", NameOf(tensor->dtype),
                              " cannot be used; scales are F32, BF16 or F16, or U8 or F8_E8M0 "
                              "exponents"));
  }
  const uint64_t expert = place.stacking == Stacking::kPerExpert ? 0 : scope.expert;
  scales.data = tensor->data +
                (expert * grid_rows + range.first / block_rows) * grid_cols * BytesOf(scales.dtype);
  scales.block_rows = block_rows;
  scales.block_cols = block_cols;
  scales.row_stride = grid_cols;
  return scales;
}

absl::StatusOr<MatrixView> TensorFinder::Mxfp4(const TensorPlace& place, const Scope& scope,
                                               uint64_t outputs, uint64_t inputs) const {
  const std::string name = TensorName(scope.prefix, place.name, scope.expert);
  if (inputs % kMxfp4Block != 0) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", Quoted(name), ": ", inputs,
                                                   " inputs are no multiple of ", kMxfp4Block,
                                                   ", the block of MXFP4"));
  }
  const uint64_t stored = StoredOutputs(place, outputs);
  const uint64_t blocks = inputs / kMxfp4Block;
  const auto find = [&](absl::string_view suffix,
                        std::vector<uint64_t> shape) -> absl::StatusOr<const TensorView*> {
    const std::string full = absl::StrCat(name, suffix);
    ASSIGN_OR_RETURN(const TensorView* tensor,
                     Find(full, StackedShape(std::move(shape), place.stacking, scope.num_experts)));
    const bool exponents = suffix == "_scales" && tensor->dtype == Dtype::kF8E8M0;
    if (tensor->dtype != Dtype::kU8 && !exponents) {
      return Wrong(full, *tensor, absl::StrCat("type ", NameOf(tensor->dtype), " must be U8"));
    }
    return tensor;
  };
  ASSIGN_OR_RETURN(const TensorView* values, find("_blocks", {stored, blocks, kMxfp4Block / 2}));
  ASSIGN_OR_RETURN(const TensorView* scales, find("_scales", {stored, blocks}));
  const OutputRange range = RangeOf(place.part, outputs);
  const uint64_t expert = place.stacking == Stacking::kPerExpert ? 0 : scope.expert;
  const uint64_t row = expert * stored + range.first;
  MatrixView view =
      MatrixView::RowMajor(values->data + row * inputs / 2, Dtype::kF4, outputs, inputs);
  view.row_stride = range.step * inputs;
  view.scales.data = scales->data + row * blocks;
  view.scales.dtype = Dtype::kF8E8M0;
  view.scales.block_rows = 1;
  view.scales.block_cols = kMxfp4Block;
  view.scales.row_stride = range.step * blocks;
  return view;
}

absl::StatusOr<MatrixView> TensorFinder::Matrix(const TensorPlace& place, const Scope& scope,
                                                uint64_t outputs, uint64_t inputs) const {
  if (place.empty()) {
    return MatrixView{};
  }
  if (place.encoding == Encoding::kMxfp4) {
    return Mxfp4(place, scope, outputs, inputs);
  }
  const std::string name = TensorName(scope.prefix, place.name, scope.expert);
  const uint64_t stored = StoredOutputs(place, outputs);
  std::vector<uint64_t> shape = {stored, inputs};
  if (place.transposed) {
    std::swap(shape[0], shape[1]);
  }
  ASSIGN_OR_RETURN(const TensorView* tensor,
                   Find(name, StackedShape(std::move(shape), place.stacking, scope.num_experts)));
  if (!IsActivationDtype(tensor->dtype) && tensor->dtype != Dtype::kF8E4M3) {
    return Wrong(name, *tensor,
                 absl::StrCat("type ", NameOf(tensor->dtype),
                              " cannot be used; accepted are F32, F16 and BF16, and F8_E4M3 with "
                              "scales. Convert the checkpoint to one of them"));
  }
  const OutputRange range = RangeOf(place.part, outputs);
  const uint64_t expert = place.stacking == Stacking::kPerExpert ? 0 : scope.expert;
  const uint64_t output_stride = place.transposed ? 1 : inputs;
  const uint64_t first = expert * stored * inputs + range.first * output_stride;
  MatrixView view = MatrixView::RowMajor(tensor->data + first * BytesOf(tensor->dtype),
                                         tensor->dtype, outputs, inputs);
  view.row_stride = range.step * output_stride;
  view.col_stride = place.transposed ? stored : 1;
  if (tensor->dtype == Dtype::kF8E4M3) {
    ASSIGN_OR_RETURN(view.scales, Fp8Scales(name, place, scope, outputs, inputs));
  }
  return view;
}

absl::StatusOr<MatrixView> TensorFinder::Linear(const std::string& name, uint64_t outputs,
                                                uint64_t inputs) const {
  static const std::string kNoPrefix;
  return Matrix({.name = name}, {kNoPrefix, 0, 1}, outputs, inputs);
}

absl::StatusOr<ExpertWeights> TensorFinder::Expert(const ExpertPlaces& places,
                                                   const std::string& prefix, uint32_t expert,
                                                   uint32_t num_experts, uint64_t width) const {
  const uint64_t d_model = layout_.model.d_model;
  const Scope scope = {prefix, expert, num_experts};
  ExpertWeights weights;
  ASSIGN_OR_RETURN(weights.gate, Matrix(places.gate, scope, width, d_model));
  ASSIGN_OR_RETURN(weights.up, Matrix(places.up, scope, width, d_model));
  ASSIGN_OR_RETURN(weights.down, Matrix(places.down, scope, d_model, width));
  ASSIGN_OR_RETURN(weights.gate_bias, Bias(places.gate_bias, scope, width));
  ASSIGN_OR_RETURN(weights.up_bias, Bias(places.up_bias, scope, width));
  ASSIGN_OR_RETURN(weights.down_bias, Bias(places.down_bias, scope, d_model));
  return weights;
}

ChosenStorage ChooseStorage(const ModelLayout& layout, const SafetensorsReader& tensors) {
  const Family& family = *layout.family;
  const MoeLayerDescription& moe = layout.model.layers.front();
  ChosenStorage best = {&family.storages[0], kModelPrefixes[0]};
  size_t most = 0;
  for (const absl::string_view prefix : kModelPrefixes) {
    const std::string moe_prefix = MoePrefix(layout, layout.layers[moe.layer], prefix);
    for (const Storage& storage : family.storages) {
      const auto there = [&](const TensorPlace& place, uint32_t expert) -> size_t {
        const std::string name = TensorName(moe_prefix, place.name, expert);
        return tensors.Knows(place.encoding == Encoding::kMxfp4 ? absl::StrCat(name, "_blocks")
                                                                : name);
      };
      size_t found = there({.name = storage.gate}, 0);
      for (uint32_t expert = 0; expert < moe.routing.num_experts; ++expert) {
        for (const TensorPlace& place :
             {storage.experts.gate, storage.experts.up, storage.experts.down}) {
          found += there(place, expert);
        }
      }
      if (found > most) {
        most = found;
        best = {&storage, prefix};
      }
    }
  }
  return best;
}

}  // namespace expertmesh::checkpoint
