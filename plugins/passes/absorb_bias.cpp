// High-bias absorption: a channel whose values before a Relu all lie far above 0 loses what they have in common, and the
// layers behind it get that in their biases (Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and
// Bias Correction", section 4.1.3, with the mean and deviation measured instead of taken from a batch normalization).
#include <algorithm>
#include <cmath>

#include "plugins/passes/channel_scaling.h"
#include "plugins/passes/feature_regions.h"

namespace quanvas {
namespace {

// A layer with a bias, its Relu, and all that reads it.
struct Place {
  const Node* layer = nullptr;
  std::vector<const Node*> readers;
};

class Absorption {
 public:
  Absorption(const Model& model, bool padded) : model_(model), graph_(*model.graph), layers_(find_layers(graph_)), padded_(padded) {}

  // Places in graph order; the others that have a layer, a bias and a Relu are in left().
  std::vector<Place> find() {
    std::vector<Place> out;
    for (const Node& relu : graph_.nodes()) {
      if (relu.op != "Relu" || !relu.domain.empty() || relu.outputs.empty()) continue;
      const TensorInfo& before = graph_.tensor(relu.input(0));
      const Node* layer = graph_.find(before.producer);
      const Layer* facts = layer ? find_layer(layers_, layer->id) : nullptr;
      if (!facts || facts->kind != LayerKind::kCompute) continue;
      if (!ChannelWeight::of(model_, *layer, facts)) {
        left_.push_back("'" + layer->name + "': its weight or bias is computed or has an unexpected shape");
        continue;
      }
      Place place{layer, {}};
      if (std::string why = match(relu, before, place); !why.empty()) left_.push_back("'" + layer->name + "': " + why);
      else out.push_back(std::move(place));
    }
    return out;
  }
  const std::vector<std::string>& left() const { return left_; }
  static int axis_of(const Node& node) { return node.op == "Conv" || node.op == "ConvTranspose" ? 1 : -1; }

  // Takes `amount` of each channel's bias and gives it to the readers.
  void move(const Place& place, const std::vector<double>& amount) {
    auto& bias = biases_.try_emplace(place.layer->id, weight(*place.layer).bias()).first->second;
    for (std::size_t c = 0; c < bias.size(); ++c) bias[c] -= amount[c];
    for (const Node* reader : place.readers) {
      const ChannelWeight w = weight(*reader);
      auto& gets = biases_.try_emplace(reader->id, w.bias().empty() ? std::vector<double>(static_cast<std::size_t>(w.outputs())) : w.bias()).first->second;
      for (std::size_t e = 0; e < w.values().size(); ++e) {
        const auto element = static_cast<std::int64_t>(e);
        gets[static_cast<std::size_t>(w.output_of(element))] += w.values()[e] * amount[static_cast<std::size_t>(w.input_of(element))];
      }
    }
  }
  Status write(ModelEdit& edit) const {
    for (const auto& [id, bias] : biases_) {
      const Node& node = *graph_.find(id);
      const DataType type = graph_.tensor(node.input(1)).type;
      for (const double b : bias)
        if (!(std::fabs(b) <= largest_of(type)))
          return fail(ErrorCode::kInvalidArgument, "The bias of '" + node.name + "' would be too large for " + type_name(type) + ".", "Take the pass out of the recipe, or use a model in float32.");
      if (const TensorData* data = initializer_data(model_, node.input(2))) {
        edit.replace_initializer(node, node.input(2), data->type, data->shape, bias);
        continue;
      }
      const std::string name = edit.new_initializer(node.name + ".bias", type, {static_cast<std::int64_t>(bias.size())}, bias);
      edit.builder().replace_input_at(id, 2, name);
      if (node.op == "Gemm") edit.builder().set_attribute(id, "beta", 1.0f);
    }
    return {};
  }

 private:
  ChannelWeight weight(const Node& node) const { return *ChannelWeight::of(model_, node, find_layer(layers_, node.id)); }

  std::string match(const Node& relu, const TensorInfo& before, Place& place) const {
    const ChannelWeight made = weight(*place.layer);
    if (made.inputs() == 0) return "it is a normalization";
    if (made.bias().empty()) return "it has no bias";
    if (place.layer->op == "Gemm" && place.layer->real("beta", 1) != 1) return "its bias is scaled";
    if (before.consumers.size() != 1 || is_graph_output(graph_, relu.input(0))) return "'" + relu.name + "' is not all that reads it";
    const TensorId out = relu.outputs[0];
    if (is_graph_output(graph_, out)) return "it is an output of the network";
    if (graph_.tensor(out).consumers.empty()) return "nothing reads it";
    for (const NodeId id : graph_.tensor(out).consumers) {
      const Node& reader = *graph_.find(id);
      const auto w = ChannelWeight::of(model_, reader, find_layer(layers_, id));
      if (!w || w->inputs() != made.outputs() || reader.input(0) != out || axis_of(reader) != axis_of(*place.layer))
        return "'" + reader.name + "' (" + reader.op + ") reads it, which has no weight for each channel";
      if (reader.op == "ConvTranspose") return "the sums of '" + reader.name + "' differ at its borders";
      if (reader.op == "Gemm" && reader.real("beta", 1) != 1) return "the bias of '" + reader.name + "' is scaled";
      if (reader.op == "Gemm" && reader.real("alpha", 1) != 1) return "'" + reader.name + "' scales its product";
      const auto pads = reader.integers("pads");
      const bool pads_zeros = std::any_of(pads.begin(), pads.end(), [](std::int64_t p) { return p != 0; }) ||
                              (reader.op == "Conv" && reader.text("auto_pad", "NOTSET") != "NOTSET" && reader.text("auto_pad", "NOTSET") != "VALID");
      if (pads_zeros && !padded_) return "'" + reader.name + "' pads with zeros, which would have to be moved, too";
      place.readers.push_back(&reader);
    }
    return {};
  }

  const Model& model_;
  const Graph& graph_;
  std::vector<Layer> layers_;
  bool padded_;
  std::map<NodeId, std::vector<double>> biases_;
  std::vector<std::string> left_;
};

// Averages and deviations of each place's channels, empty where none came. Nothing: not what the pass measures.
std::optional<std::vector<std::pair<std::vector<double>, std::vector<double>>>> read(const std::string& bytes, const std::vector<Place>& places, const Model& model) {
  constexpr double kMost = 1e30;
  const auto parsed = parse_json(bytes, "measurement");
  if (!parsed || !parsed->is_array() || parsed->size() != places.size()) return std::nullopt;
  const std::vector<Layer> layers = find_layers(*model.graph);
  std::vector<std::pair<std::vector<double>, std::vector<double>>> out(places.size());
  try {
    for (std::size_t i = 0; i < places.size(); ++i) {
      const json& j = (*parsed)[i];
      if (!j.is_object()) return std::nullopt;
      if (j.empty()) continue;
      out[i] = {j.at("average").get<std::vector<double>>(), j.at("deviation").get<std::vector<double>>()};
      const auto channels = static_cast<std::size_t>(ChannelWeight::of(model, *places[i].layer, find_layer(layers, places[i].layer->id))->outputs());
      for (const auto* values : {&out[i].first, &out[i].second})
        if (values->size() != channels || !std::all_of(values->begin(), values->end(), [](double v) { return std::fabs(v) <= kMost; })) return std::nullopt;
    }
  } catch (const json::exception&) {
    return std::nullopt;
  }
  return out;
}

class AbsorbBias final : public Pass {
 public:
  PluginInfo info() const override {
    return {"absorb-bias", "Absorb high biases",
            "Moves what all values of a channel before a Relu have in common into the biases behind it, so that the activation's range shrinks (Nagel et al. 2019, Data-Free "
            "Quantization, section 4.1.3). Exact where no value lies below what is moved. Put it behind the equalization of weights."};
  }
  Schema schema() const override {
    return {{real_field("deviations", "Deviations", "A channel loses its mean less so many standard deviations, if that is above 0: at 3 nearly no value lies below.", 3, 0, 100),
             bool_field("padded", "Before padding", "Also where the convolution behind pads with zeros: its border pixels then change.", false)}};
  }
  PassStage stage() const override { return PassStage::kGraph; }
  Result<std::string> apply(PassContext& ctx, const json& options, JobContext&) const override {
    const double deviations = options.at("deviations").get<double>();
    Absorption absorption(*ctx.model, options.at("padded").get<bool>());
    const std::vector<Place> places = absorption.find();
    std::size_t moved = 0, layers = 0;
    if (!places.empty()) {
      std::string what;
      for (const Place& p : places) what += p.layer->name + "\n";
      QUANVAS_TRY(const std::string bytes, ctx.measured(what, [&](JobContext& job) -> Result<std::string> {
        std::map<TensorId, int> axes;
        for (const Place& p : places) axes[p.layer->outputs[0]] = Absorption::axis_of(*p.layer);
        QUANVAS_TRY(const auto found, scaling::measure_channels(ctx, axes, job));
        json out = json::array();
        for (const Place& p : places) {
          const auto it = found.find(p.layer->outputs[0]);
          out.push_back(it == found.end() ? json::object() : json{{"average", it->second.average}, {"deviation", it->second.deviation}});
        }
        return out.dump();
      }, [&](const std::string& known) { return read(known, places, *ctx.model).has_value(); }));
      const auto found = read(bytes, places, *ctx.model);
      if (!found) return fail(ErrorCode::kCorrupt, "What the absorption of biases has measured is damaged.", "Run the recipe again.");
      const std::vector<Layer> all_layers = find_layers(*ctx.model->graph);
      for (std::size_t i = 0; i < places.size(); ++i) {
        const auto& [average, deviation] = (*found)[i];
        if (average.empty()) continue;
        const auto weight = ChannelWeight::of(*ctx.model, *places[i].layer, find_layer(all_layers, places[i].layer->id));
        std::vector<double> amount;
        std::size_t channels = 0;
        double before = 0, after = 0;
        for (std::size_t c = 0; c < average.size(); ++c) {
          const double a = std::max(0.0, average[c] - deviations * deviation[c]);
          amount.push_back(a);
          channels += a > 0 ? 1 : 0;
          before = std::max(before, std::fabs(weight->bias()[c])), after = std::max(after, std::fabs(weight->bias()[c] - a));
        }
        if (channels == 0) continue;
        absorption.move(places[i], amount);
        moved += channels, ++layers;
        ctx.layers.push_back({places[i].layer->name, before, after, std::to_string(channels) + " of " + std::to_string(amount.size()) + " channels"});
      }
      ctx.measure = "largest magnitude of its biases";
      if (moved > 0) {
        ModelEdit edit(*ctx.model);
        QUANVAS_CHECK(absorption.write(edit));
        QUANVAS_TRY(ctx.model, edit.finish());
      }
    }
    std::string text = "Moved the biases of " + std::to_string(moved) + (moved == 1 ? " channel" : " channels") + " of " + std::to_string(layers) + (layers == 1 ? " layer" : " layers");
    if (!absorption.left().empty()) text += "; left: " + join_some(absorption.left());
    return text + ".";
  }
};

QUANVAS_PLUGIN(Pass, AbsorbBias)

}  // namespace
}  // namespace quanvas
