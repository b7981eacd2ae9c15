#include "plugins/exporters/qonnx_check.h"

#include <algorithm>
#include <cmath>
#include <sstream>

#include "plugins/exporters/onnx_qdq_check.h"

namespace quanvas::onnx_file {
namespace {

const std::vector<std::string> kMinifloats = {"e4m3fn", "e5m2", "e4m3fnuz", "e5m2fnuz", "e2m1", "e2m3", "e3m2"};
constexpr int kWidestActivation = 24;  // whole numbers that float32 holds

TargetRow row(const char* form, std::vector<SiteKind> sites, std::vector<std::string> formats) {
  TargetRow out;
  out.form = form;
  out.sites = std::move(sites);
  out.formats = std::move(formats);
  out.narrow.reset();
  out.granularities = {Granularity::kTensor, Granularity::kChannel};
  return out;
}

// The float32 that QONNX computes for a value of the quantizer's own grid.
float again(const quant::QuantParams& p, float scale, float zero, float value) {
  if (p.spec.format == "binary") return value >= 0 ? scale : -scale;
  const bool ternary = p.spec.format == "ternary";
  const float lo = ternary ? -1.0f : static_cast<float>(p.lo), hi = ternary ? 1.0f : static_cast<float>(p.hi);
  const float v = value / scale + zero;
  return (std::nearbyintf(std::clamp(v, lo, hi)) - zero) * scale;
}

Refusal refusal(const PlacedQuantizer& q, const char* rule, std::string got, std::string allowed, std::string suggestion) {
  return {q.node->name, q.name, rule, std::move(got), std::move(allowed), std::move(suggestion), q.site, {}, true};
}

// Index of the first value that comes back as another one; -1: none.
std::int64_t first_lost(const quant::QuantParams& p, const StoredTensor& stored) {
  const quant::BlockLayout& l = p.layout;
  const std::int64_t groups =
      l.granularity == Granularity::kGroup ? (l.dim + l.group - 1) / std::max<std::int64_t>(l.group, 1) : 1;
  for (std::size_t i = 0; i < stored.values.size(); ++i) {
    const auto e = static_cast<std::int64_t>(i);
    const std::int64_t o = e / (l.dim * l.inner), d = e / l.inner % l.dim, in = e % l.inner;
    const std::int64_t k = l.granularity == Granularity::kTensor    ? 0
                           : l.granularity == Granularity::kChannel ? d
                                                                    : (o * groups + d / l.group) * l.inner + in;
    const auto at = static_cast<std::size_t>(k);
    if (at >= p.scale.size()) return e;
    const float zero = at < p.zero_point.size() ? p.zero_point[at] : 0.0f;
    if (again(p, p.scale[at], zero, stored.values[i]) != stored.values[i]) return e;
  }
  return -1;
}

}  // namespace

QonnxOptions qonnx_options(const json& options) {
  QonnxOptions out;
  const auto is = [&](const char* key, const char* value) { return options.contains(key) && options[key] == value; };
  if (is("trunc", "1")) out.dialect.version = 1;
  if (is("domain", "onnx.brevitas")) out.dialect = {"onnx.brevitas", 1};
  out.groups = is("groups", "reshape");
  return out;
}

TargetTable qonnx_table(const QonnxOptions& options) {
  using Z = ZeroPointType;
  TargetTable table;
  TargetRow weight = row("float values + Quant", {SiteKind::kWeight}, {"int", "ternary"});
  weight.least_bits = 2;
  weight.is_signed = true;
  weight.zero_points = {Z::kNone, Z::kInteger, Z::kFloat};
  weight.zero_point_inside.reset();
  weight.roundings.clear();
  if (options.groups) weight.granularities.push_back(Granularity::kGroup);
  weight.why =
      "The values are on the quantizer's grid already, so any rounding leaves them. One signed bit would be a sign in QONNX.";
  TargetRow plain = weight;
  plain.form = "float values + Quant, unsigned";
  plain.formats = {"int"};
  plain.least_bits = 1;
  plain.is_signed = false;
  plain.why.clear();
  TargetRow sign = weight;
  sign.form = "float values + BipolarQuant";
  sign.formats = {"binary"};
  sign.is_signed.reset();
  sign.why.clear();
  TargetRow minifloat = weight;
  minifloat.form = "float values + FloatQuant";
  minifloat.formats = kMinifloats;
  minifloat.is_signed.reset();
  minifloat.zero_points = {Z::kNone};
  minifloat.why = "FloatQuant always has a sign and subnormal numbers.";
  TargetRow bias = row("float values + Quant of a bias", {SiteKind::kBias}, {"int"});
  bias.is_signed = true;
  bias.least_bits = 2;
  bias.roundings.clear();
  TargetRow act = row("Quant", {SiteKind::kInput, SiteKind::kOutput}, {"int"});
  act.least_bits = 2;
  act.most_bits = kWidestActivation;
  act.is_signed = true;
  act.zero_points = {Z::kNone, Z::kInteger, Z::kFloat};
  act.zero_point_inside = true;
  act.roundings = {Rounding::kHalfEven, Rounding::kHalfAway, Rounding::kCeil, Rounding::kFloor, Rounding::kTowardZero};
  act.decoupled = false;
  act.why = "QONNX adds the zero point before the rounding; it has no mode that rounds ties upward or as the DPU does.";
  TargetRow act_unsigned = act;
  act_unsigned.form = "Quant, unsigned";
  act_unsigned.least_bits = 1;
  act_unsigned.is_signed = false;
  act_unsigned.why.clear();
  TargetRow act_sign = act;
  act_sign.form = "BipolarQuant";
  act_sign.formats = {"binary"};
  act_sign.is_signed.reset();
  act_sign.zero_points = {Z::kNone};
  act_sign.why.clear();
  TargetRow act_float = act_sign;
  act_float.form = "FloatQuant";
  act_float.formats = kMinifloats;
  act_float.roundings = {Rounding::kHalfEven};
  TargetRow trunc = act;
  trunc.form = "Trunc";
  trunc.sites = {SiteKind::kOutput};
  trunc.ops = {"AveragePool", "GlobalAveragePool", "ReduceMean"};
  trunc.least_bits = 1;
  trunc.is_signed.reset();
  trunc.zero_points = {Z::kNone};
  trunc.granularities = {Granularity::kTensor};
  trunc.truncation = true;
  trunc.why.clear();
  if (options.dialect.version < 2) {
    trunc.narrow = false;
    trunc.roundings = {Rounding::kFloor, Rounding::kTowardZero};
    trunc.why = "Version 1 does not keep its result within the codes, which rounding upward may leave.";
  }
  table.rows = {weight, plain, sign, minifloat, bias, trunc, act, act_unsigned, act_sign, act_float};
  table.notes = {"Every tensor of a quantizer is float32, its zero point and its width, too.",
                 "The zero point is added before the rounding, as Brevitas does and ONNX does not.",
                 "Rounding half away from zero is computed in float32 there: the number just below a half becomes 1."};
  return table;
}

std::vector<Refusal> check_codes(const QuantizedModel& model) {
  std::vector<Refusal> out;
  for (const PlacedQuantizer& q : place(model).quantizers) {
    const quant::QuantParams& p = *q.params;
    const bool has_codes = p.spec.format == "int";
    if (const CodeRange all = code_range(p.spec); has_codes && (p.lo != all.lo || p.hi != all.hi)) {
      out.push_back(refusal(q, "range of codes", std::to_string(p.lo) + " to " + std::to_string(p.hi),
                            std::to_string(all.lo) + " to " + std::to_string(all.hi),
                            "Choose a format that has these codes."));
      continue;
    }
    if (is_activation(q.site.kind) || p.spec.format == "float" || p.scale.empty() ||
        p.layout.granularity == Granularity::kRow)
      continue;
    const auto stored = stored_tensor(model, q);
    if (!stored) {
      out.push_back(refusal(q, "initializer", stored.error().message, "a weight with data", "Run the recipe again."));
    } else if (const std::int64_t at = first_lost(p, *stored); at >= 0) {
      std::ostringstream value;
      value << "the value " << stored->values[static_cast<std::size_t>(at)] << " at element " << at;
      out.push_back(refusal(q, "float32 codes", value.str(),
                            "values that float32 quantizes to themselves: whole numbers of about 22 bits times the scale",
                            "Use fewer bits or a larger scale, or leave it float."));
    }
  }
  return out;
}

std::vector<Refusal> check_trunc_nodes(const Graph& graph, int version) {
  std::vector<Refusal> out;
  for (const Node& n : graph.nodes()) {
    if (n.domain.empty() || n.op != "Trunc" || !n.opaque_reason.empty()) continue;
    const int has = n.inputs.size() > 5 ? 2 : 1;
    if (has != version)
      out.push_back({n.name,
                     {},
                     "operator",
                     "Trunc of version " + std::to_string(has),
                     "Trunc of version " + std::to_string(version),
                     "Choose the other version of Trunc.",
                     {},
                     {},
                     false});
  }
  return out;
}

std::vector<Refusal> check_qonnx(const QuantizedModel& model, const QonnxOptions& options) {
  const Graph& graph = *model.model->graph;
  std::vector<Refusal> out = check_graph(*model.model, std::max(graph.opset(), kQonnxOpset));
  const TargetTable table = qonnx_table(options);
  for (Refusal& r : check_quantizers(model, table, kWidestActivation)) out.push_back(std::move(r));
  if (!out.empty()) return out;
  for (Refusal& r : check_codes(model)) out.push_back(std::move(r));
  for (Refusal& r : check_trunc_nodes(graph, options.dialect.version)) out.push_back(std::move(r));
  for (const PlacedQuantizer& q : place(model).quantizers) {
    const quant::QuantParams& p = *q.params;
    if (p.spec.granularity == Granularity::kChannel && shape_of(model, q.tensor).empty())
      out.push_back(refusal(q, "axis of scales", "a tensor of unknown rank", "tensors whose rank is known",
                            "Use one scale for the tensor."));
    if (p.layout.granularity == Granularity::kGroup && p.layout.dim % p.layout.group != 0)
      out.push_back(refusal(q, "group size",
                            std::to_string(p.layout.group) + " of " + std::to_string(p.layout.dim) + " elements",
                            "groups that divide the axis", "Choose a group size that divides it."));
    if (!p.truncated || options.dialect.version >= 2) continue;
    const int bits = p.truncated->bits - p.spec.bits;
    if (p.scale[0] != std::ldexp(p.truncated->scale, bits))
      out.push_back(refusal(q, "truncation", "another number of bits than " + std::to_string(bits) + " is cut off",
                            "sums that lose as many bits as they are wider (truncation msb)", "Write Trunc of version 2."));
  }
  return out;
}

}  // namespace quanvas::onnx_file
