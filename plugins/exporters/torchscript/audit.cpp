// Files are read again by the importer, whose graph says what the code computes: from each layer's node back to the
// quantizers of its inputs, and on to that of its output.
#include <algorithm>
#include <cstring>
#include <optional>
#include <set>

#include "core/plugin/placement.h"
#include "core/quant/dynamic.h"
#include "plugins/exporters/torchscript/exporters.h"
#include "plugins/exporters/torchscript/program.h"

namespace quanvas::torchscript_file {
namespace {

struct FileQuantizer {
  std::int64_t lo = 0, hi = 0;
  std::vector<float> scale;
  std::vector<std::int64_t> zero_point;
  std::int64_t axis = -1;             // -1: one scale
  const TensorData* codes = nullptr;  // of constants
  TensorId values = kNoTensor;        // what DequantizeLinear gives
  double bytes = 0;
  bool at_run_time = false;  // scale and zero point
};

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

constexpr int kMostSteps = 64;

bool moves_values(const Node& n) {
  static const std::set<std::string> moving = {"Relu",    "MaxPool",   "Reshape",  "Flatten", "Transpose",
                                               "Squeeze", "Unsqueeze", "Identity", "Clip",    "Pad"};
  return n.domain.empty() && moving.count(n.op) > 0;
}

class FileGraph {
 public:
  FileGraph(const Model& model) : model_(model), graph_(*model.graph) {}

  // The node of the layer: the one of its name, or of its operator inside its module.
  const Node* layer(const Node& node) const {
    const auto fits = [&](const Node& n) {
      const auto product = [](const std::string& op) { return op == "Gemm" || op == "MatMul"; };
      return n.op == node.op || (product(n.op) && product(node.op));
    };
    if (const Node* n = graph_.find(node.name); n && fits(*n)) return n;
    for (const Node& n : graph_.nodes())
      if (n.name.compare(0, node.name.size() + 1, node.name + ".") == 0 && fits(n)) return &n;
    return graph_.find(node.name);
  }

  const Node* producer(TensorId t) const { return t == kNoTensor ? nullptr : graph_.find(graph_.tensor(t).producer); }
  const TensorData* constant(TensorId t) const {
    return t == kNoTensor || !graph_.tensor(t).is_initializer ? nullptr : model_.weights->find(graph_.tensor(t).name);
  }
  const Graph& graph() const { return graph_; }

  // Behind operators that only move values or choose among them.
  std::optional<FileQuantizer> before(TensorId t) const {
    for (int steps = 0; steps < kMostSteps; ++steps) {
      const Node* n = producer(t);
      if (!n || !n->domain.empty()) return std::nullopt;
      if (n->op == "DequantizeLinear") return read(*n);
      if (!moves_values(*n)) return std::nullopt;
      t = n->input(0);
    }
    return std::nullopt;
  }

  // Of what a node gives: the quantizer that reads it, or what else is done in the module of its name.
  std::optional<FileQuantizer> behind(const Node& node, const std::string& module) const {
    const TensorId t = node.outputs.at(0);
    for (const NodeId id : graph_.tensor(t).consumers) {
      const Node* reader = graph_.find(id);
      if ((reader->op == "Relu" || reader->op == "Add") && reader->name.compare(0, module.size() + 1, module + ".") == 0) {
        if (auto found = behind(*reader, module)) return found;
      }
      if (reader->op != "QuantizeLinear") continue;
      TensorId codes = reader->outputs.at(0);
      for (int steps = 0; steps < 2; ++steps)
        for (const NodeId next : graph_.tensor(codes).consumers) {
          const Node* n = graph_.find(next);
          if (n->op == "DequantizeLinear") return read(*n);
          if (n->op == "Clip") codes = n->outputs.at(0);
        }
    }
    return std::nullopt;
  }

  // The bias of a product that an Add gives it.
  TensorId added(const Node& product) const {
    for (const NodeId id : graph_.tensor(product.outputs.at(0)).consumers) {
      const Node* n = graph_.find(id);
      if (n->op == "Add" && n->inputs.size() == 2) return n->inputs[n->inputs[0] == product.outputs[0] ? 1 : 0];
    }
    return kNoTensor;
  }

 private:
  const Model& model_;
  const Graph& graph_;

  std::optional<FileQuantizer> read(const Node& dequantize) const {
    FileQuantizer q;
    q.values = dequantize.outputs.at(0);
    const Node* run = producer(dequantize.input(0));
    if (run && run->op == "DynamicQuantizeLinear" && run->outputs.size() == 3) {
      for (const std::size_t i : {0u, 1u, 2u})
        if (run->outputs[i] != dequantize.input(i)) return std::nullopt;
      q.at_run_time = true;
      q.hi = 255;
      return q;
    }
    const TensorData *scale = constant(dequantize.input(1)), *zero = constant(dequantize.input(2));
    if (!scale) return std::nullopt;
    q.scale = scale->to_floats();
    q.zero_point = zero ? zero->to_int64() : std::vector<std::int64_t>(q.scale.size(), 0);
    if (q.zero_point.size() != q.scale.size()) return std::nullopt;
    if (!scale->shape.empty()) q.axis = dequantize.integer("axis", 1);
    q.bytes = static_cast<double>(q.scale.size() * sizeof(float));
    TensorId codes = dequantize.input(0);
    q.lo = -2147483648ll;
    q.hi = 2147483647ll;
    if (q.codes = constant(codes); q.codes) {
      limit(q, q.codes->type);
      q.bytes += static_cast<double>(q.codes->bytes);
      return q;
    }
    const Node* n = producer(codes);
    if (n && n->op == "Clip") {
      const TensorData *lo = constant(n->input(1)), *hi = constant(n->input(2));
      if (!lo || !hi || lo->to_int64().size() != 1 || hi->to_int64().size() != 1) return std::nullopt;
      q.lo = lo->to_int64()[0];
      q.hi = hi->to_int64()[0];
      n = producer(n->input(0));
    }
    if (!n || n->op != "QuantizeLinear") return std::nullopt;
    // It quantizes with the same numbers.
    const TensorData *s = constant(n->input(1)), *z = constant(n->input(2));
    if (!s || !z || !same_bits(s->to_floats(), q.scale) || z->to_int64() != q.zero_point) return std::nullopt;
    limit(q, z->type);
    return q;
  }
  static void limit(FileQuantizer& q, DataType type) {
    if (type == DataType::kInt32) return;
    q.lo = std::max<std::int64_t>(q.lo, type == DataType::kInt8 ? -128 : 0);
    q.hi = std::min<std::int64_t>(q.hi, type == DataType::kInt8 ? 127 : 255);
  }
};

// The model's codes in the file's order: [rows, columns] turned, if that is what makes them equal.
enum class Order { kSame, kTurned, kOther };
Order order_of(const StoredTensor& stored, const std::vector<std::int64_t>& codes) {
  if (stored.codes.size() != codes.size()) return Order::kOther;
  if (std::equal(codes.begin(), codes.end(), stored.codes.begin())) return Order::kSame;
  if (stored.shape.size() != 2) return Order::kOther;
  const auto rows = static_cast<std::size_t>(stored.shape[0]), columns = static_cast<std::size_t>(stored.shape[1]);
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t c = 0; c < columns; ++c)
      if (codes[c * rows + r] != stored.codes[r * columns + c]) return Order::kOther;
  return Order::kTurned;
}

// As the quantizer of the screen counts them: LibTorch's quantized tensors have 128 more for signed codes.
void count_from_sign(FileQuantizer& q, const quant::QuantParams& p) {
  if (!p.spec.is_signed || q.lo < 0 || q.codes) return;
  q.lo -= 128;
  q.hi -= 128;
  for (std::int64_t& z : q.zero_point) z -= 128;
}

class Audit {
 public:
  Audit(const QuantizedModel& model, const Model& file) : model_(model), file_(file) {
    for (const PlacedQuantizer& q : place(model).quantizers)
      for (const std::size_t i : q.inputs) asked_[{q.reader->id, i}] = q.params;
  }

  Result<std::vector<AuditRow>> run() {
    std::vector<AuditRow> rows;
    for (const PlacedQuantizer& q : place(model_).quantizers) {
      const bool at_run_time = quant::is_dynamic(*q.params);
      AuditRow row{q.node->name, q.name, at_run_time ? describe(q.params->spec) : quantizer_text(*q.params), "not found", 0, false};
      std::optional<FileQuantizer> held = find(q);
      if (held && (held->at_run_time || at_run_time)) {
        row.written = held->at_run_time ? "uint8, scale and zero point found at run time" : "known beforehand";
        row.equal = held->at_run_time && at_run_time;
      } else if (held) {
        if (is_activation(q.site.kind)) count_from_sign(*held, *q.params);
        const bool channels = held->axis >= 0;
        row.bytes = held->bytes;
        if (is_activation(q.site.kind)) {
          row.written = quantizer_text(held->lo < 0, held->lo, held->hi, channels, held->scale.size(), held->zero_point);
          row.equal = held->lo == q.params->lo && held->hi == q.params->hi && same_numbers(*held, *q.params) &&
                      (!channels || held->axis == channel_axis(*q.params, rank(q)));
        } else {
          QUANVAS_CHECK(compare_constant(q, *held, row));
        }
      }
      rows.push_back(std::move(row));
    }
    unasked(rows);
    return rows;
  }

  std::map<Site, ReadBack::Held> sites() const {
    std::map<Site, ReadBack::Held> out;
    for (const PlacedQuantizer& q : place(model_).quantizers) {
      if (!is_activation(q.site.kind)) continue;
      const Node* node = file_.layer(*q.node);
      if (q.site.kind == SiteKind::kOutput) {
        if (const auto held = find(q)) out[q.site].tensor = file_.graph().tensor(held->values).name;
      } else if (node && q.inputs.size() == 1 && file_.before(node->input(q.inputs[0]))) {
        out[q.site].tensor = file_.graph().tensor(unpadded(node->input(q.inputs[0]), q.tensor)).name;
      }
    }
    return out;
  }

 private:
  const QuantizedModel& model_;
  const FileGraph file_;
  std::map<std::pair<NodeId, std::size_t>, const quant::QuantParams*> asked_;  // by reader and input

  // What a layer's uneven pads, which the file adds before it, are added to.
  TensorId unpadded(TensorId t, TensorId screen) const {
    const Node* own = model_.model->graph->find(model_.model->graph->tensor(screen).producer);
    const Node* n = file_.producer(t);
    return n && n->op == "Pad" && !(own && own->op == "Pad") ? n->input(0) : t;
  }

  std::size_t rank(const PlacedQuantizer& q) const { return shape_of(model_, q.tensor).size(); }

  std::optional<FileQuantizer> find(const PlacedQuantizer& q) const {
    const Node* own = q.site.kind == SiteKind::kOutput ? q.node : q.reader;
    const Node* node = file_.layer(*own);
    if (!node && q.site.kind == SiteKind::kOutput && own->op == "Relu") {  // part of the layer before it
      const Graph& graph = *model_.model->graph;
      own = graph.find(graph.tensor(own->input(0)).producer);
      node = own ? file_.layer(*own) : nullptr;
    }
    if (!node) return std::nullopt;
    if (q.site.kind == SiteKind::kOutput) return file_.behind(*node, own->name);
    if (q.inputs.empty()) return std::nullopt;
    const std::size_t i = q.inputs[0];
    if (q.site.kind == SiteKind::kBias && node->input(i) == kNoTensor) return file_.before(file_.added(*node));
    return file_.before(node->input(i));
  }

  // --- quantizers in the file that nobody asked for

  std::string text_of(const FileQuantizer& q) const {
    return quantizer_text(q.lo < 0, q.lo, q.hi, q.axis >= 0, q.scale.size(), q.zero_point);
  }
  bool is(FileQuantizer held, const quant::QuantParams& p) const {
    count_from_sign(held, p);
    return held.lo == p.lo && held.hi == p.hi && same_numbers(held, p);
  }
  const quant::QuantParams* output_at(const Node& node) const { return quantizer_at(model_, {node.id, SiteKind::kOutput, 0}); }

  // Whether the tensor has the quantizer from where it was made.
  bool has_from_before(TensorId t, const FileQuantizer& held) const {
    const Graph& graph = *model_.model->graph;
    for (int steps = 0; steps < kMostSteps && t != kNoTensor; ++steps) {
      const Node* maker = graph.find(graph.tensor(t).producer);
      if (!maker) return false;
      if (const auto* own = output_at(*maker); own && maker->outputs[0] == t) return is(held, *own);
      if (!moves_values(*maker)) return false;
      t = maker->input(0);
    }
    return false;
  }
  // Whether all who read the result behind operators that move values ask for this quantizer: then it may stand before them.
  bool is_for_all_behind(const Node& node, const FileQuantizer& held, int steps = 0) const {
    if (!moves_values(node) || steps > kMostSteps) return false;
    if (const auto* own = output_at(node)) return is(held, *own);
    const Graph& graph = *model_.model->graph;
    const auto& readers = graph.tensor(node.outputs.at(0)).consumers;
    return !readers.empty() && !graph.is_output(node.outputs[0]) && std::all_of(readers.begin(), readers.end(), [&](NodeId id) {
      const Node& reader = *graph.find(id);
      for (std::size_t i = 0; i < reader.inputs.size(); ++i) {
        if (reader.inputs[i] != node.outputs[0]) continue;
        const quant::QuantParams* asked = asked_at(reader, i);
        if (asked ? !is(held, *asked) : !is_for_all_behind(reader, held, steps + 1)) return false;
      }
      return true;
    });
  }
  const quant::QuantParams* asked_at(const Node& node, std::size_t input) const {
    const auto it = asked_.find({node.id, input});
    return it == asked_.end() ? nullptr : it->second;
  }

  // What stays float on the screen but is quantized in the file.
  void unasked(std::vector<AuditRow>& rows) const {
    const Graph& graph = *model_.model->graph;
    for (const Node& node : graph.nodes()) {
      const Node* held = file_.layer(node);
      if (!held) continue;
      for (std::size_t i = 0; i < node.inputs.size(); ++i) {
        const TensorId t = node.inputs[i];
        if (t == kNoTensor || asked_at(node, i)) continue;
        const TensorId in_file = held->input(i) == kNoTensor && i == 2 ? file_.added(*held) : held->input(i);
        const auto q = file_.before(in_file);
        if (!q || has_from_before(t, *q) || is_for_all_behind(node, *q)) continue;
        rows.push_back({node.name, "input " + std::to_string(i + 1), "float", text_of(*q), q->bytes, false});
      }
    }
    for (std::size_t i = 0; i < graph.outputs().size() && i < file_.graph().outputs().size(); ++i) {
      const TensorId t = graph.outputs()[i];
      const auto q = file_.before(file_.graph().outputs()[i]);
      if (q && !graph.tensor(t).is_initializer && !has_from_before(t, *q))
        rows.push_back({graph.tensor(t).name, "output of the network", "float", text_of(*q), q->bytes, false});
    }
  }

  static bool same_numbers(const FileQuantizer& held, const quant::QuantParams& p) {
    return same_bits(held.scale, p.scale) && held.zero_point == zero_points(p);
  }

  Status compare_constant(const PlacedQuantizer& q, const FileQuantizer& held, AuditRow& row) const {
    if (!held.codes) {
      row.written = "values that are computed";
      return {};
    }
    QUANVAS_TRY(const StoredTensor stored, stored_tensor(model_, q));
    const std::vector<std::int64_t> codes = held.codes->to_int64();
    const Order order = order_of(stored, codes);
    const bool channels = held.axis >= 0;
    const quant::QuantParams& p = *q.params;
    // Integers of the file are wider than the format: what they use is compared, and every value.
    row.written = quantizer_text(p.spec.is_signed, p.lo, p.hi, channels, held.scale.size(), held.zero_point);
    if (order == Order::kOther) {
      row.written += ", other codes";
      return {};
    }
    std::int64_t axis = held.axis;
    if (order == Order::kTurned && axis >= 0) axis = 1 - axis;
    const bool by_channel = p.spec.granularity == Granularity::kChannel;
    // A bias of one scale may be written with one for each of its values, and the other way round where there is one.
    std::vector<float> scale = held.scale;
    if (q.site.kind == SiteKind::kBias && scale.size() != p.scale.size() &&
        std::adjacent_find(scale.begin(), scale.end(), std::not_equal_to<>()) == scale.end())
      scale.assign(p.scale.size(), scale[0]);
    std::vector<std::int64_t> zeros = held.zero_point;
    if (zeros.size() != scale.size() && std::adjacent_find(zeros.begin(), zeros.end(), std::not_equal_to<>()) == zeros.end())
      zeros.assign(scale.size(), zeros.empty() ? 0 : zeros[0]);
    const bool axes =
        q.site.kind == SiteKind::kBias || !by_channel || !channels || axis == channel_axis(p, stored.shape.size());
    row.equal = axes && same_bits(scale, p.scale) && zeros == zero_points(p) && same_values(stored, codes, order, held);
    return {};
  }

  // (code - zero point) * scale in float32, bit for bit the values of the screen.
  static bool same_values(const StoredTensor& stored, const std::vector<std::int64_t>& codes, Order order,
                          const FileQuantizer& held) {
    const Shape& shape = held.codes->shape;
    std::int64_t inner = 1, dim = 1;
    if (held.axis >= 0) {
      if (held.axis >= static_cast<std::int64_t>(shape.size())) return false;
      dim = shape[static_cast<std::size_t>(held.axis)];
      for (std::size_t i = static_cast<std::size_t>(held.axis) + 1; i < shape.size(); ++i) inner *= shape[i];
      if (static_cast<std::int64_t>(held.scale.size()) != dim) return false;
    }
    const auto rows = stored.shape.size() == 2 ? static_cast<std::size_t>(stored.shape[0]) : 1,
               columns = stored.codes.size() / std::max<std::size_t>(rows, 1);
    for (std::size_t i = 0; i < codes.size(); ++i) {
      const std::size_t c = held.axis < 0 ? 0 : static_cast<std::size_t>(static_cast<std::int64_t>(i) / inner % dim);
      const float value = static_cast<float>(codes[i] - held.zero_point[c]) * held.scale[c];
      const std::size_t k = order == Order::kSame ? i : (i % rows) * columns + i / rows;
      if (std::memcmp(&value, &stored.values[k], sizeof value) != 0 && !(value == 0 && stored.values[k] == 0)) return false;
    }
    return true;
  }
};

Result<Model> import_nodes(const QuantizedModel& model, const std::string& path, JobContext& job) {
  ImportOptions options;
  options.quantizers = FileQuantizers::kNodes;
  options.trusted = kTrustAny;  // its code is Quanvas's own, or was changed since: another process reads it first
  const Graph& graph = *model.model->graph;
  // The importer's names are those of forward()'s arguments, in order.
  std::vector<Shape> shapes;
  for (const TensorId t : graph.inputs())
    if (graph.tensor(t).shape) shapes.push_back(*graph.tensor(t).shape);
  // Scales that are found at run time are those of one sample.
  for (const auto& [site, params] : model.quantizers)
    if (quant::is_dynamic(params))
      for (Shape& s : shapes)
        if (!s.empty() && s[0] < 0) s[0] = 1;
  if (shapes.size() == graph.inputs().size()) {
    Program names;
    for (std::size_t i = 0; i < shapes.size(); ++i)
      options.shapes[names.variable(graph.tensor(graph.inputs()[i]).name)] = shapes[i];
  }
  JobContext quiet(job.stop_token());
  QUANVAS_TRY(Imported imported, import_file(path, options, quiet));
  return std::move(imported.model);
}

}  // namespace

Result<std::vector<AuditRow>> audit_torchscript(const QuantizedModel& model, const std::string& path) {
  JobContext job;
  QUANVAS_TRY(const Model file, import_nodes(model, path, job));
  return Audit(model, file).run();
}

Result<ReadBack> read_torchscript(const QuantizedModel& model, const std::string& path, JobContext& job) {
  QUANVAS_TRY(Model file, import_nodes(model, path, job));
  ReadBack back;
  back.model = std::make_shared<const Model>(std::move(file));
  back.sites = Audit(model, *back.model).sites();
  back.notes = {
      "The file is run by Quanvas's own arithmetic, which divides by scales; LibTorch multiplies by float(1 / scale) in "
      "quantize_per_tensor."};
  return back;
}

}  // namespace quanvas::torchscript_file
