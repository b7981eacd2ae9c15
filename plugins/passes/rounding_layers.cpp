#include "plugins/passes/rounding_layers.h"

#include <algorithm>
#include <memory>

#include <ATen/ATen.h>

#include "core/algorithms/tasks.h"
#include "core/exec/ops.h"
#include "plugins/passes/edit.h"

namespace quanvas::rounding {
namespace {

using algorithms::ConvolutionShape;
using algorithms::Gram;
using algorithms::GramAccumulator;
constexpr std::int64_t kTile = GramAccumulator::kTileColumns;
constexpr double kMostBytes = 6.0 * (1 << 30);  // of one layer's moments and their factor

// Why a layer with a quantized weight has no matrix that could be rounded; empty: it has, and `target` is filled.
std::string read_layer(const Model& model, Target& target) {
  const Graph& graph = *model.graph;
  const Node& node = *graph.find(target.layer.node);
  target.name = node.name;
  target.input = node.input(0);
  target.convolution = node.op == "Conv";
  if (node.op == "ConvTranspose") return "transposed convolutions cannot be rounded this way";
  if (!target.convolution && node.op != "Gemm" && node.op != "MatMul")
    return node.op + " is no convolution and no product with one weight";
  const TensorData* weight = initializer_data(model, target.layer.weight);
  if (!weight || node.input(1) != target.layer.weight) return "its weight is not the second operand, with data in the file";
  if (graph.tensor(target.layer.weight).consumers.size() != 1) return "several layers read its weight";
  target.shape = weight->shape;
  if (target.convolution ? weight->shape.size() < 3 : weight->shape.size() != 2)
    return "its weight has " + std::to_string(weight->shape.size()) + " axes";
  if (element_count(weight->shape) == 0) return "its weight is empty";
  if (node.op == "Gemm" && node.integer("transA", 0) != 0) return "its input is transposed";
  target.groups = target.convolution ? std::max(1, target.layer.group) : 1;
  target.transposed = !target.convolution && !(node.op == "Gemm" && node.integer("transB", 0) != 0);
  const std::int64_t outputs = target.transposed ? weight->shape[1] : weight->shape[0];
  if (outputs % target.groups != 0) return "its outputs do not divide into groups";
  target.m = outputs / target.groups;
  target.n = element_count(weight->shape) / outputs;
  const double bytes = 40.0 * static_cast<double>(target.n) * static_cast<double>(target.n) * static_cast<double>(target.groups);
  if (bytes > kMostBytes)
    return "the moments of its " + std::to_string(target.n) + " inputs would take " +
           std::to_string(static_cast<int>(bytes / (1 << 30))) + " GiB";
  return {};
}

}  // namespace

quant::MatrixView Target::view(std::int64_t group) const {
  if (transposed) return {m, n, 0, 1, m};
  return {m, n, group * m * n, n, 1};
}

Targets find_targets(const Model& model, const std::set<NodeId>& nodes, const std::function<bool(const Site&)>& is_quantized) {
  Targets out;
  for (const Layer& layer : find_layers(*model.graph)) {
    if (layer.kind != LayerKind::kCompute || layer.weight == kNoTensor || (!nodes.empty() && nodes.count(layer.node) == 0)) continue;
    Target target;
    target.layer = layer;
    if (!is_quantized(target.weight_site())) continue;
    if (std::string why = read_layer(model, target); !why.empty()) out.left.push_back({target.name, std::move(why)});
    else out.targets.push_back(std::move(target));
  }
  return out;
}

Targets find_targets(const PassContext& ctx) {
  return find_targets(*ctx.quantized.model, ctx.nodes, [&](const Site& site) { return ctx.quantized.quantizers.count(site) > 0; });
}

bool same_columns(const PassContext& ctx, const Target& a, const Target& b) {
  if (a.input != b.input || a.convolution != b.convolution || a.groups != b.groups || a.n != b.n) return false;
  const auto &quantizers = ctx.quantized.quantizers;
  const auto qa = quantizers.find(a.input_site()), qb = quantizers.find(b.input_site());
  if ((qa == quantizers.end()) != (qb == quantizers.end())) return false;
  if (qa != quantizers.end()) {
    const quant::QuantParams &p = qa->second, &q = qb->second;
    if (!(p.spec == q.spec) || p.scale != q.scale || p.zero_point != q.zero_point || p.lo != q.lo || p.hi != q.hi ||
        p.code_scale != q.code_scale || p.center != q.center || p.truncated != q.truncated)
      return false;
  }
  if (!a.convolution) return true;
  const Graph& graph = *ctx.quantized.model->graph;
  const Node &x = *graph.find(a.layer.node), &y = *graph.find(b.layer.node);
  const auto kernel = [](const Target& t) { return Shape(t.shape.begin() + 1, t.shape.end()); };
  return kernel(a) == kernel(b) && x.integers("strides") == y.integers("strides") && x.integers("pads") == y.integers("pads") &&
         x.integers("dilations") == y.integers("dilations") && x.text("auto_pad", "NOTSET") == y.text("auto_pad", "NOTSET");
}

ColumnSums::ColumnSums(const Graph& graph, const Target& target, bool cross) : graph_(graph), target_(target), cross_(cross) {
  // Columns of few inputs are too little work for several threads at a time: tiles go to the parts in turn, and each part
  // to one thread. A fixed number, so that sums do not depend on the threads.
  constexpr std::int64_t kParts = 4, kFew = 1024;
  if (target.convolution && target.groups == 1 && target.n <= kFew) parts_ = kParts;
  for (std::int64_t i = 0; i < target.groups * parts_; ++i) sums_.emplace_back(target.n, cross);
}

Status ColumnSums::add(const at::Tensor& x, const at::Tensor& reference, const std::stop_token& stop) {
  if (cross_ && reference.sizes() != x.sizes())
    return fail(ErrorCode::kUnsupported, "Layer '" + target_.name + "' reads another number of values in the float network than in the quantized one.",
                "Choose float inputs, or GPTQ, or leave the layer out.");
  const auto plain = [](const at::Tensor& t) { return t.defined() ? t.to(at::kCPU, at::kFloat).contiguous() : t; };
  return target_.convolution ? add_pictures(plain(x), plain(reference), stop) : add_rows(plain(x), plain(reference), stop);
}

Status ColumnSums::add_rows(const at::Tensor& x, const at::Tensor& reference, const std::stop_token& stop) {
  const std::int64_t n = target_.n;
  if (x.dim() < 1 || x.size(-1) != n)
    return fail(ErrorCode::kUnsupported, "Layer '" + target_.name + "' reads vectors of another length than its weight has.");
  return sums_[0].add(x.data_ptr<float>(), cross_ ? reference.data_ptr<float>() : nullptr, x.numel() / n,
                      GramAccumulator::Order::kColumns, n, stop);
}

Status ColumnSums::add_pictures(const at::Tensor& x, const at::Tensor& reference, const std::stop_token& stop) {
  if (x.dim() != static_cast<std::int64_t>(target_.shape.size()) || x.size(1) != target_.shape[1] * target_.groups)
    return fail(ErrorCode::kUnsupported, "Layer '" + target_.name + "' reads other channels than its weight has.");
  const Node& node = *graph_.find(target_.layer.node);
  const std::vector<at::Tensor> in = {x};
  const exec::Ints kernel(target_.shape.begin() + 2, target_.shape.end());
  auto window = exec::window_of(exec::OpCall{graph_, node, {}, in}, kernel);
  if (!window) {
    window.error().context = target_.name;
    return Failure(window.error());
  }
  ConvolutionShape shape;
  shape.groups = target_.groups;
  shape.channels = target_.shape[1];
  shape.size.assign(x.sizes().begin() + 2, x.sizes().end());
  shape.kernel = window->kernel, shape.stride = window->stride, shape.dilation = window->dilation;
  shape.pad_begin = window->begin, shape.pad_end = window->end;
  std::int64_t plane = shape.channels;
  for (const std::int64_t s : shape.size) plane *= s;
  const std::int64_t positions = shape.positions(), columns = x.size(0) * positions, sample = plane * target_.groups;
  const auto fill = [&](const at::Tensor& t, std::int64_t group, std::int64_t c, std::int64_t count, float* out) {
    const float* data = t.data_ptr<float>() + c / positions * sample + group * plane;
    algorithms::im2col(shape, data, c % positions, count, out, kTile);
  };
  // Every parts_-th tile of a group from tile `part` on. alone: by several threads, else all of it by this one.
  const auto add_group = [&](std::int64_t group, std::int64_t part, bool alone) -> Status {
    const auto size = static_cast<std::size_t>(target_.n * kTile);
    const auto tile = std::make_unique_for_overwrite<float[]>(size);
    const auto other = cross_ ? std::make_unique_for_overwrite<float[]>(size) : nullptr;
    for (std::int64_t c0 = part * kTile; c0 < columns; c0 += parts_ * kTile) {
      const std::int64_t end = std::min(columns, c0 + kTile), first = c0 / positions, last = (end - 1) / positions;
      const auto piece = [&](std::int64_t i) {
        const std::int64_t begin = std::max(c0, (first + i) * positions), stop_at = std::min(end, (first + i + 1) * positions);
        fill(x, group, begin, stop_at - begin, tile.get() + begin - c0);
        if (cross_) fill(reference, group, begin, stop_at - begin, other.get() + begin - c0);
      };
      if (alone)
        QUANVAS_CHECK(algorithms::for_each_task(last - first + 1, stop, piece));
      else
        for (std::int64_t i = 0; i <= last - first; ++i) piece(i);
      QUANVAS_CHECK(sums_[static_cast<std::size_t>(group * parts_ + part)].add(tile.get(), other.get(), end - c0,
                                                                             GramAccumulator::Order::kInputs, kTile, stop));
    }
    return {};
  };
  if (columns == 0) return {};
  if (sums_.size() == 1) return add_group(0, 0, true);
  std::vector<Status> done(sums_.size());
  QUANVAS_CHECK(algorithms::for_each_task(static_cast<std::int64_t>(sums_.size()), stop, [&](std::int64_t i) {
    done[static_cast<std::size_t>(i)] = add_group(i / parts_, i % parts_, false);
  }));
  for (const Status& status : done) QUANVAS_CHECK(status);
  return {};
}

bool ColumnSums::is_empty() const {
  return std::all_of(sums_.begin(), sums_.end(), [](const GramAccumulator& sum) { return sum.columns() == 0; });
}

Result<std::vector<Gram>> ColumnSums::finish(const std::stop_token& stop) {
  std::vector<Gram> grams;
  for (std::size_t g = 0; g < sums_.size(); g += static_cast<std::size_t>(parts_)) {
    for (std::size_t part = 1; part < static_cast<std::size_t>(parts_); ++part)
      QUANVAS_CHECK(sums_[g].merge(std::move(sums_[g + part]), stop));
    auto gram = std::move(sums_[g]).finish(stop);
    if (!gram) {
      gram.error().context = target_.name;
      return Failure(gram.error());
    }
    grams.push_back(std::move(*gram));
  }
  return grams;
}

std::vector<float> matrix(const std::vector<float>& tensor, const quant::MatrixView& view) {
  std::vector<float> out;
  out.reserve(static_cast<std::size_t>(view.rows * view.columns));
  for (std::int64_t r = 0; r < view.rows; ++r)
    for (std::int64_t c = 0; c < view.columns; ++c) out.push_back(tensor[static_cast<std::size_t>(view.element(r, c))]);
  return out;
}

Status check_kept(const std::string& layer, const quant::QuantParams& params, const std::vector<float>& values) {
  std::vector<float> again(values.size());
  quant::fake_quantize(params, params.layout, values.data(), again.data());
  for (std::size_t i = 0; i < values.size(); ++i)
    if (again[i] != values[i])
      return fail(ErrorCode::kUnsupported, "The weight quantizer of '" + layer + "' does not keep the values that it has made (" + describe(params.spec) + ").",
                  "Choose a format that rounds to nearest, with whole zero points and without decoupled scales, or leave the layer out.");
  return {};
}

ModelPtr with_weights(const ModelPtr& model, const std::map<TensorId, at::Tensor>& values) {
  auto weights = std::make_shared<WeightStore>(*model->weights);
  for (const auto& [id, tensor] : values) {
    const std::string& name = model->graph->tensor(id).name;
    const at::Tensor wide = tensor.to(at::kDouble).contiguous();
    const TensorData* old = weights->find(name);
    weights->set(name, make_data(old->type, old->shape, {wide.data_ptr<double>(), wide.data_ptr<double>() + wide.numel()}));
  }
  return std::make_shared<const Model>(Model{model->graph, weights, model->source});
}

}  // namespace quanvas::rounding
