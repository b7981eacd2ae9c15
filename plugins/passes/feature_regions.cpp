#include "plugins/passes/feature_regions.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <set>
#include <variant>

namespace quanvas {

bool is_real(DataType t) {
  return t == DataType::kFloat || t == DataType::kDouble || t == DataType::kFloat16 || t == DataType::kBfloat16;
}

bool has_reals(const TensorData* data) {
  return data && is_real(data->type) && data->count() > 0 && data->bytes >= bytes_of(data->type, data->count());
}

double largest_of(DataType type) {
  if (type == DataType::kFloat16) return 65504;
  return type == DataType::kDouble ? std::numeric_limits<double>::max() : 3.3e38;  // float32 and bfloat16, rounded down
}

std::vector<double> doubles_of(const TensorData& data) {
  if (data.type == DataType::kDouble) {
    std::vector<double> out(std::min(data.bytes / sizeof(double), static_cast<std::size_t>(std::max<std::int64_t>(0, data.count()))));
    if (!out.empty()) std::memcpy(out.data(), data.data, out.size() * sizeof(double));
    return out;
  }
  const std::vector<float> narrow = data.to_floats();
  return {narrow.begin(), narrow.end()};
}

bool all_finite(const std::vector<double>& values) {
  return std::all_of(values.begin(), values.end(), [](double v) { return std::isfinite(v); });
}

// --- LinearWeight ---

namespace {

// Behind the first, that anybody reads.
bool has_more_outputs(const Graph& graph, const Node& node) {
  for (std::size_t i = 1; i < node.outputs.size(); ++i)
    if (const TensorId id = node.outputs[i]; id != kNoTensor && (!graph.tensor(id).consumers.empty() || is_graph_output(graph, id))) return true;
  return false;
}

bool is_flipped(const Node& node) { return node.op == "Gemm" && node.integer("transB", 0) != 0; }

}  // namespace

std::int64_t LinearWeight::inputs_of(const Graph& graph, const Node& node) {
  return (*graph.tensor(node.input(1)).shape)[is_flipped(node) ? 1 : 0];
}
std::int64_t LinearWeight::outputs_of(const Graph& graph, const Node& node) {
  return (*graph.tensor(node.input(1)).shape)[is_flipped(node) ? 0 : 1];
}

bool LinearWeight::fits(const Model& model, const Node& node, std::string* why) {
  const auto no = [&](const char* text) {
    if (why) *why = text;
    return false;
  };
  const bool is_matrix = node.domain.empty() && node.opaque_reason.empty() && (node.op == "MatMul" || node.op == "Gemm");
  if (!is_matrix || node.outputs.size() != 1) return no("it is no linear layer");
  const TensorData* weight = initializer_data(model, node.input(1));
  if (!has_reals(weight) || node.input(0) == kNoTensor || model.graph->tensor(node.input(0)).is_initializer) return no("its weight is computed");
  const auto& declared = model.graph->tensor(node.input(1)).shape;
  if (weight->shape.size() != 2 || !declared || *declared != weight->shape) return no("its weight is no matrix of real numbers");
  if (node.op == "Gemm" && node.integer("transA", 0) != 0) return no("it reads its input transposed");
  if (node.input(2) == kNoTensor) return true;
  const TensorData* bias = initializer_data(model, node.input(2));
  const std::int64_t outputs = outputs_of(*model.graph, node);
  if (!has_reals(bias)) return no("its bias is computed");
  if (bias->count() != 1 && (bias->count() != outputs || bias->shape.back() != outputs)) return no("its bias is not one number for each output");
  return true;
}

LinearWeight LinearWeight::of(const Model& model, const Node& node) {
  LinearWeight out;
  out.inputs = inputs_of(*model.graph, node);
  out.outputs = outputs_of(*model.graph, node);
  out.w = doubles_of(*initializer_data(model, node.input(1)));
  out.w.resize(static_cast<std::size_t>(out.inputs * out.outputs), 0.0);
  if (is_flipped(node)) {
    std::vector<double> turned(out.w.size());
    for (std::int64_t o = 0; o < out.outputs; ++o)
      for (std::int64_t i = 0; i < out.inputs; ++i)
        turned[static_cast<std::size_t>(i * out.outputs + o)] = out.w[static_cast<std::size_t>(o * out.inputs + i)];
    out.w = std::move(turned);
  }
  if (node.input(2) != kNoTensor) {
    out.b = doubles_of(*initializer_data(model, node.input(2)));
    if (out.b.size() == 1) out.b.assign(static_cast<std::size_t>(out.outputs), out.b[0]);
  }
  if (node.op == "Gemm") {
    const double alpha = node.real("alpha", 1), beta = node.real("beta", 1);
    for (double& v : out.w) v *= alpha;
    for (double& v : out.b) v *= beta;
  }
  return out;
}

double LinearWeight::largest() const {
  double most = 0;
  for (const auto* values : {&w, &b})
    for (const double v : *values) most = std::max(most, std::fabs(v));
  return most;
}

bool LinearWeight::is_finite() const { return all_finite(w) && all_finite(b); }

double LinearWeight::spread() const {
  const auto columns = static_cast<std::size_t>(outputs);
  std::vector<double> most(columns, 0.0), square(columns, 0.0);
  for (std::size_t at = 0; at + columns <= w.size(); at += columns)
    for (std::size_t o = 0; o < columns; ++o) {
      most[o] = std::max(most[o], std::fabs(w[at + o]));
      square[o] += w[at + o] * w[at + o];
    }
  double sum = 0;
  std::int64_t count = 0;
  for (std::size_t o = 0; o < columns; ++o) {
    if (square[o] == 0) continue;
    sum += most[o] / std::sqrt(square[o] / static_cast<double>(inputs));
    ++count;
  }
  return count > 0 ? sum / static_cast<double>(count) : std::nan("");
}

void LinearWeight::write(const Model& model, const Node& node, ModelEdit& edit) const {
  const TensorData* weight = initializer_data(model, node.input(1));
  const bool flipped = is_flipped(node);
  std::vector<double> stored = w;
  if (flipped)
    for (std::int64_t i = 0; i < inputs; ++i)
      for (std::int64_t o = 0; o < outputs; ++o) stored[static_cast<std::size_t>(o * inputs + i)] = w[static_cast<std::size_t>(i * outputs + o)];
  edit.replace_initializer(node, node.input(1), weight->type, flipped ? Shape{outputs, inputs} : Shape{inputs, outputs}, stored);
  if (node.op == "Gemm") {
    if (node.attributes.count("alpha")) edit.builder().set_attribute(node.id, "alpha", 1.0f);
    if (node.attributes.count("beta")) edit.builder().set_attribute(node.id, "beta", 1.0f);
  }
  if (b.empty()) return;
  if (node.input(2) != kNoTensor) {
    edit.replace_initializer(node, node.input(2), initializer_data(model, node.input(2))->type, {outputs}, b);
    return;
  }
  const std::string name = edit.new_initializer(node.name + ".bias", weight->type, {outputs}, b);
  edit.builder().replace_input_at(node.id, 2, name);
}

// --- normalizations ---

bool is_last_axis_norm(const Graph& graph, const Node& node) {
  if (!node.domain.empty() || !node.opaque_reason.empty() || (node.op != "LayerNormalization" && node.op != "RMSNormalization")) return false;
  if (node.outputs.empty() || node.input(0) == kNoTensor || node.input(1) == kNoTensor) return false;
  if (has_more_outputs(graph, node)) return false;
  const auto& shape = graph.tensor(node.input(0)).shape;
  const std::int64_t axis = node.integer("axis", -1);
  return shape && !shape->empty() && shape->back() > 0 && (axis == -1 || axis == static_cast<std::int64_t>(shape->size()) - 1);
}

bool NormScale::is_neutral() const { return is_uniform() && (scale.empty() || scale[0] == 1); }
bool NormScale::is_uniform() const {
  return std::all_of(scale.begin(), scale.end(), [&](double v) { return v == scale[0]; }) &&
         std::all_of(bias.begin(), bias.end(), [](double v) { return v == 0; });
}

std::optional<NormScale> norm_scale(const Model& model, const Node& node) {
  const std::int64_t width = model.graph->tensor(node.input(0)).shape->back();
  const auto read = [&](TensorId id) -> std::vector<double> {
    const TensorData* data = initializer_data(model, id);
    if (!has_reals(data)) return {};
    std::vector<double> v = doubles_of(*data);
    if (v.size() == 1) v.assign(static_cast<std::size_t>(width), v[0]);
    const bool along = data->count() == 1 || data->shape.back() == width;
    return along && static_cast<std::int64_t>(v.size()) == width && all_finite(v) ? v : std::vector<double>{};
  };
  NormScale out{read(node.input(1)), {}};
  if (out.scale.empty()) return std::nullopt;
  if (node.input(2) != kNoTensor) {
    out.bias = read(node.input(2));
    if (out.bias.empty()) return std::nullopt;
  }
  return out;
}

// --- regions ---

namespace {

class Finder {
 public:
  Finder(const Model& model, const std::function<bool(const Node&)>& passes, bool permutes = false)
      : model_(model), graph_(*model.graph), passes_(passes), permutes_(permutes) {}

  FeatureRegions run() {
    for (const TensorId id : graph_.inputs()) block(id, "it is an input of the network");
    for (const Node& node : graph_.nodes())
      if (!visit(node)) block_all(node, works_on_single(node));
    for (const TensorId id : graph_.outputs()) block(id, "it is an output of the network");
    collect();
    return std::move(out_);
  }

 private:
  enum class Role { kSource, kSink, kInside, kFrom, kTo };
  struct Use {
    std::size_t slot;
    Role role;
    FeatureSource source;
  };

  const std::optional<Shape>& shape(TensorId id) const { return graph_.tensor(id).shape; }
  std::int64_t last(TensorId id) const {
    if (id == kNoTensor) return -1;
    const auto& s = shape(id);
    return s && !s->empty() ? s->back() : -1;
  }
  std::int64_t rank(TensorId id) const { return id != kNoTensor && shape(id) ? static_cast<std::int64_t>(shape(id)->size()) : -1; }
  bool is_constant(TensorId id) const { return id != kNoTensor && graph_.tensor(id).is_initializer; }
  static std::string works_on_single(const Node& node) { return "'" + node.name + "' (" + node.op + ") does not treat all features alike"; }

  // -1: not a tensor of real numbers with a known last axis.
  int slot(TensorId id) {
    if (id == kNoTensor || is_constant(id) || last(id) < 1) return -1;
    const DataType type = graph_.tensor(id).type;
    if (type != DataType::kUndefined && !is_real(type)) return -1;
    const auto [it, fresh] = slots_.try_emplace(id, parent_.size());
    if (fresh) {
      parent_.push_back(it->second);
      reason_.emplace_back();
      granule_.push_back(last(id));
    }
    return static_cast<int>(it->second);
  }
  std::size_t root(std::size_t s) {
    while (parent_[s] != s) s = parent_[s] = parent_[parent_[s]];
    return s;
  }
  void block(TensorId id, const std::string& why) {
    const int s = slot(id);
    if (s < 0) return;
    std::string& reason = reason_[root(static_cast<std::size_t>(s))];
    if (reason.empty()) reason = why;
  }
  void block_all(const Node& node, const std::string& why) {
    for (const TensorId id : node.inputs) block(id, why);
    for (const TensorId id : node.outputs) block(id, why);
  }
  bool join(TensorId a, TensorId b) {
    const int x = slot(a), y = slot(b);
    if (x < 0 || y < 0) return false;
    std::size_t p = root(static_cast<std::size_t>(x)), q = root(static_cast<std::size_t>(y));
    if (p == q) return true;
    if (q < p) std::swap(p, q);
    if (reason_[p].empty()) reason_[p] = reason_[q];
    granule_[p] = std::gcd(granule_[p], granule_[q]);
    parent_[q] = p;
    return true;
  }
  bool use(TensorId id, Role role, const FeatureSource& source) {
    const int s = slot(id);
    if (s >= 0) uses_.push_back({static_cast<std::size_t>(s), role, source});
    return s >= 0;
  }
  // The features of input `i` are those of `out`; a constant is a source of them.
  bool carry(const Node& node, std::size_t i, TensorId out) {
    const TensorId in = node.input(i);
    if (!is_constant(in)) return in != kNoTensor && join(in, out);
    const TensorData* data = initializer_data(model_, in);
    const int s = slot(out);
    if (s < 0 || !has_reals(data) || data->shape.empty()) return false;
    std::int64_t& granule = granule_[root(static_cast<std::size_t>(s))];
    granule = std::gcd(granule, data->shape.back());
    return use(out, Role::kSource, {node.id, static_cast<int>(i)});
  }

  bool visit(const Node& node) {
    if (node.op == "Shape" || node.op == "Size") return true;
    if (!node.domain.empty() || !node.opaque_reason.empty() || node.outputs.empty() || node.inputs.empty()) return false;
    for (const auto& [key, attribute] : node.attributes)
      if (std::holds_alternative<GraphPtr>(attribute)) return false;
    if (LinearWeight::fits(model_, node)) return linear(node);
    if (node.op == "MatMul") return product(node);
    if (permutes_ && works_on_each(node)) return each(node);
    if (node.op == "LayerNormalization" || node.op == "RMSNormalization") return permutes_ ? permuted_norm(node) : norm(node);
    if (node.op == "Attention") return attention(node);
    if (node.op == "Add" || node.op == "Sub" || node.op == "Sum") return sum(node);
    if (node.op == "Mul" || node.op == "Div") return scaled(node);
    if (node.op == "Concat") return concat(node);
    if (node.op == "Split") return axis_of(node, "axis", 0) < rank(node.input(0)) - 1 && all_outputs(node);
    if (!moves_rows(node)) return false;
    for (std::size_t i = 1; i < node.inputs.size(); ++i) block(node.inputs[i], works_on_single(node));
    return carry(node, 0, node.outputs[0]);
  }

  bool linear(const Node& node) {
    const TensorId in = node.input(0), out = node.outputs[0];
    if (last(in) != LinearWeight::inputs_of(graph_, node) || last(out) != LinearWeight::outputs_of(graph_, node)) return false;
    return use(in, Role::kSink, {node.id, -1}) && use(out, Role::kSource, {node.id, -1});
  }

  // (a v) R = a (v R): the right operand's features are the product's.
  bool product(const Node& node) {
    const TensorId a = node.input(0), v = node.input(1), out = node.outputs[0];
    if (node.inputs.size() != 2 || v == kNoTensor || is_constant(v) || rank(v) < 2 || last(v) != last(out)) return false;
    block(a, works_on_single(node));
    return join(v, out);
  }
  bool attention(const Node& node) {
    if (has_more_outputs(graph_, node)) return false;
    for (std::size_t i = 4; i < node.inputs.size(); ++i)
      if (node.inputs[i] != kNoTensor) return false;
    const TensorId v = node.input(2);
    for (const TensorId id : node.inputs)
      if (id != v) block(id, works_on_single(node));
    if (std::count(node.inputs.begin(), node.inputs.end(), v) > 1 || !join(v, node.outputs[0])) return false;
    const std::int64_t heads = rank(v) == 3 ? node.integer("kv_num_heads", 0) : 1;
    if (heads < 1 || last(v) % heads != 0) return false;
    std::int64_t& granule = granule_[root(static_cast<std::size_t>(slot(v)))];
    granule = std::gcd(granule, last(v) / heads);
    return true;
  }
  bool norm(const Node& node) {
    if (!is_last_axis_norm(graph_, node)) return false;
    for (std::size_t i = 1; i < node.inputs.size(); ++i) block(node.inputs[i], works_on_single(node));
    const TensorId in = node.input(0), out = node.outputs[0];
    if (!passes_(node)) return use(in, Role::kTo, {node.id, -1}) && use(out, Role::kFrom, {node.id, -1});
    return join(in, out) && use(in, Role::kInside, {node.id, -1});
  }
  bool permuted_norm(const Node& node) {
    if (!is_last_axis_norm(graph_, node) || !norm_scale(model_, node) || !join(node.input(0), node.outputs[0])) return false;
    for (std::size_t i = 1; i < std::min<std::size_t>(3, node.inputs.size()); ++i) {
      const TensorData* data = initializer_data(model_, node.input(i));
      if (data && data->count() > 1 && !carry(node, i, node.outputs[0])) return false;
    }
    return use(node.input(0), Role::kInside, {node.id, -1});
  }
  // Operators whose result at a place depends on their operands at that place alone.
  static bool works_on_each(const Node& node) {
    static const std::set<std::string> ops = {
        "Abs", "Add", "Celu", "Clip", "Cos", "Div", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Log", "Max", "Min", "Mish",
        "Mul", "Neg", "PRelu", "Pow", "Reciprocal", "Relu", "Selu", "Sigmoid", "Sin", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Swish", "Tanh"};
    return ops.count(node.op) > 0;
  }
  // Operands have the features of the result, or one number for all of them.
  bool each(const Node& node) {
    const TensorId out = node.outputs[0];
    if (has_more_outputs(graph_, node) || last(out) < 2) return false;
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      const TensorId id = node.input(i);
      if (id == kNoTensor || (shape(id) && (rank(id) == 0 || last(id) == 1))) continue;
      if (last(id) != last(out) || !carry(node, i, out)) return false;
    }
    return true;
  }

  // Stretched along other axes at most.
  bool sum(const Node& node) {
    const TensorId out = node.outputs[0];
    for (const TensorId id : node.inputs)
      if (id == kNoTensor || last(id) != last(out)) return false;
    for (std::size_t i = 0; i < node.inputs.size(); ++i)
      if (!carry(node, i, out)) return false;
    return true;
  }
  // One number for all features of a row.
  bool scaled(const Node& node) {
    const TensorId out = node.outputs[0];
    if (node.inputs.size() != 2 || last(out) < 2) return false;
    const auto single = [&](TensorId id) { return id != kNoTensor && shape(id) && (rank(id) == 0 || last(id) == 1); };
    for (const std::size_t i : {0u, 1u}) {
      if (i == 1 && node.op == "Div") break;
      if (last(node.input(i)) == last(out) && single(node.input(1 - i))) {
        block(node.input(1 - i), works_on_single(node));
        return carry(node, i, out);
      }
    }
    return false;
  }
  std::int64_t axis_of(const Node& node, const char* key, std::int64_t fallback) const {
    const std::int64_t axis = node.integer(key, fallback), n = rank(node.input(0));
    return n < 0 ? n : axis < 0 ? axis + n : axis;  // an unknown rank: never below rank - 1
  }
  bool concat(const Node& node) {
    const std::int64_t axis = axis_of(node, "axis", 1), n = rank(node.outputs[0]);
    if (n < 1 || axis < 0 || axis >= n - 1) return false;
    for (std::size_t i = 0; i < node.inputs.size(); ++i)
      if (last(node.input(i)) != last(node.outputs[0]) || !carry(node, i, node.outputs[0])) return false;
    return true;
  }
  bool all_outputs(const Node& node) {
    if (is_constant(node.input(0)) || rank(node.input(0)) < 2 || axis_of(node, "axis", 0) < 0) return false;
    for (const TensorId id : node.outputs)
      if (id != kNoTensor && !carry(node, 0, id)) return false;
    return true;
  }

  std::optional<std::vector<std::int64_t>> numbers(const Node& node, std::size_t input, const char* attribute) const {
    if (node.attributes.count(attribute)) return node.integers(attribute);
    const TensorData* data = initializer_data(model_, node.input(input));
    return data ? std::optional(data->to_int64()) : std::nullopt;
  }
  // Whether the first output has the features of the first input, whatever becomes of its rows.
  bool moves_rows(const Node& node) const {
    const TensorId in = node.input(0), out = node.outputs[0];
    const std::int64_t n = rank(in);
    if (has_more_outputs(graph_, node) || n < 1 || last(in) < 1 || last(out) < 1) return false;
    const auto not_last = [&](const std::vector<std::int64_t>& axes) {
      return std::all_of(axes.begin(), axes.end(), [&](std::int64_t a) { return (a < 0 ? a + n : a) < n - 1 && a >= -n; });
    };
    if (node.op == "Identity" || node.op == "Dropout" || node.op == "Cast") return last(in) == last(out);
    // Values keep their order, so aligned runs of features stay what they are.
    if (node.op == "Reshape" || node.op == "Flatten" || node.op == "Squeeze" || node.op == "Unsqueeze") return true;
    if (node.op == "Transpose") {
      const auto perm = node.integers("perm");
      return static_cast<std::int64_t>(perm.size()) == n && perm.back() == n - 1;
    }
    if (last(in) != last(out)) return false;
    if (node.op == "Expand" || node.op == "Tile") return last(in) > 1;
    if (node.op == "Gather") return not_last({node.integer("axis", 0)});
    if (node.op == "ReduceMean" || node.op == "ReduceSum") {
      const auto axes = numbers(node, 1, "axes");
      return axes && !axes->empty() && not_last(*axes);
    }
    if (node.op == "Slice") {
      const auto axes = numbers(node, 3, "axes");
      return axes && not_last(*axes);
    }
    if (node.op == "Pad") {
      const auto pads = numbers(node, 1, "pads");
      if (!pads || static_cast<std::int64_t>(pads->size()) != 2 * n || node.input(3) != kNoTensor) return false;
      if ((*pads)[static_cast<std::size_t>(n - 1)] != 0 || pads->back() != 0) return false;
      if (node.text("mode", "constant") != "constant") return true;
      const TensorData* value = initializer_data(model_, node.input(2));
      return node.input(2) == kNoTensor ? node.real("value", 0) == 0 : value && value->to_floats() == std::vector<float>{0};
    }
    return false;
  }

  void collect() {
    std::map<std::size_t, std::size_t> region_of_root;
    for (const auto& [id, s] : slots_) {
      const std::size_t r = root(s);
      const auto [it, fresh] = region_of_root.try_emplace(r, out_.regions.size());
      if (fresh) {
        FeatureRegion region;
        region.granule = granule_[r];
        region.blocked = reason_[r];
        out_.regions.push_back(std::move(region));
      }
      out_.region_of[id] = it->second;
    }
    for (const Use& u : uses_) {
      FeatureRegion& region = out_.regions[region_of_root.at(root(u.slot))];
      switch (u.role) {
        case Role::kSource: region.sources.push_back(u.source); break;
        case Role::kSink: region.sinks.push_back(u.source.node); break;
        case Role::kInside: region.norms_inside.push_back(u.source.node); break;
        case Role::kFrom: region.norms_from.push_back(u.source.node); break;
        case Role::kTo: region.norms_to.push_back(u.source.node); break;
      }
    }
  }

  const Model& model_;
  const Graph& graph_;
  const std::function<bool(const Node&)>& passes_;
  const bool permutes_;
  std::map<TensorId, std::size_t> slots_;
  std::vector<std::size_t> parent_;
  std::vector<std::string> reason_;
  std::vector<std::int64_t> granule_;
  std::vector<Use> uses_;
  FeatureRegions out_;
};

}  // namespace

FeatureRegions find_feature_regions(const Model& model, const std::function<bool(const Node&)>& passes) { return Finder(model, passes).run(); }
FeatureRegions find_permuted_regions(const Model& model) {
  const std::function<bool(const Node&)> none = [](const Node&) { return true; };
  return Finder(model, none, true).run();
}

}  // namespace quanvas
