// Quanvas - artifacts: what a run changed, in the safetensors container (8-byte little-endian length, JSON
// header, data), so that other tools can look at it too. Tensors "weight/<name>" are the changed weights,
// "scale/<site>" and "zero_point/<site>" the quantizers; "__metadata__" holds plan and quantizers as JSON.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/workflow/state.h"

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
  c.header = json::parse(bytes.begin() + 8, bytes.begin() + 8 + static_cast<std::ptrdiff_t>(length), nullptr, false);
  if (!c.header.is_object()) return damaged();
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
    if (static_cast<std::size_t>(element_count(shape)) * element_size(type) != end - begin) return damaged();
    return TensorData::copy_of(type, shape, c.data + begin, end - begin);
  } catch (const json::exception&) {
    return damaged();
  }
}

struct StoredQuantizer {
  Site site;
  QuantSpec spec;
  std::int64_t outer = 1, dim = 1, inner = 1, group = 1, lo = 0, hi = 0;
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
}

// What the kernels rely on, so that a damaged file is an error and not a wrong network or a crash.
bool is_usable(const quant::QuantParams& q) {
  constexpr std::int64_t kMostCodes = std::int64_t{1} << 32, kMost = std::int64_t{1} << 48;
  const quant::BlockLayout& l = q.layout;
  for (const std::int64_t n : {l.outer, l.dim, l.inner})
    if (n < 0 || n > kMost) return false;
  const auto elements = static_cast<__int128>(l.outer) * l.dim * l.inner;
  if (l.group < 1 || l.group > kMost || elements > kMost || q.spec.bits < 1 || q.spec.bits > 32) return false;
  if (q.lo > q.hi || q.lo < -kMostCodes || q.hi > kMostCodes) return false;
  const auto n = static_cast<std::size_t>(l.parameters());
  if (q.scale.size() != n) return false;
  if (q.zero_point.size() != (q.spec.zero_point == ZeroPointType::kNone ? 0 : n)) return false;
  const auto good_scale = [](float s) { return std::isfinite(s) && s > 0; };
  const auto good_zero = [&](float z) {
    return z == std::nearbyint(z) && z >= static_cast<float>(q.lo) && z <= static_cast<float>(q.hi);
  };
  return std::all_of(q.scale.begin(), q.scale.end(), good_scale) &&
         std::all_of(q.zero_point.begin(), q.zero_point.end(), good_zero);
}

std::string site_key(const Site& s) {
  return std::to_string(s.node) + "/" + enum_text(s.kind) + "/" + std::to_string(s.operand);
}

}  // namespace

std::string pack_artifact(const QuantizedModel& network, const Model& base) {
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
    stored.push_back({site, q.spec, q.layout.outer, q.layout.dim, q.layout.inner, q.layout.group, q.lo, q.hi});
    const auto n = static_cast<std::int64_t>(q.scale.size());
    entries.push_back({"scale/" + site_key(site), "F32", {n}, q.scale.data(), q.scale.size() * 4});
    if (!q.zero_point.empty())
      entries.push_back({"zero_point/" + site_key(site), "F32", {n}, q.zero_point.data(), q.zero_point.size() * 4});
  }
  return write_container(entries, {{"format", "quanvas-network-1"},
                                   {"plan", to_json_text(network.plan)},
                                   {"graph", network.model->graph->hash() == base.graph->hash()
                                                 ? ""
                                                 : graph_to_json(*network.model->graph).dump()},
                                   {"quantizers", to_json_text(stored)}});
}

Result<QuantizedModel> unpack_artifact(const std::string& bytes, const ModelPtr& base) {
  QUANVAS_TRY(const Container c, read_container(bytes));
  if (!c.header.contains("__metadata__")) return damaged();
  const json& meta = c.header["__metadata__"];
  const auto text_of = [&](const char* key) {
    return meta.is_object() && meta.contains(key) && meta[key].is_string() ? meta[key].get<std::string>() : std::string();
  };
  if (text_of("format") != "quanvas-network-1") return damaged();
  QuantizedModel out;
  QUANVAS_TRY(out.plan, from_json_text<Plan>(text_of("plan"), "plan"));
  GraphPtr graph = base->graph;
  if (const std::string text = text_of("graph"); !text.empty()) {
    QUANVAS_TRY(const json j, parse_json(text, "graph"));
    QUANVAS_TRY(graph, graph_from_json(j));
  }
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
    q.lo = s.lo;
    q.hi = s.hi;
    const auto scale = parameters.find("scale/" + site_key(s.site));
    if (scale == parameters.end()) return damaged();
    q.scale = scale->second.to_floats();
    if (const auto z = parameters.find("zero_point/" + site_key(s.site)); z != parameters.end())
      q.zero_point = z->second.to_floats();
    if (!is_usable(q)) return damaged();
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
  quant::Statistics out;
  for (const auto& [name, entry] : c.header.items()) {
    if (name == "__metadata__") {
      out.key = entry.value("key", "");
      out.samples = std::atof(entry.value("samples", "0").c_str());
      continue;
    }
    if (name.rfind("statistics/", 0) != 0) return damaged();
    QUANVAS_TRY(const TensorData tensor, read_tensor(c, entry));
    QUANVAS_TRY(auto s, quant::TensorStatistics::deserialize(
                            std::string(reinterpret_cast<const char*>(tensor.data), tensor.bytes)));
    out.tensors.emplace(name.substr(11), std::move(s));
  }
  return out;
}

}  // namespace quanvas
