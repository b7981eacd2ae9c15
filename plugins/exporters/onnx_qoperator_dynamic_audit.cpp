// The reader of layers whose input finds its scale at run time: from the sums forward to the tensor that they become.
#include <algorithm>
#include <optional>
#include <utility>

#include "core/quant/dynamic.h"
#include "plugins/exporters/onnx_audit.h"
#include "plugins/exporters/onnx_file.h"
#include "plugins/exporters/onnx_qoperator.h"

namespace quanvas::onnx_file {
namespace {

constexpr int kInt8 = onnx::TensorProto::INT8, kUint8 = onnx::TensorProto::UINT8, kFloat = onnx::TensorProto::FLOAT;

// The one node that reads a tensor; null: none or several.
const onnx::NodeProto* only_reader(const OnnxFile& file, const std::string& tensor) {
  const onnx::NodeProto* found = nullptr;
  for (const onnx::NodeProto& n : file.graph().node())
    for (const std::string& input : n.input()) {
      if (input != tensor) continue;
      if (found) return nullptr;
      found = &n;
    }
  return found;
}

// Of a node with two inputs the one that is not `known`; empty: it has not these.
std::string other_input(const onnx::NodeProto& n, const std::string& known) {
  if (n.input_size() != 2 || (n.input(0) == known) == (n.input(1) == known)) return {};
  return n.input(n.input(0) == known ? 1 : 0);
}

struct Sums {
  const onnx::NodeProto *quantize = nullptr, *sums = nullptr, *scaled = nullptr, *last = nullptr;
  const onnx::TensorProto *weight = nullptr, *zero = nullptr, *scale = nullptr;
};

// Everything between DynamicQuantizeLinear and the layer's result; none where something else stands there.
std::optional<Sums> read(const OnnxFile& file, const PlacedQuantizer& q) {
  Sums s;
  s.sums = file.node(q.reader->name);
  if (!s.sums || s.sums->input_size() != 4 || s.sums->output_size() != 1) return std::nullopt;
  s.quantize = file.producer(s.sums->input(0));
  if (!s.quantize || s.quantize->op_type() != "DynamicQuantizeLinear" || s.quantize->input_size() != 1 ||
      s.quantize->output_size() != 3 || s.quantize->output(0) != s.sums->input(0) || s.quantize->output(2) != s.sums->input(2))
    return std::nullopt;
  s.weight = file.operand(*s.sums, 1);
  s.zero = file.operand(*s.sums, 3);
  const onnx::NodeProto* cast = only_reader(file, s.sums->output(0));
  if (!cast || cast->op_type() != "Cast" || cast->output_size() != 1 || integer_attribute(*cast, "to", 0) != kFloat)
    return std::nullopt;
  s.scaled = only_reader(file, cast->output(0));
  if (!s.scaled || s.scaled->op_type() != "Mul" || s.scaled->output_size() != 1) return std::nullopt;
  const onnx::NodeProto* scale = file.producer(other_input(*s.scaled, cast->output(0)));
  if (!scale || scale->op_type() != "Mul") return std::nullopt;
  s.scale = file.tensor(other_input(*scale, s.quantize->output(1)));
  s.last = s.scaled;
  if (q.node->input(2) != kNoTensor) {
    s.last = only_reader(file, s.scaled->output(0));
    if (!s.last || s.last->op_type() != "Add" || s.last->output_size() != 1) return std::nullopt;
  }
  return s.weight && s.zero && s.scale ? std::optional(s) : std::nullopt;
}

class Row {
 public:
  Row(const QuantizedModel& model, const OnnxFile& file, const PlacedQuantizer& q, const Sums& s)
      : model_(model), graph_(*model.model->graph), file_(file), q_(q), s_(s) {}

  // The right tensor goes in, the right bias is added, and the result has the layer's name or meets its quantizer.
  bool right_ends() const {
    const TensorId x = q_.node->input(0), y = q_.node->outputs.empty() ? kNoTensor : q_.node->outputs[0];
    if (x == kNoTensor || y == kNoTensor || s_.quantize->input(0) != graph_.tensor(x).name) return false;
    if (!right_bias()) return false;
    if (s_.last->output(0) == graph_.tensor(y).name) return true;
    const onnx::NodeProto* own = only_reader(file_, s_.last->output(0));
    return own && own->op_type() == "QuantizeLinear" && s_.last->name() == q_.node->name + "_result";
  }

  std::optional<FileQuantizer> weight(std::vector<std::int64_t>& codes) const {
    FileQuantizer w;
    w.type = s_.weight->data_type();
    if ((w.type != kInt8 && w.type != kUint8) || s_.zero->data_type() != w.type || s_.scale->data_type() != kFloat)
      return std::nullopt;
    codes = file_.codes(*s_.weight);
    w.scale = file_.reals(*s_.scale);
    w.zero_point = file_.codes(*s_.zero);
    if (codes.empty() || w.scale.empty() || (w.zero_point.size() != 1 && w.zero_point.size() != w.scale.size()))
      return std::nullopt;
    std::tie(w.lo, w.hi) = *code_range_of(w.type);
    w.zero_point.resize(w.scale.size(), w.zero_point[0]);
    if (s_.scale->dims_size() > 0) w.scale_shape = {static_cast<std::int64_t>(w.scale.size())};
    for (const onnx::TensorProto* t : {s_.weight, s_.zero, s_.scale}) w.bytes += static_cast<double>(file_.bytes(*t).size());
    return w;
  }

  bool same_weight(const FileQuantizer& w, const std::vector<std::int64_t>& codes) const {
    const quant::QuantParams& p = *q_.params;
    const TensorData* data = model_.model->weights->find(graph_.tensor(q_.tensor).name);
    if (!data) return false;
    const std::vector<float> values = data->to_floats();
    const Shape& shape = data->shape;
    if (codes.size() != values.size() || static_cast<std::int64_t>(values.size()) != p.layout.elements() || shape.empty())
      return false;
    const bool convolution = s_.sums->op_type() == "ConvInteger";
    const bool turned = q_.reader->op == "Gemm" && q_.reader->integer("transB", 0) != 0;
    if (convolution != (q_.reader->op == "Conv") || (!convolution && shape.size() != 2)) return false;
    Shape dims(s_.weight->dims().begin(), s_.weight->dims().end()), wanted = shape;
    if (turned) std::swap(wanted[0], wanted[1]);
    const std::int64_t channels = shape[convolution || turned ? 0 : shape.size() - 1];
    const bool each = p.spec.granularity == Granularity::kChannel;
    if (dims != wanted || !scale_fits(channels, convolution, shape.size()) || each != (w.scale_shape.size() == 1) ||
        w.scale.size() != p.scale.size())
      return false;
    const std::vector<std::int64_t> zeros = zero_points(p);
    std::vector<std::int32_t> asked(values.size());
    std::vector<float> shown(values.size());
    quant::quantize_codes(p, p.layout, values.data(), asked.data());
    quant::fake_quantize(p, p.layout, values.data(), shown.data());
    const auto rows = static_cast<std::size_t>(shape[0]), columns = values.size() / std::max<std::size_t>(rows, 1);
    for (std::size_t i = 0; i < values.size(); ++i) {
      const std::size_t r = i / columns, c = i % columns, at = turned ? c * rows + r : i;
      const std::size_t channel = !each ? 0 : convolution || turned ? r : c;
      const std::int64_t units = codes[at] - w.zero_point[channel];
      if (units != asked[i] - (zeros.empty() ? 0 : zeros[zeros.size() == 1 ? 0 : channel]) ||
          static_cast<float>(units) * w.scale[channel] != shown[i] || w.scale[channel] != p.scale[channel])
        return false;
    }
    return true;
  }

 private:
  // One number, or one for each channel on the axis behind the batch: [C, 1, 1] of pictures, [C] of rows.
  bool scale_fits(std::int64_t channels, bool convolution, std::size_t rank) const {
    Shape dims(s_.scale->dims().begin(), s_.scale->dims().end());
    if (dims.empty()) return true;
    Shape wanted = {channels};
    if (convolution) wanted.resize(rank - 1, 1);
    return dims == wanted;
  }

  bool right_bias() const {
    const TensorId bias = q_.node->input(2);
    if (bias == kNoTensor) return true;
    const onnx::TensorProto* t = file_.tensor(other_input(*s_.last, s_.scaled->output(0)));
    const TensorData* data = model_.model->weights->find(graph_.tensor(bias).name);
    return t && data && file_.reals(*t) == data->to_floats();
  }

  const QuantizedModel& model_;
  const Graph& graph_;
  const OnnxFile& file_;
  const PlacedQuantizer& q_;
  const Sums& s_;
};

}  // namespace

bool has_dynamic_sums(const OnnxFile& file, const PlacedQuantizer& placed) {
  const onnx::NodeProto* node = file.node(placed.reader->name);
  return node && (node->op_type() == "ConvInteger" || node->op_type() == "MatMulInteger");
}

AuditRow dynamic_row(const QuantizedModel& model, const OnnxFile& file, const PlacedQuantizer& placed) {
  AuditRow row = asked_row(placed);
  const auto sums = read(file, placed);
  if (!sums) return row;
  const Row reader(model, file, placed, *sums);
  if (is_activation(placed.site.kind)) {
    FileQuantizer q;
    q.dynamic = true;
    row.written = file_quantizer_text(q);
    row.equal = quant::is_dynamic(*placed.params) && placed.inputs == std::vector<std::size_t>{0} && reader.right_ends();
    return row;
  }
  std::vector<std::int64_t> codes;
  const auto weight = placed.site.kind == SiteKind::kWeight ? reader.weight(codes) : std::nullopt;
  if (!weight) return row;
  row.written = file_quantizer_text(*weight);
  row.bytes = weight->bytes;
  row.equal = reader.same_weight(*weight, codes);
  return row;
}

const onnx::NodeProto* quantizes_at_run_time(const OnnxFile& file, const onnx::NodeProto& node, const PlacedQuantizer& placed) {
  const int at = placed.inputs.empty() ? 0 : static_cast<int>(placed.inputs.front());
  if (at >= node.input_size()) return nullptr;
  const onnx::NodeProto* n = file.producer(node.input(at));
  if (n && n->op_type() == "DequantizeLinear" && n->input_size() > 0) n = file.producer(n->input(0));
  return n && n->op_type() == "DynamicQuantizeLinear" && n->output_size() == 3 ? n : nullptr;
}

}  // namespace quanvas::onnx_file
