// Quanvas - which layers the rounding passes work on, and the columns that their weights multiply.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "core/algorithms/gram.h"
#include "core/algorithms/im2col.h"
#include "core/exec/pass_context.h"
#include "core/graph/layers.h"
#include "core/quant/column.h"

namespace quanvas::rounding {

// A layer whose weight is a matrix, or one for each group.
struct Target {
  Layer layer;
  std::string name;
  TensorId input = kNoTensor;
  Shape shape;                                // of the weight
  std::int64_t groups = 1, m = 0, n = 0;      // of one group: outputs, inputs
  bool transposed = false;                    // the weight stands as [n, m]
  bool convolution = false;
  Site weight_site() const { return {layer.node, SiteKind::kWeight, 0}; }
  Site input_site() const { return {layer.node, SiteKind::kInput, 0}; }
  // Where a group's matrix lies in the weight.
  quant::MatrixView view(std::int64_t group) const;
};

// Layers with a quantized weight among the nodes (empty: all), in topological order, and those that have one that cannot
// be rounded: name, why.
struct Targets {
  std::vector<Target> targets;
  std::vector<std::pair<std::string, std::string>> left;
};
Targets find_targets(const Model& model, const std::set<NodeId>& nodes, const std::function<bool(const Site&)>& is_quantized);
Targets find_targets(const PassContext& ctx);
// Whether one Gram serves both: same input, same columns, same quantizer of the input.
bool same_columns(const PassContext& ctx, const Target& a, const Target& b);

// Sums the columns of a target's groups over batches.
class ColumnSums {
 public:
  ColumnSums(const Graph& graph, const Target& target, bool cross);
  // x: the layer's input as its weight sees it; reference: that of the float network, undefined unless `cross`.
  Status add(const at::Tensor& x, const at::Tensor& reference, const std::stop_token& stop);
  bool is_empty() const;  // no column came
  Result<std::vector<algorithms::Gram>> finish(const std::stop_token& stop);

 private:
  Status add_rows(const at::Tensor& x, const at::Tensor& reference, const std::stop_token& stop);
  Status add_pictures(const at::Tensor& x, const at::Tensor& reference, const std::stop_token& stop);

  const Graph& graph_;
  const Target& target_;
  bool cross_;
  std::int64_t parts_ = 1;                          // sums of one group that take turns
  std::vector<algorithms::GramAccumulator> sums_;  // [group][part]
};

// The matrix of a view, row-major.
std::vector<float> matrix(const std::vector<float>& tensor, const quant::MatrixView& view);
// The network quantizes its weights again: they must be values that the quantizer leaves alone.
Status check_kept(const std::string& layer, const quant::QuantParams& params, const std::vector<float>& values);
// The model with other values of some weights, in the types that they have there.
ModelPtr with_weights(const ModelPtr& model, const std::map<TensorId, at::Tensor>& values);

}  // namespace quanvas::rounding
