#include <algorithm>

#include <ATen/ATen.h>

#include "core/exec/ops.h"

namespace quanvas::exec {
namespace {

Result<Ints> spatial(const OpCall& call, const char* key, std::size_t rank) {
  Ints values = call.node.integers(key, Ints(rank, 1));
  if (values.size() != rank)
    return bad_node(std::string("'") + key + "' has " + std::to_string(values.size()) + " values, expected " +
                    std::to_string(rank) + ".");
  for (const auto v : values)
    if (v < 1) return bad_node(std::string("'") + key + "' holds " + std::to_string(v) + ", expected at least 1.");
  return values;
}

}  // namespace

Result<Window> window_of(const OpCall& call, const Ints& kernel) {
  const std::size_t rank = kernel.size();
  if (call.x().dim() != static_cast<std::int64_t>(rank) + 2)
    return bad_node("the input has rank " + std::to_string(call.x().dim()) + ", the kernel needs rank " +
                    std::to_string(rank + 2) + ".");
  Window w;
  w.kernel = kernel;
  for (const auto k : kernel)
    if (k < 1) return bad_node("'kernel_shape' holds " + std::to_string(k) + ", expected at least 1.");
  QUANVAS_TRY(w.stride, spatial(call, "strides", rank));
  QUANVAS_TRY(w.dilation, spatial(call, "dilations", rank));
  w.begin.assign(rank, 0);
  w.end.assign(rank, 0);
  const std::string mode = call.node.text("auto_pad", "NOTSET");
  if (mode == "SAME_UPPER" || mode == "SAME_LOWER") {
    for (std::size_t i = 0; i < rank; ++i) {
      const std::int64_t in = call.x().size(static_cast<std::int64_t>(i) + 2);
      const std::int64_t out = (in + w.stride[i] - 1) / w.stride[i];
      const std::int64_t reach = (kernel[i] - 1) * w.dilation[i] + 1;
      const std::int64_t total = std::max<std::int64_t>(0, (out - 1) * w.stride[i] + reach - in);
      w.begin[i] = mode == "SAME_UPPER" ? total / 2 : total - total / 2;
      w.end[i] = total - w.begin[i];
    }
  } else if (mode == "NOTSET" || mode.empty()) {
    const Ints pads = call.node.integers("pads", Ints(2 * rank, 0));
    if (pads.size() != 2 * rank)
      return bad_node("'pads' has " + std::to_string(pads.size()) + " values, expected " +
                      std::to_string(2 * rank) + ".");
    std::copy_n(pads.begin(), rank, w.begin.begin());
    std::copy_n(pads.begin() + static_cast<std::ptrdiff_t>(rank), rank, w.end.begin());
  } else if (mode != "VALID") {
    return bad_node("'auto_pad' is '" + mode + "', expected NOTSET, SAME_UPPER, SAME_LOWER or VALID.");
  }
  return w;
}

at::Tensor pad_spatial(const at::Tensor& x, const Ints& begin, const Ints& end, double value) {
  Ints flat;
  for (std::size_t i = begin.size(); i-- > 0;) {
    flat.push_back(begin[i]);
    flat.push_back(end[i]);
  }
  return at::constant_pad_nd(x, flat, value);
}

}  // namespace quanvas::exec
