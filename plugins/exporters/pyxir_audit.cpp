#include "plugins/exporters/pyxir_audit.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <sstream>

#include "core/base/files.h"
#include "core/plugin/placement.h"
#include "plugins/exporters/onnx_scan.h"

namespace quanvas::onnx_file {
namespace {

using onnx_scan::Index;
using Ints = std::vector<std::int64_t>;

class Reader {
 public:
  Reader(const QuantizedModel& model, const onnx::ModelProto& proto, const std::string& text, const std::string& domain)
      : model_(model), graph_(*model.model->graph), proto_(proto), file_(proto.graph()), domain_(domain) {
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
      std::istringstream words(line);
      std::int64_t number = 0;
      std::string name;
      words >> number >> name;
      Ints values;
      for (std::int64_t v = 0; words >> v;) values.push_back(v);
      text_[name] = std::move(values);
    }
    for (const auto& entry : proto.metadata_props())
      if (entry.key() == "vai_quant_rounding") rounding_ = entry.value();
  }

  std::vector<AuditRow> run() const {
    std::vector<AuditRow> rows;
    for (const PlacedQuantizer& q : place(model_).quantizers) {
      AuditRow row{q.node->name, q.name, quantizer_text(*q.params), "nothing", 0, false};
      if (is_activation(q.site.kind))
        activation(q, row);
      else
        constant(q, row);
      row.equal = row.equal && onnx_scan::version_of(proto_, domain_) == 1;
      rows.push_back(std::move(row));
    }
    return rows;
  }

 private:
  const onnx::NodeProto* layer(const std::string& name) const {
    const onnx::NodeProto* n = file_.node(name);
    return n && n->domain() == domain_ && n->output_size() > 0 ? n : nullptr;
  }

  // The numbers of the text's lines of the layer are those of its attributes.
  bool is_in_text(const onnx::NodeProto& n) const {
    if (n.op_type() == "Relu") return true;
    Ints first, bias;
    const bool apart = n.op_type() == "Gemm" && n.input_size() > 2;
    for (const std::string& kind : onnx_scan::texts(n, "vai_quant")) {
      const Ints list = onnx_scan::integers(n, kind);
      Ints& into = apart && kind == "vai_quant_biases" ? bias : first;
      into.insert(into.end(), list.begin(), list.end());
    }
    std::string name = n.output(0);
    for (char& c : name)
      if (std::string("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-/").find(c) == std::string::npos)
        c = '-';
    if (name.find_first_not_of("0123456789") == std::string::npos) name += "_";
    const std::string main = apart ? name + "_Dense" : n.op_type() == "Conv" && n.input_size() > 2 ? name + "_Conv" : name;
    const auto line = text_.find(main);
    if (line == text_.end() || line->second != first) return false;
    const auto second = text_.find(name);
    return !apart || (second != text_.end() && second->second == bias);
  }

  // [bits, position] number i of an attribute that the layer also lists; empty: it has none.
  static Ints pair_of(const onnx::NodeProto& n, const std::string& key, std::size_t i) {
    const auto kinds = onnx_scan::texts(n, "vai_quant");
    const Ints all = onnx_scan::integers(n, key);
    if (std::find(kinds.begin(), kinds.end(), key) == kinds.end() || all.size() < 2 * i + 2) return {};
    return {all[2 * i], all[2 * i + 1]};
  }
  static std::string text_of(const Ints& pair) {
    return pair.size() == 2 ? "int" + std::to_string(pair[0]) + ", binary point at " + std::to_string(pair[1]) : "float";
  }
  static bool says(const quant::QuantParams& p, const Ints& pair) {
    return pair.size() == 2 && p.scale.size() == 1 && std::fabs(static_cast<double>(pair[1])) < 100 &&
           std::ldexp(1.0, static_cast<int>(-pair[1])) == static_cast<double>(p.scale[0]) && pair[0] == p.spec.bits &&
           p.spec.is_signed;
  }

  void constant(const PlacedQuantizer& q, AuditRow& row) const {
    const onnx::NodeProto* n = layer(q.node->name);
    if (!n || q.inputs.empty()) return;
    const bool weight = q.site.kind == SiteKind::kWeight;
    const Ints pair = pair_of(*n, weight ? "vai_quant_weights" : "vai_quant_biases", 0);
    row.written = text_of(pair);
    const auto* t = file_.initializer(onnx_scan::input(*n, weight ? 1 : 2));
    const auto values = onnx_scan::floats(t);
    const TensorData* data = model_.model->weights->find(graph_.tensor(q.tensor).name);
    if (!values || !data || static_cast<std::int64_t>(values->size()) != q.params->layout.elements() ||
        static_cast<std::int64_t>(data->to_floats().size()) != q.params->layout.elements())
      return;
    row.bytes = static_cast<double>(values->size() * sizeof(float));
    std::vector<std::int32_t> codes(values->size());
    quant::quantize_codes(*q.params, q.params->layout, data->to_floats().data(), codes.data());
    const Shape have = onnx_scan::dims(*t), own = data->shape;
    const bool product = q.node->op != "Conv";
    const bool turned = weight && product && (q.node->op == "MatMul" || q.node->integer("transB", 0) == 0);
    const Shape want = !weight ? Shape{element_count(own)} : turned && own.size() == 2 ? Shape{own[1], own[0]} : own;
    row.equal =
        says(*q.params, pair) && is_in_text(*n) && have == want && (!product || onnx_scan::integer(*n, "transB", 0) == 1);
    for (std::size_t i = 0; i < codes.size() && row.equal; ++i) {
      const std::size_t rows = turned ? static_cast<std::size_t>(own[0]) : 1,
                        columns = turned ? static_cast<std::size_t>(own[1]) : 1;
      const std::size_t at = turned ? i % columns * rows + i / columns : i;
      row.equal = (*values)[at] == static_cast<float>(codes[i]) && codes[i] >= -128 && codes[i] <= 127;
    }
  }

  // The position of what a tensor of the file holds: of the layer that makes it, past operators that only pass values on.
  Ints held(const std::string& tensor) const {
    std::map<std::string, Ints> known;
    return held(tensor, 0, known);
  }
  // Concats may lie in a circle, or each take the one before twice: every tensor is looked at once.
  Ints held(std::string tensor, int depth, std::map<std::string, Ints>& known) const {
    for (; depth < 256; ++depth) {
      const onnx::NodeProto* n = file_.producer(tensor);
      if (n == nullptr || n->input_size() == 0) return {};
      if (n->domain() == domain_) return pair_of(*n, "vai_quant_out", 0);
      static const std::vector<std::string> passing = {"Flatten",   "Reshape",  "Transpose", "Squeeze",
                                                       "Unsqueeze", "Identity", "Concat",    "Clip"};
      if (std::find(passing.begin(), passing.end(), n->op_type()) == passing.end()) return {};
      if (n->op_type() != "Concat") {
        tensor = n->input(0);
        continue;
      }
      const auto [entry, is_new] = known.emplace(tensor, Ints{});
      if (!is_new) return entry->second;
      const Ints first = held(n->input(0), depth + 1, known);
      for (const auto& part : n->input())
        if (held(part, depth + 1, known) != first) return {};
      return entry->second = first;
    }
    return {};
  }

  void activation(const PlacedQuantizer& q, AuditRow& row) const {
    row.bytes = 2 * sizeof(std::int64_t);
    const bool rounds = (q.params->spec.rounding == Rounding::kDpu) == (rounding_ == "DPU");
    const bool output = q.site.kind == SiteKind::kOutput;
    if (const onnx::NodeProto* n = layer(q.node->name)) {
      const Ints pair =
          pair_of(*n, output ? "vai_quant_out" : "vai_quant_in", output ? 0 : static_cast<std::size_t>(q.site.operand));
      row.written = text_of(pair);
      row.equal = rounds && says(*q.params, pair) && is_in_text(*n) && right_source(q, *n);
      return;
    }
    // On an operator that keeps what it is given, or on a pool of one element that is left out.
    if (const onnx::NodeProto* n = file_.node(q.node->name); n && n->output_size() > 0) {
      const Ints pair =
          held(output ? n->output(0) : onnx_scan::input(*n, q.inputs.empty() ? 0 : static_cast<int>(q.inputs.front())));
      row.written = text_of(pair) + ", of the layer before";
      row.equal = rounds && says(*q.params, pair);
      return;
    }
    const Ints kernel = q.node->integers("kernel_shape");
    if (kernel.empty() || std::any_of(kernel.begin(), kernel.end(), [](std::int64_t k) { return k != 1; })) return;
    const std::string source = graph_.tensor(q.node->input(0)).name;
    for (const std::string& name : {source, source + "_quantized"})
      if (const Ints pair = held(name); !pair.empty()) {
        row.written = text_of(pair) + ", of the layer before the pool of one element";
        row.equal = rounds && says(*q.params, pair);
      }
  }

  // The layer reads, past padding, what the model's layer reads.
  bool right_source(const PlacedQuantizer& q, const onnx::NodeProto& n) const {
    if (q.site.kind == SiteKind::kOutput) return true;
    std::string tensor = onnx_scan::input(n, q.site.operand);
    if (const auto* before = file_.producer(tensor); before && before->op_type() == "Pad" && before->domain() == domain_)
      tensor = onnx_scan::input(*before, 0);
    TensorId own = q.tensor;
    for (int depth = 0; depth < 64; ++depth) {
      const std::string& name = graph_.tensor(own).name;
      if (tensor == name || tensor == name + "_quantized") return true;
      const Node* maker = graph_.find(graph_.tensor(own).producer);
      if (!maker || file_.node(maker->name) || maker->input(0) == kNoTensor) return false;  // a pool that is left out
      own = maker->input(0);
    }
    return false;
  }

  const QuantizedModel& model_;
  const Graph& graph_;
  const onnx::ModelProto& proto_;
  Index file_;
  const std::string& domain_;
  std::map<std::string, Ints> text_;
  std::string rounding_;
};

}  // namespace

Result<std::vector<AuditRow>> audit_dpu(const QuantizedModel& model, const std::string& path, const std::string& text_path,
                                        const std::string& domain) {
  QUANVAS_TRY(const onnx::ModelProto proto, onnx_scan::read(path));
  QUANVAS_TRY(const std::string text, read_file(text_path, std::uint64_t{1} << 28));
  return Reader(model, proto, text, domain).run();
}

}  // namespace quanvas::onnx_file
