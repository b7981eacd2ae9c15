#include <limits>

#include <ATen/ATen.h>

#include "core/exec/ops.h"

namespace quanvas::exec {
namespace {

// Extra end pads that make ceil_mode a plain floor-mode pool. As in ONNX and ATen, a window that would start
// in the end padding does not exist.
Ints ceil_extra(const OpCall& call, const Window& w) {
  Ints extra(w.kernel.size(), 0);
  if (!call.node.integer("ceil_mode", 0)) return extra;
  for (std::size_t i = 0; i < extra.size(); ++i) {
    const std::int64_t in = call.x().size(static_cast<std::int64_t>(i) + 2);
    const std::int64_t reach = (w.kernel[i] - 1) * w.dilation[i] + 1;
    const std::int64_t padded = in + w.begin[i] + w.end[i];
    std::int64_t out = (padded - reach + w.stride[i] - 1) / w.stride[i] + 1;
    if ((out - 1) * w.stride[i] >= in + w.begin[i]) --out;
    extra[i] = std::max<std::int64_t>(0, (out - 1) * w.stride[i] + reach - padded);
  }
  return extra;
}

bool all_zero(const Ints& v) {
  return std::all_of(v.begin(), v.end(), [](std::int64_t x) { return x == 0; });
}
// ATen takes symmetric pads of at most half a kernel.
bool direct_pads(const Window& w) {
  bool ok = w.symmetric();
  for (std::size_t i = 0; i < w.kernel.size(); ++i) ok = ok && w.begin[i] >= 0 && w.begin[i] <= w.kernel[i] / 2;
  return ok;
}
Ints plus(Ints a, const Ints& b) {
  for (std::size_t i = 0; i < a.size(); ++i) a[i] += b[i];
  return a;
}

at::Tensor max_pool_nd(const at::Tensor& x, const Window& w, const Ints& pad) {
  switch (w.kernel.size()) {
    case 1: return at::max_pool1d(x, w.kernel, w.stride, pad, w.dilation);
    case 2: return at::max_pool2d(x, w.kernel, w.stride, pad, w.dilation);
    default: return at::max_pool3d(x, w.kernel, w.stride, pad, w.dilation);
  }
}

at::Tensor avg_pool_nd(const at::Tensor& x, const Window& w, const Ints& pad, bool include_pad) {
  switch (w.kernel.size()) {
    case 1: return at::avg_pool1d(x, w.kernel, w.stride, pad, false, include_pad);
    case 2: return at::avg_pool2d(x, w.kernel, w.stride, pad, false, include_pad);
    default: return at::avg_pool3d(x, w.kernel, w.stride, pad, false, include_pad);
  }
}

Result<Window> pool_window(const OpCall& call) {
  const Ints kernel = call.node.integers("kernel_shape");
  if (kernel.empty() || kernel.size() > 3)
    return bad_node("'kernel_shape' has " + std::to_string(kernel.size()) + " values, expected 1 to 3.");
  return window_of(call, kernel);
}

OpResult max_pool(const OpCall& call) {
  QUANVAS_TRY(Window w, pool_window(call));
  const Ints extra = ceil_extra(call, w);
  const auto type = call.x().scalar_type();
  at::Tensor x = at::isFloatingType(type) ? call.x() : call.x().to(at::kFloat);
  Ints pad = w.begin;
  if (!direct_pads(w) || !all_zero(extra)) {
    x = pad_spatial(x, w.begin, plus(w.end, extra), -std::numeric_limits<double>::infinity());
    pad.assign(pad.size(), 0);
  }
  return one(max_pool_nd(x, w, pad).to(type));
}

OpResult average_pool(const OpCall& call) {
  QUANVAS_TRY(Window w, pool_window(call));
  const Ints extra = ceil_extra(call, w);
  const bool include_pad = call.node.integer("count_include_pad", 0) != 0;
  if (direct_pads(w) && all_zero(extra)) return one(avg_pool_nd(call.x(), w, w.begin, include_pad));
  // Mean of the padded values over the mean of a mask that says which cells count.
  const Ints none(w.kernel.size(), 0);
  const at::Tensor x = pad_spatial(call.x(), w.begin, plus(w.end, extra), 0);
  Ints shape = call.x().sizes().vec();
  shape[0] = shape[1] = 1;
  at::Tensor mask = at::ones(shape, call.x().options());
  mask = pad_spatial(pad_spatial(mask, w.begin, w.end, include_pad ? 1 : 0), none, extra, 0);
  return one(avg_pool_nd(x, w, none, true) / avg_pool_nd(mask, w, none, true));
}

Ints spatial_axes(const at::Tensor& x) {
  Ints axes;
  for (std::int64_t i = 2; i < x.dim(); ++i) axes.push_back(i);
  return axes;
}
OpResult global_average_pool(const OpCall& call) {
  if (call.x().dim() < 3) return one(call.x());
  return one(at::mean(call.x(), spatial_axes(call.x()), true));
}
OpResult global_max_pool(const OpCall& call) {
  if (call.x().dim() < 3) return one(call.x());
  return one(at::amax(call.x(), spatial_axes(call.x()), true));
}

std::string refuse_max_pool(const Node& node) {
  if (node.outputs.size() > 1 && node.outputs[1] != kNoTensor) return "MaxPool with its second output (indices)";
  return {};
}
std::string refuse_average_pool(const Node& node) {
  for (const auto d : node.integers("dilations"))
    if (d != 1) return "AveragePool with dilations";
  return {};
}

}  // namespace

const std::vector<OpRow>& pooling_ops() {
  static const std::vector<OpRow> rows = {{"MaxPool", 1, max_pool, refuse_max_pool},
                                          {"AveragePool", 1, average_pool, refuse_average_pool},
                                          {"GlobalAveragePool", 1, global_average_pool},
                                          {"GlobalMaxPool", 1, global_max_pool}};
  return rows;
}

}  // namespace quanvas::exec
