// Quanvas - artifacts: what a run changed, in the safetensors container (8-byte little-endian length, JSON
// header, data), so that other tools can look at it too. Tensors "weight/<name>" are the changed weights,
// "scale/<site>", "zero_point/<site>" and the others of kVectors the quantizers; "__metadata__" holds plan and
// quantizers as JSON.
#include "core/workflow/artifact.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/quant/dynamic.h"

namespace quanvas {
namespace {

struct Entry {
  std::string name, type;
  Shape shape;
  const void* data;
  std::size_t bytes;
};

const char* safetensors_type(DataType type) {
  switch (type) {
    case DataType::kFloat: return "F32";
    case DataType::kDouble: return "F64";
    case DataType::kFloat16: return "F16";
    case DataType::kBfloat16: return "BF16";
    case DataType::kInt8: return "I8";
    case DataType::kUint8: return "U8";
    case DataType::kInt16: return "I16";
    case DataType::kInt32: return "I32";
    case DataType::kInt64: return "I64";
    case DataType::kBool: return "BOOL";
    default: return nullptr;
  }
}

DataType from_safetensors(const std::string& type) {
  for (const DataType t : {DataType::kFloat, DataType::kDouble, DataType::kFloat16, DataType::kBfloat16, DataType::kInt8,
                           DataType::kUint8, DataType::kInt16, DataType::kInt32, DataType::kInt64, DataType::kBool})
    if (type == safetensors_type(t)) return t;
  return DataType::kUndefined;
}

std::string write_container(const std::vector<Entry>& entries, const std::map<std::string, std::string>& metadata) {
  json header = json::object();
  header["__metadata__"] = metadata;
  std::size_t offset = 0;
  for (const auto& e : entries) {
    header[e.name] = {{"dtype", e.type}, {"shape", e.shape}, {"data_offsets", {offset, offset + e.bytes}}};
    offset += e.bytes;
  }
  std::string text = header.dump(-1, ' ', false, json::error_handler_t::replace);
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const std::uint64_t length = text.size();
  std::string out(8, '\0');
  std::memcpy(out.data(), &length, 8);
  out += text;
  out.reserve(out.size() + offset);
  for (const auto& e : entries) out.append(static_cast<const char*>(e.data), e.bytes);
  return out;
}

struct Container {
  json header;
  const char* data = nullptr;
  std::size_t bytes = 0;
};

Failure damaged() { return fail(ErrorCode::kCorrupt, "A stored network of this project is damaged.", "Run its recipe again."); }

Result<Container> read_container(const std::string& bytes) {
  if (bytes.size() < 8) return damaged();
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  if (length > bytes.size() - 8) return damaged();
  Container c;
  auto header = parse_json(bytes.substr(8, length), "");
  if (!header || !header->is_object()) return damaged();
  c.header = std::move(*header);
  c.data = bytes.data() + 8 + length;
  c.bytes = bytes.size() - 8 - length;
  return c;
}

Result<TensorData> read_tensor(const Container& c, const json& entry) {
  if (!entry.is_object() || !entry.contains("dtype") || !entry.contains("shape") || !entry.contains("data_offsets"))
    return damaged();
  try {
    const DataType type = from_safetensors(entry["dtype"].get<std::string>());
    const Shape shape = entry["shape"].get<Shape>();
    const auto begin = entry["data_offsets"].at(0).get<std::size_t>();
    const auto end = entry["data_offsets"].at(1).get<std::size_t>();
    if (begin > end || end > c.bytes || type == DataType::kUndefined) return damaged();
    if (std::any_of(shape.begin(), shape.end(), [](std::int64_t d) { return d < 0; })) return damaged();
    const std::size_t count = (end - begin) / element_size(type);  // the product of count and size might overflow
    if ((end - begin) % element_size(type) != 0 || static_cast<std::size_t>(element_count(shape)) != count) return damaged();
    return TensorData::copy_of(type, shape, c.data + begin, end - begin);
  } catch (const json::exception&) {
    return damaged();
  }
}

struct StoredQuantizer {
  Site site;
  QuantSpec spec;
  std::int64_t outer = 1, dim = 1, inner = 1, group = 1, lo = 0, hi = 0;
  std::string share;
  double integer_scale = 0;  // of what a truncation shortens, exactly its float32; 0: this is no truncation
  int integer_bits = 0;
};
template <class V>
void visit_fields(V& v, StoredQuantizer& q) {
  v("site", q.site);
  v("spec", q.spec);
  v("outer", q.outer);
  v("dim", q.dim);
  v("inner", q.inner);
  v("group", q.group);
  v("lo", q.lo);
  v("hi", q.hi);
  v("share", q.share);
  v("integer_scale", q.integer_scale);
  v("integer_bits", q.integer_bits);
}

// The vectors of a quantizer and their names in a file; empty ones are not stored.
struct Vector {
  const char* name;
  std::vector<float> quant::QuantParams::* values;
};
constexpr Vector kVectors[] = {{"scale", &quant::QuantParams::scale},
                               {"zero_point", &quant::QuantParams::zero_point},
                               {"code_scale", &quant::QuantParams::code_scale},
                               {"center", &quant::QuantParams::center},
                               {"rounding", &quant::QuantParams::rounding},
                               {"super_scale", &quant::QuantParams::super_scale},
                               {"super_offset", &quant::QuantParams::super_offset}};

// What the kernels rely on, so that a damaged file is an error and not a wrong network or a crash.
bool is_usable(const quant::QuantParams& q) {
  constexpr std::int64_t kMostCodes = std::int64_t{1} << 32, kMost = std::int64_t{1} << 48;
  const quant::BlockLayout& l = q.layout;
  std::int64_t most = kMost;  // of the sizes that are to come; sizes of 0 do not let others be larger
  for (const std::int64_t n : {l.outer, l.dim, l.inner}) {
    if (n < 0 || n > most) return false;
    most /= std::max<std::int64_t>(n, 1);
  }
  const std::int64_t elements = l.elements();
  if (l.group < 1 || l.group > kMost || !check(q.spec).empty()) return false;
  if (q.lo > q.hi || q.lo < -kMostCodes || q.hi > kMostCodes) return false;
  for (const Vector& v : kVectors)
    if (!std::all_of((q.*v.values).begin(), (q.*v.values).end(), [](float x) { return std::isfinite(x); })) return false;
  if (quant::is_dynamic(q))  // nothing but the declaration
    return std::all_of(std::begin(kVectors), std::end(kVectors), [&](const Vector& v) { return (q.*v.values).empty(); });
  const auto n = static_cast<std::size_t>(l.parameters());
  if (q.scale.size() != n) return false;
  if (q.truncated.has_value() != (q.spec.truncation != Truncation::kNone)) return false;
  if (q.truncated && (!(q.truncated->scale > 0) || !std::isfinite(q.truncated->scale) || q.truncated->bits < 1 ||
                      q.truncated->bits > 32 || n != 1))
    return false;
  if (q.zero_point.size() != (q.spec.zero_point == ZeroPointType::kNone ? 0 : n)) return false;
  const auto none_or = [](const std::vector<float>& v, std::size_t count) { return v.empty() || v.size() == count; };
  const bool decoupled = q.spec.decoupled != Decoupling::kNone;
  if (decoupled && (q.code_scale.empty() || (q.spec.zero_centered && q.center.empty()))) return false;
  if (!none_or(q.code_scale, n) || !none_or(q.center, n) || !none_or(q.rounding, static_cast<std::size_t>(elements))) return false;
  // There is a float16 for several scales, so never more than there are scales.
  if (q.super_scale.size() > n || q.super_offset.size() > n) return false;
  const auto good_scale = [&](float s) { return q.spec.statistic == Statistic::kSignedMax ? s != 0 : s > 0; };
  const auto good_zero = [&](float z) {
    return q.spec.zero_point != ZeroPointType::kInteger ||
           (z == std::nearbyint(z) && z >= static_cast<float>(q.lo) && z <= static_cast<float>(q.hi));
  };
  return std::all_of(q.scale.begin(), q.scale.end(), good_scale) &&
         std::all_of(q.code_scale.begin(), q.code_scale.end(), [](float s) { return s != 0; }) &&
         std::all_of(q.zero_point.begin(), q.zero_point.end(), good_zero);
}

std::string metadata(const Container& c, const char* key) {
  const auto all = c.header.find("__metadata__");
  if (all == c.header.end() || !all->is_object()) return {};
  const auto text = all->find(key);
  return text != all->end() && text->is_string() ? text->get<std::string>() : std::string();
}

bool is_node(const Graph& graph, NodeId id) { return graph.position(id) < graph.nodes().size(); }

// Of sites that exist, in formats that do.
bool is_usable(const Plan& plan, const Graph& graph) {
  return std::all_of(plan.sites.begin(), plan.sites.end(), [&](const SitePlan& s) {
    return is_node(graph, s.site.node) && (!s.spec || check(*s.spec).empty());
  });
}

std::string site_key(const Site& s) {
  return std::to_string(s.node) + "/" + enum_text(s.kind) + "/" + std::to_string(s.operand);
}
std::string vector_key(const Vector& v, const Site& s) { return std::string(v.name) + '/' + site_key(s); }

}  // namespace

std::string pack_artifact(const QuantizedModel& network, const Model& base, const std::string& base_hash) {
  std::vector<Entry> entries;
  for (const auto& [name, tensor] : network.model->weights->all()) {
    const TensorData* before = base.weights->find(name);
    const bool same = before && before->bytes == tensor.bytes && before->shape == tensor.shape &&
                      before->type == tensor.type &&
                      (before->data == tensor.data || std::memcmp(before->data, tensor.data, tensor.bytes) == 0);
    if (!same && safetensors_type(tensor.type))
      entries.push_back({"weight/" + name, safetensors_type(tensor.type), tensor.shape, tensor.data, tensor.bytes});
  }
  std::vector<StoredQuantizer> stored;
  for (const auto& [site, q] : network.quantizers) {
    stored.push_back({site, q.spec, q.layout.outer, q.layout.dim, q.layout.inner, q.layout.group, q.lo, q.hi,
                      q.share, q.truncated ? static_cast<double>(q.truncated->scale) : 0.0,
                      q.truncated ? q.truncated->bits : 0});
    for (const Vector& v : kVectors) {
      const std::vector<float>& values = q.*v.values;
      if (!values.empty())
        entries.push_back({vector_key(v, site), "F32", {static_cast<std::int64_t>(values.size())}, values.data(),
                           values.size() * 4});
    }
  }
  return write_container(entries, {{"format", "quanvas-network-1"},
                                   {"base", base_hash},
                                   {"plan", to_json_text(network.plan)},
                                   {"graph", network.model->graph->hash() == base.graph->hash()
                                                 ? ""
                                                 : graph_to_json(*network.model->graph).dump()},
                                   {"quantizers", to_json_text(stored)}});
}

Result<QuantizedModel> unpack_artifact(const std::string& bytes, const ModelPtr& base, const std::string& base_hash) {
  QUANVAS_TRY(const Container c, read_container(bytes));
  const auto text_of = [&](const char* key) { return metadata(c, key); };
  if (text_of("format") != "quanvas-network-1") return damaged();
  if (const std::string made_from = text_of("base"); !made_from.empty() && !base_hash.empty() && made_from != base_hash)
    return fail(ErrorCode::kInvalidArgument, "This run was made from a network that its passes changed in another way than now: the calibration data has changed, or what they "
                "measured is no longer in the project.", "Run its recipe again, or declare the data that it was made with.");
  QuantizedModel out;
  QUANVAS_TRY(out.plan, from_json_text<Plan>(text_of("plan"), "plan"));
  GraphPtr graph = base->graph;
  if (const std::string text = text_of("graph"); !text.empty()) {
    QUANVAS_TRY(const json j, parse_json(text, "graph"));
    QUANVAS_TRY(graph, graph_from_json(j));
  }
  if (!is_usable(out.plan, *graph)) return damaged();
  auto weights = std::make_shared<WeightStore>(*base->weights);
  std::map<std::string, TensorData> parameters;
  for (const auto& [name, entry] : c.header.items()) {
    if (name == "__metadata__") continue;
    QUANVAS_TRY(TensorData tensor, read_tensor(c, entry));
    if (name.rfind("weight/", 0) == 0)
      weights->set(name.substr(7), std::move(tensor));
    else
      parameters[name] = std::move(tensor);
  }
  QUANVAS_TRY(const auto stored, from_json_text<std::vector<StoredQuantizer>>(text_of("quantizers"), "quantizers"));
  for (const auto& s : stored) {
    quant::QuantParams q;
    q.spec = s.spec;
    q.layout = {s.spec.granularity, s.outer, s.dim, s.inner, s.group};
    if (s.spec.granularity == Granularity::kRow) q.layout.granularity = Granularity::kGroup;  // as make_layout() has it
    q.lo = s.lo;
    q.hi = s.hi;
    q.share = s.share;
    if (s.integer_bits != 0)
      q.truncated = quant::TruncationInput{static_cast<float>(s.integer_scale), s.integer_bits};
    for (const Vector& v : kVectors)
      if (const auto found = parameters.find(vector_key(v, s.site)); found != parameters.end())
        q.*v.values = found->second.to_floats();
    if (!is_usable(q) || !is_node(*graph, s.site.node)) return damaged();
    out.quantizers[s.site] = std::move(q);
  }
  out.model = std::make_shared<const Model>(Model{graph, weights, base->source});
  return out;
}

// Statistics: metadata plus one U8 tensor per activation.
std::string pack_statistics(const quant::Statistics& statistics) {
  std::vector<std::string> blobs;
  std::vector<Entry> entries;
  blobs.reserve(statistics.tensors.size());
  for (const auto& [name, s] : statistics.tensors) {
    blobs.push_back(s.serialize());
    entries.push_back({"statistics/" + name, "U8", {static_cast<std::int64_t>(blobs.back().size())}, blobs.back().data(),
                       blobs.back().size()});
  }
  return write_container(entries, {{"format", "quanvas-statistics-1"},
                                   {"key", statistics.key},
                                   {"samples", std::to_string(static_cast<long long>(statistics.samples))}});
}

Result<quant::Statistics> unpack_statistics(const std::string& bytes) {
  QUANVAS_TRY(const Container c, read_container(bytes));
  if (metadata(c, "format") != "quanvas-statistics-1" || metadata(c, "key").empty() || metadata(c, "samples").empty())
    return damaged();
  quant::Statistics out;
  out.key = metadata(c, "key");
  out.samples = std::atof(metadata(c, "samples").c_str());
  for (const auto& [name, entry] : c.header.items()) {
    if (name == "__metadata__") continue;
    if (name.rfind("statistics/", 0) != 0) return damaged();
    QUANVAS_TRY(const TensorData tensor, read_tensor(c, entry));
    QUANVAS_TRY(auto s, quant::TensorStatistics::deserialize(
                            std::string(reinterpret_cast<const char*>(tensor.data), tensor.bytes)));
    out.tensors.emplace(name.substr(11), std::move(s));
  }
  return out;
}

}  // namespace quanvas
