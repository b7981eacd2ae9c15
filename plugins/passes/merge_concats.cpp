// Concatenations in a row become one, and constants that stand side by side in it one constant: fewer tensors that must share
// a scale, and branches that other passes can look behind.
#include <algorithm>
#include <optional>

#include "core/exec/pass_context.h"
#include "core/graph/layers.h"
#include "core/plugin/registry.h"
#include "plugins/passes/edit.h"

namespace quanvas {
namespace {

std::optional<std::size_t> rank_of(const Graph& graph, const Node& node) {
  for (const TensorId t : {node.outputs[0], node.input(0)})
    if (t != kNoTensor && graph.tensor(t).shape) return graph.tensor(t).shape->size();
  return std::nullopt;
}

// The axis counted from the front; nothing when it is counted from the back of an unknown rank.
std::optional<std::int64_t> axis_of(const Graph& graph, const Node& node) {
  const std::int64_t axis = node.integer("axis", 1);
  if (axis >= 0) return axis;
  const auto rank = rank_of(graph, node);
  if (!rank) return std::nullopt;
  return axis + static_cast<std::int64_t>(*rank);
}

bool is_concat(const Node& node) {
  return node.op == "Concat" && node.domain.empty() && node.opaque_reason.empty() && node.outputs.size() == 1 &&
         node.outputs[0] != kNoTensor;
}

class Merger {
 public:
  explicit Merger(const Model& model) : model_(model), graph_(*model.graph), edit_(model) {}

  std::string run() {
    for (const Node& node : graph_.nodes()) {
      // What joins weights belongs to the layer that reads it.
      if (!is_concat(node) || !constant_parts(graph_, node.outputs[0]).empty() || is_merged_away(node)) continue;
      if (const auto axis = axis_of(graph_, node)) rewrite(node, *axis);
    }
    return "Merged " + std::to_string(inner_) + (inner_ == 1 ? " concatenation" : " concatenations") + " into others and " +
           std::to_string(constants_) + (constants_ == 1 ? " constant" : " constants") + " into the one beside it.";
  }
  bool changed() const { return inner_ + constants_ > 0; }
  Result<ModelPtr> finish() { return edit_.finish(); }

 private:
  // A concatenation that nothing but another one along the same axis reads, once.
  const Node* inner_of(TensorId tensor, const Node& reader, std::int64_t axis) const {
    if (tensor == kNoTensor || graph_.tensor(tensor).is_initializer || graph_.is_output(tensor)) return nullptr;
    const Node* node = graph_.find(graph_.tensor(tensor).producer);
    const auto& readers = graph_.tensor(tensor).consumers;
    if (!node || !is_concat(*node) || readers.size() != 1 || readers[0] != reader.id ||
        std::count(reader.inputs.begin(), reader.inputs.end(), tensor) != 1)
      return nullptr;
    if (!constant_parts(graph_, tensor).empty()) return nullptr;
    return axis_of(graph_, *node) == axis ? node : nullptr;
  }

  bool is_merged_away(const Node& node) const {
    const auto& readers = graph_.tensor(node.outputs[0]).consumers;
    const Node* reader = readers.size() == 1 ? graph_.find(readers[0]) : nullptr;
    if (!reader || !is_concat(*reader)) return false;
    const auto axis = axis_of(graph_, *reader);
    return axis && inner_of(node.outputs[0], *reader, *axis) != nullptr;
  }

  void gather(const Node& node, std::int64_t axis, std::vector<TensorId>& parts) {
    for (const TensorId t : node.inputs) {
      if (const Node* inner = inner_of(t, node, axis)) {
        gather(*inner, axis, parts);
        gone_.push_back(inner->id);
      } else {
        parts.push_back(t);
      }
    }
  }

  void rewrite(const Node& node, std::int64_t axis) {
    std::vector<TensorId> parts;
    gone_.clear();
    gather(node, axis, parts);
    std::vector<std::string> inputs;
    std::size_t merged = 0;
    for (std::size_t i = 0; i < parts.size();) {
      std::size_t end = i;
      while (end < parts.size() && initializer_data(model_, parts[end])) ++end;
      const std::string joint =
          end - i > 1 ? join(node, axis,
                             {parts.begin() + static_cast<std::ptrdiff_t>(i), parts.begin() + static_cast<std::ptrdiff_t>(end)})
                      : "";
      if (joint.empty()) {
        inputs.push_back(graph_.tensor(parts[i++]).name);
        continue;
      }
      merged += end - i - 1;
      inputs.push_back(joint);
      i = end;
    }
    if (gone_.empty() && merged == 0) return;
    inner_ += gone_.size();
    constants_ += merged;
    for (const NodeId id : gone_) edit_.builder().remove_node(id);
    // A node cannot lose inputs: the same under the same name.
    const std::string output = graph_.tensor(node.outputs[0]).name;
    edit_.builder().remove_node(node.id);
    edit_.builder().node(node.name, "Concat", inputs, {output}, {{"axis", axis}});
  }

  // One constant of several, the same bytes; empty: they cannot be put together.
  std::string join(const Node& node, std::int64_t axis, const std::vector<TensorId>& parts) {
    const TensorData& first = *initializer_data(model_, parts[0]);
    if (axis < 0 || axis >= static_cast<std::int64_t>(first.shape.size()) || element_size(first.type) == 0) return {};
    Shape shape = first.shape;
    const auto at = static_cast<std::size_t>(axis);
    shape[at] = 0;
    for (const TensorId t : parts) {
      const TensorData& data = *initializer_data(model_, t);
      Shape same = data.shape;
      if (data.type != first.type || same.size() != shape.size()) return {};
      shape[at] += same[at];
      same[at] = first.shape[at];
      if (same != first.shape || data.bytes != static_cast<std::size_t>(data.count()) * element_size(data.type)) return {};
    }
    std::size_t outer = 1;
    for (std::size_t i = 0; i < at; ++i) outer *= static_cast<std::size_t>(shape[i]);
    if (outer == 0) return {};
    std::vector<std::byte> bytes;
    for (std::size_t o = 0; o < outer; ++o)
      for (const TensorId t : parts) {
        const TensorData& data = *initializer_data(model_, t);
        const std::size_t run = data.bytes / outer;
        bytes.insert(bytes.end(), data.data + o * run, data.data + (o + 1) * run);
      }
    return edit_.new_initializer(node.name + ".constant", TensorData::copy_of(first.type, shape, bytes.data(), bytes.size()));
  }

  const Model& model_;
  const Graph& graph_;
  ModelEdit edit_;
  std::vector<NodeId> gone_;
  std::size_t inner_ = 0, constants_ = 0;
};

class MergeConcats final : public Pass {
 public:
  PluginInfo info() const override {
    return {"merge-concats", "Merge concatenations",
            "Concatenations along one axis that read each other become one, and constants side by side in them one constant. The "
            "network computes the same, bit for bit."};
  }
  PassStage stage() const override { return PassStage::kGraph; }
  Result<std::string> apply(PassContext& ctx, const json&, JobContext& job) const override {
    QUANVAS_CHECK(job.check());
    Merger merger(*ctx.model);
    const std::string text = merger.run();
    if (merger.changed()) {
      QUANVAS_TRY(ctx.model, merger.finish());
    }
    return text;
  }
};

}  // namespace

QUANVAS_PLUGIN(Pass, MergeConcats)

}  // namespace quanvas
