#include "plugins/exporters/gguf_audit.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>
#include <sstream>

#include "core/plugin/placement.h"
#include "plugins/importers/gguf_contents.h"
#include "plugins/importers/gguf_values.h"

namespace quanvas::gguf_file {
namespace {

using gguf_in::Held;

std::string number(double v) {
  std::ostringstream out;
  out << v;
  return out.str();
}

double apart(float a, float b) {
  if (a == b || (std::isnan(a) && std::isnan(b))) return 0;
  const double d = std::fabs(static_cast<double>(a) - static_cast<double>(b));
  return std::isnan(d) ? INFINITY : d;
}

class Auditor {
 public:
  Auditor(const QuantizedModel& model, const gguf_in::File& file, const std::vector<Held>& list)
      : model_(model), graph_(*model.model->graph), file_(file), list_(list), layers_(find_layers(graph_)) {}

  Result<std::vector<AuditRow>> run(bool with_constants) {
    const Placement placement = place(model_);
    for (const PlacedQuantizer& q : placement.quantizers) {
      if (is_activation(q.site.kind)) continue;  // not in the file: the target's notes say so
      AuditRow row{q.node->name, q.name, is_static(q) ? quantizer_text(*q.params) : describe(q.params->spec), {}, 0, true};
      QUANVAS_CHECK(constant(q, row));
      rows_.push_back(std::move(row));
    }
    for (const Site& site : placement.lost)
      rows_.push_back({"node " + std::to_string(site.node), enum_text(site.kind), "a quantizer", "no such layer", 0, false});
    QUANVAS_CHECK(floats(with_constants));
    return std::move(rows_);
  }
  // Of a value that run() has looked at, against the screen's.
  double largest_change() const { return largest_change_; }

 private:
  static bool is_static(const PlacedQuantizer& q) { return !q.params->scale.empty(); }

  const Held* held_for(const std::string& tensor, NodeId reader) const {
    const Held* found = nullptr;
    for (const Held& h : list_) {
      const bool is_copy = h.of == tensor && std::count(h.readers.begin(), h.readers.end(), reader) > 0;
      if (is_copy) return &h;
      if (h.of.empty() && h.tensor == tensor) found = &h;
    }
    return found;
  }

  Status constant(const PlacedQuantizer& q, AuditRow& row) {
    const std::string& tensor = graph_.tensor(q.tensor).name;
    const Held* held = held_for(tensor, q.reader->id);
    row.equal = false;
    if (!held) {
      row.written = "missing";
      return {};
    }
    done_.insert(held);
    QUANVAS_TRY(const StoredTensor stored, stored_tensor(model_, q));
    if (held->shape != stored.shape) {
      row.written = "a tensor " + shape_text(held->shape);
      return {};
    }
    if (!held->in_file) {
      row.written = "F32, among the metadata";
      QUANVAS_TRY(const TensorData data, gguf_in::data_of(file_, *held));
      row.bytes = static_cast<double>(data.bytes);
      row.equal = same(data.to_floats(), stored.values);
      return {};
    }
    row.written = gguf_in::type_info(held->in_file->type)->name;
    row.bytes = static_cast<double>(held->in_file->bytes.size());
    double change = 0;
    row.equal = compare(q, *held, stored, change);
    largest_change_ = std::max(largest_change_, change);
    if (change > 0) row.written += ", values within " + number(change);
    if (!lies_along_reduction(q, *held)) {
      row.written += ", rows along another axis";
      row.equal = false;
    }
    return {};
  }

  static bool same(const std::vector<float>& a, const std::vector<float>& b) {
    return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](float x, float y) { return apart(x, y) == 0; });
  }

  bool lies_along_reduction(const PlacedQuantizer& q, const Held& held) const {
    if (q.site.kind != SiteKind::kWeight || held.shape.size() < 2) return true;
    const Layer* layer = find_layer(layers_, q.site.node);
    if (!layer || held.order.empty()) return false;
    if (held.order.back() != layer->reduction_axis) return false;
    const auto columns = held.in_file->columns();
    const auto line = static_cast<std::uint64_t>(held.shape[static_cast<std::size_t>(layer->reduction_axis)]);
    return columns == line || held.shape.size() > 2;
  }

  // The parameter of an element of the tensor, from the layout's definition in core/quant/params.h.
  static std::size_t parameter(const quant::BlockLayout& l, std::size_t at) {
    const auto inner = static_cast<std::size_t>(std::max<std::int64_t>(1, l.inner)),
               dim = static_cast<std::size_t>(std::max<std::int64_t>(1, l.dim));
    const std::size_t d = at / inner % dim;
    switch (l.granularity) {
      case Granularity::kTensor:
        return 0;
      case Granularity::kChannel:
        return d;
      default:
        break;
    }
    const auto group = static_cast<std::size_t>(std::max<std::int64_t>(1, l.group)), groups = (dim + group - 1) / group;
    return (at / inner / dim * groups + d / group) * inner + at % inner;
  }

  bool compare(const PlacedQuantizer& q, const Held& held, const StoredTensor& stored, double& change) const {
    const quant::QuantParams& p = *q.params;
    const gguf_in::Tensor& t = *held.in_file;
    const std::size_t row_bytes = t.bytes.size() / static_cast<std::size_t>(held.rows());
    const bool blocks = gguf_in::type_info(t.type)->block > 1;
    const std::string name = gguf_in::type_info(t.type)->name;
    const bool has_offset = name == "Q4_1" || name == "Q5_1" || name == "Q2_K" || name == "Q4_K" || name == "Q5_K";
    bool equal = blocks == (q.site.kind == SiteKind::kWeight);
    gguf_in::Row row;
    for (std::int64_t r = 0; r < held.rows(); ++r) {
      gguf_in::decode(t.type, t.bytes.substr(static_cast<std::size_t>(r) * row_bytes, row_bytes), t.columns(), row);
      const std::vector<std::size_t> at = held.positions(r);
      for (std::size_t c = 0; c < at.size(); ++c) {
        const double d = apart(row.values[c], stored.values[at[c]]);
        change = std::max(change, d);
        equal = equal && d == 0;
        if (!blocks) continue;
        const std::size_t i = parameter(p.layout, at[c]);
        if (i >= p.scale.size()) return false;
        const float zero = p.zero_point.empty() ? 0.0f : p.zero_point[i];
        std::int32_t code = stored.codes[at[c]];
        float offset = 0;
        if (p.spec.zero_point == ZeroPointType::kOffset) {
          offset = zero;
        } else if (p.spec.format == "int" && has_offset) {
          code -= static_cast<std::int32_t>(p.lo);
          offset = (static_cast<float>(p.lo) - zero) * p.scale[i];
        } else if (p.spec.zero_point == ZeroPointType::kInteger) {
          code -= static_cast<std::int32_t>(std::lrint(zero));
        }
        equal = equal && row.codes[c] == code && row.scale[c] == p.scale[i] && row.offset[c] == offset;
      }
    }
    return equal;
  }

  // Float tensors: those that are not the model's.
  Status floats(bool with_constants) {
    std::set<std::string> there;
    for (const Held& h : list_) {
      const std::string& original = h.of.empty() ? h.tensor : h.of;
      if (h.of.empty()) there.insert(h.tensor);
      if (done_.count(&h)) continue;
      const TensorData* mine = model_.model->weights->find(original);
      AuditRow row{original, "float values",
                   "float",  h.in_file ? gguf_in::type_info(h.in_file->type)->name : "among the metadata",
                   0,        false};
      if (!mine || mine->shape != h.shape) {
        row.written = "a tensor that the network does not have";
        rows_.push_back(std::move(row));
        continue;
      }
      if (!h.in_file && !with_constants) continue;
      QUANVAS_TRY(const TensorData data, gguf_in::data_of(file_, h));
      const bool bits = data.type == mine->type && data.bytes == mine->bytes &&
                        (data.bytes == 0 || std::memcmp(data.data, mine->data, data.bytes) == 0);
      if (bits) continue;
      const std::vector<float> a = data.to_floats(), b = mine->to_floats();
      double change = a.size() == b.size() ? 0 : INFINITY;
      for (std::size_t i = 0; i < a.size() && i < b.size(); ++i) change = std::max(change, apart(a[i], b[i]));
      row.bytes = h.in_file ? static_cast<double>(h.in_file->bytes.size()) : static_cast<double>(data.bytes);
      largest_change_ = std::max(largest_change_, change);
      row.written += ", values within " + number(change);
      row.requested = type_name(mine->type);
      rows_.push_back(std::move(row));
    }
    for (const TensorInfo& info : graph_.tensors())
      if (info.is_initializer && !there.count(info.name))
        rows_.push_back({info.name, "float values", type_name(info.type), "missing", 0, false});
    return {};
  }

  const QuantizedModel& model_;
  const Graph& graph_;
  const gguf_in::File& file_;
  const std::vector<Held>& list_;
  std::vector<Layer> layers_;
  std::set<const Held*> done_;
  std::vector<AuditRow> rows_;
  double largest_change_ = 0;
};

// The graph of the screen, its weights those of the file.
Result<Model> with_weights_of(const QuantizedModel& model, const gguf_in::File& file, const std::string& path) {
  QUANVAS_TRY(const std::vector<Held> list, gguf_in::contents(file));
  const Graph& graph = *model.model->graph;
  GraphBuilder b(graph);
  auto weights = std::make_shared<WeightStore>(*model.model->weights);
  for (const Held& h : list) {
    if (!h.in_file) continue;
    QUANVAS_TRY(TensorData data, gguf_in::data_of(file, h));
    if (!h.of.empty()) {
      b.initializer(h.tensor, h.type, h.shape);
      for (const NodeId reader : h.readers) b.replace_input(reader, h.of, h.tensor);
    } else if (const TensorId id = graph.tensor(h.tensor); id == kNoTensor || !graph.tensor(id).is_initializer) {
      return fail(ErrorCode::kCorrupt, "'" + path + "' holds '" + h.tensor + "', which the network does not have.",
                  "Export it again.");
    }
    weights->set(h.tensor, std::move(data));
  }
  QUANVAS_TRY(GraphPtr built, b.build());
  return Model{std::move(built), std::move(weights), path};
}

}  // namespace

Result<std::vector<AuditRow>> audit_gguf(const QuantizedModel& model, const std::string& path, bool with_constants) {
  QUANVAS_TRY(const gguf_in::File file, gguf_in::read(path));
  QUANVAS_TRY(const std::vector<Held> list, gguf_in::contents(file));
  return Auditor(model, file, list).run(with_constants);
}

Result<ReadBack> read_gguf(const QuantizedModel& model, const std::string& path) {
  QUANVAS_TRY(const gguf_in::File file, gguf_in::read(path));
  QUANVAS_TRY(std::optional<Model> own, gguf_in::network(file, path));
  if (!own) {
    QUANVAS_TRY(own, with_weights_of(model, file, path));
  }
  QUANVAS_TRY(const std::vector<Held> list, gguf_in::contents(file));
  Auditor auditor(model, file, list);
  QUANVAS_CHECK(auditor.run(false));
  ReadBack back;
  if (auditor.largest_change() > 0)
    back.notes.push_back("Rounding moves weights by up to " + number(auditor.largest_change()) +
                         ": the file does not hold the very weights of the screen.");
  back.model = std::make_shared<const Model>(std::move(*own));
  for (const auto& [site, params] : model.quantizers)
    if (is_activation(site.kind) && back.model->graph->find(site.node)) back.quantizers[site] = params;
  if (!back.quantizers.empty())
    back.notes.push_back("The file holds no quantizers of activations: these " + std::to_string(back.quantizers.size()) +
                         " are the screen's; llama.cpp uses its own.");
  if (const std::string_view why = file.text("general.description"); !why.empty()) back.notes.emplace_back(why);
  return back;
}

}  // namespace quanvas::gguf_file
