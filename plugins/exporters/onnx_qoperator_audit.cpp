// The reader of QOperator files: from each layer's node to the codes that it reads and gives, their scales and their makers.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <set>
#include <utility>

#include "core/quant/dynamic.h"
#include "plugins/exporters/onnx_audit.h"
#include "plugins/exporters/onnx_file.h"
#include "plugins/exporters/onnx_qoperator.h"

namespace quanvas::onnx_file {
namespace {

bool is_one_of(const std::string& op, std::initializer_list<const char*> list) {
  return std::any_of(list.begin(), list.end(), [&](const char* o) { return op == o; });
}
// In a file they may run on codes, which they only move.
bool moves(const std::string& op) {
  return is_one_of(op, {"MaxPool", "Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity"});
}
bool is_limit(const std::string& op) {
  return op == "Relu" || op == "Clip";
}

// Where an operator on codes has its inputs; -1: none.
struct Ports {
  int result = -1;  // scale of the result, its zero point behind
  int weight = -1, bias = -1;
  std::vector<int> activations;  // codes, scale and zero point behind
};
std::optional<Ports> ports_of(const onnx::NodeProto& n, bool two_activations) {
  const std::string& op = n.op_type();
  if (op == "QLinearConv") return Ports{6, 3, 8, {0}};
  if (op == "QLinearMatMul") return two_activations ? Ports{6, -1, -1, {0, 3}} : Ports{6, 3, -1, {0}};
  if (op == "QGemm") return Ports{7, 3, 6, {0}};
  if (op == "QLinearAdd" || op == "QLinearMul") return Ports{6, -1, -1, {0, 3}};
  if (op == "QLinearConcat") {
    Ports p{0, -1, -1, {}};
    for (int i = 2; i + 2 < n.input_size(); i += 3) p.activations.push_back(i);
    return p;
  }
  if (is_one_of(op, {"QLinearAveragePool", "QLinearGlobalAveragePool", "QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax"}))
    return Ports{3, -1, -1, {0}};
  return std::nullopt;
}

// What codes stand for, and what makes them.
struct Codes {
  FileQuantizer q;
  const onnx::NodeProto* maker = nullptr;      // QuantizeLinear, or an operator on codes
  std::vector<const onnx::NodeProto*> limits;  // Relu and Clip of the network in between, as Clip of codes
};

class CodeAudit {
 public:
  CodeAudit(const QuantizedModel& model, const OnnxFile& file) : model_(model), graph_(*model.model->graph), file_(file) {}

  AuditRow row(const PlacedQuantizer& q) const {
    const onnx::NodeProto* node = file_.node(q.reader->name);
    const bool at_run_time = quant::is_dynamic(*q.params);
    if (has_dynamic_sums(file_, q) && (at_run_time || !is_activation(q.site.kind))) return dynamic_row(model_, file_, q);
    if (at_run_time) return qdq_row(model_, file_, q);
    const auto ports = node ? ports_of(*node, has_two_activations(q)) : std::nullopt;
    if (!is_activation(q.site.kind)) return node && ports ? constant_row(q, *node, *ports) : qdq_row(model_, file_, q);
    AuditRow row = asked_row(q);
    const std::string tensor = codes_of(q);
    const auto codes = tensor.empty() ? std::nullopt : read(tensor);
    if (!codes) {
      row.written = "float";
      return row;
    }
    row.written = file_quantizer_text(codes->q);
    row.bytes = codes->q.bytes;
    row.equal = same(*q.params, codes->q, true) && right_maker(q, *codes) && right_limits(q, *codes);
    if (row.equal && ports && q.site.kind == SiteKind::kInput) row.equal = same_at_port(q, *node, *ports);
    return row;
  }

  // The tensor that holds the site's codes; empty: there is none.
  std::string codes_of(const PlacedQuantizer& q) const {
    if (q.site.kind == SiteKind::kOutput) return named_codes(q.tensor);
    const onnx::NodeProto* node = file_.node(q.reader->name);
    if (node == nullptr || q.inputs.empty()) return named_codes(q.tensor);
    if (const auto ports = ports_of(*node, has_two_activations(q))) {
      const int at = port(q, *ports);
      if (at < 0 || at >= node->input_size()) return {};
      // Rows stand as pixels in front of a convolution.
      const onnx::NodeProto* turned = file_.producer(node->input(at));
      return turned && turned->name() == node->name() + "_in" && turned->input_size() > 0 ? turned->input(0) : node->input(at);
    }
    const int i = static_cast<int>(q.inputs.front());
    if (i >= node->input_size()) return {};
    const onnx::NodeProto* before = file_.producer(node->input(i));
    const bool real = before && before->op_type() == "DequantizeLinear" && before->input_size() > 0;
    return real ? before->input(0) : node->input(i);
  }

 private:
  const QuantizedModel& model_;
  const Graph& graph_;
  const OnnxFile& file_;

  bool has_two_activations(const PlacedQuantizer& q) const {
    const TensorId second = q.node->input(1);
    return second != kNoTensor && !graph_.tensor(second).is_initializer;
  }

  // Where an operator on codes has the input of this site.
  int port(const PlacedQuantizer& q, const Ports& ports) const {
    const auto operand = static_cast<std::size_t>(q.inputs.front());
    return operand < ports.activations.size() ? ports.activations[operand] : -1;
  }

  // The node that makes a tensor and only moves or limits values of another one; null: none.
  const Node* passing(TensorId t) const {
    const Node* n = graph_.find(graph_.tensor(t).producer);
    const bool passes =
        n && n->domain.empty() && (moves(n->op) || is_limit(n->op)) && !n->inputs.empty() && n->outputs.size() == 1;
    return passes && n->inputs[0] != kNoTensor && !graph_.tensor(n->inputs[0]).is_initializer ? n : nullptr;
  }

  // Relu and Clip that change nothing have no node: their codes are those that go in.
  std::string named_codes(TensorId t) const {
    for (std::size_t steps = 0; steps <= graph_.nodes().size(); ++steps) {
      const std::string name = graph_.tensor(t).name + "_codes";
      if (file_.producer(name)) return name;
      const Node* n = passing(t);
      if (!n || !is_limit(n->op) || file_.node(n->name)) return {};
      t = n->inputs[0];
    }
    return {};
  }

  bool is_own_limit(const onnx::NodeProto& clip) const {
    const Node* n = graph_.find(clip.name());
    return n && is_limit(n->op);
  }

  std::optional<Codes> read(std::string tensor) const {
    Codes out;
    std::int64_t lo = INT64_MIN, hi = INT64_MAX;
    const onnx::NodeProto* n = file_.producer(tensor);
    for (int steps = 0; n && n->input_size() > 0 && steps < file_.graph().node_size(); ++steps, n = file_.producer(tensor)) {
      if (n->op_type() == "Clip" && is_own_limit(*n)) {
        out.limits.push_back(n);
        tensor = n->input(0);
      } else if (n->op_type() == "Clip") {
        std::string before = n->output(0);
        file_.follow_clips(before, lo, hi);
        if (before == tensor) return std::nullopt;
        tensor = before;
      } else if (moves(n->op_type())) {
        tensor = n->input(0);
      } else {
        break;
      }
    }
    if (!n) return std::nullopt;
    const auto ports = ports_of(*n, true);
    const int at = n->op_type() == "QuantizeLinear" ? 1 : ports ? ports->result : -1;
    if (at < 0 || !file_.read_parameters(*n, at, at + 1, out.q)) return std::nullopt;
    const auto range = code_range_of(out.q.type);
    if (!range) return std::nullopt;
    out.q.lo = std::max(range->first, lo);
    out.q.hi = std::min(range->second, hi);
    out.maker = n;
    return out;
  }

  static bool same(const quant::QuantParams& p, const FileQuantizer& q, bool range) {
    if (q.scale.size() != p.scale.size() ||
        (!p.scale.empty() && std::memcmp(q.scale.data(), p.scale.data(), q.scale.size() * sizeof(float)) != 0))
      return false;
    const bool channels = p.spec.granularity == Granularity::kChannel;
    return q.zero_point == zero_points(p) && q.per_channel() == channels && (!range || (q.lo == p.lo && q.hi == p.hi));
  }

  bool same_at_port(const PlacedQuantizer& q, const onnx::NodeProto& node, const Ports& ports) const {
    const int at = port(q, ports);
    FileQuantizer here;
    return at >= 0 && file_.read_parameters(node, at + 1, at + 2, here) && same(*q.params, here, false);
  }

  // From the site's tensor up to what the codes are made of there must be nothing that does more than move or limit them.
  bool right_maker(const PlacedQuantizer& q, const Codes& codes) const {
    TensorId t = q.tensor;
    const std::string& source = codes.maker->input(0);
    const bool quantizes = codes.maker->op_type() == "QuantizeLinear";
    const onnx::NodeProto* raw = quantizes ? file_.producer(source) : nullptr;
    for (std::size_t steps = 0; steps <= graph_.nodes().size(); ++steps) {
      const Node* maker = graph_.find(graph_.tensor(t).producer);
      if (quantizes && source == graph_.tensor(t).name) return true;
      if (maker && !maker->outputs.empty() && maker->outputs[0] == t) {
        if (!quantizes && codes.maker->name() == maker->name) return true;
        // Under another name what the node gives before its own quantizer.
        if (raw && (raw->name() == maker->name || raw->name() == maker->name + "_result" || is_requantized(*raw, *maker)))
          return true;
      }
      const Node* n = passing(t);
      if (!n) return false;
      t = n->inputs[0];
    }
    return false;
  }

  // An operator on codes in front of its own quantizer of another scale.
  bool is_requantized(const onnx::NodeProto& raw, const Node& maker) const {
    if (raw.op_type() != "DequantizeLinear" || raw.input_size() == 0) return false;
    const onnx::NodeProto* n = file_.producer(raw.input(0));
    return n && (n->name() == maker.name || (is_limit(maker.op) && !file_.node(maker.name)));
  }

  // Relu and Clip on the way: as a Clip of codes with the right limits, or nowhere because it would change nothing.
  bool right_limits(const PlacedQuantizer& q, const Codes& codes) const {
    const quant::QuantParams& p = *q.params;
    std::set<std::string> seen;
    for (const onnx::NodeProto* clip : codes.limits) {
      const Node& n = *graph_.find(clip->name());
      std::int64_t lo = INT64_MIN, hi = INT64_MAX;
      std::string before = clip->output(0);
      const auto bound = [&](int i, std::int64_t fallback) {
        const onnx::TensorProto* t = file_.operand(*clip, i);
        const auto values = t ? file_.codes(*t) : std::vector<std::int64_t>{};
        return values.size() == 1 ? values[0] : fallback;
      };
      lo = bound(1, lo);
      hi = bound(2, hi);
      if (std::pair{lo, hi} != limits(n, p)) return false;
      seen.insert(n.name);
    }
    TensorId t = q.tensor;
    if (q.site.kind == SiteKind::kOutput && !passing(t)) return true;
    for (std::size_t steps = 0; steps <= graph_.nodes().size(); ++steps) {
      const Node* n = passing(t);
      if (!n || codes.maker->input(0) == graph_.tensor(t).name) return true;
      if (is_limit(n->op) && !seen.count(n->name) && !file_.node(n->name) && limits(*n, p) != std::pair{p.lo, p.hi})
        return false;
      t = n->inputs[0];
    }
    return true;
  }

  std::pair<std::int64_t, std::int64_t> limits(const Node& n, const quant::QuantParams& p) const {
    const std::int64_t zero = zero_points(p).empty() ? 0 : zero_points(p)[0];
    if (n.op == "Relu") return {std::clamp(zero, p.lo, p.hi), p.hi};
    const auto limit = [&](std::size_t i, const char* key, float fallback) {
      float v = n.real(key, fallback);
      if (const TensorId t = n.input(i); t != kNoTensor)
        if (const TensorData* data = model_.model->weights->find(graph_.tensor(t).name))
          if (const auto values = data->to_floats(); values.size() == 1) v = values[0];
      const double code = std::nearbyint(static_cast<double>(v / p.scale[0])) + static_cast<double>(zero);
      return static_cast<std::int64_t>(std::clamp(code, static_cast<double>(p.lo), static_cast<double>(p.hi)));
    };
    const std::int64_t lo = limit(1, "min", -INFINITY);
    return {lo, std::max(lo, limit(2, "max", INFINITY))};
  }

  // A weight or bias inside an operator on codes.
  AuditRow constant_row(const PlacedQuantizer& q, const onnx::NodeProto& node, const Ports& ports) const {
    AuditRow row = asked_row(q);
    const bool bias = q.site.kind == SiteKind::kBias;
    const int at = bias ? ports.bias : ports.weight;
    const onnx::TensorProto* t = at < 0 ? nullptr : file_.operand(node, at);
    FileQuantizer w, x;
    if (t == nullptr || ports.weight < 0 || !file_.read_parameters(node, ports.weight + 1, ports.weight + 2, w) ||
        !file_.read_parameters(node, 1, 2, x) || x.scale.size() != 1)
      return row;
    const std::vector<std::int64_t> codes = file_.codes(*t);
    FileQuantizer own = w;
    own.bytes += static_cast<double>(file_.bytes(*t).size());
    own.type = t->data_type();
    if (const auto range = code_range_of(own.type)) std::tie(own.lo, own.hi) = *range;
    if (bias) own.zero_point.assign(own.scale.size(), 0);
    if (bias)
      for (float& s : own.scale) s *= x.scale[0];
    row.written = file_quantizer_text(own);
    row.bytes = bias ? static_cast<double>(file_.bytes(*t).size()) : own.bytes;
    const auto shown = stored(q);
    if (!shown) return row;
    row.equal =
        bias ? same_bias(q, own, codes, *shown) : same(*q.params, own, false) && same_weight(q, node, own, codes, *shown);
    return row;
  }

  struct Shown {
    std::vector<std::int32_t> codes;
    std::vector<float> values;
    Shape shape;
  };
  std::optional<Shown> stored(const PlacedQuantizer& q) const {
    const TensorData* data = model_.model->weights->find(graph_.tensor(q.tensor).name);
    if (data == nullptr) return std::nullopt;
    const std::vector<float> values = data->to_floats();
    if (static_cast<std::int64_t>(values.size()) != q.params->layout.elements()) return std::nullopt;
    Shown out{std::vector<std::int32_t>(values.size()), std::vector<float>(values.size()), data->shape};
    quant::quantize_codes(*q.params, q.params->layout, values.data(), out.codes.data());
    quant::fake_quantize(*q.params, q.params->layout, values.data(), out.values.data());
    return out;
  }

  static bool same_bias(const PlacedQuantizer& q, const FileQuantizer& own, const std::vector<std::int64_t>& codes,
                        const Shown& shown) {
    if (own.type != onnx::TensorProto::INT32 || codes.empty()) return false;
    const bool one = shown.codes.size() == 1;
    if (!one && shown.codes.size() != codes.size()) return false;
    for (std::size_t i = 0; i < codes.size(); ++i) {
      const float scale = own.scale[own.scale.size() == 1 ? 0 : std::min(i, own.scale.size() - 1)];
      const std::size_t k = one ? 0 : i;
      if (codes[i] != shown.codes[k] || scale != q.params->scale[q.params->scale.size() == 1 ? 0 : k]) return false;
      if (static_cast<float>(codes[i]) * scale != shown.values[k]) return false;
    }
    return true;
  }

  // [outputs, inputs] or the other way round, as the operator has it.
  bool same_weight(const PlacedQuantizer& q, const onnx::NodeProto& node, const FileQuantizer& own,
                   const std::vector<std::int64_t>& codes, const Shown& shown) const {
    if (codes.size() != shown.codes.size() || codes.empty()) return false;
    const std::size_t rank = shown.shape.size();
    const bool matrix = q.reader->op != "Conv";
    const bool first = matrix ? q.reader->integer("transB", 0) != 0 : true;  // the model's first axis is that of the outputs
    const bool file_first =
        node.op_type() == "QLinearConv" || (node.op_type() == "QGemm" && integer_attribute(node, "transB", 0) != 0);
    const onnx::TensorProto* t = file_.operand(node, 3);
    Shape dims(t->dims().begin(), t->dims().end());
    Shape wanted = shown.shape;
    const bool turned = matrix && first != file_first;
    if (turned && rank != 2) return false;
    if (turned) std::swap(wanted[0], wanted[1]);
    if (matrix && node.op_type() == "QLinearConv") wanted.push_back(1);
    if (dims != wanted) return false;
    const auto rows = static_cast<std::size_t>(shown.shape[0]), columns = shown.codes.size() / std::max<std::size_t>(rows, 1);
    for (std::size_t i = 0; i < codes.size(); ++i) {
      const std::size_t r = i / columns, c = i % columns, at = turned ? c * rows + r : i;
      const std::size_t channel = own.scale.size() == 1 ? 0 : first ? r : c;
      if (channel >= own.scale.size()) return false;
      const float value = static_cast<float>(codes[at] - own.zero_point[channel]) * own.scale[channel];
      if (codes[at] != shown.codes[i] || value != shown.values[i]) return false;
    }
    return true;
  }
};

}  // namespace

Result<std::vector<AuditRow>> audit_qoperator(const QuantizedModel& model, const std::string& path) {
  QUANVAS_TRY(const OnnxFile file, OnnxFile::open(path));
  const CodeAudit audit(model, file);
  std::vector<AuditRow> rows;
  for (const PlacedQuantizer& placed : place(model).quantizers) rows.push_back(audit.row(placed));
  return rows;
}

Status find_codes(const QuantizedModel& model, const std::string& path, ReadBack& back) {
  QUANVAS_TRY(const OnnxFile file, OnnxFile::open(path));
  const CodeAudit audit(model, file);
  GraphBuilder more(*back.model->graph);
  std::set<std::string> added;
  for (const PlacedQuantizer& placed : place(model).quantizers) {
    if (!is_activation(placed.site.kind)) continue;
    if (quant::is_dynamic(*placed.params)) {
      // The scale is one of the file's tensors: what the codes stand for is a node more in the network that is compared.
      const onnx::NodeProto* node = file.node(placed.reader->name);
      const onnx::NodeProto* codes = node ? quantizes_at_run_time(file, *node, placed) : nullptr;
      if (codes && back.model->graph->tensor(codes->output(0)) != kNoTensor && audit.row(placed).equal) {
        std::string real = codes->output(0) + "_real";
        while (back.model->graph->tensor(real) != kNoTensor) real += "_";
        if (added.insert(real).second) {
          more.tensor(real, DataType::kFloat, back.model->graph->tensor(back.model->graph->tensor(codes->output(0))).shape);
          more.node(real, "DequantizeLinear", {codes->output(0), codes->output(1), codes->output(2)}, {real});
        }
        back.sites[placed.site] = {real, {}, {}, -1};
        continue;
      }
    }
    const std::string tensor = audit.codes_of(placed);
    std::vector<float> zeros;
    for (const std::int64_t z : zero_points(*placed.params)) zeros.push_back(static_cast<float>(z));
    if (!tensor.empty() && back.model->graph->tensor(tensor) != kNoTensor && audit.row(placed).equal)
      back.sites[placed.site] = {tensor, placed.params->scale, zeros, -1};
    else
      back.notes.push_back("The file has no tensor for " + placed.name + " of '" + placed.node->name + "'.");
  }
  if (added.empty()) return {};
  QUANVAS_TRY(const GraphPtr graph, more.build());
  back.model = std::make_shared<const Model>(Model{graph, back.model->weights, back.model->source});
  return {};
}

}  // namespace quanvas::onnx_file
