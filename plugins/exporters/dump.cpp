#include "plugins/exporters/dump.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <set>

#include "core/quant/dynamic.h"
#include "core/quant/packing.h"

namespace quanvas::weight_file {
namespace {

template <class T>
std::string bytes_of(const std::vector<T>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

std::string requested_text(const PlacedQuantizer& q) {
  return q.params->spec.format != "int" || quant::is_dynamic(*q.params) ? describe(q.params->spec)
                                                                        : quantizer_text(*q.params);
}

const described::Quantizer* find_quantizer(const described::Network& network, const PlacedQuantizer& q) {
  for (const described::Quantizer& d : network.quantizers)
    if (d.node == q.node->name && d.kind == q.site.kind && d.operand == q.site.operand) return &d;
  return nullptr;
}
const described::Weight* find_weight(const described::Network& network, const std::string& tensor,
                                     const std::string& initializer) {
  for (const described::Weight& w : network.weights)
    if (w.form != "float" && w.tensor == tensor && w.initializer == initializer) return &w;
  return nullptr;
}

AuditRow activation_row(const described::Network& network, const PlacedQuantizer& q) {
  AuditRow row{q.node->name, q.name, requested_text(q), "nothing", 0, false};
  const described::Quantizer* d = find_quantizer(network, q);
  if (!d) return row;
  const quant::QuantParams& p = *q.params;
  row.written = describe(d->spec);
  row.bytes = static_cast<double>((d->scale.size() + d->zero_point.size()) * sizeof(float));
  const CodeRange range = code_range(d->spec);
  const bool same_range = p.spec.format != "int" || quant::is_dynamic(p) || (range.lo == p.lo && range.hi == p.hi);
  const std::vector<float> zero = p.spec.zero_point == ZeroPointType::kNone ? std::vector<float>() : p.zero_point;
  row.equal = same_range && d->spec == stored_spec(p, q.site.kind) &&
              (quant::is_dynamic(p) ? d->scale.empty() : same_bits(d->scale, p.scale) && same_numbers(d->zero_point, zero));
  return row;
}

}  // namespace

Field packing_field() {
  return choice_field("packing", "Codes", "How the codes of weights and biases lie in the file.", "none",
                      {{"none", "One element each", "int8, uint8, int16 or int32, the narrowest that holds them."},
                       {"dense", "Without gaps", "As many bits as the format has, the lowest first, in bytes."}});
}
bool is_dense(const json& options) {
  return options.value("packing", std::string("none")) == "dense";
}

TargetTable dump_table() {
  TargetTable t;
  TargetRow constant;
  constant.form = "codes, scales and zero points as tensors";
  constant.sites = {SiteKind::kWeight, SiteKind::kBias};
  constant.formats.clear();
  constant.most_bits = 32;
  constant.narrow.reset();
  constant.zero_points.clear();
  constant.zero_point_inside.reset();
  constant.granularities.clear();
  constant.roundings.clear();
  TargetRow activation = constant;
  activation.form = "the quantizer in the description";
  activation.sites = {SiteKind::kInput, SiteKind::kOutput, SiteKind::kInternal};
  activation.dynamic.reset();
  t.rows = {constant, activation};
  t.negative_scales = true;
  t.exactness = Exactness::kWeights;
  t.notes = {"Unsigned codes of 32 bits have no type there, sums that are truncated no form."};
  return t;
}

std::vector<Refusal> check_dump(const QuantizedModel& model) {
  constexpr int kZeroPointBits = 31;
  std::vector<Refusal> out = check_quantizers(model, dump_table(), kZeroPointBits);
  for (const PlacedQuantizer& q : place(model).quantizers) {
    if (is_activation(q.site.kind)) continue;
    if (q.params->spec.format == "int" && q.params->hi > std::numeric_limits<std::int32_t>::max())
      out.push_back({q.node->name,
                     q.name,
                     "bit width",
                     "32 bit unsigned",
                     "codes that an int32 holds",
                     "Use 31 bits, or signed codes.",
                     q.site,
                     {},
                     true});
    if (q.params->spec.rounding == Rounding::kLearned && q.params->spec.soft_rounding)
      out.push_back({q.node->name, q.name, "rounding", "soft", "codes", "Set soft_rounding to false.", q.site, {}, true});
  }
  for (const auto& [name, data] : model.model->weights->all())
    if (model.model->graph->tensor(name) != kNoTensor && element_size(data.type) == 0)
      out.push_back({name,
                     {},
                     "element type",
                     type_name(data.type),
                     "numbers of whole bytes",
                     "Convert the model's constants to float32.",
                     {},
                     {},
                     false});
  return out;
}

DataType code_type(const quant::QuantParams& p) {
  if (p.spec.format == "ternary" || p.spec.format == "binary") return DataType::kInt8;
  if (p.spec.format == "float") return code_bits(p.spec) <= 8 ? DataType::kUint8 : DataType::kInt32;
  if (p.spec.format != "int") return DataType::kUint8;
  const CodeRange r = code_range(p.spec);
  if (r.lo >= -128 && r.hi <= 127) return DataType::kInt8;
  if (r.lo >= 0 && r.hi <= 255) return DataType::kUint8;
  return r.lo >= -32768 && r.hi <= 32767 ? DataType::kInt16 : DataType::kInt32;
}

std::string code_bytes(DataType type, const std::vector<std::int32_t>& codes) {
  switch (type) {
    case DataType::kInt8: return bytes_of(std::vector<std::int8_t>(codes.begin(), codes.end()));
    case DataType::kUint8: return bytes_of(std::vector<std::uint8_t>(codes.begin(), codes.end()));
    case DataType::kInt16: return bytes_of(std::vector<std::int16_t>(codes.begin(), codes.end()));
    default: return bytes_of(codes);
  }
}

std::string dense_bytes(const quant::QuantParams& p, const std::vector<std::int32_t>& codes) {
  std::vector<std::int32_t> shown = codes;
  if (p.spec.format == "binary")
    for (std::int32_t& c : shown) c = (c + 1) / 2;
  const int bits = code_bits(p.spec);
  const auto n = static_cast<std::int64_t>(shown.size());
  std::string out(static_cast<std::size_t>(quant::packed_bytes(n, bits)), '\0');
  if (n > 0) quant::pack(shown.data(), n, bits, reinterpret_cast<std::uint8_t*>(out.data()));
  return out;
}

Result<Dump> make_dump(const QuantizedModel& model, bool dense, bool (*has_type)(DataType), JobContext& job) {
  const Contents contents = contents_of(model);
  const Graph& graph = *model.model->graph;
  Dump dump;
  std::set<std::string> taken;
  for (const TensorId id : contents.plain) taken.insert(graph.tensor(id).name);
  std::map<std::string, std::string> names;  // of coded tensors
  std::size_t done = 0;
  for (const Coded& c : contents.coded) {
    QUANVAS_CHECK(job.check());
    std::string name = c.name;
    while (taken.count(name + ".codes") || taken.count(name + ".scale") || taken.count(name + ".zero_point")) name += "_";
    for (const char* part : {".codes", ".scale", ".zero_point"}) taken.insert(name + part);
    names[c.name] = name;
    QUANVAS_TRY(const StoredTensor stored, stored_tensor(model, c.sites.front()));
    const quant::QuantParams& p = c.params();
    described::Weight w;
    w.initializer = c.initializer;
    w.tensor = name;
    w.form = dense ? "dense" : "codes";
    w.shape = stored.shape;
    w.bits = code_bits(p.spec);
    QuantSpec spec = stored_spec(p, SiteKind::kWeight);
    w.spec = spec;
    w.zero_points = spec.zero_point != ZeroPointType::kNone;
    if (dense) {
      std::string bytes = dense_bytes(p, stored.codes);
      const auto size = static_cast<std::int64_t>(bytes.size());
      dump.tensors.push_back({name + ".codes", DataType::kUint8, {size}, std::move(bytes)});
    } else {
      dump.tensors.push_back({name + ".codes", code_type(p), stored.shape, code_bytes(code_type(p), stored.codes)});
    }
    const auto parameters = static_cast<std::int64_t>(p.scale.size());
    dump.tensors.push_back({name + ".scale", DataType::kFloat, {parameters}, bytes_of(p.scale)});
    if (spec.zero_point == ZeroPointType::kInteger) {
      std::vector<std::int32_t> zeros;
      for (const std::int64_t z : zero_points(p)) zeros.push_back(static_cast<std::int32_t>(z));
      dump.tensors.push_back({name + ".zero_point", DataType::kInt32, {parameters}, bytes_of(zeros)});
    } else if (spec.zero_point != ZeroPointType::kNone) {
      dump.tensors.push_back({name + ".zero_point", DataType::kFloat, {parameters}, bytes_of(p.zero_point)});
    }
    dump.network.weights.push_back(std::move(w));
    job.progress("export", static_cast<double>(++done) / static_cast<double>(contents.coded.size()), c.name);
  }
  for (const TensorId id : contents.plain) {
    const TensorData& data = *model.model->weights->find(graph.tensor(id).name);
    std::string bytes(reinterpret_cast<const char*>(data.data), data.bytes);
    const bool named = has_type(data.type);
    const auto size = static_cast<std::int64_t>(bytes.size());
    dump.tensors.push_back(
        {graph.tensor(id).name, named ? data.type : DataType::kUint8, named ? data.shape : Shape{size}, std::move(bytes)});
    described::Weight w;
    w.initializer = w.tensor = graph.tensor(id).name;
    w.shape = data.shape;
    w.type = static_cast<int>(data.type);
    dump.network.weights.push_back(std::move(w));
  }
  describe_sites(model, contents, dump.network, [&](const Coded& c, const PlacedQuantizer&) { return names[c.name]; });
  return dump;
}

AuditRow coded_row(const QuantizedModel& model, const PlacedQuantizer& q, const Result<described::Held>& held) {
  AuditRow row{q.node->name, q.name, requested_text(q), "nothing", 0, false};
  if (!held) {
    row.written = held.error().message;
    return row;
  }
  const quant::QuantParams& p = *q.params;
  row.bytes = held->bytes;
  row.written = std::to_string(held->codes.size()) + " codes, " + std::to_string(held->scale.size()) + " scales" +
                (held->zero_point.empty() ? "" : ", " + std::to_string(held->zero_point.size()) + " zero points");
  const auto stored = stored_tensor(model, q);
  if (!stored) return row;
  const bool none = p.spec.zero_point == ZeroPointType::kNone;
  const bool zeros = none ? held->zero_point.empty() : same_numbers(held->zero_point, p.zero_point);
  row.equal = held->shape == stored->shape && held->codes == stored->codes && same_bits(held->scale, p.scale) && zeros &&
              same_numbers(held->values, stored->values);
  if (!row.equal) row.written += held->codes != stored->codes ? ", other codes" : ", other parameters";
  return row;
}

Result<std::vector<AuditRow>> audit_dump(const QuantizedModel& model, const described::Source& source,
                                         const described::Network& network) {
  std::vector<AuditRow> rows;
  for (const PlacedQuantizer& q : place(model).quantizers) {
    if (is_activation(q.site.kind)) {
      rows.push_back(activation_row(network, q));
      continue;
    }
    const described::Quantizer* d = find_quantizer(network, q);
    const described::Weight* w = d ? find_weight(network, d->tensor, model.model->graph->tensor(q.tensor).name) : nullptr;
    if (!w) {
      rows.push_back({q.node->name, q.name, requested_text(q), "nothing", 0, false});
      continue;
    }
    AuditRow row = coded_row(model, q, described::decode(source, *w));
    const bool same_spec = d->spec == stored_spec(*q.params, q.site.kind) &&
                           w->spec == std::optional(stored_spec(*q.params, SiteKind::kWeight));
    if (!same_spec) row.equal = false, row.written += ", described as " + describe(d->spec);
    rows.push_back(std::move(row));
  }
  const Placement placement = place(model);
  for (const described::Quantizer& d : network.quantizers)
    if (std::none_of(placement.quantizers.begin(), placement.quantizers.end(), [&](const PlacedQuantizer& q) {
          return q.node->name == d.node && q.site.kind == d.kind && q.site.operand == d.operand;
        }))
      rows.push_back({d.node, enum_text(d.kind), "float", describe(d.spec), 0, false});
  for (const TensorId id : contents_of(model).plain) {
    const std::string& name = model.model->graph->tensor(id).name;
    const TensorData& wanted = *model.model->weights->find(name);
    const auto data = source(name);
    if (data && data->bytes == wanted.bytes && (wanted.bytes == 0 || std::memcmp(data->data, wanted.data, wanted.bytes) == 0))
      continue;
    rows.push_back(
        {name, "values", "float", data ? "other values" : "nothing", data ? static_cast<double>(data->bytes) : 0, false});
  }
  return rows;
}

Result<ReadBack> read_dump(const QuantizedModel& model, const described::Source& source,
                           const described::Network& network) {
  const Contents contents = contents_of(model);
  FileValues values;
  for (const Coded& c : contents.coded) {
    const described::Quantizer* d = find_quantizer(network, c.sites.front());
    const described::Weight* w = d ? find_weight(network, d->tensor, c.initializer) : nullptr;
    if (!w) return fail(ErrorCode::kCorrupt, "The file does not describe '" + c.name + "'.", "Export it again.");
    QUANVAS_TRY(described::Held held, described::decode(source, *w));
    values.coded[c.name] = std::move(held.values);
  }
  for (const TensorId id : contents.plain) {
    const std::string& name = model.model->graph->tensor(id).name;
    if (model.model->weights->find(name)->type != DataType::kFloat) continue;
    QUANVAS_TRY(const TensorData data, source(name));
    values.plain[name] = data.to_floats();
  }
  std::map<Site, quant::QuantParams> quantizers;
  for (const PlacedQuantizer& q : place(model).quantizers) {
    if (!is_activation(q.site.kind)) continue;
    const described::Quantizer* d = find_quantizer(network, q);
    if (!d)
      return fail(ErrorCode::kCorrupt, "The file does not describe the " + q.name + " of '" + q.node->name + "'.",
                  "Export it again.");
    quant::QuantParams own = *q.params;
    if (!quant::is_dynamic(own)) {
      if (d->scale.size() != own.scale.size() || d->zero_point.size() > own.scale.size())
        return fail(ErrorCode::kCorrupt,
                    "The file has another number of scales for the " + q.name + " of '" + q.node->name + "'.",
                    "Export it again.");
      own.scale = d->scale;
      if (!own.zero_point.empty() && d->zero_point.size() == own.zero_point.size()) own.zero_point = d->zero_point;
    }
    quantizers[q.site] = std::move(own);
  }
  QUANVAS_TRY(ReadBack back, read_back(model, contents, values, std::move(quantizers)));
  back.notes.push_back("The file holds numbers; the graph is the screen's.");
  return back;
}

}  // namespace quanvas::weight_file
