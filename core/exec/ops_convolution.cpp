#include <algorithm>

#include <ATen/ATen.h>

#include "core/exec/ops.h"

namespace quanvas::exec {
namespace {

Ints kernel_of(const at::Tensor& weight) {
  return weight.sizes().slice(2).vec();
}

Status check_weight(const OpCall& call, const at::Tensor& w) {
  if (w.dim() < 3) return bad_node("the weight has rank " + std::to_string(w.dim()) + ", expected at least 3.");
  if (call.node.integer("group", 1) < 1) return bad_node("'group' must be at least 1.");
  return {};
}

OpResult conv(const OpCall& call) {
  QUANVAS_TRY(at::Tensor y, convolve(call, call.x(), call.x(1), call.optional(2)));
  return one(std::move(y));
}

// Begin and end pads of a ConvTranspose from output_shape or auto_pad (ONNX, ConvTranspose: total_padding).
Status transposed_pads(const OpCall& call, const Ints& extra, Window& w) {
  const std::string mode = call.node.text("auto_pad", "NOTSET");
  const bool same = mode == "SAME_UPPER" || mode == "SAME_LOWER";
  Ints target = call.node.integers("output_shape");
  if (target.empty() && !same) return {};
  const std::size_t rank = w.kernel.size();
  if (target.size() == rank + 2) target.erase(target.begin(), target.begin() + 2);
  if (!target.empty() && target.size() != rank)
    return bad_node("'output_shape' has " + std::to_string(target.size()) + " values, expected " +
                    std::to_string(rank) + ".");
  for (std::size_t i = 0; i < rank; ++i) {
    const std::int64_t in = call.x().size(static_cast<std::int64_t>(i) + 2);
    const std::int64_t out = target.empty() ? in * w.stride[i] : target[i];
    const std::int64_t total =
        w.stride[i] * (in - 1) + extra[i] + (w.kernel[i] - 1) * w.dilation[i] + 1 - out;
    const std::int64_t half = total >= 0 ? total / 2 : -((1 - total) / 2);  // rounded down
    w.begin[i] = mode == "SAME_UPPER" ? half : total - half;
    w.end[i] = total - w.begin[i];
  }
  return {};
}

OpResult conv_transpose(const OpCall& call) {
  const at::Tensor& w = call.x(1);
  QUANVAS_CHECK(check_weight(call, w));
  QUANVAS_TRY(Window window, window_of(call, kernel_of(w)));
  const std::size_t rank = window.kernel.size();
  const Ints extra = call.node.integers("output_padding", Ints(rank, 0));
  if (extra.size() != rank) return bad_node("'output_padding' must have one value per spatial axis.");
  QUANVAS_CHECK(transposed_pads(call, extra, window));
  const std::int64_t group = call.node.integer("group", 1);
  bool direct = window.symmetric();
  for (std::size_t i = 0; i < rank; ++i)
    direct = direct && window.begin[i] >= 0 && extra[i] < std::max(window.stride[i], window.dilation[i]);
  if (direct)
    return one(at::convolution(call.x(), w, call.optional(2), window.stride, window.begin, window.dilation, true,
                               extra, group));
  // Without pads and bias first; then cut (or fill) the borders, and only then add the bias.
  const Ints zeros(rank, 0);
  at::Tensor y = at::convolution(call.x(), w, {}, window.stride, zeros, window.dilation, true, zeros, group);
  Ints begin(rank), end(rank);
  for (std::size_t i = 0; i < rank; ++i) {
    begin[i] = -window.begin[i];
    end[i] = extra[i] - window.end[i];
  }
  y = pad_spatial(y, begin, end, 0);
  if (call.has(2)) {
    Ints shape(rank + 2, 1);
    shape[1] = -1;
    y = y + call.x(2).reshape(shape);
  }
  return one(y);
}

OpResult gemm(const OpCall& call) {
  if (call.x(0).dim() != 2 || call.x(1).dim() != 2)
    return bad_node("both operands must be matrices, got " + sizes_text(call.x(0)) + " and " +
                    sizes_text(call.x(1)) + ".");
  const at::Tensor a = call.node.integer("transA", 0) ? call.x(0).t() : call.x(0);
  const at::Tensor b = call.node.integer("transB", 0) ? call.x(1).t() : call.x(1);
  const float alpha = call.node.real("alpha", 1), beta = call.node.real("beta", 1);
  if (call.has(2) && a.is_floating_point()) return one(at::addmm(call.x(2), a, b, beta, alpha));
  at::Tensor y = at::mm(a, b);
  if (alpha != 1) y = (y * alpha).to(y.scalar_type());
  if (call.has(2)) y = y + (beta == 1 ? call.x(2) : (call.x(2) * beta).to(y.scalar_type()));
  return one(y);
}

// The third input is not ONNX's, see canonical.h.
OpResult matmul(const OpCall& call) {
  if (!call.has(2)) return one(at::matmul(call.x(0), call.x(1)));
  if (call.x(0).dim() > 1 && call.x(1).dim() == 2 && call.x(2).dim() == 1)
    return one(at::linear(call.x(0), call.x(1).t(), call.x(2)));
  return one(at::matmul(call.x(0), call.x(1)) + call.x(2));
}

}  // namespace

Result<at::Tensor> convolve(const OpCall& call, at::Tensor x, const at::Tensor& w, const at::Tensor& bias) {
  QUANVAS_CHECK(check_weight(call, w));
  QUANVAS_TRY(Window window, window_of(call, kernel_of(w)));
  Ints pad = window.begin;
  const bool negative = std::any_of(pad.begin(), pad.end(), [](auto p) { return p < 0; });
  if (!window.symmetric() || negative) {
    x = pad_spatial(x, window.begin, window.end, 0);
    pad.assign(pad.size(), 0);
  }
  return at::convolution(x, w, bias, window.stride, pad, window.dilation, false, Ints(pad.size(), 0),
                         call.node.integer("group", 1));
}

const std::vector<OpRow>& convolution_ops() {
  static const std::vector<OpRow> rows = {
      {"Conv", 2, conv}, {"ConvTranspose", 2, conv_transpose}, {"Gemm", 2, gemm}, {"MatMul", 2, matmul}};
  return rows;
}

}  // namespace quanvas::exec
