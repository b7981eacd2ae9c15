// Layers with weights, pools, normalizations, reductions.
#include <algorithm>
#include <cmath>

#include "plugins/exporters/torchscript/operators.h"

namespace quanvas::torchscript_file {

Window window_of(const Saying& s, const Ints& kernel) {
  const std::size_t rank = kernel.size();
  if (rank < 1 || rank > 3) throw Unsaid("its window has " + std::to_string(rank) + " dimensions");
  Window w;
  w.kernel = kernel;
  const auto spatial = [&](const char* key) {
    Ints values = s.node.integers(key, Ints(rank, 1));
    if (values.size() != rank) throw Unsaid(std::string("'") + key + "' has " + std::to_string(values.size()) + " values");
    return values;
  };
  w.stride = spatial("strides");
  w.dilation = spatial("dilations");
  w.begin.assign(rank, 0);
  w.end.assign(rank, 0);
  const std::string mode = s.node.text("auto_pad", "NOTSET");
  if (mode == "SAME_UPPER" || mode == "SAME_LOWER") {
    const auto& shape = s.info().shape;
    for (std::size_t i = 0; i < rank; ++i) {
      const std::int64_t in = shape && shape->size() == rank + 2 ? (*shape)[i + 2] : -1;
      if (in < 0) throw Unsaid("auto_pad " + mode + " of an input whose size is not known");
      const std::int64_t out = (in + w.stride[i] - 1) / w.stride[i], reach = (kernel[i] - 1) * w.dilation[i] + 1;
      const std::int64_t total = std::max<std::int64_t>(0, (out - 1) * w.stride[i] + reach - in);
      w.begin[i] = mode == "SAME_UPPER" ? total / 2 : total - total / 2;
      w.end[i] = total - w.begin[i];
    }
  } else if (mode == "NOTSET" || mode.empty()) {
    const Ints pads = s.node.integers("pads", Ints(2 * rank, 0));
    if (pads.size() != 2 * rank) throw Unsaid("'pads' has " + std::to_string(pads.size()) + " values");
    w.begin.assign(pads.begin(), pads.begin() + static_cast<std::ptrdiff_t>(rank));
    w.end.assign(pads.begin() + static_cast<std::ptrdiff_t>(rank), pads.end());
  } else if (mode != "VALID") {
    throw Unsaid("auto_pad '" + mode + "'");
  }
  for (const Ints* pads : {&w.begin, &w.end})
    for (const std::int64_t p : *pads)
      if (p < 0) throw Unsaid("its pads are below 0");
  return w;
}

Ints flat_pads(const Ints& begin, const Ints& end) {
  Ints flat;
  for (std::size_t i = begin.size(); i-- > 0;) {
    flat.push_back(begin[i]);
    flat.push_back(end[i]);
  }
  return flat;
}

namespace {

std::vector<std::string> one(std::string expression) { return {std::move(expression)}; }

bool all_zero(const Ints& v) {
  return std::all_of(v.begin(), v.end(), [](std::int64_t x) { return x == 0; });
}

std::string padded(const std::string& x, const Window& w, double value) {
  return "torch.constant_pad_nd(" + x + ", " + literal(flat_pads(w.begin, w.end)) + ", " + literal(value) + ")";
}

std::vector<std::string> conv(Saying& s) {
  const std::int64_t rank = s.rank(1);
  const TensorInfo& weight = s.info(1);
  Shape shape = weight.shape.value_or(Shape{});
  if (const TensorData* data = s.constant(1)) shape = data->shape;
  if (rank < 3 || shape.size() != static_cast<std::size_t>(rank)) throw Unsaid("the shape of its weight is not known");
  const Window w = window_of(s, Ints(shape.begin() + 2, shape.end()));
  std::string x = s.x();
  Ints pads = w.begin;
  if (!w.symmetric()) {
    x = padded(x, w, 0);
    pads.assign(pads.size(), 0);
  }
  return one("torch.conv" + std::to_string(w.kernel.size()) + "d(" + x + ", " + s.x(1) + ", " + (s.has(2) ? s.x(2) : "None") +
             ", " + literal(w.stride) + ", " + literal(pads) + ", " + literal(w.dilation) + ", " +
             std::to_string(s.node.integer("group", 1)) + ")");
}

std::vector<std::string> conv_transpose(Saying& s) {
  const TensorData* weight = s.constant(1);
  if (!weight || weight->shape.size() < 3) throw Unsaid("its weight is no constant");
  if (!s.node.integers("output_shape").empty() ||
      (s.node.text("auto_pad", "NOTSET") != "NOTSET" && s.node.text("auto_pad", "") != "VALID"))
    throw Unsaid("its pads follow from the size of its output");
  const Window w = window_of(s, Ints(weight->shape.begin() + 2, weight->shape.end()));
  const Ints extra = s.node.integers("output_padding", Ints(w.kernel.size(), 0));
  bool direct = w.symmetric() && extra.size() == w.kernel.size();
  for (std::size_t i = 0; direct && i < extra.size(); ++i) direct = extra[i] < std::max(w.stride[i], w.dilation[i]);
  if (!direct) throw Unsaid("its pads differ at begin and end");
  return one("torch.conv_transpose" + std::to_string(w.kernel.size()) + "d(" + s.x() + ", " + s.x(1) + ", " +
             (s.has(2) ? s.x(2) : "None") + ", " + literal(w.stride) + ", " + literal(w.begin) + ", " + literal(extra) + ", " +
             std::to_string(s.node.integer("group", 1)) + ", " + literal(w.dilation) + ")");
}

std::vector<std::string> gemm(Saying& s) {
  const double alpha = s.node.real("alpha", 1), beta = s.node.real("beta", 1);
  const bool flat_bias = !s.has(2) || s.rank(2) == 1;
  if (!s.node.integer("transA", 0) && alpha == 1 && beta == 1 && flat_bias) {
    const std::string weight = s.node.integer("transB", 0) ? s.x(1) : "torch.t(" + s.x(1) + ")";
    return one("torch.linear(" + s.x() + ", " + weight + ", " + (s.has(2) ? s.x(2) : "None") + ")");
  }
  const std::string a = s.node.integer("transA", 0) ? "torch.t(" + s.x() + ")" : s.x();
  const std::string b = s.node.integer("transB", 0) ? "torch.t(" + s.x(1) + ")" : s.x(1);
  if (s.has(2))
    return one("torch.addmm(" + s.x(2) + ", " + a + ", " + b + ", beta=" + literal(beta) + ", alpha=" + literal(alpha) + ")");
  const std::string product = "torch.mm(" + a + ", " + b + ")";
  return one(alpha == 1 ? product : "torch.mul(" + product + ", " + literal(alpha) + ")");
}

// The third input is a bias (core/graph/canonical.h).
std::vector<std::string> matmul(Saying& s) {
  if (!s.has(2)) return one("torch.matmul(" + s.x() + ", " + s.x(1) + ")");
  if (s.rank(1) == 2 && s.rank(2) == 1) return one("torch.linear(" + s.x() + ", torch.t(" + s.x(1) + "), " + s.x(2) + ")");
  return one("torch.add(torch.matmul(" + s.x() + ", " + s.x(1) + "), " + s.x(2) + ")");
}

// --- pools

bool rounds_up(const Saying& s) { return s.node.integer("ceil_mode", 0) != 0; }
// What LibTorch takes: the same pads on both sides, at most half of the kernel.
bool direct(const Window& w) {
  bool out = w.symmetric();
  for (std::size_t i = 0; i < w.kernel.size(); ++i) out = out && w.begin[i] <= w.kernel[i] / 2;
  return out;
}

std::vector<std::string> max_pool(Saying& s) {
  if (s.node.outputs.size() > 1 && s.node.outputs[1] != kNoTensor) throw Unsaid("the places of the largest values are read");
  const Window w = window_of(s, s.node.integers("kernel_shape"));
  std::string x = s.x();
  Ints pads = w.begin;
  if (!direct(w)) {
    if (rounds_up(s)) throw Unsaid("ceil_mode with pads that differ at begin and end");
    x = padded(x, w, -INFINITY);
    pads.assign(pads.size(), 0);
  }
  return one("torch.max_pool" + std::to_string(w.kernel.size()) + "d(" + x + ", " + literal(w.kernel) + ", " +
             literal(w.stride) + ", " + literal(pads) + ", " + literal(w.dilation) + (rounds_up(s) ? ", True)" : ", False)"));
}

std::vector<std::string> average_pool(Saying& s) {
  const Window w = window_of(s, s.node.integers("kernel_shape"));
  if (rounds_up(s)) throw Unsaid("ceil_mode");
  if (!all_zero(w.begin) || !all_zero(w.end)) {
    const bool counts = s.node.integer("count_include_pad", 0) != 0;
    if (!direct(w)) throw Unsaid("its pads differ at begin and end");
    return one("torch.avg_pool" + std::to_string(w.kernel.size()) + "d(" + s.x() + ", " + literal(w.kernel) + ", " +
               literal(w.stride) + ", " + literal(w.begin) + ", False, " + (counts ? "True" : "False") + ")");
  }
  for (const std::int64_t d : w.dilation)
    if (d != 1) throw Unsaid("dilations");
  return one("torch.avg_pool" + std::to_string(w.kernel.size()) + "d(" + s.x() + ", " + literal(w.kernel) + ", " +
             literal(w.stride) + ", " + literal(w.begin) + ", False, True)");
}

std::vector<std::string> global_pool(Saying& s, const char* how, const char* end) {
  Ints axes;
  for (std::int64_t i = 2; i < s.rank(); ++i) axes.push_back(i);
  return one(std::string("torch.") + how + "(" + s.x() + ", " + literal(axes) + ", True" + end + ")");
}
std::vector<std::string> global_average(Saying& s) { return global_pool(s, "mean", ""); }
std::vector<std::string> global_max(Saying& s) { return global_pool(s, "amax", ""); }

// --- reductions

std::vector<std::string> reduce(Saying& s, const char* how) {
  Ints axes = s.ints("axes", 1).value_or(Ints{});
  if (axes.empty() && s.node.integer("noop_with_empty_axes", 0)) return one(s.x());
  if (axes.empty())
    for (std::int64_t i = 0; i < s.rank(); ++i) axes.push_back(i);
  if (axes.empty()) return one(s.x());
  return one(std::string("torch.") + how + "(" + s.x() + ", " + literal(axes) + ", " +
             (s.node.integer("keepdims", 1) ? "True" : "False") + ")");
}
std::vector<std::string> reduce_mean(Saying& s) { return reduce(s, "mean"); }
std::vector<std::string> reduce_sum(Saying& s) { return reduce(s, "sum"); }
std::vector<std::string> reduce_max(Saying& s) { return reduce(s, "amax"); }
std::vector<std::string> reduce_min(Saying& s) { return reduce(s, "amin"); }

// --- normalizations

std::vector<std::string> batch_norm(Saying& s) {
  if (s.node.integer("training_mode", 0) || s.node.integer("spatial", 1) == 0)
    throw Unsaid("it normalizes by other statistics than those of the file");
  return one("torch.batch_norm(" + s.x() + ", " + s.x(1) + ", " + s.x(2) + ", " + s.x(3) + ", " + s.x(4) + ", False, 0., " +
             literal(s.node.real("epsilon", 1e-5f)) + ", False)");
}

std::vector<std::string> instance_norm(Saying& s) {
  return one("torch.instance_norm(" + s.x() + ", " + s.x(1) + ", " + s.x(2) + ", None, None, True, 0., " +
             literal(s.node.real("epsilon", 1e-5f)) + ", False)");
}

std::vector<std::string> layer_norm(Saying& s) {
  for (std::size_t i = 1; i < s.node.outputs.size(); ++i)
    if (s.node.outputs[i] != kNoTensor) throw Unsaid("its mean or deviation is read");
  const std::int64_t rank = s.rank(), axis = s.axis(s.node.integer("axis", -1), rank);
  const TensorData* scale = s.constant(1);
  if (!scale || static_cast<std::int64_t>(scale->shape.size()) != rank - axis)
    throw Unsaid("its scale is no constant of the shape that is normalized");
  return one("torch.layer_norm(" + s.x() + ", " + literal(scale->shape) + ", " + s.x(1) + ", " + (s.has(2) ? s.x(2) : "None") +
             ", " + literal(s.node.real("epsilon", 1e-5f)) + ")");
}

std::vector<std::string> rms_norm(Saying& s) {
  const std::int64_t rank = s.rank(), axis = s.axis(s.node.integer("axis", -1), rank);
  Ints axes;
  for (std::int64_t i = axis; i < rank; ++i) axes.push_back(i);
  const std::string x = s.x();
  return one("torch.mul(torch.mul(" + x + ", torch.rsqrt(torch.add(torch.mean(torch.mul(" + x + ", " + x + "), " +
             literal(axes) + ", True), " + literal(s.node.real("epsilon", 1e-5f)) + "))), " + s.x(1) + ")");
}

}  // namespace

const Says& layer_says() {
  static const Says table = {{"Conv", conv},
                             {"ConvTranspose", conv_transpose},
                             {"Gemm", gemm},
                             {"MatMul", matmul},
                             {"MaxPool", max_pool},
                             {"AveragePool", average_pool},
                             {"GlobalAveragePool", global_average},
                             {"GlobalMaxPool", global_max},
                             {"ReduceMean", reduce_mean},
                             {"ReduceSum", reduce_sum},
                             {"ReduceMax", reduce_max},
                             {"ReduceMin", reduce_min},
                             {"BatchNormalization", batch_norm},
                             {"InstanceNormalization", instance_norm},
                             {"LayerNormalization", layer_norm},
                             {"RMSNormalization", rms_norm}};
  return table;
}

}  // namespace quanvas::torchscript_file
