#include "core/algorithms/orthogonal.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>
#include <utility>

#include "core/algorithms/blas.h"
#include "core/algorithms/tasks.h"
#include "core/quant/parallel.h"

namespace quanvas::algorithms {

std::uint64_t SeededRandom::bits() {
  std::uint64_t z = state_ += 0x9e3779b97f4a7c15ull;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

double SeededRandom::uniform() { return (static_cast<double>(bits() >> 11) + 0.5) * 0x1p-53; }

double SeededRandom::normal() {
  if (has_kept_) {
    has_kept_ = false;
    return kept_;
  }
  const double radius = std::sqrt(-2 * std::log(uniform())), angle = 2 * std::numbers::pi * uniform();
  kept_ = radius * std::sin(angle);
  has_kept_ = true;
  return radius * std::cos(angle);
}

namespace {

double dot(const double* a, const double* b, std::int64_t n) {
  double sums[8] = {};
  std::int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (int k = 0; k < 8; ++k) sums[k] += a[i + k] * b[i + k];
  double sum = ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
  for (; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

// x -= 2 v (v' x), |v| = 1.
void reflect(const double* v, double* x, std::int64_t n) {
  const double factor = 2 * dot(v, x, n);
  for (std::int64_t i = 0; i < n; ++i) x[i] -= factor * v[i];
}

// Large ones: a = (a R^-1) R with a' a = R' R, twice, for the first time leaves an error of the square of a's condition
// (Fukaya et al. 2014, "CholeskyQR2"). R's diagonal is positive by itself. False: a is too near to a singular matrix.
bool orthogonal_by_products(std::vector<double>& a, std::int64_t n) {
  const OneThread one;
  std::vector<double> l(a.size());
  for (int time = 0; time < 2; ++time) {
    syrk_lower(true, n, n, 1.0, a.data(), n, 0.0, l.data(), n);
    if (!cholesky_lower(n, l.data(), n)) return false;
    for (std::int64_t i = 0; i < n && time == 1; ++i)
      if (!(std::fabs(l[static_cast<std::size_t>(i * n + i)] - 1) < 0.01)) return false;
    solve_right_lower_transposed(n, n, l.data(), n, a.data(), n);
  }
  return true;
}

}  // namespace

Result<std::vector<double>> random_orthogonal(std::int64_t n, std::uint64_t seed, const std::stop_token& stop) {
  if (n < 1 || n > kMostOrthogonalSize)
    return fail(ErrorCode::kInvalidArgument, "A random orthogonal matrix has 1 to " + std::to_string(kMostOrthogonalSize) + " rows, not " +
                                                 std::to_string(n) + ".", "Rotate in smaller blocks, or with a Hadamard matrix.");
  SeededRandom random(seed);
  const auto size = static_cast<std::size_t>(n * n);
  std::vector<double> a(size), q(size, 0.0);  // columns one after the other
  for (double& v : a) v = random.normal();
  constexpr std::int64_t kProducts = 512;
  if (n >= kProducts) {
    std::vector<double> large = a;
    if (orthogonal_by_products(large, n)) return large;
  }
  const auto column = [n](std::vector<double>& m, std::int64_t j) { return m.data() + j * n; };
  std::vector<double> signs(static_cast<std::size_t>(n), 1.0);
  // Householder's reflections; the vector of step k stays in column k from row k on. A panel's reflections are applied to
  // each column behind it in one go: the panel stays in the cache, and threads meet once for each panel.
  constexpr std::int64_t kPanel = 32;
  const auto apply = [&](std::vector<double>& m, std::int64_t k, std::int64_t j) { reflect(column(a, k) + k, column(m, j) + k, n - k); };
  for (std::int64_t first = 0; first < n; first += kPanel) {
    if (stop.stop_requested()) return fail(ErrorCode::kCancelled, "Stopped on request.");
    const std::int64_t last = std::min(n, first + kPanel);
    for (std::int64_t k = first; k < last; ++k) {
      double* v = column(a, k) + k;
      const std::int64_t length = n - k;
      const double norm = std::sqrt(dot(v, v, length));
      const double image = v[0] >= 0 ? -norm : norm;  // R's diagonal
      signs[static_cast<std::size_t>(k)] = image < 0 ? -1 : 1;
      v[0] -= image;
      const double reach = std::sqrt(dot(v, v, length));
      for (std::int64_t i = 0; i < length; ++i) v[i] = reach > 0 ? v[i] / reach : 0;
      for (std::int64_t j = k + 1; j < last; ++j) apply(a, k, j);
    }
    quant::parallel_for(n - last, quant::threads_for((n - last) * (n - first)), [&](std::int64_t j) {
      for (std::int64_t k = first; k < last; ++k) apply(a, k, last + j);
    });
  }
  for (std::int64_t j = 0; j < n; ++j) column(q, j)[j] = signs[static_cast<std::size_t>(j)];
  for (std::int64_t first = (n - 1) / kPanel * kPanel; first >= 0; first -= kPanel) {
    const std::int64_t last = std::min(n, first + kPanel);
    quant::parallel_for(n - first, quant::threads_for((n - first) * (n - first)), [&](std::int64_t j) {
      for (std::int64_t k = std::min(last - 1, first + j); k >= first; --k) apply(q, k, first + j);
    });
  }
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t j = i + 1; j < n; ++j) std::swap(q[static_cast<std::size_t>(i * n + j)], q[static_cast<std::size_t>(j * n + i)]);
  return q;
}

Status multiply_rows(const double* in, double* out, std::int64_t rows, const std::vector<double>& q, std::int64_t n, const std::stop_token& stop) {
  constexpr std::int64_t kRows = 128;
  return for_each_task((rows + kRows - 1) / kRows, stop, [&](std::int64_t task) {
    const std::int64_t first = task * kRows, count = std::min(kRows, rows - first);
    gemm(false, false, count, n, n, 1.0, in + first * n, n, q.data(), n, 0.0, out + first * n, n);
  }, rows * n);
}

std::vector<double> random_signs(std::int64_t n, std::uint64_t seed) {
  SeededRandom random(seed);
  std::vector<double> out(static_cast<std::size_t>(n));
  for (double& v : out) v = random.bits() >> 63 ? -1 : 1;
  return out;
}

}  // namespace quanvas::algorithms
