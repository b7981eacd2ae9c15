// What merge-norm and rotate share. y = n * scale + bias read by w gives n (scale w) + bias w; and
// LayerNormalization(x) = RMSNormalization(x - mean(x)), where the mean is taken off in the weights that make x.
#include <algorithm>
#include <cmath>
#include <set>

#include "core/base/job.h"
#include "plugins/passes/feature_regions.h"

namespace quanvas {
namespace {

bool nowhere(const Node&) { return false; }  // no normalization passes features on
std::string quoted(const Node& node) { return "'" + node.name + "'"; }

class Merger {
 public:
  explicit Merger(const Model& model) : model_(model), graph_(*model.graph), edit_(model), found_(find_feature_regions(model, nowhere)) {}

  Result<ModelPtr> run(MergedNorms& out, JobContext& job) {
    for (const Node& node : graph_.nodes()) {
      if (node.op != "LayerNormalization" && node.op != "RMSNormalization") continue;
      QUANVAS_CHECK(job.check());
      ++out.norms;
      const std::string why = merge(node, out);
      if (!why.empty()) out.left.push_back(quoted(node) + ": " + why);
    }
    if (out.merged == 0) return ModelPtr();
    return edit_.finish();
  }

 private:
  std::string merge(const Node& node, MergedNorms& out) {
    if (!is_last_axis_norm(graph_, node)) return "it does not work on the last axis alone";
    const auto norm = norm_scale(model_, node);
    if (!norm) return "its scale or bias is not one finite constant for each feature";
    if (norm->is_neutral()) {
      ++out.neutral;
      return {};
    }
    const FeatureRegion* region = found_.find(node.outputs[0]);
    if (!region) return "the size of what it gives is not known";
    if (!region->blocked.empty()) return region->blocked;
    if (!region->sources.empty() || region->norms_from.size() != 1) return "what it gives is joined with other features";
    if (!region->norms_to.empty()) return quoted(*graph_.find(region->norms_to[0])) + " reads it, which is no linear layer";
    if (region->sinks.empty()) return "no linear layer reads it";
    const auto width = static_cast<std::int64_t>(norm->scale.size());
    if (region->granule != width) return "its features are regrouped before a layer reads them";
    std::vector<std::pair<const Node*, LinearWeight>> layers;
    for (const NodeId id : region->sinks) {
      const Node& layer = *graph_.find(id);
      LinearWeight w = LinearWeight::of(model_, layer);
      if (w.inputs != width) return quoted(layer) + " reads its features in another grouping";
      if (!w.is_finite()) return "a weight of " + quoted(layer) + " is not finite";
      scale(w, *norm);
      const DataType type = initializer_data(model_, layer.input(1))->type;
      if (!w.is_finite() || w.largest() > largest_of(type)) return "its scale is too large for " + quoted(layer);
      layers.emplace_back(&layer, std::move(w));
    }
    for (const auto& [layer, w] : layers) {
      w.write(model_, *layer, edit_);
      out.notes[layer->name] = "holds the scale of '" + node.name + "'";
    }
    const TensorData* stored = initializer_data(model_, node.input(1));
    edit_.replace_initializer(node, node.input(1), stored->type, {width}, std::vector<double>(norm->scale.size(), 1.0));
    if (node.input(2) != kNoTensor) edit_.builder().replace_input_at(node.id, 2, "");
    ++out.merged;
    return {};
  }

  static void scale(LinearWeight& w, const NormScale& norm) {
    const bool shifts = std::any_of(norm.bias.begin(), norm.bias.end(), [](double v) { return v != 0; });
    if (shifts && w.b.empty()) w.b.assign(static_cast<std::size_t>(w.outputs), 0.0);
    for (std::int64_t i = 0; i < w.inputs; ++i) {
      double* row = w.w.data() + i * w.outputs;
      for (std::int64_t o = 0; o < w.outputs; ++o) {
        if (shifts) w.b[static_cast<std::size_t>(o)] += norm.bias[static_cast<std::size_t>(i)] * row[o];
        row[o] *= norm.scale[static_cast<std::size_t>(i)];
      }
    }
  }

  const Model& model_;
  const Graph& graph_;
  ModelEdit edit_;
  FeatureRegions found_;
};

class Centring {
 public:
  explicit Centring(const Model& model) : model_(model), graph_(*model.graph), edit_(model), found_(find_feature_regions(model, nowhere)) {}

  Result<ModelPtr> run(MergedNorms& out, JobContext& job) {
    std::map<const FeatureRegion*, std::string> tried;
    for (const Node& node : graph_.nodes()) {
      if (node.op != "LayerNormalization") continue;
      QUANVAS_CHECK(job.check());
      const FeatureRegion* region = is_last_axis_norm(graph_, node) ? found_.find(node.input(0)) : nullptr;
      const auto norm = region ? norm_scale(model_, node) : std::nullopt;
      std::string why;
      if (!norm) why = "it does not work on the last axis alone, or its scale is no constant";
      else if (std::any_of(norm->bias.begin(), norm->bias.end(), [](double v) { return v != 0; })) why = "its bias could not be merged";
      else if (const auto before = tried.find(region); before != tried.end()) why = before->second;
      else why = tried[region] = centre(*region, out);
      if (!why.empty()) {
        out.left.push_back(quoted(node) + " stays a LayerNormalization: " + why);
        continue;
      }
      turn(node);
      ++out.made_rms;
    }
    if (out.made_rms == 0) return ModelPtr();
    return edit_.finish();
  }

 private:
  std::string refusal(const FeatureRegion& region) const {
    if (!region.blocked.empty()) return region.blocked;
    if (!region.norms_from.empty()) return quoted(*graph_.find(region.norms_from[0])) + " makes part of its input, which cannot be centred";
    if (!region.sinks.empty()) return quoted(*graph_.find(region.sinks[0])) + " reads the same features without a normalization";
    if (region.sources.empty()) return "no layer makes its input";
    for (const NodeId id : region.norms_to) {
      const Node& other = *graph_.find(id);
      if (other.op != "LayerNormalization") return quoted(other) + " (" + other.op + ") reads the same features";
      // One that stays what it is computes the same on centred features.
    }
    return {};
  }

  std::string centre(const FeatureRegion& region, MergedNorms& out) {
    if (std::string why = refusal(region); !why.empty()) return why;
    const std::int64_t width = region.granule;
    std::vector<std::pair<const Node*, LinearWeight>> layers;
    struct Constant {
      const Node* node;
      TensorId id;
      std::vector<double> values;
    };
    std::vector<Constant> constants;
    for (const FeatureSource& s : region.sources) {
      const Node& node = *graph_.find(s.node);
      if (s.constant >= 0) {
        const TensorId id = node.input(static_cast<std::size_t>(s.constant));
        std::vector<double> values = doubles_of(*initializer_data(model_, id));
        if (initializer_data(model_, id)->shape.back() != width) return "its features are regrouped on the way";
        if (!all_finite(values)) return "a value of '" + graph_.tensor(id).name + "' is not finite";
        take_means(values, width);
        constants.push_back({&node, id, std::move(values)});
        continue;
      }
      LinearWeight w = LinearWeight::of(model_, node);
      if (w.outputs != width) return "its features are regrouped on the way";
      if (!w.is_finite()) return "a weight of " + quoted(node) + " is not finite";
      take_means(w.w, width);
      take_means(w.b, width);
      layers.emplace_back(&node, std::move(w));
    }
    for (const auto& [node, w] : layers) {
      w.write(model_, *node, edit_);
      std::string& note = out.notes[node->name];
      note += (note.empty() ? "" : "; ") + std::string("its output has mean 0");
      ++out.centred;
    }
    for (const Constant& c : constants) {
      const TensorData* data = initializer_data(model_, c.id);
      edit_.replace_initializer(*c.node, c.id, data->type, data->shape, c.values);
      ++out.centred;
    }
    return {};
  }

  static void take_means(std::vector<double>& rows, std::int64_t width) {
    for (std::size_t at = 0; at + static_cast<std::size_t>(width) <= rows.size(); at += static_cast<std::size_t>(width)) {
      double sum = 0;
      for (std::int64_t i = 0; i < width; ++i) sum += rows[at + static_cast<std::size_t>(i)];
      for (std::int64_t i = 0; i < width; ++i) rows[at + static_cast<std::size_t>(i)] -= sum / static_cast<double>(width);
    }
  }

  // Another operator is another node: it has the name and a new id.
  void turn(const Node& node) {
    const auto name = [&](TensorId id) { return graph_.tensor(id).name; };
    Attributes attributes;
    for (const char* key : {"epsilon", "axis"})
      if (const auto it = node.attributes.find(key); it != node.attributes.end()) attributes.insert(*it);
    if (!attributes.count("epsilon")) attributes["epsilon"] = 1e-5f;
    edit_.builder().remove_node(node.id);
    edit_.builder().node(node.name, "RMSNormalization", {name(node.input(0)), name(node.input(1))}, {name(node.outputs[0])}, attributes);
  }

  const Model& model_;
  const Graph& graph_;
  ModelEdit edit_;
  FeatureRegions found_;
};

std::string counted(std::size_t n, const char* one, const char* many) { return std::to_string(n) + " " + (n == 1 ? one : many); }

}  // namespace

std::string MergedNorms::text() const {
  std::string text = "merged " + std::to_string(merged) + " of " + counted(norms, "normalization", "normalizations");
  if (neutral > 0) text += " (" + counted(neutral, "had", "had") + " nothing to merge)";
  if (made_rms > 0)
    text += ", made " + counted(made_rms, "LayerNormalization", "LayerNormalizations") + " RMSNormalization by centring " +
            counted(centred, "weight", "weights");
  if (!left.empty()) text += "; left: " + join_some(left);
  return text;
}

Result<MergedNorms> merge_norms(const ModelPtr& model, bool to_rms, JobContext& job) {
  MergedNorms out;
  out.model = model;
  {
    Merger merger(*out.model);
    QUANVAS_TRY(ModelPtr changed, merger.run(out, job));
    if (changed) out.model = std::move(changed);
  }
  if (to_rms) {
    const ModelPtr before = out.model;
    Centring centring(*before);
    QUANVAS_TRY(ModelPtr changed, centring.run(out, job));
    if (changed) out.model = std::move(changed);
  }
  return out;
}

}  // namespace quanvas
