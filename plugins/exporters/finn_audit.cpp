#include "plugins/exporters/finn_audit.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "plugins/exporters/qonnx_audit.h"

namespace quanvas::onnx_file {
namespace {

using onnx_scan::Index;
constexpr const char* kQonnx = "qonnx.custom_op.general";
constexpr const char* kFinn = "finn.custom_op.general";

const std::set<std::string>& selecting() {
  static const std::set<std::string> ops = {"MaxPool", "Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity"};
  return ops;
}

// A MultiThreshold with what is added to its count and multiplied with it.
struct Steps {
  std::string source, type;
  std::vector<float> thresholds, scale;  // thresholds: row by row
  Shape scale_shape;
  std::size_t rows = 0, columns = 0;
  float out_scale = 1, out_bias = 0, least = 0;
  double bytes = 0;
  float value(std::size_t row, std::size_t count) const {
    return (static_cast<float>(count) * out_scale + out_bias + least) * scale[scale.size() == 1 ? 0 : row];
  }
};

class Reader {
 public:
  Reader(const QuantizedModel& model, const onnx::ModelProto& proto, bool thresholds)
      : model_(model), graph_(*model.model->graph), proto_(proto), file_(proto.graph()), thresholds_(thresholds) {}

  std::vector<AuditRow> run() const {
    std::vector<AuditRow> rows;
    const bool version = onnx_scan::version_of(proto_, thresholds_ ? kFinn : kQonnx) == 1;
    for (const PlacedQuantizer& q : place(model_).quantizers) {
      AuditRow row{q.node->name, q.name, quantizer_text(*q.params), "nothing", 0, false};
      if (q.site.kind == SiteKind::kBias)
        bias(q, row);
      else if (q.site.kind == SiteKind::kWeight)
        weight(q, row);
      else
        activation(q, row);
      row.equal = row.equal && version;
      rows.push_back(std::move(row));
    }
    return rows;
  }

 private:
  const std::string& name_of(TensorId t) const { return graph_.tensor(t).name; }
  std::string type_of(const std::string& tensor) const {
    for (const auto& a : proto_.graph().quantization_annotation())
      if (a.tensor_name() == tensor)
        for (const auto& entry : a.quant_parameter_tensor_names())
          if (entry.key() == "finn_datatype") return entry.value();
    return {};
  }
  static std::string wanted_type(const quant::QuantParams& p) {
    const std::int64_t lo = p.spec.format == "int" ? p.lo : -1, hi = p.spec.format == "int" ? p.hi : 1;
    if (p.spec.format == "binary") return "BIPOLAR";
    if (lo == -1 && hi == 1) return "TERNARY";
    if (lo == 0 && hi == 1) return "BINARY";
    int bits = 1;
    while ((lo < 0 ? (std::int64_t{1} << (bits - 1)) - 1 : (std::int64_t{1} << bits) - 1) < hi) ++bits;
    return (lo < 0 ? "INT" : "UINT") + std::to_string(bits);
  }

  // --- weights and biases

  static bool is_turned(const Node& node) { return node.op == "Gemm" && node.integer("transB", 0) != 0; }
  // In the model's own order.
  static std::optional<std::vector<float>> own_order(std::vector<float> values, Shape& shape, bool turned) {
    if (!turned) return values;
    if (shape.size() != 2) return std::nullopt;
    std::vector<float> out(values.size());
    for (std::int64_t i = 0; i < shape[0] && !values.empty(); ++i)  // without elements it may claim any number of rows
      for (std::int64_t o = 0; o < shape[1]; ++o)
        out[static_cast<std::size_t>(o * shape[0] + i)] = values[static_cast<std::size_t>(i * shape[1] + o)];
    std::swap(shape[0], shape[1]);
    return out;
  }
  std::optional<std::vector<float>> values_of(const std::string& tensor, Shape& shape, const Node& node) const {
    const auto* t = file_.initializer(tensor);
    auto values = onnx_scan::floats(t);
    if (!values) return std::nullopt;
    shape = onnx_scan::dims(*t);
    return own_order(std::move(*values), shape, is_turned(node));
  }

  void weight(const PlacedQuantizer& q, AuditRow& row) const {
    const onnx::NodeProto* node = file_.node(q.node->name);
    const quant::QuantParams& p = *q.params;
    if (!node || node->output_size() == 0 || node->op_type() != (q.node->op == "Conv" ? "Conv" : "MatMul")) return;
    row.written = "float";
    Shape shape;
    if (!thresholds_) {
      const auto found = qonnx_node(file_, onnx_scan::input(*node, 1), kQonnx);
      if (!found) return;
      row.written = qonnx_text(*found);
      const auto values = values_of(found->source, shape, *q.node);
      if (!values) return;
      row.bytes = found->bytes + static_cast<double>(values->size() * sizeof(float));
      quant::QuantParams as_written = p;
      Shape written = shape;
      if (is_turned(*q.node) && shape.size() == 2) {
        std::swap(written[0], written[1]);
        as_written.spec.axis = 1;
      }
      row.equal = is_same_quantizer(as_written, *found, written, true) && is_same_constant(model_, q, *found, *values, shape);
      return;
    }
    const auto codes = values_of(onnx_scan::input(*node, 1), shape, *q.node);
    if (!codes) return;
    std::vector<float> scale = {1};
    Shape scale_shape;
    for (const auto* next : file_.readers(node->output(0))) {
      if (next->name() != q.node->name + "_scale" || next->op_type() != "Mul") continue;
      const auto* t = file_.initializer(onnx_scan::input(*next, 1));
      if (const auto s = onnx_scan::floats(t)) scale = *s, scale_shape = onnx_scan::dims(*t);
    }
    row.bytes = static_cast<double>((codes->size() + scale.size()) * sizeof(float));
    row.written = type_of(onnx_scan::input(*node, 1)) + ", " + std::to_string(scale.size()) + " scales behind the layer";
    std::vector<std::int32_t> wanted(codes->size());
    const TensorData* data = model_.model->weights->find(name_of(q.tensor));
    if (data == nullptr || data->shape != shape || p.layout.elements() != static_cast<std::int64_t>(codes->size())) return;
    quant::quantize_codes(p, p.layout, data->to_floats().data(), wanted.data());
    Shape along(scale.size() == 1 && scale_shape.empty() ? 0 : shape.size(), 1);
    if (!along.empty()) along[1] = static_cast<std::int64_t>(scale.size());
    row.equal = scale == p.scale && scale_shape == along && type_of(onnx_scan::input(*node, 1)) == wanted_type(p) &&
                std::equal(wanted.begin(), wanted.end(), codes->begin(),
                           [](std::int32_t a, float b) { return static_cast<float>(a) == b; });
  }

  void bias(const PlacedQuantizer& q, AuditRow& row) const {
    const onnx::NodeProto* node = file_.node(q.node->name + "_bias");
    const auto values = node ? onnx_scan::floats(file_.initializer(onnx_scan::input(*node, 1))) : std::nullopt;
    const auto stored = stored_tensor(model_, q);
    if (!values || !stored) return;
    row.written = "values of " + std::to_string(values->size()) + " codes, added behind the layer";
    row.bytes = static_cast<double>(values->size() * sizeof(float));
    row.equal = *values == stored->values;
  }

  // --- activations

  std::optional<Steps> steps(const std::string& tensor) const {
    Steps s;
    s.scale = {1};
    std::string codes = tensor;
    const auto constant = [&](const onnx::NodeProto& n, std::vector<float>& into, Shape* shape) {
      const auto* t = file_.initializer(onnx_scan::input(n, 1));
      const auto v = onnx_scan::floats(t);
      if (!v || v->empty()) return false;
      if (shape) *shape = onnx_scan::dims(*t);
      into = *v;
      s.bytes += static_cast<double>(v->size() * sizeof(float));
      return true;
    };
    const onnx::NodeProto* n = file_.producer(tensor);
    if (n && n->op_type() == "Mul") {
      if (!constant(*n, s.scale, &s.scale_shape)) return std::nullopt;
      codes = onnx_scan::input(*n, 0);
      n = file_.producer(codes);
    }
    s.type = type_of(codes);
    if (n && n->op_type() == "Add") {
      std::vector<float> least;
      if (!constant(*n, least, nullptr) || least.size() != 1) return std::nullopt;
      s.least = least[0];
      n = file_.producer(onnx_scan::input(*n, 0));
    }
    if (!n || n->op_type() != "MultiThreshold" || n->domain() != kFinn) return std::nullopt;
    Shape shape;
    if (!constant(*n, s.thresholds, &shape) || shape.size() != 2) return std::nullopt;
    s.rows = static_cast<std::size_t>(shape[0]);
    s.columns = static_cast<std::size_t>(shape[1]);
    s.out_scale = onnx_scan::real(*n, "out_scale", 1);
    s.out_bias = onnx_scan::real(*n, "out_bias", 0);
    s.source = onnx_scan::input(*n, 0);
    if (s.scale.size() != 1 && s.scale.size() != s.rows) return std::nullopt;
    return s;
  }

  bool same_steps(const quant::QuantParams& p, const Steps& s) const {
    const bool sign = p.spec.format == "binary";
    if (s.rows != p.scale.size() || s.columns != static_cast<std::size_t>(sign ? 1 : p.hi - p.lo) || s.type != wanted_type(p))
      return false;
    if (!sign && s.scale != p.scale) return false;
    for (std::size_t r = 0; r < s.rows; ++r) {
      quant::QuantParams one = p;
      one.spec.granularity = one.layout.granularity = Granularity::kTensor;
      one.scale = {p.scale[r]};
      std::vector<float> x, want;
      for (std::size_t k = 0; k < s.columns; ++k) {
        const float t = s.thresholds[r * s.columns + k];
        if (!std::isfinite(t)) return false;
        x.insert(x.end(), {std::nextafter(t, -std::numeric_limits<float>::infinity()), t});
        want.insert(want.end(), {s.value(r, k), s.value(r, k + 1)});
      }
      one.layout = {};
      one.layout.inner = static_cast<std::int64_t>(x.size());
      std::vector<float> y(x.size());
      quant::fake_quantize(one, one.layout, x.data(), y.data());
      if (y != want) return false;
    }
    return true;
  }

  // Whether the file quantizes there what the model has in this tensor.
  bool right_source(const std::string& source, TensorId t) const {
    const Node* maker = graph_.find(graph_.tensor(t).producer);
    if (maker == nullptr || source == name_of(t)) return source == name_of(t);
    const auto made_by = [&](const Node& node) {
      const onnx::NodeProto* n = file_.producer(source);
      return n && (n->name() == node.name || n->name() == node.name + "_bias" || n->name() == node.name + "_scale");
    };
    if (made_by(*maker)) return true;
    if (!thresholds_ || (maker->op != "Relu" && maker->op != "Clip")) return false;  // the ReLU is in the thresholds
    const TensorId before = maker->input(0);
    const Node* earlier = graph_.find(graph_.tensor(before).producer);
    return source.starts_with(name_of(before)) || (earlier && made_by(*earlier));
  }

  // A Clip of the model is a ReLU in the file: its end must lie at or beyond the highest code.
  std::optional<float> end_of_clip(TensorId t) const {
    const Node* maker = graph_.find(graph_.tensor(t).producer);
    if (!maker || maker->op != "Clip") return std::nullopt;
    const onnx::NodeProto* n = file_.node(maker->name);
    if (n && n->op_type() == "Clip") return std::nullopt;
    if (maker->attributes.count("max")) return maker->real("max", 0);
    const TensorData* data = maker->input(2) == kNoTensor ? nullptr : model_.model->weights->find(name_of(maker->input(2)));
    const auto values = data ? data->to_floats() : std::vector<float>();
    return values.size() == 1 ? values[0] : std::numeric_limits<float>::infinity();
  }

  void activation(const PlacedQuantizer& q, AuditRow& row) const {
    const quant::QuantParams& p = *q.params;
    TensorId own = q.tensor;
    std::string tensor = name_of(own);
    if (q.site.kind == SiteKind::kInput) {
      const onnx::NodeProto* node = file_.node(q.reader->name);
      if (node == nullptr || q.inputs.empty()) return;
      tensor = onnx_scan::input(*node, static_cast<int>(q.inputs.front()));
    }
    row.written = "float";
    if (thresholds_ && p.truncated) return average(q, row);
    const bool may_move = p.spec.granularity == Granularity::kTensor && !p.truncated;
    const auto is_quantized = [&] {
      return thresholds_ ? steps(tensor).has_value() : qonnx_node(file_, tensor, kQonnx).has_value();
    };
    for (int depth = 0; depth < 64 && !is_quantized(); ++depth) {
      const onnx::NodeProto* n = file_.producer(tensor);
      const Node* mine = graph_.find(graph_.tensor(own).producer);
      if (!may_move || !n || !mine || mine->name != n->name() || mine->op != n->op_type() || !selecting().count(n->op_type()))
        return;
      tensor = onnx_scan::input(*n, 0);
      own = mine->input(0);
      if (own == kNoTensor) return;
    }
    const auto end = end_of_clip(own);
    if (thresholds_) {
      const auto s = steps(tensor);
      if (!s) return;
      row.written = s->type + ", " + std::to_string(s->columns) + " thresholds";
      row.bytes = s->bytes;
      row.equal = same_steps(p, *s) && right_source(s->source, own);
      for (const float t : s->thresholds) row.equal = row.equal && (!end || t <= *end);
      return;
    }
    const auto found = qonnx_node(file_, tensor, kQonnx);
    if (!found) return;
    row.written = qonnx_text(*found);
    row.bytes = found->bytes;
    if (p.truncated) {
      row.equal = truncation(q, *found);
      return;
    }
    row.equal = is_same_quantizer(p, *found, shape_of(model_, own), false) && right_source(found->source, own);
    for (std::size_t k = 0; end && k < found->scale.size(); ++k)
      row.equal = row.equal && qonnx_value(*found, k, *end) == qonnx_value(*found, k, 1e30f);
  }

  // Div, QuantAvgPool2d and Mul: every sum there can be, shifted as the operator's definition says, gives the value of the
  // truncated mean.
  void average(const PlacedQuantizer& q, AuditRow& row) const {
    const quant::QuantParams& p = *q.params;
    const auto number = [&](const onnx::NodeProto* n, const char* op) -> std::optional<float> {
      if (!n || n->op_type() != op || !n->domain().empty()) return std::nullopt;
      const auto values = onnx_scan::floats(file_.initializer(onnx_scan::input(*n, 1)));
      return values && values->size() == 1 ? std::optional((*values)[0]) : std::nullopt;
    };
    const onnx::NodeProto* mul = file_.producer(name_of(q.tensor));
    const auto out = number(mul, "Mul");
    const onnx::NodeProto* pool = out ? file_.producer(onnx_scan::input(*mul, 0)) : nullptr;
    if (!pool || pool->op_type() != "QuantAvgPool2d" || pool->domain() != kQonnx || onnx_scan::version_of(proto_, kQonnx) != 1)
      return;
    const onnx::NodeProto* div = file_.producer(onnx_scan::input(*pool, 0));
    const auto in = number(div, "Div");
    const std::int64_t kernel = onnx_scan::integer(*pool, "kernel", 1), stride = onnx_scan::integer(*pool, "stride", 1),
                       ibits = onnx_scan::integer(*pool, "ibits", 1), obits = onnx_scan::integer(*pool, "obits", 1);
    row.written = "QuantAvgPool2d of " + std::to_string(ibits) + " to " + std::to_string(obits) + " bits";
    row.bytes = 2 * sizeof(float);
    const std::string layout = onnx_scan::text(*pool, "data_layout");
    const bool is_here = in && div->name() == q.node->name && (layout.empty() || layout == "NCHW") && ibits > 0 && ibits < 32 &&
                         obits > 0 && q.node->integers("kernel_shape") == std::vector<std::int64_t>{kernel, kernel} &&
                         q.node->integers("strides", {1, 1}) == std::vector<std::int64_t>{stride, stride} &&
                         (onnx_scan::integer(*pool, "signed", 0) != 0) == p.spec.is_signed &&
                         type_of(onnx_scan::input(*pool, 0)) == wanted_type(p) &&
                         type_of(onnx_scan::input(*mul, 0)) == wanted_type(p);
    if (!is_here || kernel < 1 || kernel > 64 || !reads_its_input(q, *div)) return;
    std::int64_t most = ((std::int64_t{1} << ibits) - 1) * kernel * kernel, shift = -obits;
    for (; most > 0; most >>= 1) ++shift;
    shift = std::max<std::int64_t>(shift, 0);
    const float elements = static_cast<float>(kernel * kernel);
    if (*in != p.truncated->scale * elements) return;
    const std::int64_t count = std::int64_t{1} << std::min(p.truncated->bits, 16), first = p.spec.is_signed ? -count / 2 : 0;
    for (std::int64_t i = first; i < first + count; ++i) {
      const float mean = static_cast<float>(i) * p.truncated->scale;
      float want = 0;
      quant::BlockLayout one;
      quant::fake_quantize(p, one, &mean, &want);
      if (static_cast<float>(i >> shift) * *out != want) return;
    }
    row.equal = true;
  }

  // What its own quantizer gives is looked at in that one's row; without one it is the model's tensor.
  bool reads_its_input(const PlacedQuantizer& q, const onnx::NodeProto& node) const {
    for (const PlacedQuantizer& other : place(model_).quantizers)
      if (other.node == q.node && other.site.kind == SiteKind::kInput) return true;
    return onnx_scan::input(node, 0) == name_of(q.node->input(0));
  }

  // The sum's low bits: every sum there can be gives the value of the truncated mean.
  bool truncation(const PlacedQuantizer& q, const QonnxNode& found) const {
    const quant::QuantParams& p = *q.params;
    const onnx::NodeProto* sum = file_.producer(found.source);
    if (found.op != "Trunc" || !found.keeps_scale || !sum || sum->op_type() != "Mul") return false;
    const auto elements = onnx_scan::floats(file_.initializer(onnx_scan::input(*sum, 1)));
    if (!elements || elements->size() != 1) return false;
    const std::int64_t count = std::int64_t{1} << std::min(p.truncated->bits, 16), first = p.spec.is_signed ? -count / 2 : 0;
    for (std::int64_t i = first; i < first + count; ++i) {
      const float mean = static_cast<float>(i) * p.truncated->scale;
      float want = 0;
      quant::BlockLayout one;
      quant::fake_quantize(p, one, &mean, &want);
      if (qonnx_value(found, 0, mean * (*elements)[0]) != want) return false;
    }
    return true;
  }

  const QuantizedModel& model_;
  const Graph& graph_;
  const onnx::ModelProto& proto_;
  Index file_;
  bool thresholds_;
};

}  // namespace

Result<std::vector<AuditRow>> audit_finn(const QuantizedModel& model, const std::string& path, bool thresholds) {
  QUANVAS_TRY(const onnx::ModelProto proto, onnx_scan::read(path));
  return Reader(model, proto, thresholds).run();
}

}  // namespace quanvas::onnx_file
