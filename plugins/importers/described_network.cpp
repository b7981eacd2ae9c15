#include "plugins/importers/described_network.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <set>

#include "core/quant/stored.h"

namespace quanvas::described {
namespace {

Failure bad(const std::string& path, const std::string& what) {
  return fail(ErrorCode::kCorrupt, "'" + path + "': " + what + ".", "Export it again.");
}

Result<TensorData> constant_of(const Constant& c, const std::string& path) {
  const auto count = static_cast<std::size_t>(std::max<std::int64_t>(0, element_count(c.shape)));
  const bool negative = std::any_of(c.shape.begin(), c.shape.end(), [](std::int64_t d) { return d < 0; });
  if (negative || c.values.size() != count)
    return bad(path, "the constant '" + c.name + "' has another number of values than its shape");
  std::string bytes;
  const auto put = [&]<class T>(T) {
    for (const double v : c.values) {
      const T t = static_cast<T>(v);
      bytes.append(reinterpret_cast<const char*>(&t), sizeof t);
    }
  };
  const bool whole =
      std::all_of(c.values.begin(), c.values.end(), [](double v) { return std::fabs(v) <= 0x1p53 && v == std::floor(v); });
  const bool small = std::all_of(c.values.begin(), c.values.end(), [](double v) { return v >= -0x1p31 && v < 0x1p31; });
  const auto type = static_cast<DataType>(c.type);
  if (type == DataType::kFloat)
    put(float{});
  else if (type == DataType::kInt64 && whole)
    put(std::int64_t{});
  else if (type == DataType::kInt32 && whole && small)
    put(std::int32_t{});
  else if (type == DataType::kBool && std::all_of(c.values.begin(), c.values.end(), [](double v) { return v == 0 || v == 1; }))
    put(std::uint8_t{});
  else
    return bad(path, "the constant '" + c.name + "' has values or a type that cannot be");
  return TensorData::copy_of(type, c.shape, bytes.data(), bytes.size());
}

// A tensor that is not quantized, in its own type.
Result<TensorData> plain_tensor(const Source& source, const Weight& w, const std::string& path) {
  if (w.transposed) {
    QUANVAS_TRY(Held held, decode(source, w));
    return TensorData::of_floats(w.shape, std::move(held.values));
  }
  QUANVAS_TRY(TensorData data, source(w.tensor));
  const auto wanted = static_cast<DataType>(w.type);
  if (wanted == DataType::kUndefined || wanted == data.type) {
    if (data.shape != w.shape) return bad(path, "'" + w.tensor + "' has the shape " + shape_text(data.shape));
    return data;
  }
  // Raw bytes of a type that the file has no name for.
  bool sane = data.type == DataType::kUint8 && element_size(wanted) > 0;
  std::int64_t count = 1;
  for (const std::int64_t d : w.shape) sane = sane && d >= 0 && !__builtin_mul_overflow(count, d, &count);
  if (!sane || static_cast<std::uint64_t>(count) * element_size(wanted) != data.bytes)
    return bad(path, "'" + w.tensor + "' has another type or size than it is described with");
  data.type = wanted;
  data.shape = w.shape;
  return data;
}

// What differs from the defaults.
json fields_of(const QuantSpec& spec) {
  static const json plain = to_json_value(QuantSpec{});
  const json all = to_json_value(spec);
  json out = json::object();
  for (const auto& [key, value] : all.items())
    if (!plain.contains(key) || plain[key] != value) out[key] = value;
  return out;
}

// One rule for all layers that get the same at the same kind of site.
Rule& rule_for(Recipe& recipe, SiteKind kind, int operand, const json& fields) {
  for (Rule& rule : recipe.rules)
    if (rule.select.sites[0] == kind && rule.select.operand == operand && rule.override_fields == fields) return rule;
  Rule rule;
  rule.select.sites = {kind};
  rule.select.operand = operand;
  rule.override_fields = fields;
  rule.note = "From the model file";
  recipe.rules.push_back(std::move(rule));
  return recipe.rules.back();
}

struct Loader {
  const Source& source;
  const std::string& path;
  JobContext& job;
  Network network;
  std::shared_ptr<WeightStore> weights = std::make_shared<WeightStore>();
  std::map<std::string, Held> held;  // by the tensor's name in the file

  Status read_weights(const Graph& graph) {
    for (const Constant& c : network.constants) {
      QUANVAS_TRY(TensorData data, constant_of(c, path));
      weights->set(c.name, std::move(data));
    }
    std::set<std::string> plain;
    for (const Weight& w : network.weights) {
      QUANVAS_CHECK(job.check());
      if (graph.tensor(w.initializer) == kNoTensor) return bad(path, "its graph has no '" + w.initializer + "'");
      if (w.form == "float") {
        // Else a small file would have one large tensor copied as often as it likes.
        if (!plain.insert(w.tensor).second) return bad(path, "'" + w.tensor + "' is described twice");
        QUANVAS_TRY(TensorData data, plain_tensor(source, w, path));
        weights->set(w.initializer, std::move(data));
        continue;
      }
      QUANVAS_TRY(Held h, decode(source, w));
      // Float values stay where the file has them, too: another node reads them as they are.
      if (!weights->find(w.initializer)) weights->set(w.initializer, TensorData::of_floats(w.shape, h.values));
      h.codes.clear();
      h.values.clear();
      if (!held.emplace(w.tensor, std::move(h)).second) return bad(path, "'" + w.tensor + "' is described twice");
    }
    for (const TensorInfo& t : graph.tensors()) {
      if (!t.is_initializer) continue;
      const TensorData* data = weights->find(t.name);
      if (!data) return bad(path, "nothing gives the initializer '" + t.name + "'");
      if (t.shape && *t.shape != data->shape)
        return bad(path, "the initializer '" + t.name + "' has another shape than in the graph");
    }
    return {};
  }

  // A quantizer of a weight speaks of the format that its codes have.
  bool agrees(const Quantizer& q) const {
    if (q.tensor.empty() || q.spec.source != ScaleSource::kStored) return true;
    return std::any_of(network.weights.begin(), network.weights.end(),
                       [&](const Weight& w) { return w.form != "float" && w.tensor == q.tensor && w.spec == q.spec; });
  }

  Result<Recipe> recipe(const Graph& graph) {
    Recipe out;
    out.name = std::filesystem::path(path).stem().string() + ", as in the file";
    const std::vector<Layer> layers = find_layers(graph);
    for (const Quantizer& q : network.quantizers) {
      if (!agrees(q)) return bad(path, "the quantizer of '" + q.node + "' is not the one of its codes");
      const Node* node = graph.find(q.node);
      const Layer* layer = node ? find_layer(layers, node->id) : nullptr;
      const Site site{node ? node->id : kNoNode, q.kind, q.operand};
      const TensorId tensor = layer ? site_tensor(*layer, site) : kNoTensor;
      if (tensor == kNoTensor || !check(q.spec, q.kind).empty()) {
        job.issue({Severity::kWarning, q.node, "The quantizer of '" + q.node + "' has no place in this network.",
                   "Quantize it anew."});
        continue;
      }
      quant::Stored stored{q.spec, q.scale, q.zero_point, {}};
      if (const auto h = held.find(q.tensor); !q.tensor.empty() && h != held.end()) {
        stored.scale = h->second.scale;
        stored.zero_point = h->second.zero_point;
      }
      if (!is_activation(q.kind))
        if (const TensorData* data = weights->find(graph.tensor(tensor).name)) stored.values = data->content_hash();
      const bool negative =
          std::any_of(stored.scale.begin(), stored.scale.end(), [](float s) { return !(s > 0) || !std::isfinite(s); });
      if (q.spec.source == ScaleSource::kStored && (negative || stored.scale.empty())) {
        job.issue({Severity::kWarning, q.node,
                   "The " + std::string(enum_text(q.kind)) + " of '" + q.node +
                       "' has scales that a recipe cannot keep; its values stay as they are.",
                   "Quantize it anew."});
        continue;
      }
      const int operand = q.kind == SiteKind::kInput && layer->inputs.size() > 1 ? q.operand
                          : q.kind == SiteKind::kWeight && layer->weights() > 1  ? q.operand
                                                                                 : -1;
      rule_for(out, q.kind, operand, fields_of(q.spec)).select.names.push_back(quote_pattern(q.node));
      if (q.spec.source == ScaleSource::kStored) quant::store(*weights, quant::stored_key(node->name, site), stored);
    }
    return out;
  }
};

}  // namespace

Result<Network> parse(const std::string& text, const std::string& path) {
  QUANVAS_TRY(const json j, parse_json(text, "What '" + path + "' says of its network"));
  if (!j.is_object() || !j.contains("version") || j["version"] != kVersion)
    return fail(ErrorCode::kUnsupported, "'" + path + "' was written by another version of Quanvas.",
                "Open it with that version, or export it again.");
  return from_json_value<Network>(j, "network");
}

Result<Imported> load(const Source& source, const std::string& graph_text, const std::string& network_text,
                      const std::string& path, const ImportOptions& options, JobContext& job) {
  Loader loader{source, path, job, {}, std::make_shared<WeightStore>(), {}};
  QUANVAS_TRY(const json graph_json, parse_json(graph_text, "The graph in '" + path + "'"));
  QUANVAS_TRY(const GraphPtr graph, graph_from_json(graph_json));
  QUANVAS_TRY(loader.network, parse(network_text, path));
  QUANVAS_CHECK(loader.read_weights(*graph));
  Model model{graph, loader.weights, path};
  for (const std::string& note : loader.network.notes) job.issue({Severity::kInfo, path, note, {}});
  if (!options.shapes.empty())
    job.issue({Severity::kWarning, path, "The shapes that were given are not used: the file's graph has its own.", {}});
  const bool has_activations = std::any_of(loader.network.quantizers.begin(), loader.network.quantizers.end(),
                                           [](const Quantizer& q) { return is_activation(q.kind); });
  if (options.quantizers == FileQuantizers::kNodes && has_activations)
    job.issue({Severity::kInfo, path,
               "The file's weights are as it has them; its quantizers of activations are not nodes and stay out.",
               "Open it with its quantizers as rules."});
  if (options.quantizers == FileQuantizers::kNodes || loader.network.quantizers.empty()) return Imported(std::move(model));
  QUANVAS_TRY(Recipe recipe, loader.recipe(*graph));
  if (recipe.rules.empty()) return Imported(std::move(model));
  return Imported(std::move(model), std::move(recipe));
}

}  // namespace quanvas::described
