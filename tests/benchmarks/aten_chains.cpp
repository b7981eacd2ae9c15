// Each row written with tensor operations, one kernel and one temporary tensor for each step.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cmath>
#include <limits>
#include <map>

#include "tests/benchmarks/chains.h"

namespace quanvas::benchmarks {
namespace {

using at::Tensor;

Tensor integers(const Tensor& x, const Tensor& scale, double lo, double hi) {
  return (x / scale).round().clamp(lo, hi) * scale;
}

Tensor minifloats(const Tensor& x, const Tensor& scale, int mantissa_bits, int bias, double largest) {
  const Tensor v = x / scale;
  const Tensor exponent =
      ((v.abs() + std::numeric_limits<float>::min()).log2().floor() - mantissa_bits).clamp_min(1 - bias - mantissa_bits);
  const Tensor unit = at::pow(2.0, exponent);
  return ((v / unit).round() * unit).clamp(-largest, largest) * scale;
}

Tensor least_squares(const Tensor& x) {
  const Tensor most = x.abs().amax(1, true);
  Tensor least = at::full_like(most, std::numeric_limits<float>::infinity()), best = most;
  for (int i = 2; i <= 20; ++i) {
    const Tensor threshold = most * (i / 20.0);
    const Tensor error = (x - integers(x, threshold / 8, -8, 7)).square().sum(1, true);
    const Tensor better = error < least;
    least = at::where(better, error, least);
    best = at::where(better, threshold, best);
  }
  return integers(x, best / 8, -8, 7);
}

Tensor packed(const Tensor& codes) {
  const Tensor pairs = codes.bitwise_and(15).to(at::kByte).view({-1, 2});
  return pairs.select(1, 0).bitwise_or(pairs.select(1, 1) * 16);
}

Tensor forward_and_gradients(const Tensor& x, const Tensor& scale, const Tensor& dy) {
  const Tensor y = integers(x, scale, -127, 127);
  const Tensor v = x / scale, rounded = v.round();
  const Tensor inside = rounded.ge(-127).logical_and(rounded.le(127));
  const Tensor dx = at::where(inside, dy, at::zeros({}, dy.options()));
  return (dy * at::where(inside, rounded - v, rounded.clamp(-127, 127))).sum(1);
}

}  // namespace

std::function<void()> chain_of(const std::string& row, const float* data, std::int64_t rows, std::int64_t columns) {
  const Tensor x = at::from_blob(const_cast<float*>(data), {rows, columns}, at::kFloat);  // only read
  const Tensor scale = x.abs().amax(1, true) / 127;
  const auto run = [](auto work) -> std::function<void()> {
    return [work] {
      const at::NoGradGuard guard;
      const Tensor result = work();
      if (result.numel() == 0) std::abort();
    };
  };
  if (row == "int8_channel") return run([=] { return integers(x, x.abs().amax(1, true) / 127, -127, 127); });
  if (row == "int4_group128") return run([=] {
    const Tensor v = x.view({rows, columns / 128, 128});
    return integers(v, v.abs().amax(2, true) / 8, -8, 7);
  });
  if (row == "mxfp4_group32") return run([=] {
    const Tensor v = x.view({rows, columns / 32, 32});
    return minifloats(v, at::pow(2.0, v.abs().amax(2, true).log2().floor()) / 4, 1, 1, 6);
  });
  if (row == "fp8_channel") return run([=] { return minifloats(x, x.abs().amax(1, true) / 448, 3, 7, 448); });
  if (row == "int8_percentile") return run([=] {
    const auto rank = static_cast<std::int64_t>(std::floor(.01 * 99.99 * static_cast<double>(x.numel()) + .5));
    return integers(x, std::get<0>(x.abs().flatten().kthvalue(rank)) / 127, -127, 127);
  });
  if (row == "int4_mse_channel") return run([=] { return least_squares(x); });
  if (row == "fixed_scale") return run([=] { return integers(x, scale, -127, 127); });
  if (row == "pack_int4") {
    const Tensor codes = (x / scale).round().clamp(-8, 7).to(at::kInt);
    return run([=] { return packed(codes); });
  }
  if (row == "quantize_packed_int4") return run([=] { return packed((x / scale).round().clamp(-8, 7).to(at::kInt)); });
  if (row == "forward_backward") return run([=] { return forward_and_gradients(x, scale, x); });
  return {};
}

bool has_chains() { return true; }
void set_chain_threads(int threads) { at::set_num_threads(threads); }

}  // namespace quanvas::benchmarks
