// Rotations: features are multiplied by an orthogonal matrix where they are made and by its inverse where they are read, so that
// no feature stands out any more (Ashkboos et al. 2024, "QuaRot: Outlier-Free 4-Bit Inference in Rotated LLMs", arXiv
// 2404.00456; Liu et al. 2024, "SpinQuant", arXiv 2405.16406, whose R1, R2 and R4 these are). Fused ones only change weights;
// an online one is an operator in front of a layer (core/graph/rotation_node.h), whose inverse is in the layer's weight.
#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <set>
#include <stop_token>

#include "core/algorithms/hadamard.h"
#include "core/algorithms/orthogonal.h"
#include "core/exec/pass_context.h"
#include "core/graph/rotation_node.h"
#include "core/plugin/registry.h"
#include "core/recipe/recipe.h"
#include "plugins/passes/feature_regions.h"

namespace quanvas {
namespace {

using algorithms::HadamardTransform;

struct Options {
  std::string kind = "signs", online = "none", layers = "*";
  std::uint64_t seed = 0;
  std::int64_t block = 0, step = 0;
  bool residual = true, heads = true, merge = true, rms = true, expand = false;
};

// An orthogonal matrix R [size, size]; rows of a multiple of `size` values are rotated block by block.
class Rotation {
 public:
  static Result<Rotation> create(const std::string& kind, std::int64_t size, std::uint64_t seed, const std::stop_token& stop) {
    Rotation r;
    r.size_ = size;
    if (kind == "orthogonal") {
      QUANVAS_TRY(r.dense_, algorithms::random_orthogonal(size, seed, stop));
      return r;
    }
    QUANVAS_TRY(HadamardTransform t, HadamardTransform::create(size));
    r.hadamard_ = std::move(t);
    if (kind == "signs") r.signs_ = algorithms::random_signs(size, seed);
    return r;
  }
  std::int64_t size() const { return size_; }
  // x := x R
  Status apply(std::vector<double>& x, const std::stop_token& stop) const {
    for (std::size_t i = 0; i < x.size() && !signs_.empty(); ++i) x[i] *= signs_[i % signs_.size()];
    const auto rows = static_cast<std::int64_t>(x.size()) / size_;
    if (hadamard_) {
      hadamard_->apply(x.data(), x.data(), rows);
      return {};
    }
    std::vector<double> out(x.size());
    QUANVAS_CHECK(algorithms::multiply_rows(x.data(), out.data(), rows, dense_, size_, stop));
    x = std::move(out);
    return {};
  }

 private:
  std::int64_t size_ = 1;
  std::optional<HadamardTransform> hadamard_;
  std::vector<double> signs_, dense_;
};

std::vector<double> transposed(const std::vector<double>& x, std::int64_t rows, std::int64_t columns) {
  std::vector<double> out(x.size());
  constexpr std::int64_t kTile = 32;  // stays in the first-level cache
  for (std::int64_t top = 0; top < rows; top += kTile)
    for (std::int64_t left = 0; left < columns; left += kTile)
      for (std::int64_t r = top; r < std::min(rows, top + kTile); ++r)
        for (std::int64_t c = left; c < std::min(columns, left + kTile); ++c)
          out[static_cast<std::size_t>(c * rows + r)] = x[static_cast<std::size_t>(r * columns + c)];
  return out;
}

Status rotate_outputs(LinearWeight& w, const Rotation& r, const std::stop_token& stop) {
  QUANVAS_CHECK(r.apply(w.w, stop));
  return w.b.empty() ? Status() : r.apply(w.b, stop);
}
// w := R' [w; 0], for an input [x, 0] R.
Status rotate_inputs(LinearWeight& w, const Rotation& r, std::int64_t inputs, const std::stop_token& stop) {
  w.w.resize(static_cast<std::size_t>(inputs * w.outputs), 0.0);
  std::vector<double> turned = transposed(w.w, inputs, w.outputs);
  QUANVAS_CHECK(r.apply(turned, stop));
  w.w = transposed(turned, w.outputs, inputs);
  w.inputs = inputs;
  return {};
}

std::string counted(std::size_t n, const std::string& what) { return std::to_string(n) + " " + what + (n == 1 ? "" : "s"); }

class Rotator {
 public:
  Rotator(ModelPtr model, const Options& options)
      : model_(std::move(model)), graph_(*model_->graph), options_(options), edit_(*model_), layers_(find_layers(graph_)),
        found_(find_feature_regions(*model_, [this](const Node& n) {
          const auto scale = n.op == "RMSNormalization" ? norm_scale(*model_, n) : std::nullopt;
          return scale && scale->is_uniform();
        })) {}

  Status run(JobContext& job) {
    stop_ = job.stop_token();
    if (options_.kind != "none") {
      for (std::size_t i = 0; i < found_.regions.size(); ++i) {
        QUANVAS_CHECK(job.check());
        QUANVAS_CHECK(plan(i));
      }
    }
    for (const Node& node : graph_.nodes()) {
      QUANVAS_CHECK(job.check());
      if (LinearWeight::fits(*model_, node)) QUANVAS_CHECK(change(node));
    }
    return {};
  }
  bool changed() const { return changed_; }
  Result<ModelPtr> finish() { return edit_.finish(); }
  std::vector<PassLayer> rows() && { return std::move(rows_); }

  std::string text() const {
    std::string text = "Rotated " + counted(whole_, "stream") + " of features and " + counted(heads_, "group") + " of heads (";
    text += counted(fused_layers_.size(), "layer") + ", " + counted(constants_, "table") + " or constant" + (constants_ == 1 ? "" : "s") + ")";
    if (options_.kind == "none") text = "Rotated nothing (kind is none)";
    if (options_.online != "none") {
      text += ", put " + counted(nodes_.size(), "online rotation") + " in front of " + counted(online_layers_, "layer");
      if (padded_ > 0) text += " (" + std::to_string(padded_) + " padded with zeros)";
    }
    std::vector<std::string> left;
    for (const Left& l : left_) left.push_back("'" + l.layer + "': " + l.why + (l.more > 0 ? " (" + std::to_string(l.more) + " more like it)" : ""));
    if (!left.empty()) text += "; left: " + join_some(left);
    return text;
  }

 private:
  // What stands alike in every block of a network is told once: `alike` is the kind of operator, or the sentence.
  struct Left {
    std::string layer, why, alike;
    std::size_t more = 0;
  };
  void leave(const Node& layer, const std::string& why) {
    const std::size_t open = why.find("' ("), close = why.find(')', open == std::string::npos ? 0 : open);
    const std::string alike = open == std::string::npos || close == std::string::npos ? why : why.substr(open + 2);
    for (Left& l : left_)
      if (l.alike == alike) {
        ++l.more;
        return;
      }
    left_.push_back({layer.name, why, alike});
  }

  const Node& node(NodeId id) const { return *graph_.find(id); }
  std::string name(NodeId id) const { return "'" + node(id).name + "'"; }

  // Decides about a region of fused rotation, and rotates its constants.
  Status plan(std::size_t index) {
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
      reasons_[index] = rotation.error().message;
      if (reasons_[index].ends_with('.')) reasons_[index].pop_back();
      return {};
    }
    ++(is_whole ? whole_ : heads_);
    for (const FeatureSource& s : region.sources) {
      if (s.constant < 0) continue;
      const TensorId id = node(s.node).input(static_cast<std::size_t>(s.constant));
      const TensorData* data = initializer_data(*model_, id);
      std::vector<double> values = doubles_of(*data);
      QUANVAS_CHECK(rotation->apply(values, stop_));
      edit_.replace_initializer(node(s.node), id, data->type, data->shape, values);
      ++constants_;
      changed_ = true;
    }
    rotations_.emplace(index, std::move(*rotation));
    return {};
  }

  std::int64_t width(const FeatureSource& s) const {
    if (s.constant < 0) return LinearWeight::outputs_of(graph_, node(s.node));
    return initializer_data(*model_, node(s.node).input(static_cast<std::size_t>(s.constant)))->shape.back();
  }

  std::string not_finite(const FeatureRegion& region) const {
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
  std::string unfit(const Node& layer, std::int64_t features) const {
    const LinearWeight w = LinearWeight::of(*model_, layer);
    if (!w.is_finite()) return "a weight of '" + layer.name + "' is not finite";
    const DataType type = initializer_data(*model_, layer.input(1))->type;
    if (w.largest() * static_cast<double>(features) > largest_of(type))
      return "the weights of '" + layer.name + "' are too large to be rotated as " + type_name(type);
    return {};
  }

  const Rotation* rotation_of(TensorId id) const {
    const auto region = found_.region_of.find(id);
    const auto it = region == found_.region_of.end() ? rotations_.end() : rotations_.find(region->second);
    return it == rotations_.end() ? nullptr : &it->second;
  }
  std::string reason_of(TensorId id) const {
    const auto region = found_.region_of.find(id);
    if (region == found_.region_of.end()) return "the size of its features is not known";
    const FeatureRegion& r = found_.regions[region->second];
    if (!r.blocked.empty()) return r.blocked;
    const auto own = reasons_.find(region->second);
    if (own != reasons_.end()) return own->second;
    if (!r.norms_from.empty() || !r.norms_to.empty()) {
      const Node& norm = node(r.norms_from.empty() ? r.norms_to[0] : r.norms_from[0]);
      return "'" + norm.name + "' (" + norm.op + ") " + (norm.op == "RMSNormalization" ? "has a scale for each feature" : "takes off the mean");
    }
    return r.sources.empty() ? "no layer makes them" : r.sinks.empty() ? "no layer reads them" : "";
  }

  Status change(const Node& layer) {
    LinearWeight w = LinearWeight::of(*model_, layer);
    PassLayer row{layer.name, w.spread(), std::nan(""), {}};
    const auto note = [&](const std::string& text) { row.note += (row.note.empty() ? "" : "; ") + text; };
    bool touched = false;
    if (const Rotation* in = rotation_of(layer.input(0))) {
      QUANVAS_CHECK(rotate_inputs(w, *in, w.inputs, stop_));
      note("input in blocks of " + std::to_string(in->size()));
      touched = true;
    } else {
      QUANVAS_TRY(const std::string done, online(layer, w));
      if (!done.empty()) note(done);
      touched = done.starts_with("online");
      if (!touched) note_left("its input", layer.input(0), row, layer);
    }
    const bool is_online = row.note.starts_with("online");
    if (const Rotation* out = rotation_of(layer.outputs[0])) {
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

  void note_left(const std::string& side, TensorId id, PassLayer& row, const Node& layer) {
    const std::string why = options_.kind == "none" ? "" : reason_of(id);
    if (why.empty()) return;
    row.note += (row.note.empty() ? "" : "; ") + side + " is left: " + why;
    // What the network is given and gives is nobody's loss.
    if (side == "its output" && why != "it is an output of the network") leave(layer, why);
  }

  // "online, ..." when a rotation stands in front of the layer, else why not; empty: it was not asked for.
  Result<std::string> online(const Node& layer, LinearWeight& w) {
    if (options_.online == "none" || !is_named(layer.name) || (options_.online == "products" && !is_behind_activation(layer))) return std::string();
    const auto no = [&](std::string why) {
      if (why.ends_with('.')) why.pop_back();
      leave(layer, why);
      return "no online rotation: " + why;
    };
    if (std::string why = unfit(layer, w.inputs); !why.empty()) return no(why);
    const DataType type = graph_.tensor(layer.input(0)).type;
    if (type != DataType::kFloat && type != DataType::kDouble && type != DataType::kUndefined)
      return no("its input is " + std::string(type_name(type)));
    HadamardNode h{w.inputs, options_.block > 0 ? options_.block : w.inputs, 1};
    if (options_.block == 0) {
      auto size = algorithms::hadamard_size(h.size);
      if (!size && !options_.expand) return no(size.error().message);
      if (options_.expand) {
        h.size = algorithms::next_hadamard_size(h.size);
        for (std::int64_t i = 0; i < options_.step && h.size > 0; ++i) h.size = algorithms::next_hadamard_size(h.size + 1);
      }
    } else if (h.size > 2 * w.inputs && h.size > algorithms::next_hadamard_size(w.inputs)) {
      return no("blocks of " + std::to_string(h.size) + " are far larger than its " + std::to_string(w.inputs) + " inputs");
    } else if (w.inputs % h.size != 0 && !options_.expand) {
      return no("blocks of " + std::to_string(h.size) + " do not divide its " + std::to_string(w.inputs) + " inputs");
    }
    const auto size = algorithms::hadamard_size(h.size);
    if (!size) return no(size.error().message);
    h.core = size->core;
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
  std::string rotated(const Node& layer, const HadamardNode& h) {
    const TensorId in = layer.input(0);
    auto& made = nodes_[in];
    if (!made.empty()) return made;
    const TensorInfo& info = graph_.tensor(in);
    made = info.name + "_rotated";
    for (int i = 2; graph_.tensor(made) != kNoTensor || names_.count(made); ++i) made = info.name + "_rotated_" + std::to_string(i);
    names_.insert(made);
    std::optional<Shape> shape = info.shape;
    if (shape && !shape->empty()) shape->back() = h.outputs();
    edit_.builder().tensor(made, info.type, shape);
    edit_.builder().node(layer.name + "_rotation", kHadamardOp, {info.name}, {made}, hadamard_attributes(h), kOwnDomain);
    return made;
  }

  bool is_named(const std::string& layer) const {
    std::size_t begin = 0;
    while (begin < options_.layers.size()) {
      const std::size_t end = std::min(options_.layers.find_first_of(", ;", begin), options_.layers.size());
      if (end > begin && matches_pattern(options_.layers.substr(begin, end - begin), layer)) return true;
      begin = end + 1;
    }
    return false;
  }
  bool is_behind_activation(const Node& layer) const {
    const Node* before = graph_.find(graph_.tensor(layer.input(0)).producer);
    // A product with a constant, as SmoothQuant puts it there, is not what makes a gate.
    const auto is_passed = [&](const Node& n) {
      return n.domain.empty() && (n.op == "Identity" || n.op == "Dropout" || n.op == "Cast" || (n.op == "Mul" && n.input(1) != kNoTensor && graph_.tensor(n.input(1)).is_initializer));
    };
    while (before && is_passed(*before))
      before = before->input(0) == kNoTensor ? nullptr : graph_.find(graph_.tensor(before->input(0)).producer);
    const Layer* facts = before ? find_layer(layers_, before->id) : nullptr;
    return facts && (facts->kind == LayerKind::kActivation || (before->op == "Mul" && facts->inputs.size() == 2));
  }

  const ModelPtr model_;
  const Graph& graph_;
  Options options_;
  std::stop_token stop_;
  ModelEdit edit_;
  std::vector<Layer> layers_;
  FeatureRegions found_;
  std::map<std::size_t, Rotation> rotations_;    // by region
  std::map<std::size_t, std::string> reasons_;   // why a region that could be rotated was not
  std::map<TensorId, std::string> nodes_;        // tensors with an online rotation, and what it gives
  std::set<std::string> names_;
  std::set<NodeId> fused_layers_;
  std::size_t whole_ = 0, heads_ = 0, constants_ = 0, online_layers_ = 0, padded_ = 0;
  std::vector<Left> left_;
  std::vector<PassLayer> rows_;
  bool changed_ = false;
};

class Rotate final : public Pass {
 public:
  PluginInfo info() const override {
    return {"rotate", "Rotate features",
            "Rotates the features between layers so that none stands out, and the weights back: the float network computes the same "
            "(QuaRot, Ashkboos et al. 2024, arXiv 2404.00456; SpinQuant, Liu et al. 2024, arXiv 2405.16406, without learning)."};
  }
  Schema schema() const override {
    return {{choice_field("kind", "Rotation", "The matrix of the rotations that are folded into weights.", "signs",
                          {{"signs", "Randomized Hadamard", "A Hadamard matrix behind random signs (QuaRot, section 4)."},
                           {"hadamard", "Hadamard", "The Hadamard matrix itself."},
                           {"orthogonal", "Random orthogonal", "Any size; every orthogonal matrix is equally likely (SpinQuant, section 3.1)."},
                           {"none", "None", "Only merged normalizations and online rotations."}}),
             integer_field("seed", "Seed", "Of random signs and random orthogonal matrices.", 0, 0, 2147483647),
             integer_field("block", "Block", "Features that are rotated among themselves; 0: all of a tensor, or of a head.", 0, 0, 67108864),
             bool_field("residual", "Whole features", "Rotates tensors between layers over all their features: R1 of SpinQuant (section 3.1).", true),
             bool_field("heads", "Within heads",
                        "Rotates values within each attention head, up to the output projection: R2 of SpinQuant (section 3.1).", true),
             choice_field("online", "Online", "Layers whose input is rotated while the network runs, the inverse in their weights.", "none",
                          {{"none", "None", "Only weights change."},
                           {"products", "Behind activations",
                            "Layers behind gates and activation functions, as down projections: R4 (QuaRot, section 4, stage 1b)."},
                           {"rest", "All others", "Every linear layer whose input no other rotation reaches."}}),
             when(text_field("layers", "Layers", "Names of layers for online rotations, separated by commas or spaces, with * and ?.", "*"),
                  "online", {"products", "rest"}),
             when(bool_field("expand", "Pad with zeros",
                             "Inputs of online rotations without a Hadamard matrix of their size get zeros up to the next that has one (Franco et al. 2025, arXiv 2503.17513).", false),
                  "online", {"products", "rest"}),
             when(integer_field("expand_step", "Further sizes", "Pads to so many Hadamard sizes above the first (arXiv 2503.17513).", 0, 0, 16), "expand",
                  {true}),
             bool_field("merge", "Merge normalizations",
                        "Runs merge-norm before, without which scales of normalizations stop rotations (QuaRot, section 4, stage 1a).", true),
             when(bool_field("rms", "LayerNorm to RMSNorm",
                             "The same for the means that layer normalizations take off (SliceGPT, arXiv 2401.15024, section 3.2).", true),
                  "merge", {true})}};
  }
  PassStage stage() const override { return PassStage::kGraph; }
  Result<std::string> apply(PassContext& ctx, const json& options, JobContext& job) const override {
    Options o;
    o.kind = options.at("kind").get<std::string>();
    o.seed = options.at("seed").get<std::uint64_t>();
    o.block = options.at("block").get<std::int64_t>();
    o.residual = options.at("residual").get<bool>();
    o.heads = options.at("heads").get<bool>();
    o.online = options.at("online").get<std::string>();
    o.layers = options.at("layers").get<std::string>();
    o.expand = options.at("expand").get<bool>();
    o.step = options.at("expand_step").get<std::int64_t>();
    o.merge = options.at("merge").get<bool>();
    o.rms = options.at("rms").get<bool>();
    ModelPtr model = ctx.model;
    std::string merged_text;
    if (o.merge) {
      QUANVAS_TRY(const MergedNorms merged, merge_norms(model, o.rms, job));
      model = merged.model;
      if (merged.norms > 0) merged_text = "; " + merged.text();
    }
    Rotator rotator(model, o);
    QUANVAS_CHECK(rotator.run(job));
    if (rotator.changed()) {
      QUANVAS_TRY(model, rotator.finish());
    }
    const std::string text = rotator.text() + merged_text + ".";
    ctx.model = std::move(model);
    ctx.measure = "largest weight of an output over their root mean square, mean over outputs";
    ctx.layers = std::move(rotator).rows();
    return text;
  }
};

QUANVAS_PLUGIN(Pass, Rotate)

}  // namespace
}  // namespace quanvas
