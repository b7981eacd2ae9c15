#include "plugins/exporters/file_tensors.h"

#include <algorithm>
#include <map>
#include <set>

#include "core/quant/dynamic.h"

namespace quanvas::weight_file {
namespace {

constexpr std::int64_t kMostConstant = 4096;  // elements of a constant in the description

bool is_equal(const quant::QuantParams& a, const quant::QuantParams& b) {
  const auto zero = [](const quant::QuantParams& p) {
    return p.zero_point.empty() ? std::vector<float>(p.scale.size(), 0) : p.zero_point;
  };
  return same_bits(a.scale, b.scale) && same_bits(zero(a), zero(b)) && a.lo == b.lo && a.hi == b.hi &&
         same_bits(a.rounding, b.rounding) && same_bits(a.code_scale, b.code_scale) && same_bits(a.center, b.center) &&
         stored_spec(a, SiteKind::kWeight) == stored_spec(b, SiteKind::kWeight);
}

bool is_constant(const TensorData& data) {
  switch (data.type) {
    case DataType::kInt64:
    case DataType::kInt32:
    case DataType::kBool: return data.count() <= kMostConstant;
    case DataType::kFloat: return data.count() <= 1;
    default: return false;
  }
}

// Without what is as by default: the reader has it all the same.
template <class T>
void strip(json& list) {
  const json plain = to_json_value(T{}), plain_spec = to_json_value(QuantSpec{});
  const auto lean = [](json& object, const json& defaults) {
    for (auto it = object.begin(); it != object.end();)
      it = defaults.contains(it.key()) && defaults[it.key()] == *it ? object.erase(it) : std::next(it);
  };
  for (json& entry : list) {
    if (entry.contains("spec")) lean(entry["spec"], plain_spec);
    json spec = entry.contains("spec") ? entry["spec"] : json();
    entry.erase("spec");
    lean(entry, plain);
    if (!spec.is_null()) entry["spec"] = std::move(spec);
  }
}

bool fits_double(const TensorData& data) {
  if (data.type != DataType::kInt64) return true;
  const std::vector<std::int64_t> values = data.to_int64();
  return std::all_of(values.begin(), values.end(), [](std::int64_t v) { return std::abs(v / 2) <= std::int64_t{1} << 52; });
}

}  // namespace

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

bool same_numbers(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin());
}

Contents contents_of(const QuantizedModel& model) {
  const Graph& graph = *model.model->graph;
  Contents out;
  std::map<TensorId, std::set<NodeId>> covered;
  std::map<TensorId, int> ways;
  for (PlacedQuantizer& q : place(model).quantizers) {
    if (is_activation(q.site.kind)) continue;
    covered[q.tensor].insert(q.reader->id);
    const auto same = std::find_if(out.coded.begin(), out.coded.end(),
                                   [&](const Coded& c) { return c.tensor == q.tensor && is_equal(c.params(), *q.params); });
    if (same != out.coded.end()) {
      same->sites.push_back(std::move(q));
      continue;
    }
    Coded c;
    c.initializer = graph.tensor(q.tensor).name;
    c.name = ways[q.tensor]++ == 0 ? c.initializer : c.initializer + "@" + q.node->name;
    c.tensor = q.tensor;
    c.sites.push_back(std::move(q));
    out.coded.push_back(std::move(c));
  }
  for (std::size_t t = 0; t < graph.tensors().size(); ++t) {
    const auto id = static_cast<TensorId>(t);
    const TensorInfo& info = graph.tensor(id);
    const TensorData* data = info.is_initializer ? model.model->weights->find(info.name) : nullptr;
    if (!data) continue;
    const auto c = covered.find(id);
    const bool all_coded =
        c != covered.end() && ways[id] == 1 && c->second.size() == info.consumers.size() && !graph.is_output(id);
    if (all_coded) continue;
    if (c == covered.end() && is_constant(*data) && fits_double(*data))
      out.constants.push_back(id);
    else
      out.plain.push_back(id);
  }
  return out;
}

QuantSpec stored_spec(const quant::QuantParams& params, SiteKind kind) {
  const QuantSpec& from = params.spec;
  QuantSpec out;
  out.format = from.format;
  out.bits = from.bits;
  out.is_signed = from.is_signed;
  out.narrow = from.narrow;
  out.exponent_bits = from.exponent_bits;
  out.mantissa_bits = from.mantissa_bits;
  out.exponent_bias = from.exponent_bias;
  out.specials = from.specials;
  out.saturate = from.saturate;
  out.ternary_threshold = from.ternary_threshold;
  out.zero_point = from.zero_point;
  out.zero_point_inside = from.zero_point_inside;
  out.granularity = from.granularity;
  if (from.granularity != Granularity::kTensor) out.axis = from.axis;
  if (from.granularity == Granularity::kGroup) out.group_size = from.group_size;
  if (from.scale == ScaleType::kFloat16 || from.scale == ScaleType::kPowerOfTwo) out.scale = from.scale;
  out.statistic = from.zero_point == ZeroPointType::kNone ? Statistic::kAbsMax : Statistic::kMinMax;
  if (is_activation(kind)) {
    out.rounding = from.rounding == Rounding::kLearned ? Rounding::kHalfEven : from.rounding;
    out.seed = from.seed;
  }
  out.source = ScaleSource::kStored;
  if (quant::is_dynamic(params)) {
    out = from;  // a declaration alone
  } else if (kind == SiteKind::kBias && from.scale_from_accumulator) {
    out.source = ScaleSource::kStatistics;
    out.scale_from_accumulator = true;
    out.granularity = Granularity::kTensor;
    out.axis.reset();
  }
  return out;
}

void describe_sites(const QuantizedModel& model, const Contents& contents, described::Network& network,
                    const NameOf& name_of) {
  const Graph& graph = *model.model->graph;
  for (const TensorId id : contents.constants) {
    const TensorData& data = *model.model->weights->find(graph.tensor(id).name);
    described::Constant c{graph.tensor(id).name, static_cast<int>(data.type), data.shape, {}};
    if (data.type == DataType::kFloat) {
      for (const float v : data.to_floats()) c.values.push_back(static_cast<double>(v));
    } else {
      for (const std::int64_t v : data.to_int64()) c.values.push_back(static_cast<double>(v));
    }
    network.constants.push_back(std::move(c));
  }
  const auto add = [&](const PlacedQuantizer& q, const std::string& tensor) {
    described::Quantizer d;
    d.node = q.node->name;
    d.kind = q.site.kind;
    d.operand = q.site.operand;
    d.spec = stored_spec(*q.params, q.site.kind);
    d.tensor = tensor;
    if (tensor.empty() && d.spec.source == ScaleSource::kStored) {
      d.scale = q.params->scale;
      if (d.spec.zero_point != ZeroPointType::kNone) d.zero_point = q.params->zero_point;
    }
    network.quantizers.push_back(std::move(d));
  };
  for (const Coded& c : contents.coded)
    for (const PlacedQuantizer& q : c.sites) add(q, name_of ? name_of(c, q) : c.name);
  for (const PlacedQuantizer& q : place(model).quantizers) {
    if (!is_activation(q.site.kind)) continue;
    if (q.params->truncated)
      network.notes.push_back("The truncation of '" + q.node->name + "' is not in the file.");
    else
      add(q, {});
  }
}

std::map<std::string, std::string> description_texts(const QuantizedModel& model, const described::Network& network,
                                                     bool graph) {
  json j = to_json_value(network);
  strip<described::Weight>(j["weights"]);
  strip<described::Quantizer>(j["quantizers"]);
  std::map<std::string, std::string> out = {
      {described::kNetworkKey, j.dump(-1, ' ', false, json::error_handler_t::replace)}};
  if (graph)
    out[described::kGraphKey] = graph_to_json(*model.model->graph).dump(-1, ' ', false, json::error_handler_t::replace);
  return out;
}

Field graph_field() {
  return bool_field("graph", "Graph beside the weights",
                    "The file says what the network computes, so that it opens here again; other readers pass over it.",
                    true);
}

Result<ReadBack> read_back(const QuantizedModel& model, const Contents& contents, const FileValues& values,
                           std::map<Site, quant::QuantParams> quantizers) {
  const Graph& graph = *model.model->graph;
  GraphBuilder builder(graph);
  auto weights = std::make_shared<WeightStore>(*model.model->weights);
  for (const auto& [name, floats] : values.plain)
    if (const TensorData* had = weights->find(name); had && static_cast<std::size_t>(had->count()) == floats.size())
      weights->set(name, TensorData::of_floats(had->shape, floats));
  const std::set<TensorId> plain(contents.plain.begin(), contents.plain.end());
  for (const Coded& c : contents.coded) {
    const auto held = values.coded.find(c.name);
    const TensorData* had = model.model->weights->find(c.initializer);
    if (held == values.coded.end() || !had || static_cast<std::size_t>(had->count()) != held->second.size())
      return fail(ErrorCode::kCorrupt, "The file has no whole '" + c.name + "'.", "Export it again.");
    if (!plain.count(c.tensor)) {
      weights->set(c.initializer, TensorData::of_floats(had->shape, held->second));
      continue;
    }
    const std::string own = c.name + "#codes";
    builder.initializer(own, DataType::kFloat, had->shape);
    weights->set(own, TensorData::of_floats(had->shape, held->second));
    for (const PlacedQuantizer& q : c.sites) builder.replace_input(q.reader->id, c.initializer, own);
  }
  QUANVAS_TRY(GraphPtr built, builder.build());
  ReadBack back;
  back.model = std::make_shared<const Model>(Model{std::move(built), std::move(weights), model.model->source});
  back.quantizers = std::move(quantizers);
  return back;
}

}  // namespace quanvas::weight_file
