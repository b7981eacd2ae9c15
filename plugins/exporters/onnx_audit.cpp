#include "plugins/exporters/onnx_audit.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <unordered_map>
#include <utility>

#include <google/protobuf/io/coded_stream.h>
#include <onnx/onnx_pb.h>

#include "core/base/files.h"
#include "plugins/exporters/onnx_opset.h"
#include "plugins/exporters/onnx_sites.h"

namespace quanvas::onnx_file {

namespace {

Result<onnx::ModelProto> read_proto(const std::string& path) {
  QUANVAS_TRY(const std::string bytes, read_file(path, std::uint64_t{1} << 31));
  google::protobuf::io::CodedInputStream in(reinterpret_cast<const std::uint8_t*>(bytes.data()),
                                            static_cast<int>(bytes.size()));
  onnx::ModelProto proto;
  if (!proto.ParseFromCodedStream(&in) || !in.ConsumedEntireMessage() || !proto.has_graph())
    return fail(ErrorCode::kCorrupt, "'" + path + "' is not a complete ONNX file.", "Export it again.");
  return proto;
}

// Values of a numeric TensorProto of the types that quantizers use; empty for others and for damaged ones.
std::vector<std::int64_t> integers(const onnx::TensorProto& t) {
  std::vector<std::int64_t> out;
  const std::string& raw = t.raw_data();
  const auto unpack = [&]<class T>(T value) {
    for (std::size_t i = 0; i + sizeof(T) <= raw.size(); i += sizeof(T)) {
      std::memcpy(&value, raw.data() + i, sizeof(T));
      out.push_back(value);
    }
  };
  switch (t.data_type()) {
    case onnx::TensorProto::INT8: unpack(std::int8_t{}); break;
    case onnx::TensorProto::UINT8: unpack(std::uint8_t{}); break;
    case onnx::TensorProto::INT32: unpack(std::int32_t{}); break;
    default: return {};
  }
  if (out.empty()) out.assign(t.int32_data().begin(), t.int32_data().end());
  return out;
}

std::vector<float> floats(const onnx::TensorProto& t) {
  if (t.data_type() != onnx::TensorProto::FLOAT) return {};
  if (!t.has_raw_data()) return {t.float_data().begin(), t.float_data().end()};
  std::vector<float> out(t.raw_data().size() / sizeof(float));
  std::memcpy(out.data(), t.raw_data().data(), out.size() * sizeof(float));
  return out;
}

// What stands before a tensor in the file.
struct FileQuantizer {
  int type = 0;                      // of the codes, as TensorProto.DataType
  std::int64_t lo = 0, hi = 0;       // of the type, narrowed by a Clip
  std::vector<float> scale;
  std::vector<std::int64_t> zero_point;
  bool per_channel = false;
  std::int64_t axis = 1;
  std::string source;                // tensor that enters QuantizeLinear, or the initializer of codes
  const onnx::TensorProto* codes = nullptr;
  double bytes = 0;                  // of codes (when constant), scales and zero points
};

class FileIndex {
 public:
  explicit FileIndex(const onnx::GraphProto& graph) {
    for (const auto& node : graph.node()) {
      nodes_.emplace(node.name(), &node);
      for (const auto& out : node.output()) producers_.emplace(out, &node);
    }
    for (const auto& t : graph.initializer()) tensors_.emplace(t.name(), &t);
  }

  const onnx::NodeProto* node(const std::string& name) const { return find(nodes_, name); }
  const onnx::NodeProto* producer(const std::string& tensor) const { return find(producers_, tensor); }
  const onnx::TensorProto* tensor(const std::string& name) const { return find(tensors_, name); }
  const onnx::TensorProto* operand(const onnx::NodeProto& node, int i) const {
    return i < node.input_size() ? tensor(node.input(i)) : nullptr;
  }

  // The quantizer whose DequantizeLinear makes `tensor`; none when something else does or it is incomplete.
  std::optional<FileQuantizer> quantizer(const std::string& tensor) const {
    const onnx::NodeProto* dequantize = producer(tensor);
    if (dequantize == nullptr || dequantize->op_type() != "DequantizeLinear") return std::nullopt;
    FileQuantizer q;
    if (!read_parameters(*dequantize, q)) return std::nullopt;
    std::string codes = dequantize->input(0);
    if (q.codes = this->tensor(codes); q.codes != nullptr) {
      q.type = q.codes->data_type();
      q.source = codes;
      q.bytes += static_cast<double>(q.codes->raw_data().size());
      type_range(q);
      return q;
    }
    return read_activation(codes, q) ? std::optional(q) : std::nullopt;
  }

 private:
  template <class Map>
  static typename Map::mapped_type find(const Map& map, const std::string& key) {
    const auto it = map.find(key);
    return it == map.end() ? nullptr : it->second;
  }

  bool read_parameters(const onnx::NodeProto& node, FileQuantizer& q) const {
    const onnx::TensorProto* scale = operand(node, 1);
    if (scale == nullptr || node.input_size() == 0) return false;
    q.scale = floats(*scale);
    q.per_channel = scale->dims_size() == 1;
    q.bytes = static_cast<double>(q.scale.size() * sizeof(float));
    q.zero_point.assign(q.scale.size(), 0);
    q.type = onnx::TensorProto::UINT8;  // ONNX's default when there is no zero point
    if (const onnx::TensorProto* zero = operand(node, 2)) {
      q.zero_point = integers(*zero);
      q.type = zero->data_type();
      q.bytes += static_cast<double>(zero->raw_data().size());
    }
    for (const auto& a : node.attribute())
      if (a.name() == "axis") q.axis = a.i();
    return true;
  }

  bool read_activation(std::string codes, FileQuantizer& q) const {
    type_range(q);
    const onnx::NodeProto* node = producer(codes);
    if (node != nullptr && node->op_type() == "Clip") {
      const onnx::TensorProto* lo = operand(*node, 1);
      const onnx::TensorProto* hi = operand(*node, 2);
      const auto bound = [](const onnx::TensorProto* t, std::int64_t fallback) {
        const auto values = t ? integers(*t) : std::vector<std::int64_t>{};
        return values.size() == 1 ? values[0] : fallback;
      };
      q.lo = std::max(q.lo, bound(lo, q.lo));
      q.hi = std::min(q.hi, bound(hi, q.hi));
      node = producer(node->input(0));
    }
    if (node == nullptr || node->op_type() != "QuantizeLinear") return false;
    FileQuantizer forward;
    if (!read_parameters(*node, forward)) return false;
    q.source = node->input(0);
    return forward.scale == q.scale && forward.zero_point == q.zero_point && forward.type == q.type &&
           forward.per_channel == q.per_channel && forward.axis == q.axis;
  }

  static void type_range(FileQuantizer& q) {
    switch (q.type) {
      case onnx::TensorProto::INT8: q.lo = -128, q.hi = 127; break;
      case onnx::TensorProto::UINT8: q.lo = 0, q.hi = 255; break;
      default: q.lo = INT32_MIN, q.hi = INT32_MAX; break;
    }
  }

  std::unordered_map<std::string, const onnx::NodeProto*> nodes_, producers_;
  std::unordered_map<std::string, const onnx::TensorProto*> tensors_;
};

bool same_floats(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

bool same_parameters(const PlacedQuantizer& placed, const FileQuantizer& q, std::size_t rank) {
  const quant::QuantParams& p = *placed.params;
  const bool channels = p.spec.granularity == Granularity::kChannel;
  if (!same_floats(p.scale, q.scale) || zero_points(p) != q.zero_point || channels != q.per_channel) return false;
  const std::int64_t axis = q.axis < 0 ? q.axis + static_cast<std::int64_t>(rank) : q.axis;
  return !channels || rank == 0 || axis == channel_axis(p, rank);
}

// Codes, and the floats that DequantizeLinear makes of them, against the quantizer on the model's weights.
bool same_constant(const QuantizedModel& model, const PlacedQuantizer& placed, const FileQuantizer& q) {
  const quant::QuantParams& p = *placed.params;
  const TensorData* data = model.model->weights->find(model.model->graph->tensor(placed.tensor).name);
  if (data == nullptr) return false;
  const std::vector<float> values = data->to_floats();
  const std::vector<std::int64_t> stored = integers(*q.codes);
  const auto dims = q.codes->dims();
  if (stored.size() != values.size() || static_cast<std::int64_t>(values.size()) != p.layout.elements() ||
      Shape(dims.begin(), dims.end()) != data->shape)
    return false;
  std::vector<std::int32_t> codes(values.size());
  std::vector<float> shown(values.size());
  quant::quantize_codes(p, p.layout, values.data(), codes.data());
  quant::fake_quantize(p, p.layout, values.data(), shown.data());
  const std::int64_t inner = q.per_channel ? p.layout.inner : static_cast<std::int64_t>(values.size());
  for (std::size_t i = 0; i < stored.size(); ++i) {
    const std::size_t c = (static_cast<std::int64_t>(i) / inner) % static_cast<std::int64_t>(q.scale.size());
    const float value = static_cast<float>(stored[i] - q.zero_point[c]) * q.scale[c];
    if (stored[i] != codes[i] || stored[i] < p.lo || stored[i] > p.hi || value != shown[i]) return false;
  }
  return true;
}

// Whether the file's quantizer gives the codes of the truncation for every sum that there can be.
bool same_truncation(const Graph& graph, const PlacedQuantizer& placed, const FileQuantizer& q) {
  const quant::QuantParams& p = *placed.params;
  if (!p.truncated) return true;
  if (!truncates_exactly(graph, placed)) return false;
  const std::int64_t count = std::int64_t{1} << std::min(p.truncated->bits, 30);
  const std::int64_t first = p.spec.is_signed ? -count / 2 : 0;
  constexpr std::int64_t kAtOnce = 1 << 16;
  std::vector<float> x;
  std::vector<std::int32_t> codes;
  for (std::int64_t begin = 0; begin < count; begin += kAtOnce) {
    x.clear();
    for (std::int64_t i = begin; i < std::min(count, begin + kAtOnce); ++i)
      x.push_back(static_cast<float>(first + i) * p.truncated->scale);
    codes.resize(x.size());
    quant::BlockLayout layout;
    layout.inner = static_cast<std::int64_t>(x.size());
    quant::quantize_codes(p, layout, x.data(), codes.data());
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double rounded = std::nearbyint(static_cast<double>(x[i] / q.scale[0]));
      if (std::clamp(rounded, static_cast<double>(q.lo), static_cast<double>(q.hi)) != codes[i]) return false;
    }
  }
  return true;
}

std::string file_text(const FileQuantizer& q) {
  std::int64_t lo = q.lo, hi = q.hi;
  std::string held;
  if (q.codes != nullptr) {
    const std::vector<std::int64_t> codes = integers(*q.codes);
    if (!codes.empty()) {
      const auto [least, most] = std::minmax_element(codes.begin(), codes.end());
      held = ", codes " + std::to_string(*least) + " … " + std::to_string(*most);
    }
  }
  return quantizer_text(q.type != onnx::TensorProto::UINT8, lo, hi, q.per_channel, q.scale.size(), q.zero_point) +
         held;
}

struct Audit {
  const QuantizedModel& model;
  const FileIndex& file;

  // Where the site lies in the file. A node that was taken apart ends in another one, which gives its output and, of a
  // MatMul, has its bias as second input.
  const onnx::NodeProto* node_of(const PlacedQuantizer& placed) const {
    const onnx::NodeProto* first = file.node(placed.reader->name);
    const bool is_last = placed.site.kind == SiteKind::kOutput || (placed.site.kind == SiteKind::kBias && placed.reader->op == "MatMul");
    const onnx::NodeProto* last = first && is_last ? file.node(placed.reader->name + kResult) : nullptr;
    return last ? last : first;
  }

  // The tensor in the file on which the site's quantizer ends.
  std::string tensor_of(const PlacedQuantizer& placed, const onnx::NodeProto& node) const {
    if (placed.site.kind == SiteKind::kOutput) return model.model->graph->tensor(placed.tensor).name;
    int i = placed.inputs.empty() ? -1 : static_cast<int>(placed.inputs.front());
    if (placed.site.kind == SiteKind::kBias && placed.reader->op == "MatMul") i = 1;
    return i >= 0 && i < node.input_size() ? node.input(i) : std::string();
  }

  // An activation's quantizer must read what the model has there: the producer's output, quantized or not.
  bool right_source(const PlacedQuantizer& placed, const onnx::NodeProto& node, const std::string& tensor,
                    const FileQuantizer& q) const {
    const std::string& name = model.model->graph->tensor(placed.tensor).name;
    if (placed.site.kind == SiteKind::kOutput)
      return std::find(node.output().begin(), node.output().end(), q.source) != node.output().end();
    for (const std::size_t i : placed.inputs)
      if (static_cast<int>(i) >= node.input_size() || node.input(static_cast<int>(i)) != tensor) return false;
    return q.source == name || tensor == name;
  }

  AuditRow row(const PlacedQuantizer& placed) const {
    AuditRow row{placed.node->name, placed.name, quantizer_text(*placed.params), "nothing", 0, false};
    const onnx::NodeProto* node = node_of(placed);
    if (node == nullptr) return row;
    const std::string tensor = tensor_of(placed, *node);
    const auto q = file.quantizer(tensor);
    if (!q) {
      row.written = "float";
      return row;
    }
    row.written = file_text(*q);
    row.bytes = q->bytes;
    const bool constant = placed.site.kind == SiteKind::kWeight || placed.site.kind == SiteKind::kBias;
    row.equal = same_parameters(placed, *q, shape_of(model, placed.tensor).size()) &&
                constant == (q->codes != nullptr);
    if (!row.equal) return row;
    row.equal = constant ? same_constant(model, placed, *q)
                         : q->lo == placed.params->lo && q->hi == placed.params->hi &&
                               right_source(placed, *node, tensor, *q) &&
                               same_truncation(*model.model->graph, placed, *q);
    return row;
  }

  // Sites that stay float on the screen but are quantized in the file.
  void unasked(std::vector<AuditRow>& rows) const {
    const Graph& graph = *model.model->graph;
    const std::vector<PlacedQuantizer> asked = place(model).quantizers;
    for (const Layer& layer : find_layers(graph)) {
      const Node* original = graph.find(layer.node);
      const onnx::NodeProto* node = file.node(original->name);
      if (node == nullptr) continue;
      for (std::size_t i = 0; i < original->inputs.size() && static_cast<int>(i) < node->input_size(); ++i) {
        const TensorId id = original->inputs[i];
        const std::string& tensor = node->input(static_cast<int>(i));
        const bool wanted = std::any_of(asked.begin(), asked.end(), [&](const PlacedQuantizer& q) {
          return q.node == original && std::find(q.inputs.begin(), q.inputs.end(), i) != q.inputs.end();
        });
        // Under its own name the tensor is quantized where it is made, which is that layer's row.
        if (wanted || id == kNoTensor || tensor == graph.tensor(id).name) continue;
        if (const auto q = file.quantizer(tensor))
          rows.push_back({original->name, "input " + std::to_string(i), "float", file_text(*q), q->bytes, false});
      }
    }
  }
};

}  // namespace

Result<std::vector<AuditRow>> audit_qdq(const QuantizedModel& model, const std::string& path) {
  QUANVAS_TRY(const onnx::ModelProto proto, read_proto(path));
  const FileIndex index(proto.graph());
  const Audit audit{model, index};
  std::vector<AuditRow> rows;
  for (const PlacedQuantizer& placed : place(model).quantizers) rows.push_back(audit.row(placed));
  audit.unasked(rows);
  return rows;
}

Result<std::vector<AuditRow>> audit_float(const Model& model, const std::string& path) {
  QUANVAS_TRY(const onnx::ModelProto proto, read_proto(path));
  const FileIndex index(proto.graph());
  std::vector<AuditRow> rows;
  const auto add = [&](const std::string& layer, const std::string& kind, TensorId id) {
    if (id == kNoTensor || !model.graph->tensor(id).is_initializer) return;
    const std::string& name = model.graph->tensor(id).name;
    const TensorData* wanted = model.weights->find(name);
    if (wanted == nullptr) return;
    AuditRow row{layer, kind, std::string(type_name(wanted->type)) + " " + shape_text(wanted->shape), "nothing", 0, false};
    if (const onnx::TensorProto* t = index.tensor(name)) {
      const Shape dims(t->dims().begin(), t->dims().end());
      row.written = std::string(type_name(static_cast<DataType>(t->data_type()))) + " " + shape_text(dims);
      row.bytes = static_cast<double>(t->raw_data().size());
      row.equal = t->data_type() == static_cast<int>(wanted->type) && dims == wanted->shape &&
                  t->raw_data().size() == wanted->bytes &&
                  std::memcmp(t->raw_data().data(), wanted->data, wanted->bytes) == 0;
    }
    rows.push_back(std::move(row));
  };
  for (const Layer& layer : find_layers(*model.graph)) {
    const Node* node = model.graph->find(layer.node);
    for (const Site& site : layer.sites())
      if (!is_activation(site.kind)) add(node->name, site_name(layer, site), site_tensor(layer, site));
  }
  return rows;
}

}  // namespace quanvas::onnx_file
