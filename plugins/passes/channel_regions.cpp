#include "plugins/passes/channel_regions.h"

#include "core/graph/canonical.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>
#include <unordered_map>

namespace quanvas {
namespace {

const std::set<std::string> kScaleNormalizations = {"LayerNormalization", "RMSNormalization", "BatchNormalization",
                                                    "InstanceNormalization", "GroupNormalization"};
// f(s x) = s f(x) for s > 0, each channel for itself.
const std::set<std::string> kKeepsFactors = {"Relu", "LeakyRelu", "PRelu", "Identity", "Dropout", "Abs", "Neg"};
// The same where the channels are axis 1: they mix what lies on the axes behind it.
const std::set<std::string> kPools = {"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool", "GlobalLpPool"};

bool is_real(DataType t) {
  return t == DataType::kFloat || t == DataType::kDouble || t == DataType::kFloat16 || t == DataType::kBfloat16;
}
bool is_matrix(const Node& node) { return node.op == "Gemm" || node.op == "MatMul"; }

}  // namespace

// --- ChannelWeight ---

std::optional<ChannelWeight> ChannelWeight::of(const Model& model, const Node& node, const Layer* layer) {
  ChannelWeight out;
  out.node_ = &node;
  const bool norm = kScaleNormalizations.count(node.op) > 0;
  if (!norm && (!layer || layer->kind != LayerKind::kCompute || layer->weights() != 1 || is_recurrent(node))) return std::nullopt;
  out.weight_ = norm ? node.input(1) : layer->weight;
  const TensorData* weight = initializer_data(model, out.weight_);
  if (!weight || !is_real(weight->type) || node.input(1) != out.weight_) return std::nullopt;
  const Shape& shape = weight->shape;
  if (norm) {
    if (shape.size() != 1) return std::nullopt;
    out.outputs_ = shape[0];
  } else if (is_matrix(node)) {
    if (shape.size() != 2 || (node.op == "Gemm" && node.integer("transA", 0) != 0)) return std::nullopt;
    out.outputs_first_ = node.op == "Gemm" && node.integer("transB", 0) != 0;
    out.outputs_ = shape[out.outputs_first_ ? 0 : 1];
    out.inputs_ = shape[out.outputs_first_ ? 1 : 0];
  } else {
    if ((node.op != "Conv" && node.op != "ConvTranspose") || shape.size() < 3) return std::nullopt;
    out.outputs_first_ = node.op == "Conv";
    out.group_ = std::max(1, layer->group);
    out.outputs_ = out.outputs_first_ ? shape[0] : shape[1] * out.group_;
    out.inputs_ = out.outputs_first_ ? shape[1] * out.group_ : shape[0];
    for (std::size_t i = 2; i < shape.size(); ++i) out.inner_ *= shape[i];
  }
  if (out.outputs_ <= 0 || out.outputs_ % out.group_ != 0 || out.inputs_ % out.group_ != 0) return std::nullopt;
  if (element_count(shape) == 0) return std::nullopt;
  const std::vector<float> values = weight->to_floats();
  out.values_.assign(values.begin(), values.end());
  const TensorId bias = node.input(2);
  if (bias == kNoTensor) return out;
  const TensorData* data = initializer_data(model, bias);
  const std::vector<float> b = data ? data->to_floats() : std::vector<float>{};
  if (static_cast<std::int64_t>(b.size()) != out.outputs_ || !is_per_channel(data->shape, b.size(), 0)) return std::nullopt;
  out.bias_.assign(b.begin(), b.end());
  out.bias_id_ = bias;
  return out;
}

std::int64_t ChannelWeight::output_of(std::int64_t element) const {
  if (inputs_ == 0) return element;
  const std::int64_t row = element / inner_;
  if (outputs_first_) return row / (inputs_ / group_);
  const std::int64_t per_group = outputs_ / group_;
  return row / per_group / (inputs_ / group_) * per_group + row % per_group;
}

std::int64_t ChannelWeight::input_of(std::int64_t element) const {
  const std::int64_t row = element / inner_;
  if (!outputs_first_) return row / (outputs_ / group_);
  const std::int64_t per_group = inputs_ / group_;
  return row / per_group / (outputs_ / group_) * per_group + row % per_group;
}

void ChannelWeight::scale(const std::vector<double>& outputs, const std::vector<double>& inputs) {
  for (std::size_t e = 0; e < values_.size(); ++e) {
    const auto element = static_cast<std::int64_t>(e);
    if (!outputs.empty()) values_[e] *= outputs[static_cast<std::size_t>(output_of(element))];
    if (!inputs.empty()) values_[e] *= inputs[static_cast<std::size_t>(input_of(element))];
  }
  for (std::size_t c = 0; c < bias_.size() && !outputs.empty(); ++c) bias_[c] *= outputs[c];
  changed_ = true;
}

void ChannelWeight::write(const Model& model, ModelEdit& edit) const {
  if (!changed_) return;
  const TensorData* weight = initializer_data(model, weight_);
  edit.replace_initializer(*node_, weight_, weight->type, weight->shape, values_);
  if (bias_.empty()) return;
  const TensorData* bias = initializer_data(model, bias_id_);
  edit.replace_initializer(*node_, bias_id_, bias->type, bias->shape, bias_);
}

// --- regions ---

namespace {

// Every channel of every tensor that has one tracked axis; channels that must keep one common factor are united.
class Finder {
 public:
  explicit Finder(const Model& model) : model_(model), graph_(*model.graph), facts_(find_layers(graph_)) {}

  ChannelRegions run() {
    for (const Node& node : graph_.nodes()) visit(node);
    for (const TensorId id : graph_.outputs()) block(id, "it is an output of the network");
    collect();
    return std::move(out_);
  }

 private:
  struct Track {
    int axis = 0;            // counted from the front
    std::int64_t size = 0;   // channels
    std::size_t first = 0;   // slot of channel 0
  };

  int rank(TensorId id) const {
    const auto& shape = graph_.tensor(id).shape;
    return shape ? static_cast<int>(shape->size()) : -1;
  }
  std::int64_t dim(TensorId id, int axis) const {
    const auto& shape = graph_.tensor(id).shape;
    return shape && axis >= 0 && axis < static_cast<int>(shape->size()) ? (*shape)[static_cast<std::size_t>(axis)] : -1;
  }
  bool is_constant(TensorId id) const { return graph_.tensor(id).is_initializer; }
  const Track* track_of(TensorId id) const {
    const auto it = tracks_.find(id);
    return it == tracks_.end() ? nullptr : &it->second;
  }

  std::size_t root(std::size_t slot) {
    while (parent_[slot] != slot) slot = parent_[slot] = parent_[parent_[slot]];
    return slot;
  }
  void unite(std::size_t a, std::size_t b) {
    a = root(a);
    b = root(b);
    if (a == b) return;
    if (reason_[a].empty()) reason_[a] = reason_[b];
    parent_[b] = a;
  }
  const Track& track(TensorId id, int axis, std::int64_t size) {
    const std::size_t first = parent_.size();
    parent_.resize(first + static_cast<std::size_t>(size));
    std::iota(parent_.begin() + static_cast<std::ptrdiff_t>(first), parent_.end(), first);
    reason_.resize(parent_.size());
    return tracks_[id] = {axis, size, first};
  }
  void block(TensorId id, const std::string& why) {
    const Track* t = id == kNoTensor ? nullptr : track_of(id);
    for (std::int64_t c = 0; t && c < t->size; ++c) {
      std::string& reason = reason_[root(t->first + static_cast<std::size_t>(c))];
      if (reason.empty()) reason = why;
    }
  }
  void block_all(const Node& node, const std::string& why) {
    for (const TensorId id : node.inputs) block(id, why);
    for (const TensorId id : node.outputs) block(id, why);
  }
  static std::string keeps_none(const Node& node) { return "'" + node.name + "' (" + node.op + ") does not keep a factor per channel"; }

  void visit(const Node& node) {
    if (!pass(node)) block_all(node, keeps_none(node));
  }

  // Whether the node's tensors are dealt with; else none of them can be scaled.
  bool pass(const Node& node) {
    if (!node.domain.empty() || node.outputs.empty() || node.inputs.empty() || !node.opaque_reason.empty()) return false;
    if (node.op == "Conv" || node.op == "ConvTranspose" || is_matrix(node) || kScaleNormalizations.count(node.op)) return layer(node);
    for (std::size_t i = 1; i < node.outputs.size(); ++i)
      if (node.outputs[i] != kNoTensor) return false;
    if (kKeepsFactors.count(node.op) || is_rectifier(node)) return through(node);
    if (kPools.count(node.op)) return has_axis_one(node) && through(node);
    if (node.op == "Pad" || node.op == "Resize" || node.op == "Upsample") return leaves_channels(node) && through(node);
    if (node.op == "Add" || node.op == "Sub" || node.op == "Sum") return sum(node);
    if (node.op == "Mul" || node.op == "Div") return product(node);
    if (node.op == "Concat") return concat(node);
    if (node.op == "Transpose") return transpose(node);
    if (node.op == "Flatten" || node.op == "Reshape" || node.op == "Squeeze" || node.op == "Unsqueeze") return reshape(node);
    return false;
  }

  bool layer(const Node& node) {
    auto weight = ChannelWeight::of(model_, node, find_layer(facts_, node.id));
    if (!weight) return false;
    const TensorId in = node.input(0), out = node.outputs[0];
    const std::size_t index = out_.layers.size();
    const bool last = is_matrix(node) || node.op == "LayerNormalization" || node.op == "RMSNormalization";
    const int axis = last && node.op != "Gemm" ? rank(out) - 1 : 1;
    for (std::size_t i = 1; i < node.outputs.size(); ++i)
      if (node.outputs[i] != kNoTensor) return false;
    if (axis < 0) return false;
    if (weight->inputs() == 0) {
      const std::int64_t norm_axis = node.integer("axis", -1);
      if (last && norm_axis != -1 && norm_axis != axis) return false;
      block(in, keeps_none(node));
    } else if (const Track* t = track_of(in); t && t->axis == axis && t->size == weight->inputs()) {
      for (std::int64_t c = 0; c < t->size; ++c) sinks_.push_back({t->first + static_cast<std::size_t>(c), {index, c}});
    } else {
      block(in, "'" + node.name + "' reads it along another axis");
    }
    const Track& made = track(out, axis, weight->outputs());
    for (std::int64_t c = 0; c < made.size; ++c) sources_.push_back({made.first + static_cast<std::size_t>(c), {index, c}});
    out_.layers.push_back(std::move(*weight));
    return true;
  }

  bool is_rectifier(const Node& node) const {
    if (node.op != "Clip" || node.input(2) != kNoTensor || node.real("max", 3.4028235e38f) < 3.4e38f) return false;
    if (node.input(1) == kNoTensor) return node.real("min", -3.4028235e38f) == 0;
    const TensorData* least = initializer_data(model_, node.input(1));
    return least && least->to_floats() == std::vector<float>{0};
  }
  bool has_axis_one(const Node& node) const {
    const Track* t = track_of(node.input(0));
    return !t || t->axis == 1;
  }
  // Constant numbers of an input, or of the attribute that older versions of the operator have; nothing: computed.
  std::optional<std::vector<double>> numbers(const Node& node, std::size_t input, const char* attribute) const {
    if (node.input(input) == kNoTensor) {
      const auto given = node.integers(attribute);
      return std::vector<double>(given.begin(), given.end());
    }
    const TensorData* data = initializer_data(model_, node.input(input));
    if (!data) return std::nullopt;
    const auto values = data->to_floats();
    return std::vector<double>(values.begin(), values.end());
  }
  // Whether a Pad, Resize or Upsample moves nothing along the channels and adds nothing but zeros to them.
  bool leaves_channels(const Node& node) const {
    const Track* t = track_of(node.input(0));
    if (!t) return true;
    const auto axis = static_cast<std::size_t>(t->axis);
    if (node.op == "Pad") {
      const auto pads = numbers(node, 1, "pads");
      if (node.input(3) != kNoTensor || !pads || pads->size() <= axis || pads->size() % 2 != 0) return false;
      if ((*pads)[axis] != 0 || (*pads)[pads->size() / 2 + axis] != 0) return false;
      if (node.text("mode", "constant") != "constant") return true;
      const TensorData* value = initializer_data(model_, node.input(2));
      return node.input(2) == kNoTensor ? node.real("value", 0) == 0 : value && value->to_floats() == std::vector<float>{0};
    }
    if (node.text("coordinate_transformation_mode", "") == "tf_crop_and_resize" || !node.integers("axes").empty()) return false;
    const std::size_t at = node.op == "Upsample" ? 1 : 2;
    if (node.op == "Resize" && node.input(3) != kNoTensor) {
      const auto sizes = numbers(node, 3, "");
      return sizes && sizes->size() > axis && (*sizes)[axis] == static_cast<double>(t->size);
    }
    const auto scales = numbers(node, node.op == "Resize" && node.inputs.size() == 2 ? 1 : at, "");
    return scales && scales->size() > axis && (*scales)[axis] == 1;
  }
  // What else such an operator reads (a computed slope) keeps its own values.
  bool through(const Node& node) {
    for (std::size_t i = 1; i < node.inputs.size(); ++i) block(node.inputs[i], keeps_none(node));
    const Track* t = track_of(node.input(0));
    if (t && dim(node.outputs[0], t->axis) >= 0 && dim(node.outputs[0], t->axis) != t->size) return false;
    return same(node.input(0), node.outputs[0], 0);
  }

  // The output's channels are those of the input, on an axis `axis_shift` further back.
  bool same(TensorId in, TensorId out, int axis_shift) {
    const Track* t = track_of(in);
    if (!t) return true;  // nothing is scaled on the way here
    const Track from = *t;
    const Track& to = track(out, from.axis + axis_shift, from.size);
    for (std::size_t c = 0; c < static_cast<std::size_t>(from.size); ++c) unite(from.first + c, to.first + c);
    return true;
  }

  bool sum(const Node& node) {
    const Track* first = track_of(node.input(0));
    if (!first) return false;
    const Track common = *first;
    for (const TensorId id : node.inputs) {
      const Track* t = track_of(id);
      if (!t || t->axis != common.axis || t->size != common.size || rank(id) != rank(node.inputs[0]) || rank(id) < 0) return false;
    }
    for (std::size_t i = 1; i < node.inputs.size(); ++i)
      for (std::size_t c = 0; c < static_cast<std::size_t>(common.size); ++c) unite(common.first + c, tracks_[node.inputs[i]].first + c);
    return same(node.inputs[0], node.outputs[0], 0);
  }

  // Linear in each factor: one of them carries the scale, the other keeps its own.
  bool product(const Node& node) {
    const TensorId a = node.input(0), b = node.input(1), out = node.outputs[0];
    if (a == b || rank(out) < 0) return false;
    const auto carries = [&](TensorId id) {
      const Track* t = track_of(id);
      return t && rank(id) == rank(out) && dim(out, t->axis) == t->size && t->size > 0;
    };
    const bool can_b = node.op == "Mul" && carries(b);
    if (!carries(a) && !can_b) return false;
    // Of two activations the one that no gate has bent.
    const auto blocked = [&](TensorId id) { return !reason_[root(track_of(id)->first)].empty(); };
    const bool take_b = can_b && (!carries(a) || (blocked(a) && !blocked(b)));
    const TensorId other = take_b ? a : b;
    if (!is_constant(other)) block(other, "'" + node.name + "' multiplies by it");
    return same(take_b ? b : a, out, 0);
  }

  bool concat(const Node& node) {
    const TensorId out = node.outputs[0];
    const int n = rank(out);
    if (n < 0) return false;
    const std::int64_t given = node.integer("axis", 0);
    const int axis = static_cast<int>(given < 0 ? given + n : given);
    std::int64_t channels = 0;
    for (const TensorId id : node.inputs) {
      const Track* t = track_of(id);
      const Track* first = track_of(node.inputs[0]);
      if (!t || t->axis != first->axis || (t->axis != axis && t->size != first->size)) return false;
      channels = t->axis == axis ? channels + t->size : t->size;
    }
    const Track to = track(out, track_of(node.inputs[0])->axis, channels);
    std::size_t at = to.first;
    for (const TensorId id : node.inputs) {
      const Track from = *track_of(id);
      for (std::size_t c = 0; c < static_cast<std::size_t>(from.size); ++c) unite(at + c, from.first + c);
      if (from.axis == axis) at += static_cast<std::size_t>(from.size);
    }
    return true;
  }

  bool transpose(const Node& node) {
    const Track* t = track_of(node.input(0));
    if (!t) return true;
    const auto perm = node.integers("perm");
    for (std::size_t i = 0; i < perm.size(); ++i)
      if (perm[i] == t->axis) return same(node.input(0), node.outputs[0], static_cast<int>(i) - t->axis);
    return false;
  }

  // The axis stays one, or becomes the first of several that are made one: each channel then is `behind` features.
  bool reshape(const Node& node) {
    const TensorId in = node.input(0), out = node.outputs[0];
    const Track* t = track_of(in);
    if (!t) return true;
    const auto &from = graph_.tensor(in).shape, &to = graph_.tensor(out).shape;
    if (!from || !to) return false;
    std::int64_t behind = 1;
    for (std::size_t i = static_cast<std::size_t>(t->axis) + 1; i < from->size(); ++i) behind *= (*from)[i] > 0 ? (*from)[i] : -1000000;
    // The same axis, what is behind it in another shape.
    std::int64_t rest = 1;
    for (std::size_t i = to->size(); i-- > 0;) {
      if ((*to)[i] == t->size && rest == behind) return same(in, out, static_cast<int>(i) - t->axis);
      rest *= (*to)[i] > 0 ? (*to)[i] : -1000000;
      if (rest < 0) break;
    }
    if (behind <= 0 || to->empty() || to->back() != t->size * behind) return false;
    const Track before = *t;
    const Track made = track(out, static_cast<int>(to->size()) - 1, before.size * behind);
    for (std::int64_t c = 0; c < before.size; ++c)
      for (std::int64_t k = 0; k < behind; ++k)
        unite(before.first + static_cast<std::size_t>(c), made.first + static_cast<std::size_t>(c * behind + k));
    return true;
  }

  void collect() {
    std::unordered_map<std::size_t, ChannelClass> classes;
    for (const auto& [slot, use] : sources_) classes[root(slot)].sources.push_back(use);
    for (const auto& [slot, use] : sinks_) classes[root(slot)].sinks.push_back(use);
    std::map<std::pair<std::vector<std::size_t>, std::vector<std::size_t>>, std::size_t> region_of;
    std::set<std::size_t> taken, told;
    std::set<std::size_t> done;
    for (const auto& [slot, use] : sources_) {  // in graph order
      const std::size_t r = root(slot);
      if (!done.insert(r).second) continue;
      ChannelClass& channels = classes[r];
      if (!reason_[r].empty() || channels.sinks.empty()) continue;
      const auto layers = [](const std::vector<ChannelUse>& uses) {
        std::set<std::size_t> set;
        for (const ChannelUse& u : uses) set.insert(u.layer);
        return std::vector<std::size_t>(set.begin(), set.end());
      };
      std::pair key(layers(channels.sources), layers(channels.sinks));
      const auto [it, fresh] = region_of.try_emplace(key, out_.regions.size());
      if (fresh) out_.regions.push_back({key.first, key.second, {}});
      taken.insert(key.first.begin(), key.first.end());
      out_.regions[it->second].channels.push_back(std::move(channels));
    }
    for (const auto& [slot, use] : sources_) {
      if (taken.count(use.layer) || !told.insert(use.layer).second) continue;
      const std::string& why = reason_[root(slot)];
      out_.left.push_back("'" + out_.layers[use.layer].node().name + "': " + (why.empty() ? "no layer with a weight reads it" : why));
    }
  }

  const Model& model_;
  const Graph& graph_;
  std::vector<Layer> facts_;
  std::unordered_map<TensorId, Track> tracks_;
  std::vector<std::size_t> parent_;
  std::vector<std::string> reason_;  // of a root: why it cannot be scaled
  std::vector<std::pair<std::size_t, ChannelUse>> sources_, sinks_;
  ChannelRegions out_;
};

}  // namespace

ChannelRegions find_channel_regions(const Model& model) { return Finder(model).run(); }

}  // namespace quanvas
