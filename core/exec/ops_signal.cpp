// Fourier transforms, windows and the mel filter bank.
#include <cmath>

#include <ATen/ATen.h>

#include "core/exec/ops.h"

namespace quanvas::exec {
namespace {

// The last axis holds real and imaginary part, or only the real one. In double: what cancels out is to be nothing.
Result<at::Tensor> complex_of(const at::Tensor& given) {
  const at::Tensor x = given.to(at::kDouble);
  if (x.dim() < 2 || (x.size(-1) != 1 && x.size(-1) != 2))
    return bad_node("the last axis of " + sizes_text(x) + " must hold a real number (1) or a complex one (2).");
  if (x.size(-1) == 2) return at::view_as_complex(x.contiguous());
  const at::Tensor re = x.select(-1, 0);
  return at::complex(re, at::zeros_like(re));
}

OpResult dft(const OpCall& call) {
  const at::Tensor& x = call.x();
  QUANVAS_TRY(const at::Tensor z, complex_of(x));
  std::int64_t axis = call.node.integer("axis", 1);
  if (call.opset() >= 20) {
    axis = -2;
    if (call.has(2)) {
      QUANVAS_TRY(axis, one_integer(call.x(2), "axis"));
    }
  }
  QUANVAS_TRY(axis, resolve_axis(axis, x.dim()));
  if (axis == x.dim() - 1) return bad_node("the axis of real and imaginary parts cannot be transformed.");
  std::int64_t n = z.size(axis);
  if (call.has(1)) {
    QUANVAS_TRY(n, one_integer(call.x(1), "dft_length"));
  }
  const bool inverse = call.node.integer("inverse", 0) != 0, half = call.node.integer("onesided", 0) != 0;
  QUANVAS_CHECK(check_sizes({n}));
  if (n < 1) return bad_node("'dft_length' is " + std::to_string(n) + ", expected at least 1.");
  if (half && inverse) {  // what a half spectrum stands for; its result is real
    return one(at::fft_irfft(z, n, axis).unsqueeze(-1).to(x.scalar_type()));
  }
  at::Tensor y = inverse ? at::fft_ifft(z, n, axis) : at::fft_fft(z, n, axis);
  if (half) y = y.narrow(axis, 0, n / 2 + 1);
  return one(at::view_as_real(y).to(x.scalar_type()));
}

OpResult stft(const OpCall& call) {
  at::Tensor x = call.x();
  if (x.dim() == 2) x = x.unsqueeze(-1);
  if (x.dim() != 3) return bad_node("the signal is " + sizes_text(call.x()) + ", expected batch, length, 1 or 2.");
  QUANVAS_TRY(const at::Tensor z, complex_of(x));
  QUANVAS_TRY(const std::int64_t step, one_integer(call.x(1), "frame_step"));
  std::int64_t length = call.has(2) ? call.x(2).numel() : 0;
  if (call.has(3)) {
    QUANVAS_TRY(length, one_integer(call.x(3), "frame_length"));
  }
  if (step < 1 || length < 1 || length > z.size(1))
    return bad_node("frames of length " + std::to_string(length) + " every " + std::to_string(step) +
                    " do not fit a signal of " + std::to_string(z.size(1)) + ".");
  if (call.has(2) && call.x(2).numel() != length)
    return bad_node("the window has " + std::to_string(call.x(2).numel()) + " values, a frame " +
                    std::to_string(length) + ".");
  at::Tensor frames = z.unfold(1, length, step);  // [batch, frames, length]
  if (call.has(2)) frames = frames * call.x(2).reshape({-1});
  at::Tensor y = at::fft_fft(frames, length, 2);
  if (call.node.integer("onesided", 1)) y = y.narrow(2, 0, length / 2 + 1);
  return one(at::view_as_real(y).to(call.x().scalar_type()));
}

// a0 - a1 cos(2 pi i / n) + a2 cos(4 pi i / n), n one less when the window is symmetric.
template <int Kind>
OpResult window(const OpCall& call) {
  constexpr double kTerms[][3] = {{0.5, 0.5, 0}, {25.0 / 46, 21.0 / 46, 0}, {0.42, 0.5, 0.08}};
  QUANVAS_TRY(const std::int64_t size, one_integer(call.x(), "size"));
  QUANVAS_CHECK(check_sizes({size}));
  const auto type = scalar_type(static_cast<DataType>(call.node.integer("output_datatype", 1)));
  if (!type) return bad_node("'output_datatype' is no type that can be computed with.");
  const bool periodic = call.node.integer("periodic", 1) != 0;
  const auto n = static_cast<double>(std::max<std::int64_t>(1, periodic ? size : size - 1));
  const at::Tensor angle = at::arange(size, at::kDouble) * (2 * M_PI / n);
  const auto& a = kTerms[Kind];
  return one((at::cos(angle * 2) * a[2] - at::cos(angle) * a[1] + a[0]).to(*type));
}

// Triangles between neighbouring mel frequencies, on the bins of a spectrum (the rule of the ONNX standard: the
// frequencies are rounded down to bins first, and the highest edge is a step below the upper frequency).
OpResult mel_weights(const OpCall& call) {
  QUANVAS_TRY(const std::int64_t bands, one_integer(call.x(0), "num_mel_bins"));
  QUANVAS_TRY(const std::int64_t length, one_integer(call.x(1), "dft_length"));
  QUANVAS_TRY(const std::int64_t rate, one_integer(call.x(2), "sample_rate"));
  QUANVAS_TRY(const double low, one_real(call.x(3), "lower_edge_hertz"));
  QUANVAS_TRY(const double high, one_real(call.x(4), "upper_edge_hertz"));
  const std::int64_t bins = length / 2 + 1;
  if (bands < 1 || length < 1 || rate < 1) return bad_node("its sizes and the sample rate must be positive.");
  QUANVAS_CHECK(check_sizes({bins, bands}));
  const auto mel = [](double hertz) { return 2595 * std::log10(1 + hertz / 700); };
  const auto step = (mel(high) - mel(low)) / static_cast<double>(bands + 2);
  Ints edge;
  for (std::int64_t i = 0; i < bands + 2; ++i) {
    const double hertz = 700 * (std::pow(10.0, (static_cast<double>(i) * step + mel(low)) / 2595) - 1);
    edge.push_back(
        static_cast<std::int64_t>(std::floor(static_cast<double>(length + 1) * hertz / static_cast<double>(rate))));
    if (edge.back() < 0 || edge.back() > bins) return bad_node("an edge lies outside the spectrum.");
  }
  at::Tensor y = at::zeros({bins, bands}, at::kDouble);
  auto w = y.accessor<double, 2>();
  for (std::int64_t b = 0; b < bands; ++b) {
    const std::int64_t first = edge[static_cast<std::size_t>(b)], peak = edge[static_cast<std::size_t>(b) + 1];
    const std::int64_t last = edge[static_cast<std::size_t>(b) + 2];
    if (peak == first && peak < bins) w[peak][b] = 1;
    for (std::int64_t j = first; peak > first && j <= std::min(peak, bins - 1); ++j)
      w[j][b] = static_cast<double>(j - first) / static_cast<double>(peak - first);
    for (std::int64_t j = peak; last > peak && j < std::min(last, bins); ++j)
      w[j][b] = static_cast<double>(last - j) / static_cast<double>(last - peak);
  }
  const auto type = scalar_type(static_cast<DataType>(call.node.integer("output_datatype", 1)));
  if (!type) return bad_node("'output_datatype' is no type that can be computed with.");
  return one(y.to(*type));
}

}  // namespace

const std::vector<OpRow>& signal_ops() {
  static const std::vector<OpRow> rows = {{"DFT", 1, dft},
                                          {"STFT", 2, stft},
                                          {"HannWindow", 1, window<0>},
                                          {"HammingWindow", 1, window<1>},
                                          {"BlackmanWindow", 1, window<2>},
                                          {"MelWeightMatrix", 5, mel_weights}};
  return rows;
}

}  // namespace quanvas::exec
