#include "plugins/exporters/qonnx_audit.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <sstream>

#include "plugins/exporters/onnx_opset.h"

namespace quanvas::onnx_file {
namespace {

using onnx_scan::Index;

std::optional<float> one(const Index& file, const onnx::NodeProto& n, int i, QonnxNode& q) {
  const auto* t = file.initializer(onnx_scan::input(n, i));
  const auto values = onnx_scan::floats(t);
  if (!values || values->size() != 1 || t->dims_size() != 0) return std::nullopt;
  q.bytes += sizeof(float);
  return (*values)[0];
}

bool many(const Index& file, const onnx::NodeProto& n, int i, QonnxNode& q, std::vector<float>& into,
          Shape* shape = nullptr) {
  const auto* t = file.initializer(onnx_scan::input(n, i));
  auto values = onnx_scan::floats(t);
  if (!values || values->empty()) return false;
  q.bytes += static_cast<double>(values->size() * sizeof(float));
  into = std::move(*values);
  if (shape) *shape = onnx_scan::dims(*t);
  return true;
}

float rounded(const std::string& mode, float x) {
  if (mode == "ROUND") return std::nearbyintf(x);
  if (mode == "CEIL") return std::ceil(x);
  if (mode == "FLOOR") return std::floor(x);
  if (mode == "DOWN") return std::trunc(x);
  if (mode == "HALF_UP") return std::copysign(std::floor(std::fabs(x) + 0.5f), x);
  return NAN;
}
const char* mode_of(Rounding r) {
  switch (r) {
    case Rounding::kHalfEven:
      return "ROUND";
    case Rounding::kCeil:
      return "CEIL";
    case Rounding::kFloor:
      return "FLOOR";
    case Rounding::kTowardZero:
      return "DOWN";
    case Rounding::kHalfAway:
      return "HALF_UP";
    default:
      return "none";
  }
}

struct Codes {
  float lo, hi;
};
Codes codes_of(const QonnxNode& q) {
  const float half = std::exp2(q.bits - 1), lost = q.narrow ? 1.0f : 0.0f;
  return q.is_signed ? Codes{lost - half, half - 1} : Codes{0, 2 * half - 1 - lost};
}

float float_value(const QonnxNode& q, float x, float scale) {
  const float v = x / scale;
  const float magnitude = std::fabs(v) + 1.17549435e-38f;
  const float exponent = std::max(std::floor(std::log2(magnitude)) - q.mantissa_bits, 1 - q.exponent_bias - q.mantissa_bits);
  const float step = std::exp2(exponent);
  float y = step * rounded(q.rounding, v / step);
  if (!q.saturates && std::fabs(y) > q.largest) return q.has_inf ? std::copysign(INFINITY, y) : NAN;
  y = std::clamp(y, -q.largest, q.largest);
  return y * scale;
}

float trunc_value(const QonnxNode& q, float x) {
  const float whole = std::nearbyintf(x / q.sum_scale);
  if (q.keeps_scale) return rounded(q.rounding, whole / std::exp2(q.sum_bits - q.bits)) * q.sum_scale * q.cut;
  const Codes c = codes_of(q);
  const float by = std::exp2(std::nearbyintf(std::log2(q.scale[0] / q.sum_scale)));
  return rounded(q.rounding, std::clamp(whole / by, c.lo, c.hi)) * q.scale[0];
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

// Scales along the quantizer's axis, or one number.
bool right_shape(const quant::QuantParams& p, const QonnxNode& q, const Shape& x) {
  if (p.layout.granularity == Granularity::kGroup) {
    const auto axis = static_cast<std::size_t>(channel_axis(p, x.size()));
    if (axis >= x.size() || p.layout.group <= 0) return false;
    Shape want = x;
    want[axis] = x[axis] / p.layout.group;
    want.insert(want.begin() + static_cast<std::ptrdiff_t>(axis) + 1, 1);
    return q.scale_shape == want;
  }
  if (p.spec.granularity != Granularity::kChannel) return q.scale_shape.empty();
  if (x.empty()) return false;
  Shape want(x.size(), 1);
  want[static_cast<std::size_t>(channel_axis(p, x.size()))] = static_cast<std::int64_t>(p.scale.size());
  return q.scale_shape == want;
}

// Steps and ties of the quantizer's codes, in units of the scale, no more than a few thousand.
std::vector<double> probes(const quant::QuantParams& p) {
  std::vector<double> out;
  if (p.spec.format == "float") {
    for (int i = -600; i <= 600; ++i) out.push_back(std::ldexp(1.0 + (i % 16) / 16.0, i / 40) * (i < 0 ? -1 : 1));
    out.insert(out.end(), {0.0, 1e9, -1e9, 448.0, 449.0, 464.0, 465.0});
    return out;
  }
  if (p.spec.format != "int") return {-2, -1, -0.51, -0.25, 0, 0.25, 0.5, 0.51, 1, 2};
  const std::int64_t lo = p.lo - 3, hi = p.hi + 3, step = std::max<std::int64_t>(1, (hi - lo) / 600);
  for (std::int64_t c = lo; c <= hi; c += step)
    for (const double part : {0.0, 0.25, 0.5, 0.75}) out.push_back(static_cast<double>(c) + part);
  for (const std::int64_t c : {p.lo, p.hi, std::int64_t{0}})
    for (int i = -8; i <= 8; ++i) out.push_back(static_cast<double>(c) + i * 0.25);
  return out;
}

bool gives_the_same(const quant::QuantParams& p, const QonnxNode& q) {
  if (p.truncated) {
    const std::int64_t count = std::int64_t{1} << std::min(p.truncated->bits, 21), first = p.spec.is_signed ? -count / 2 : 0;
    const std::int64_t step = std::max<std::int64_t>(1, count / 100000);
    std::vector<float> x, y;
    for (std::int64_t i = 0; i < count; i += step) x.push_back(static_cast<float>(first + i) * p.truncated->scale);
    y.resize(x.size());
    quant::BlockLayout layout;
    layout.inner = static_cast<std::int64_t>(x.size());
    quant::fake_quantize(p, layout, x.data(), y.data());
    for (std::size_t i = 0; i < x.size(); ++i)
      if (trunc_value(q, x[i]) != y[i]) return false;
    return true;
  }
  const std::vector<double> units = probes(p);
  for (std::size_t k = 0; k < p.scale.size(); ++k) {
    quant::QuantParams alone = p;  // this scale for everything
    alone.spec.granularity = alone.layout.granularity = Granularity::kTensor;
    alone.scale = {p.scale[k]};
    if (!p.zero_point.empty()) alone.zero_point = {p.zero_point[k]};
    const double z = p.zero_point.empty() ? 0 : static_cast<double>(p.zero_point[k]);
    std::vector<float> x, y(units.size());
    for (const double u : units) x.push_back(static_cast<float>((u - z) * static_cast<double>(p.scale[k])));
    alone.layout = {};
    alone.layout.inner = static_cast<std::int64_t>(x.size());
    quant::fake_quantize(alone, alone.layout, x.data(), y.data());
    for (std::size_t i = 0; i < x.size(); ++i) {
      const float v = qonnx_value(q, k, x[i]);
      if (v != y[i] && !(std::isnan(v) && std::isnan(y[i]))) return false;
    }
  }
  return true;
}

struct Audit {
  const QuantizedModel& model;
  const Index& file;
  const std::string& domain;
  bool right_version;

  const onnx::NodeProto* node_of(const PlacedQuantizer& placed) const {
    const onnx::NodeProto* first = file.node(placed.reader->name);
    const bool is_last =
        placed.site.kind == SiteKind::kOutput || (placed.site.kind == SiteKind::kBias && placed.reader->op == "MatMul");
    const onnx::NodeProto* last = first && is_last ? file.node(placed.reader->name + kResult) : nullptr;
    return last ? last : first;
  }
  std::string tensor_of(const PlacedQuantizer& placed, const onnx::NodeProto& node) const {
    if (placed.site.kind == SiteKind::kOutput) return model.model->graph->tensor(placed.tensor).name;
    int i = placed.inputs.empty() ? -1 : static_cast<int>(placed.inputs.front());
    if (placed.site.kind == SiteKind::kBias && placed.reader->op == "MatMul" && node.op_type() == "Add") i = 1;
    return onnx_scan::input(node, i);
  }
  // What the quantizer reads must be what the model has there.
  bool right_source(const PlacedQuantizer& placed, const onnx::NodeProto& node, const std::string& tensor,
                    const QonnxNode& q) const {
    if (placed.site.kind == SiteKind::kOutput)
      return std::find(node.output().begin(), node.output().end(), q.source) != node.output().end();
    for (const std::size_t i : placed.inputs)
      if (onnx_scan::input(node, static_cast<int>(i)) != tensor) return false;
    const std::string& name = model.model->graph->tensor(placed.tensor).name;
    return q.source == name || tensor == name;
  }

  AuditRow row(const PlacedQuantizer& placed) const {
    AuditRow row{placed.node->name, placed.name, quantizer_text(*placed.params), "nothing", 0, false};
    const onnx::NodeProto* node = node_of(placed);
    if (node == nullptr) return row;
    const std::string tensor = tensor_of(placed, *node);
    const auto q = qonnx_node(file, tensor, domain);
    row.written = q ? qonnx_text(*q) : "float";
    if (!q) return row;
    row.bytes = q->bytes;
    const Shape shape = shape_of(model, placed.tensor);
    if (is_activation(placed.site.kind)) {
      row.equal =
          right_version && is_same_quantizer(*placed.params, *q, shape, false) && right_source(placed, *node, tensor, *q);
      return row;
    }
    const auto* stored = file.initializer(q->source);
    const auto values = onnx_scan::floats(stored);
    if (!values) return row;
    row.bytes += static_cast<double>(values->size() * sizeof(float));
    row.equal = right_version && is_same_quantizer(*placed.params, *q, shape, true) &&
                is_same_constant(model, placed, *q, *values, onnx_scan::dims(*stored));
    return row;
  }

  void unasked(const std::vector<PlacedQuantizer>& asked, std::vector<AuditRow>& rows) const {
    const Graph& graph = *model.model->graph;
    for (const Layer& layer : find_layers(graph)) {
      const Node* original = graph.find(layer.node);
      const onnx::NodeProto* node = file.node(original->name);
      for (std::size_t i = 0; node && i < original->inputs.size(); ++i) {
        const TensorId id = original->inputs[i];
        const std::string& tensor = onnx_scan::input(*node, static_cast<int>(i));
        const bool wanted = std::any_of(asked.begin(), asked.end(), [&](const PlacedQuantizer& q) {
          return q.node == original && std::find(q.inputs.begin(), q.inputs.end(), i) != q.inputs.end();
        });
        if (wanted || id == kNoTensor || tensor == graph.tensor(id).name) continue;
        if (const auto q = qonnx_node(file, tensor, domain))
          rows.push_back({original->name, "input " + std::to_string(i), "float", qonnx_text(*q), q->bytes, false});
      }
    }
  }
};

}  // namespace

std::optional<QonnxNode> qonnx_node(const Index& file, const std::string& tensor, const std::string& domain) {
  const onnx::NodeProto* n = file.producer(tensor);
  if (n && n->op_type() == "Reshape" && n->domain().empty()) n = file.producer(onnx_scan::input(*n, 0));
  QonnxNode q;
  if (n && n->op_type() == "Mul" && n->domain().empty()) {
    const auto cut = one(file, *n, 1, q);
    n = file.producer(onnx_scan::input(*n, 0));
    if (!cut || !n || n->op_type() != "Trunc") return std::nullopt;
    q.cut = *cut;
  }
  if (!n || n->domain() != domain || n->input_size() == 0) return std::nullopt;
  q.op = n->op_type();
  q.source = n->input(0);
  q.rounding = onnx_scan::text(*n, "rounding_mode");
  if (const auto* split = file.producer(q.source);
      split && split->op_type() == "Reshape" && file.initializer(onnx_scan::input(*split, 0)))
    q.source = split->input(0);
  const auto take = [&](int i, float& into) {
    const auto v = one(file, *n, i, q);
    if (v) into = *v;
    return v.has_value();
  };
  q.is_signed = onnx_scan::integer(*n, "signed", 1) != 0;
  q.narrow = onnx_scan::integer(*n, "narrow", 0) != 0;
  if (q.op == "Trunc") {
    const bool own = n->input_size() == 6;
    float zero = 1, scale = 0;
    if (n->input_size() < 5 || n->input_size() > 6 || !take(1, q.sum_scale) || !take(2, zero) || zero != 0 ||
        !take(3, q.sum_bits) || (own && !take(4, scale)) || !take(own ? 5 : 4, q.bits))
      return std::nullopt;
    q.keeps_scale = !own;
    q.scale = {own ? scale : q.sum_scale * q.cut};
    return q;
  }
  if (!many(file, *n, 1, q, q.scale, &q.scale_shape)) return std::nullopt;
  if (q.op == "BipolarQuant") return q;
  if (q.op == "Quant") {
    Shape zero_shape;
    if (!many(file, *n, 2, q, q.zero_point, &zero_shape) || !take(3, q.bits)) return std::nullopt;
    if (zero_shape.empty())
      q.zero_point.resize(q.scale.size(), q.zero_point[0]);
    else if (zero_shape != q.scale_shape)
      return std::nullopt;
    return q;
  }
  if (q.op != "FloatQuant" || !take(2, q.exponent_bits) || !take(3, q.mantissa_bits) || !take(4, q.exponent_bias) ||
      !take(5, q.largest))
    return std::nullopt;
  q.saturates = onnx_scan::integer(*n, "saturation", 1) != 0;
  q.has_inf = onnx_scan::integer(*n, "has_inf", 0) != 0;
  q.has_nan = onnx_scan::integer(*n, "has_nan", 0) != 0;
  return q;
}

float qonnx_value(const QonnxNode& q, std::size_t k, float x) {
  const float scale = q.scale[k];
  if (q.op == "Trunc") return trunc_value(q, x);
  if (q.op == "BipolarQuant") return x >= 0 ? scale : -scale;
  if (q.op == "FloatQuant") return float_value(q, x, scale);
  const Codes c = codes_of(q);
  const float v = x / scale + q.zero_point[k];
  if (q.is_signed && q.bits == 1) return ((v >= 0 ? 1.0f : -1.0f) - q.zero_point[k]) * scale;
  return (rounded(q.rounding, std::clamp(v, c.lo, c.hi)) - q.zero_point[k]) * scale;
}

std::string qonnx_text(const QonnxNode& q) {
  std::ostringstream out;
  out << q.op;
  if (q.op == "Quant" || q.op == "Trunc") out << (q.is_signed ? " int" : " uint") << q.bits << (q.narrow ? " narrow" : "");
  if (q.op == "FloatQuant") out << " e" << q.exponent_bits << "m" << q.mantissa_bits << " up to " << q.largest;
  if (q.op == "Trunc") out << " of " << q.sum_bits << " bits";
  out << (q.scale.size() > 1 ? ", " + std::to_string(q.scale.size()) + " scales" : ", one scale");
  bool zero = true, same = true;
  for (const float z : q.zero_point) zero = zero && z == 0, same = same && z == q.zero_point[0];
  if (!zero && same)
    out << ", zero point " << q.zero_point[0];
  else if (!zero)
    out << ", zero points";
  if (q.rounding != "ROUND" && !q.rounding.empty()) out << ", " << q.rounding;
  return out.str();
}

bool is_same_quantizer(const quant::QuantParams& p, const QonnxNode& q, const Shape& shape, bool constant) {
  const std::string& format = p.spec.format;
  const std::string op = p.truncated          ? "Trunc"
                         : format == "binary" ? "BipolarQuant"
                         : format == "float"  ? "FloatQuant"
                                              : "Quant";
  if (q.op != op || !same_bits(q.scale, p.scale)) return false;
  if (p.truncated)
    return q.sum_scale == p.truncated->scale && q.sum_bits == static_cast<float>(p.truncated->bits) &&
           q.rounding == mode_of(p.spec.rounding) && q.bits == static_cast<float>(p.spec.bits) && gives_the_same(p, q);
  if (!right_shape(p, q, shape)) return false;
  if (op == "Quant") {
    const std::vector<float> zeros = p.zero_point.empty() ? std::vector<float>(p.scale.size(), 0.0f) : p.zero_point;
    const Codes c = codes_of(q);
    const bool ternary = format == "ternary";
    if (q.zero_point != zeros || q.is_signed != (ternary || p.spec.is_signed) ||
        c.lo != (ternary ? -1.0f : static_cast<float>(p.lo)) || c.hi != (ternary ? 1.0f : static_cast<float>(p.hi)))
      return false;
    if (q.rounding != (constant ? "ROUND" : mode_of(p.spec.rounding))) return false;
  }
  return constant || gives_the_same(p, q);
}

bool is_same_constant(const QuantizedModel& model, const PlacedQuantizer& placed, const QonnxNode& q,
                      const std::vector<float>& values, const Shape& shape) {
  const quant::QuantParams& p = *placed.params;
  const TensorData* data = model.model->weights->find(model.model->graph->tensor(placed.tensor).name);
  if (data == nullptr || data->shape != shape) return false;
  const std::vector<float> master = data->to_floats();
  if (master.size() != values.size() || static_cast<std::int64_t>(values.size()) != p.layout.elements()) return false;
  std::vector<float> shown(values.size());
  quant::fake_quantize(p, p.layout, master.data(), shown.data());
  if (!same_bits(shown, values)) {
    for (std::size_t i = 0; i < values.size(); ++i)
      if (!(shown[i] == values[i])) return false;  // only zeros may differ in their sign
  }
  const quant::BlockLayout& l = p.layout;
  const std::int64_t groups = l.granularity == Granularity::kGroup ? l.dim / std::max<std::int64_t>(1, l.group) : 0;
  for (std::int64_t i = 0; i < static_cast<std::int64_t>(values.size()); ++i) {
    std::int64_t k = 0;
    if (l.granularity == Granularity::kChannel) k = i / l.inner % l.dim;
    if (l.granularity == Granularity::kGroup)
      k = (i / (l.dim * l.inner) * groups + i / l.inner % l.dim / l.group) * l.inner + i % l.inner;
    if (k >= static_cast<std::int64_t>(q.scale.size())) return false;
    if (qonnx_value(q, static_cast<std::size_t>(k), values[static_cast<std::size_t>(i)]) !=
        shown[static_cast<std::size_t>(i)])
      return false;
  }
  return true;
}

Result<std::vector<AuditRow>> audit_qonnx(const QuantizedModel& model, const std::string& path, const std::string& domain,
                                          int version) {
  QUANVAS_TRY(const onnx::ModelProto proto, onnx_scan::read(path));
  const Index index(proto.graph());
  const Audit audit{model, index, domain, onnx_scan::version_of(proto, domain) == version};
  std::vector<AuditRow> rows;
  const std::vector<PlacedQuantizer> asked = place(model).quantizers;
  for (const PlacedQuantizer& placed : asked) rows.push_back(audit.row(placed));
  audit.unasked(asked, rows);
  return rows;
}

}  // namespace quanvas::onnx_file
