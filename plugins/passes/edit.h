// Quanvas - what the passes share to change a model: a graph edit and the weights that go with it.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/graph/layers.h"
#include "core/graph/weights.h"

namespace quanvas {

struct PassContext;

// Data of an initializer; null for other tensors and for missing data.
const TensorData* initializer_data(const Model& model, TensorId id);
bool is_graph_output(const Graph& graph, TensorId id);
// Whether a constant of this shape adds one value per channel when `behind` axes come after that of the channels:
// [C], [1,C] for matrices (0), [C,1,1] for pictures (2).
bool is_per_channel(const Shape& shape, std::size_t channels, std::size_t behind);
// Output channel of each element of a layer's weight.
std::function<std::int64_t(std::int64_t)> channel_map(const TensorData& weight, const Layer& layer, bool transposed);
TensorData make_data(DataType type, const Shape& shape, const std::vector<double>& values);
// The first few, then "and N more".
std::string join_some(const std::vector<std::string>& items, std::size_t most = 5);

// The current graph with the weights that it had before any pass of this stage, where they are still the same tensors: the
// float network that errors are measured against.
ModelPtr original_model(const PassContext& ctx);

class ModelEdit {
 public:
  explicit ModelEdit(const Model& model);
  GraphBuilder& builder() { return builder_; }
  // A new initializer under `wish` or a name made from it; returns the name.
  std::string new_initializer(const std::string& wish, DataType type, const Shape& shape,
                              const std::vector<double>& values);
  std::string new_initializer(const std::string& wish, TensorData data);
  // New values for what `node` reads as `id`. Other readers of the same initializer keep theirs.
  void replace_initializer(const Node& node, TensorId id, DataType type, const Shape& shape,
                           const std::vector<double>& values);
  // New values of the same shape for all that read it; an output of the network stays as it is.
  void overwrite_initializer(TensorId id, const std::vector<double>& values);
  // Builds the graph and drops data that nothing reads any more.
  Result<ModelPtr> finish();

 private:
  const Model& base_;
  GraphBuilder builder_;
  WeightStore weights_;
};

}  // namespace quanvas
