#include "plugins/passes/rotator.h"

#include <algorithm>
#include <cmath>

#include "core/recipe/recipe.h"

namespace quanvas {
namespace {

std::string counted(std::size_t n, const std::string& what) {
  return std::to_string(n) + " " + what + (n == 1 ? "" : "s");
}

std::string without_stop(std::string text) {
  if (text.ends_with('.')) text.pop_back();
  return text;
}

}  // namespace

Rotator::Rotator(ModelPtr model, const RotateOptions& options)
    : model_(std::move(model)),
      graph_(*model_->graph),
      options_(options),
      edit_(*model_),
      layers_(find_layers(graph_)),
      found_(find_feature_regions(*model_, [this](const Node& n) {
        const auto scale = n.op == "RMSNormalization" ? norm_scale(*model_, n) : std::nullopt;
        return scale && scale->is_uniform();
      })) {}

Status Rotator::plan(JobContext& job) {
  stop_ = job.stop_token();
  for (std::size_t i = 0; i < found_.regions.size() && options_.kind != "none"; ++i) {
    QUANVAS_CHECK(job.check());
    QUANVAS_CHECK(plan_region(i));
  }
  return {};
}

std::vector<Rotation> Rotator::rotations() const {
  std::vector<Rotation> out;
  for (const auto& [region, rotation] : rotations_) out.push_back(rotation);
  return out;
}

void Rotator::replace(const std::vector<Rotation>& rotations) {
  auto it = rotations.begin();
  for (auto& [region, rotation] : rotations_)
    if (it != rotations.end()) rotation = *it++;
}

std::vector<Rotator::Blocks> Rotator::blocks() const {
  std::vector<Blocks> out;
  std::set<TensorId> seen;
  for (const Node& layer : graph_.nodes()) {
    if (!LinearWeight::fits(*model_, layer)) continue;
    const TensorId in = layer.input(0);
    const std::int64_t inputs = LinearWeight::inputs_of(graph_, layer);
    std::int64_t size = 0;
    if (const Rotation* fused = rotation_of(in)) {
      size = fused->size() < found_.find(in)->granule ? fused->size() : 0;
    } else if (const Online online = online_of(layer, inputs); online.node && online.node->blocks() > 1) {
      size = online.node->size;
    }
    const auto& shape = graph_.tensor(in).shape;
    const bool is_known = shape && !shape->empty() && shape->back() == inputs;
    if (size > 1 && is_known && seen.insert(in).second) out.push_back({in, size});
  }
  return out;
}

Status Rotator::apply(JobContext& job, std::vector<TurnedTensor>* turned) {
  stop_ = job.stop_token();
  turned_ = turned;
  QUANVAS_CHECK(rotate_constants());
  for (const Node& node : graph_.nodes()) {
    QUANVAS_CHECK(job.check());
    if (LinearWeight::fits(*model_, node)) QUANVAS_CHECK(change(node));
  }
  return {};
}

std::string Rotator::text() const {
  std::string text = "Rotated " + counted(whole_, "stream") + " of features and " + counted(heads_, "group") + " of heads (";
  text += counted(fused_layers_.size(), "layer") + ", " + counted(constants_, "table") + " or constant" +
          (constants_ == 1 ? "" : "s") + ")";
  if (options_.kind == "none") text = "Rotated nothing (kind is none)";
  if (options_.online != "none") {
    text += ", put " + counted(nodes_.size(), "online rotation") + " in front of " + counted(online_layers_, "layer");
    if (padded_ > 0) text += " (" + std::to_string(padded_) + " padded with zeros)";
  }
  std::vector<std::string> left;
  for (const Left& l : left_)
    left.push_back("'" + l.layer + "': " + l.why + (l.more > 0 ? " (" + std::to_string(l.more) + " more like it)" : ""));
  if (!left.empty()) text += "; left: " + join_some(left);
  return text;
}

void Rotator::leave(const Node& layer, const std::string& why) {
  const std::size_t open = why.find("' ("), close = why.find(')', open == std::string::npos ? 0 : open);
  const std::string alike = open == std::string::npos || close == std::string::npos ? why : why.substr(open + 2);
  for (Left& l : left_)
    if (l.alike == alike) {
      ++l.more;
      return;
    }
  left_.push_back({layer.name, why, alike});
}

// --- fused rotations ---

Status Rotator::plan_region(std::size_t index) {
  const FeatureRegion& region = found_.regions[index];
  if (region.sources.empty() || region.sinks.empty() || !region.blocked.empty()) return {};
  if (!region.norms_from.empty() || !region.norms_to.empty()) return {};
  const auto makes_whole = [&](const FeatureSource& s) { return width(s) == region.granule; };
  const auto reads_whole = [&](NodeId id) { return LinearWeight::inputs_of(graph_, node(id)) == region.granule; };
  const bool is_whole = std::all_of(region.sources.begin(), region.sources.end(), makes_whole) &&
                        std::all_of(region.sinks.begin(), region.sinks.end(), reads_whole);
  if (is_whole ? !options_.residual : !options_.heads) return {};
  const std::int64_t size = options_.block > 0 ? std::min(options_.block, region.granule) : region.granule;
  if (region.granule < 2 || size < 2) {
    reasons_[index] = region.granule < 2 ? "its features are regrouped one by one" : "blocks of one feature";
    return {};
  }
  if (region.granule % size != 0) {
    reasons_[index] = "blocks of " + std::to_string(size) + " do not divide " + std::to_string(region.granule) + " features";
    return {};
  }
  if (std::string why = not_finite(region); !why.empty()) {
    reasons_[index] = why;
    return {};
  }
  auto rotation = Rotation::create(options_.kind, size, options_.seed + 0x9e3779b97f4a7c15ull * (rotations_.size() + 1), stop_);
  if (!rotation) {
    if (rotation.error().code == ErrorCode::kCancelled) return Failure(rotation.error());
    reasons_[index] = without_stop(rotation.error().message);
    return {};
  }
  ++(is_whole ? whole_ : heads_);
  rotations_.emplace(index, std::move(*rotation));
  return {};
}

Status Rotator::rotate_constants() {
  int number = 0;
  for (const auto& [index, rotation] : rotations_) {
    for (const FeatureSource& s : found_.regions[index].sources) {
      if (s.constant < 0) continue;
      const auto input = static_cast<std::size_t>(s.constant);
      const TensorId id = node(s.node).input(input);
      const TensorData* data = initializer_data(*model_, id);
      std::vector<double> values = doubles_of(*data);
      if (turned_) {
        const std::int64_t columns = data->shape.back();
        turned_->push_back(
            {s.node, input, static_cast<std::int64_t>(values.size()) / columns, columns, values, false, -1, number});
      }
      QUANVAS_CHECK(rotation.apply(values, stop_));
      edit_.replace_initializer(node(s.node), id, data->type, data->shape, values);
      ++constants_;
      changed_ = true;
    }
    ++number;
  }
  return {};
}

std::int64_t Rotator::width(const FeatureSource& s) const {
  if (s.constant < 0) return LinearWeight::outputs_of(graph_, node(s.node));
  return initializer_data(*model_, node(s.node).input(static_cast<std::size_t>(s.constant)))->shape.back();
}

std::string Rotator::not_finite(const FeatureRegion& region) const {
  for (const FeatureSource& s : region.sources) {
    const Node& n = node(s.node);
    if (s.constant < 0) {
      if (std::string why = unfit(n, region.granule); !why.empty()) return why;
      continue;
    }
    const TensorData& data = *initializer_data(*model_, n.input(static_cast<std::size_t>(s.constant)));
    const std::vector<double> values = doubles_of(data);
    if (!all_finite(values)) return "a value that '" + n.name + "' reads is not finite";
    const double most = largest_of(data.type) / static_cast<double>(region.granule);
    if (std::any_of(values.begin(), values.end(), [most](double v) { return std::fabs(v) > most; }))
      return "what '" + n.name + "' reads is too large to be rotated as " + type_name(data.type);
  }
  for (const NodeId id : region.sinks)
    if (std::string why = unfit(node(id), region.granule); !why.empty()) return why;
  return {};
}

// A rotation of both sides makes nothing larger than that many times.
std::string Rotator::unfit(const Node& layer, std::int64_t features) const {
  const LinearWeight w = LinearWeight::of(*model_, layer);
  if (!w.is_finite()) return "a weight of '" + layer.name + "' is not finite";
  const DataType type = initializer_data(*model_, layer.input(1))->type;
  if (w.largest() * static_cast<double>(features) > largest_of(type))
    return "the weights of '" + layer.name + "' are too large to be rotated as " + type_name(type);
  return {};
}

const Rotation* Rotator::rotation_of(TensorId id) const {
  const auto region = found_.region_of.find(id);
  const auto it = region == found_.region_of.end() ? rotations_.end() : rotations_.find(region->second);
  return it == rotations_.end() ? nullptr : &it->second;
}

int Rotator::index_of(TensorId id) const {
  const auto region = found_.region_of.find(id);
  const auto it = region == found_.region_of.end() ? rotations_.end() : rotations_.find(region->second);
  return it == rotations_.end() ? -1 : static_cast<int>(std::distance(rotations_.begin(), it));
}

std::string Rotator::reason_of(TensorId id) const {
  const auto region = found_.region_of.find(id);
  if (region == found_.region_of.end()) return "the size of its features is not known";
  const FeatureRegion& r = found_.regions[region->second];
  if (!r.blocked.empty()) return r.blocked;
  const auto own = reasons_.find(region->second);
  if (own != reasons_.end()) return own->second;
  if (!r.norms_from.empty() || !r.norms_to.empty()) {
    const Node& norm = node(r.norms_from.empty() ? r.norms_to[0] : r.norms_from[0]);
    return "'" + norm.name + "' (" + norm.op + ") " +
           (norm.op == "RMSNormalization" ? "has a scale for each feature" : "takes off the mean");
  }
  return r.sources.empty() ? "no layer makes them" : r.sinks.empty() ? "no layer reads them" : "";
}

Status Rotator::change(const Node& layer) {
  LinearWeight w = LinearWeight::of(*model_, layer);
  PassLayer row{layer.name, w.spread(), std::nan(""), {}};
  const auto note = [&](const std::string& text) { row.note += (row.note.empty() ? "" : "; ") + text; };
  const Rotation *in = rotation_of(layer.input(0)), *out = rotation_of(layer.outputs[0]);
  bool touched = false;
  if (!in) {
    QUANVAS_TRY(const std::string done, online(layer, w));
    if (!done.empty()) note(done);
    touched = done.starts_with("online");
    if (!touched) note_left("its input", layer.input(0), row, layer);
  }
  const bool is_online = touched;
  if (turned_ && (in || out)) {
    const bool flipped = layer.op == "Gemm" && layer.integer("transB", 0) != 0;
    turned_->push_back({layer.id, 1, w.inputs, w.outputs, w.w, flipped, index_of(layer.input(0)), index_of(layer.outputs[0])});
    if (out && !w.b.empty()) turned_->push_back({layer.id, 2, 1, w.outputs, w.b, false, -1, index_of(layer.outputs[0])});
  }
  if (in) {
    QUANVAS_CHECK(rotate_inputs(w, *in, w.inputs, stop_));
    note("input in blocks of " + std::to_string(in->size()));
    touched = true;
  }
  if (out) {
    QUANVAS_CHECK(rotate_outputs(w, *out, stop_));
    note("output in blocks of " + std::to_string(out->size()));
    touched = true;
    fused_layers_.insert(layer.id);
  } else {
    note_left("its output", layer.outputs[0], row, layer);
  }
  if (touched && !is_online) fused_layers_.insert(layer.id);
  if (touched) {
    w.write(*model_, layer, edit_);
    row.after = w.spread();
    changed_ = true;
  }
  rows_.push_back(std::move(row));
  return {};
}

void Rotator::note_left(const std::string& side, TensorId id, PassLayer& row, const Node& layer) {
  const std::string why = options_.kind == "none" ? "" : reason_of(id);
  if (why.empty()) return;
  row.note += (row.note.empty() ? "" : "; ") + side + " is left: " + why;
  // What the network is given and gives is nobody's loss.
  if (side == "its output" && why != "it is an output of the network") leave(layer, why);
}

// --- online rotations ---

Rotator::Online Rotator::online_of(const Node& layer, std::int64_t inputs) const {
  if (options_.online == "none" || !is_named(layer.name) || (options_.online == "products" && !is_behind_activation(layer)))
    return {};
  const auto no = [](std::string why) { return Online{std::nullopt, without_stop(std::move(why))}; };
  if (std::string why = unfit(layer, inputs); !why.empty()) return no(why);
  const DataType type = graph_.tensor(layer.input(0)).type;
  if (type != DataType::kFloat && type != DataType::kDouble && type != DataType::kUndefined)
    return no("its input is " + std::string(type_name(type)));
  HadamardNode h{inputs, options_.block > 0 ? options_.block : inputs, 1};
  if (options_.block == 0) {
    auto size = algorithms::hadamard_size(h.size);
    if (!size && !options_.expand) return no(size.error().message);
    if (options_.expand) {
      h.size = algorithms::next_hadamard_size(h.size);
      for (std::int64_t i = 0; i < options_.step && h.size > 0; ++i) h.size = algorithms::next_hadamard_size(h.size + 1);
    }
  } else if (h.size > 2 * inputs && h.size > algorithms::next_hadamard_size(inputs)) {
    return no("blocks of " + std::to_string(h.size) + " are far larger than its " + std::to_string(inputs) + " inputs");
  } else if (inputs % h.size != 0 && !options_.expand) {
    return no("blocks of " + std::to_string(h.size) + " do not divide its " + std::to_string(inputs) + " inputs");
  }
  const auto size = algorithms::hadamard_size(h.size);
  if (!size) return no(size.error().message);
  h.core = size->core;
  return {h, {}};
}

// "online, ..." when a rotation stands in front of the layer, else why not; empty: it was not asked for.
Result<std::string> Rotator::online(const Node& layer, LinearWeight& w) {
  const Online found = online_of(layer, w.inputs);
  if (!found.node) {
    if (found.why.empty()) return std::string();
    leave(layer, found.why);
    return "no online rotation: " + found.why;
  }
  const HadamardNode& h = *found.node;
  QUANVAS_TRY(const Rotation rotation, Rotation::create("hadamard", h.size, 0, stop_));
  QUANVAS_CHECK(rotate_inputs(w, rotation, h.outputs(), stop_));
  edit_.builder().replace_input_at(layer.id, 0, rotated(layer, h));
  ++online_layers_;
  std::string text = "online";
  if (h.blocks() > 1) text += " in blocks of " + std::to_string(h.size);
  if (h.outputs() != h.width) {
    text += ", input padded from " + std::to_string(h.width) + " to " + std::to_string(h.outputs());
    ++padded_;
  }
  return text;
}

// The tensor behind the rotation of the layer's input: one for all layers that read it.
std::string Rotator::rotated(const Node& layer, const HadamardNode& h) {
  const TensorId in = layer.input(0);
  auto& made = nodes_[in];
  if (!made.empty()) return made;
  const TensorInfo& info = graph_.tensor(in);
  made = info.name + "_rotated";
  for (int i = 2; graph_.tensor(made) != kNoTensor || names_.count(made); ++i)
    made = info.name + "_rotated_" + std::to_string(i);
  names_.insert(made);
  std::optional<Shape> shape = info.shape;
  if (shape && !shape->empty()) shape->back() = h.outputs();
  edit_.builder().tensor(made, info.type, shape);
  edit_.builder().node(layer.name + "_rotation", kHadamardOp, {info.name}, {made}, hadamard_attributes(h), kOwnDomain);
  return made;
}

bool Rotator::is_named(const std::string& layer) const {
  std::size_t begin = 0;
  while (begin < options_.layers.size()) {
    const std::size_t end = std::min(options_.layers.find_first_of(", ;", begin), options_.layers.size());
    if (end > begin && matches_pattern(options_.layers.substr(begin, end - begin), layer)) return true;
    begin = end + 1;
  }
  return false;
}

bool Rotator::is_behind_activation(const Node& layer) const {
  const Node* before = graph_.find(graph_.tensor(layer.input(0)).producer);
  // A product with a constant, as SmoothQuant puts it there, is not what makes a gate.
  const auto is_passed = [&](const Node& n) {
    return n.domain.empty() && (n.op == "Identity" || n.op == "Dropout" || n.op == "Cast" ||
                                (n.op == "Mul" && n.input(1) != kNoTensor && graph_.tensor(n.input(1)).is_initializer));
  };
  while (before && is_passed(*before))
    before = before->input(0) == kNoTensor ? nullptr : graph_.find(graph_.tensor(before->input(0)).producer);
  const Layer* facts = before ? find_layer(layers_, before->id) : nullptr;
  return facts && (facts->kind == LayerKind::kActivation || (before->op == "Mul" && facts->inputs.size() == 2));
}

}  // namespace quanvas
