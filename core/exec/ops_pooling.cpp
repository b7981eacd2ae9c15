#include <algorithm>
#include <limits>
#include <tuple>

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
    case 1:
      return at::max_pool1d(x, w.kernel, w.stride, pad, w.dilation);
    case 2:
      return at::max_pool2d(x, w.kernel, w.stride, pad, w.dilation);
    default:
      return at::max_pool3d(x, w.kernel, w.stride, pad, w.dilation);
  }
}

at::Tensor avg_pool_nd(const at::Tensor& x, const Window& w, const Ints& pad, bool include_pad) {
  switch (w.kernel.size()) {
    case 1:
      return at::avg_pool1d(x, w.kernel, w.stride, pad, false, include_pad);
    case 2:
      return at::avg_pool2d(x, w.kernel, w.stride, pad, false, include_pad);
    default:
      return at::avg_pool3d(x, w.kernel, w.stride, pad, false, include_pad);
  }
}

Result<Window> pool_window(const OpCall& call) {
  const Ints kernel = call.node.integers("kernel_shape");
  if (kernel.empty() || kernel.size() > 3)
    return bad_node("'kernel_shape' has " + std::to_string(kernel.size()) + " values, expected 1 to 3.");
  return window_of(call, kernel);
}

std::tuple<at::Tensor, at::Tensor> max_pool_places(const at::Tensor& x, const Window& w, const Ints& pad) {
  if (w.kernel.size() == 3) return at::max_pool3d_with_indices(x, w.kernel, w.stride, pad, w.dilation);
  if (w.kernel.size() == 2) return at::max_pool2d_with_indices(x, w.kernel, w.stride, pad, w.dilation);
  return at::max_pool1d_with_indices(x, w.kernel, w.stride, pad, w.dilation);
}

// Places in one padded plane of x to places in the whole unpadded tensor.
at::Tensor whole_places(const OpCall& call, at::Tensor place, at::IntArrayRef padded, const Ints& begin) {
  const at::Tensor& x = call.x();
  const bool columns_first = call.node.integer("storage_order", 0) != 0;
  const std::size_t rank = begin.size();
  std::vector<at::Tensor> at_axis(rank);
  for (std::size_t i = rank; i-- > 0;) {
    at_axis[i] = place.remainder(padded[i + 2]) - begin[i];
    place = place.floor_divide(padded[i + 2]);
  }
  at::Tensor flat = at::zeros_like(place);
  for (std::size_t i = 0; i < rank; ++i) {
    const std::size_t k = columns_first ? rank - 1 - i : i;
    flat = flat * x.size(static_cast<std::int64_t>(k) + 2) + at_axis[k];
  }
  std::int64_t plane = 1;
  for (std::int64_t i = 2; i < x.dim(); ++i) plane *= x.size(i);
  Ints shape(static_cast<std::size_t>(x.dim()), 1);
  shape[0] = x.size(0);
  shape[1] = x.size(1);
  return flat + (at::arange(x.size(0) * x.size(1), flat.options()) * plane).reshape(shape);
}

OpResult max_pool(const OpCall& call) {
  QUANVAS_TRY(Window w, pool_window(call));
  const Ints extra = ceil_extra(call, w);
  const auto type = call.x().scalar_type();
  at::Tensor x = at::isFloatingType(type) ? call.x() : call.x().to(at::kFloat);
  Ints pad = w.begin, begin(w.begin.size(), 0);
  if (!direct_pads(w) || !all_zero(extra)) {
    x = pad_spatial(x, w.begin, plus(w.end, extra), -std::numeric_limits<double>::infinity());
    begin = pad;
    pad.assign(pad.size(), 0);
  }
  if (call.node.outputs.size() < 2 || call.node.outputs[1] == kNoTensor)
    return one(max_pool_nd(x, w, pad).to(type));
  auto [y, place] = max_pool_places(x, w, pad);
  return Tensors{y.to(type), whole_places(call, place, x.sizes(), begin)};
}

// Sums over windows of any dilation: a convolution with ones, channel by channel.
at::Tensor window_sums(const at::Tensor& x, const Window& w) {
  Ints planes = x.sizes().vec(), ones = {1, 1};
  planes[0] *= planes[1];
  planes[1] = 1;
  ones.insert(ones.end(), w.kernel.begin(), w.kernel.end());
  const Ints none(w.kernel.size(), 0);
  const at::Tensor y = at::convolution(x.reshape(planes), at::ones(ones, x.options()), {}, w.stride, none,
                                       w.dilation, false, none, 1);
  Ints shape = y.sizes().vec();
  shape[0] = x.size(0);
  shape[1] = x.size(1);
  return y.reshape(shape);
}

OpResult average_pool(const OpCall& call) {
  QUANVAS_TRY(Window w, pool_window(call));
  const Ints extra = ceil_extra(call, w);
  const bool include_pad = call.node.integer("count_include_pad", 0) != 0;
  const bool dilated = std::any_of(w.dilation.begin(), w.dilation.end(), [](std::int64_t d) { return d != 1; });
  if (direct_pads(w) && all_zero(extra) && !dilated) return one(avg_pool_nd(call.x(), w, w.begin, include_pad));
  // Mean of the padded values over the mean of a mask that says which cells count.
  const Ints none(w.kernel.size(), 0);
  const at::Tensor x = pad_spatial(call.x(), w.begin, plus(w.end, extra), 0);
  Ints shape = call.x().sizes().vec();
  shape[0] = shape[1] = 1;
  at::Tensor mask = at::ones(shape, call.x().options());
  mask = pad_spatial(pad_spatial(mask, w.begin, w.end, include_pad ? 1 : 0), none, extra, 0);
  if (dilated) return one(window_sums(x, w) / window_sums(mask, w));
  return one(avg_pool_nd(x, w, none, true) / avg_pool_nd(mask, w, none, true));
}

// Before opset 2, p is a real number.
double norm_of(const OpCall& call) {
  return static_cast<double>(call.node.real("p", 2));
}

OpResult lp_pool(const OpCall& call) {
  QUANVAS_TRY(Window w, pool_window(call));
  const double p = norm_of(call);
  if (p < 1) return bad_node("'p' is " + std::to_string(p) + ", expected at least 1.");
  const at::Tensor x = pad_spatial(call.x(), w.begin, plus(w.end, ceil_extra(call, w)), 0);
  return one(window_sums(x.abs().pow(p), w).pow(1 / p));
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

OpResult global_lp_pool(const OpCall& call) {
  const double p = norm_of(call);
  if (p < 1) return bad_node("'p' is " + std::to_string(p) + ", expected at least 1.");
  if (call.x().dim() < 3) return one(call.x().abs());
  return one(at::sum(call.x().abs().pow(p), spatial_axes(call.x()), true).pow(1 / p));
}

}  // namespace

const std::vector<OpRow>& pooling_ops() {
  static const std::vector<OpRow> rows = {{"MaxPool", 1, max_pool},
                                          {"AveragePool", 1, average_pool},
                                          {"LpPool", 1, lp_pool},
                                          {"GlobalLpPool", 1, global_lp_pool},
                                          {"GlobalAveragePool", 1, global_average_pool},
                                          {"GlobalMaxPool", 1, global_max_pool}};
  return rows;
}

}  // namespace quanvas::exec
