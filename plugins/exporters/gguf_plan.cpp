#include "plugins/exporters/gguf_plan.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>
#include <utility>

#include "core/base/hash.h"
#include "core/recipe/recipe.h"

namespace quanvas::gguf_file {
namespace {

constexpr std::size_t kLongestName = 63;  // bytes; ggml refuses 64
constexpr std::size_t kMostDims = 4;

bool same_quantizer(const quant::QuantParams& a, const quant::QuantParams& b) {
  return a.spec == b.spec && a.scale == b.scale && a.zero_point == b.zero_point && a.code_scale == b.code_scale &&
         a.center == b.center && a.rounding == b.rounding && a.super_scale == b.super_scale &&
         a.super_offset == b.super_offset && a.lo == b.lo && a.hi == b.hi;
}

// The preset with blocks of 32 that has at least the codes of one with 256; empty: there is none.
std::string smaller_blocks(const QuantSpec& spec) {
  if (spec.scale != ScaleType::kQuantized) return {};
  if (spec.is_signed) return spec.bits <= 4 ? "gguf-q4_0" : spec.bits == 5 ? "gguf-q5_0" : "gguf-q8_0";
  return spec.bits <= 4 ? "gguf-q4_1" : "gguf-q5_1";
}

// Axes so that the reduction of the layer is the fastest.
std::vector<int> order_of(const Graph& graph, const Layer& layer, TensorId tensor, std::size_t rank) {
  std::vector<int> order(rank);
  std::iota(order.begin(), order.end(), 0);
  const bool is_weight = tensor == layer.weight || std::count(layer.more_weights.begin(), layer.more_weights.end(), tensor) > 0;
  const auto inside = [&](int axis) { return axis >= 0 && axis < static_cast<int>(rank); };
  if (!is_weight || rank < 2 || !inside(layer.channel_axis) || !inside(layer.reduction_axis) ||
      layer.channel_axis == layer.reduction_axis)
    return order;
  std::erase(order, layer.channel_axis);
  std::erase(order, layer.reduction_axis);
  const Node* node = graph.find(layer.node);
  const bool first = node && node->op.starts_with("Conv");
  order.insert(first ? order.begin() : order.end(), layer.channel_axis);
  order.push_back(layer.reduction_axis);
  return order;
}

// A name that fits, the same each time.
std::string fitting(const std::string& wanted, std::set<std::string>& taken) {
  std::string name = wanted;
  if (name.size() > kLongestName) {
    const std::string tail = "~" + hash_text(name).substr(0, 12);
    std::size_t keep = kLongestName - tail.size();
    while (keep > 0 && (static_cast<unsigned char>(name[keep]) & 0xc0) == 0x80) --keep;
    name = name.substr(0, keep) + tail;
  }
  const std::string base = name;
  for (int i = 2; !taken.insert(name).second; ++i) name = base.substr(0, kLongestName - 8) + "_" + std::to_string(i);
  return name;
}

class Planner {
 public:
  Planner(const QuantizedModel& model, const Options& options)
      : model_(model), graph_(*model.model->graph), options_(options), layers_(find_layers(graph_)), placement_(place(model)) {}

  Result<FilePlan> run() {
    llama();
    for (std::size_t t = 0; t < graph_.tensors().size(); ++t)
      if (graph_.tensors()[t].is_initializer) QUANVAS_CHECK(initializer(static_cast<TensorId>(t)));
    QUANVAS_CHECK(rewire());
    return std::move(plan_);
  }

 private:
  void refuse(const std::string& layer, const std::string& quantizer, Misfit why, std::optional<Site> site, bool float_fixes,
              std::optional<QuantSpec> fix = {}) {
    plan_.refusals.push_back(
        {layer, quantizer, why.rule, why.got, why.allowed, why.suggestion, site, std::move(fix), float_fixes});
  }

  void llama() {
    if (options_.form == "container") {
      plan_.not_llama = "a container was asked for";
    } else if (options_.form == "auto" && options_.tokenizer.empty()) {
      plan_.not_llama = "no tokenizer was given";
    } else {
      auto found = find_llama(*model_.model);
      if (found) {
        plan_.llama = std::move(*found);
        for (const LlamaTensor& t : plan_.llama->tensors) claimed_[{t.tensor, t.reader}] = &t;
        return;
      }
      plan_.not_llama = found.error();
    }
    if (options_.form == "llama")
      refuse({}, {},
             {"Llama network", plan_.not_llama, "a decoder of the architecture llama",
              "Write a container instead: form=container."},
             {}, false);
  }

  // Those who read the tensor in one and the same form.
  struct Use {
    const PlacedQuantizer* quantizer = nullptr;
    std::vector<int> order;
    std::vector<NodeId> readers;
    bool is_matrix = false;  // of a layer
  };
  std::vector<Use> uses_of(TensorId id, std::size_t rank) const {
    const TensorInfo& info = graph_.tensor(id);
    std::vector<int> plain(rank);
    std::iota(plain.begin(), plain.end(), 0);
    std::vector<Use> uses;
    for (const NodeId reader : info.consumers) {
      const PlacedQuantizer* found = nullptr;
      for (const PlacedQuantizer& q : placement_.quantizers)
        if (q.tensor == id && !is_activation(q.site.kind) && q.reader->id == reader) found = &q;
      const Layer* layer = find_layer(layers_, found ? found->site.node : reader);
      const std::vector<int> order = layer ? order_of(graph_, *layer, id, rank) : plain;
      auto use = std::find_if(uses.begin(), uses.end(), [&](const Use& u) {
        if (!found || !u.quantizer) return !found && !u.quantizer;
        return same_quantizer(*found->params, *u.quantizer->params) && u.order == order;
      });
      if (use == uses.end()) use = uses.insert(uses.end(), Use{found, order, {}, false});
      use->readers.push_back(reader);
      use->is_matrix = use->is_matrix || (layer && rank > 1 && layer->weight == id);
    }
    if (uses.empty()) uses.push_back({nullptr, plain, {}, false});
    return uses;
  }

  // The name of llama.cpp that these readers give the tensor; of tied embeddings the input's. False: it has two.
  bool llama_name(TensorId id, const Use& use, const LlamaTensor*& name) const {
    for (const NodeId reader : use.readers) {
      const auto it = claimed_.find({id, reader});
      if (it == claimed_.end() || (name && name->name == it->second->name)) continue;
      const bool is_tied = name && std::set<std::string>{name->name, it->second->name} ==
                                       std::set<std::string>{"output.weight", "token_embd.weight"};
      if (name && !is_tied) return false;
      if (!name || name->name == "output.weight") name = it->second;
    }
    return true;
  }

  Status initializer(TensorId id) {
    const TensorInfo& info = graph_.tensor(id);
    const TensorData* data = model_.model->weights->find(info.name);
    if (!data) return fail(ErrorCode::kInternal, "Initializer '" + info.name + "' has no data.");
    if (data->type == DataType::kString) {
      refuse(info.name, {}, {"element type", "strings", "numbers", "Remove text processing from the model before export."}, {},
             false);
      return {};
    }
    const std::size_t rank = data->shape.size();
    const bool fits = real(data->type) && rank > 0 && rank <= kMostDims && data->count() > 0;
    bool is_copy = false;
    for (const Use& use : uses_of(id, rank)) {
      const LlamaTensor* name = nullptr;
      if (!llama_name(id, use, name)) {
        refuse(info.name, {},
               {"shared tensor", "one tensor in two places of the Llama", "a tensor for each",
                "Write a container: form=container."},
               {}, false);
        continue;
      }
      Entry entry;
      entry.in_metadata = !fits || (plan_.llama && !name);
      entry.original = info.name;
      entry.tensor = is_copy ? fresh(info.name) : info.name;
      if (is_copy) entry.readers = use.readers;
      if (use.quantizer) entry.quantizer = *use.quantizer;
      is_copy = true;
      QUANVAS_CHECK(place_entry(std::move(entry), use, *data, name));
    }
    return {};
  }

  // Doubles go into the metadata, which keeps every bit.
  static bool real(DataType type) {
    return type == DataType::kFloat || type == DataType::kFloat16 || type == DataType::kBfloat16;
  }

  Status place_entry(Entry entry, const Use& use, const TensorData& data, const LlamaTensor* name) {
    const PlacedQuantizer* q = use.quantizer;
    const bool blocks = q && q->site.kind == SiteKind::kWeight;
    const std::size_t rank = data.shape.size();
    const auto refuse_this = [&](Misfit why, std::optional<QuantSpec> fix = {}) {
      refuse(q->node->name, q->name, std::move(why), q->site, true, std::move(fix));
    };
    if (blocks && entry.in_metadata) {
      refuse_this({"shape of a weight", plan_.llama ? "no tensor of a Llama" : std::to_string(rank) + " axes",
                   "matrices that the file has a place for", "Leave it float."});
      return {};
    }
    const bool kernel = q && q->node->op.starts_with("Conv") && rank > 2;
    if (blocks && kernel && !options_.conv_rows) {
      refuse_this(
          {"convolution kernel", std::to_string(rank) + " axes", "matrices", "Set conv=rows, or leave this weight float."});
      return {};
    }
    std::vector<int> order = use.order;
    if (entry.in_metadata || (rank > 2 && !blocks)) std::iota(order.begin(), order.end(), 0);
    entry.view = view_of(data.shape, order, blocks && kernel);
    if (name) entry.view.heads = name->heads;
    if (blocks && kernel)
      entry.dims = {entry.view.rows, entry.view.columns};
    else
      for (const int axis : order) entry.dims.push_back(data.shape[static_cast<std::size_t>(axis)]);
    if (!entry.in_metadata) entry.file_name = fitting(name ? name->name : entry.tensor, names_);
    if (blocks) {
      QUANVAS_TRY(const StoredTensor stored, stored_tensor(model_, *q));
      const auto type = Fitter(*q->params, stored, entry.view, options_.round_scales).find();
      if (type)
        entry.type = *type;
      else
        refuse_row(type.error(), q->params->spec, entry.view.columns, refuse_this);
    } else if (!q) {
      floats(entry, data, use.is_matrix);
    }
    const Form& form = form_of(entry.type);
    entry.bytes = static_cast<std::uint64_t>(data.count()) / static_cast<std::uint64_t>(form.block) *
                  static_cast<std::uint64_t>(form.bytes);
    plan_.tensors.push_back(std::move(entry));
    return {};
  }

  // Rows that are no whole blocks: of 32 where those of 256 do not fit.
  template <class Refuse>
  void refuse_row(Misfit why, const QuantSpec& spec, std::int64_t columns, const Refuse& refuse_this) const {
    if (why.rule != kRowLength) return refuse_this(std::move(why));
    const Preset* smaller = PresetLibrary::builtin().find(columns % 32 == 0 ? smaller_blocks(spec) : "");
    const std::string as_float = std::string("leave it float (") + form_of(options_.float_type).name + " in the file)";
    if (!smaller) {
      why.suggestion = "L" + as_float.substr(1) + ": GGUF cuts rows into whole blocks.";
      return refuse_this(std::move(why));
    }
    why.suggestion = "Use the preset " + smaller->id + ", which has blocks of 32, or " + as_float + ".";
    refuse_this(std::move(why), smaller->spec);
  }

  // Their own type; float32 matrices as the options say.
  void floats(Entry& entry, const TensorData& data, bool is_matrix) {
    switch (data.type) {
      case DataType::kFloat16:
        entry.type = Type::kF16;
        return;
      case DataType::kBfloat16:
        entry.type = Type::kBF16;
        return;
      default:
        break;
    }
    if (!is_matrix || entry.in_metadata || options_.float_type == Type::kF32) return;
    entry.type = options_.float_type;
    double change = 0;
    for (const float v : data.to_floats()) {
      const float r = rounded(entry.type, v);
      if (r != v && !(std::isnan(r) && std::isnan(v)))
        change = std::max(change, std::fabs(static_cast<double>(r) - static_cast<double>(v)));
    }
    if (change > 0 && !options_.round_floats)
      refuse(entry.original, {},
             {"float values", "values that change by up to " + std::to_string(change),
              std::string("values that ") + form_of(entry.type).name + " holds", "Set round_floats, or float_type=f32."},
             {}, false);
  }

  std::string fresh(const std::string& name) {
    for (int i = 2;; ++i) {
      const std::string made = name + "_" + std::to_string(i);
      if (graph_.tensor(made) == kNoTensor && fresh_.insert(made).second) return made;
    }
  }

  // Readers of one tensor in several forms get an initializer each.
  Status rewire() {
    plan_.graph = model_.model->graph;
    if (fresh_.empty()) return {};
    GraphBuilder b(graph_);
    for (const Entry& e : plan_.tensors) {
      if (e.readers.empty()) continue;
      const TensorInfo& info = graph_.tensor(graph_.tensor(e.original));
      b.initializer(e.tensor, info.type, e.view.shape);
      for (const NodeId reader : e.readers) b.replace_input(reader, e.original, e.tensor);
    }
    QUANVAS_TRY(plan_.graph, b.build());
    return {};
  }

  const QuantizedModel& model_;
  const Graph& graph_;
  const Options& options_;
  std::vector<Layer> layers_;
  Placement placement_;
  std::map<std::pair<TensorId, NodeId>, const LlamaTensor*> claimed_;
  std::set<std::string> names_, fresh_;
  FilePlan plan_;
};

}  // namespace

Options options_of(const json& options) {
  Options out;
  out.round_scales = options.value("scales", "exact") == "round";
  const std::string type = options.value("float_type", "f32");
  out.float_type = type == "f16" ? Type::kF16 : type == "bf16" ? Type::kBF16 : Type::kF32;
  out.round_floats = options.value("round_floats", false);
  out.conv_rows = options.value("conv", "refuse") == "rows";
  out.graph = options.value("graph", true);
  out.form = options.value("form", "auto");
  out.tokenizer = options.value("tokenizer", "");
  return out;
}

Result<FilePlan> plan(const QuantizedModel& model, const Options& options) {
  return Planner(model, options).run();
}

}  // namespace quanvas::gguf_file
