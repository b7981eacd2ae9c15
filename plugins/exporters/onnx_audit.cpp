#include "plugins/exporters/onnx_audit.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <utility>

#include "core/quant/dynamic.h"
#include "plugins/exporters/onnx_file.h"
#include "plugins/exporters/onnx_opset.h"
#include "plugins/exporters/onnx_sites.h"

namespace quanvas::onnx_file {

namespace {

bool same_floats(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

// Minifloats by TensorProto.DataType; 0: the codes are integers.
int minifloat_type(const QuantSpec& spec) {
  const std::string name = format_name(spec);
  if (name == "e4m3fn") return 17;
  if (name == "e4m3fnuz") return 18;
  if (name == "e5m2") return 19;
  if (name == "e5m2fnuz") return 20;
  return name == "e2m1" ? 23 : 0;
}

bool same_parameters(const PlacedQuantizer& placed, const FileQuantizer& q, std::size_t rank) {
  const quant::QuantParams& p = *placed.params;
  if (quant::is_dynamic(p) || q.dynamic) return quant::is_dynamic(p) && q.dynamic;
  const bool channels = p.spec.granularity == Granularity::kChannel, blocks = p.spec.granularity == Granularity::kGroup;
  if (!same_floats(p.scale, q.scale) || zero_points(p) != q.zero_point || channels != q.per_channel() ||
      blocks != q.in_blocks())
    return false;
  const int minifloat = minifloat_type(p.spec);
  if (minifloat ? q.type != minifloat : !code_range_of(q.type).has_value()) return false;
  if (blocks && q.block != p.layout.group) return false;
  const std::int64_t axis = q.axis < 0 ? q.axis + static_cast<std::int64_t>(rank) : q.axis;
  return (!channels && !blocks) || rank == 0 || axis == channel_axis(p, rank);
}

// Which scale the elements of a tensor have, by what the file says.
class FileLayout {
 public:
  static std::optional<FileLayout> of(const FileQuantizer& q, const Shape& shape) {
    FileLayout l;
    if (q.scale.size() == 1 && !q.in_blocks()) return l;
    const auto rank = static_cast<std::int64_t>(shape.size());
    const std::int64_t axis = q.axis < 0 ? q.axis + rank : q.axis;
    if (axis < 0 || axis >= rank || (q.in_blocks() && q.block < 1)) return std::nullopt;
    l.one_ = false;
    l.dim_ = std::max<std::int64_t>(shape[static_cast<std::size_t>(axis)], 1);
    for (std::int64_t i = axis + 1; i < rank; ++i) l.inner_ *= std::max<std::int64_t>(shape[static_cast<std::size_t>(i)], 1);
    Shape wanted = {l.dim_};
    if (q.in_blocks()) {
      l.block_ = q.block;
      l.groups_ = (l.dim_ + q.block - 1) / q.block;
      wanted = shape;
      wanted[static_cast<std::size_t>(axis)] = l.groups_;
    }
    if (wanted != q.scale_shape || element_count(wanted) != static_cast<std::int64_t>(q.scale.size())) return std::nullopt;
    return l;
  }

  std::size_t at(std::int64_t i) const {
    if (one_) return 0;
    const std::int64_t d = i / inner_ % dim_;
    if (groups_ == 0) return static_cast<std::size_t>(d);
    return static_cast<std::size_t>((i / (inner_ * dim_) * groups_ + d / block_) * inner_ + i % inner_);
  }

 private:
  bool one_ = true;
  std::int64_t dim_ = 1, inner_ = 1, block_ = 1, groups_ = 0;  // groups 0: one scale per index of the axis
};

// Codes, and the floats that DequantizeLinear makes of them, against the quantizer on the model's weights.
bool same_constant(const QuantizedModel& model, const PlacedQuantizer& placed, const FileQuantizer& q, const OnnxFile& file) {
  const quant::QuantParams& p = *placed.params;
  const TensorData* data = model.model->weights->find(model.model->graph->tensor(placed.tensor).name);
  if (data == nullptr) return false;
  const std::vector<float> values = data->to_floats();
  const std::vector<std::int64_t> stored = file.codes(*q.codes);
  const auto dims = q.codes->dims();
  if (stored.size() != values.size() || static_cast<std::int64_t>(values.size()) != p.layout.elements() ||
      Shape(dims.begin(), dims.end()) != data->shape)
    return false;
  std::vector<std::int32_t> codes(values.size());
  std::vector<float> shown(values.size());
  quant::quantize_codes(p, p.layout, values.data(), codes.data());
  quant::fake_quantize(p, p.layout, values.data(), shown.data());
  const auto layout = FileLayout::of(q, data->shape);
  if (!layout) return false;
  const bool minifloat = minifloat_type(p.spec) != 0;
  for (std::size_t i = 0; i < stored.size(); ++i) {
    const std::size_t c = layout->at(static_cast<std::int64_t>(i));
    const float units = minifloat ? small_value(static_cast<DataType>(q.type), static_cast<std::uint8_t>(stored[i]))
                                  : static_cast<float>(stored[i] - q.zero_point[c]);
    if (stored[i] != codes[i] || stored[i] < p.lo || stored[i] > p.hi || units * q.scale[c] != shown[i]) return false;
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

std::string file_text(const FileQuantizer& q, const OnnxFile& file) {
  std::string held;
  if (q.codes != nullptr && code_range_of(q.type)) {
    const std::vector<std::int64_t> codes = file.codes(*q.codes);
    if (!codes.empty()) {
      const auto [least, most] = std::minmax_element(codes.begin(), codes.end());
      held = ", codes " + std::to_string(*least) + " … " + std::to_string(*most);
    }
  }
  return file_quantizer_text(q) + held;
}

// Integers in the same words as in the file; the others as their declaration says.
std::string model_text(const quant::QuantParams& p) {
  return p.spec.format != "int" || quant::is_dynamic(p) ? describe(p.spec) : quantizer_text(p);
}

struct Audit {
  const QuantizedModel& model;
  const OnnxFile& file;

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

  static bool same_range(const quant::QuantParams& p, const FileQuantizer& q) {
    if (minifloat_type(p.spec) != 0) return q.saturates == p.spec.saturate;
    return q.lo == p.lo && q.hi == p.hi;
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
    AuditRow row = asked_row(placed);
    const onnx::NodeProto* node = node_of(placed);
    if (node == nullptr) return row;
    const std::string tensor = tensor_of(placed, *node);
    auto q = file.quantizer(tensor);
    if (!q) {
      row.written = "float";
      return row;
    }
    if (q->limited && !right_source(placed, *node, tensor, *q)) {
      q->source = q->limited->source;
      q->lo = q->limited->lo;
      q->hi = q->limited->hi;
    }
    row.written = file_text(*q, file);
    row.bytes = q->bytes;
    const bool constant = placed.site.kind == SiteKind::kWeight || placed.site.kind == SiteKind::kBias;
    row.equal = same_parameters(placed, *q, shape_of(model, placed.tensor).size()) &&
                constant == (q->codes != nullptr);
    if (!row.equal) return row;
    row.equal = constant ? same_constant(model, placed, *q, file)
                         : same_range(*placed.params, *q) && right_source(placed, *node, tensor, *q) &&
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
          rows.push_back({original->name, "input " + std::to_string(i), "float", file_text(*q, file), q->bytes, false});
      }
    }
  }
};

}  // namespace

AuditRow asked_row(const PlacedQuantizer& placed) {
  return {placed.node->name, placed.name, model_text(*placed.params), "nothing", 0, false};
}

AuditRow qdq_row(const QuantizedModel& model, const OnnxFile& file, const PlacedQuantizer& placed) {
  return Audit{model, file}.row(placed);
}

Result<std::vector<AuditRow>> audit_qdq(const QuantizedModel& model, const std::string& path) {
  QUANVAS_TRY(const OnnxFile index, OnnxFile::open(path));
  const Audit audit{model, index};
  std::vector<AuditRow> rows;
  for (const PlacedQuantizer& placed : place(model).quantizers) rows.push_back(audit.row(placed));
  audit.unasked(rows);
  return rows;
}

Status find_held(const QuantizedModel& model, const std::string& path, ReadBack& back) {
  QUANVAS_TRY(const OnnxFile file, OnnxFile::open(path));
  const Audit audit{model, file};
  for (const PlacedQuantizer& placed : place(model).quantizers) {
    if (!is_activation(placed.site.kind)) continue;
    const onnx::NodeProto* node = audit.node_of(placed);
    const std::string tensor = node ? audit.tensor_of(placed, *node) : std::string();
    if (!tensor.empty() && file.quantizer(tensor) && back.model->graph->tensor(tensor) != kNoTensor)
      back.sites[placed.site] = {tensor, {}, {}, -1};
    else
      back.notes.push_back("The file has no tensor for " + placed.name + " of '" + placed.node->name + "'.");
  }
  return {};
}

Result<std::vector<AuditRow>> audit_float(const Model& model, const std::string& path) {
  QUANVAS_TRY(const OnnxFile index, OnnxFile::open(path));
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
      const std::string raw = index.bytes(*t).empty() ? t->raw_data() : index.bytes(*t);
      row.bytes = static_cast<double>(raw.size());
      row.equal = t->data_type() == static_cast<int>(wanted->type) && dims == wanted->shape && raw.size() == wanted->bytes &&
                  (raw.empty() || std::memcmp(raw.data(), wanted->data, wanted->bytes) == 0);
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
