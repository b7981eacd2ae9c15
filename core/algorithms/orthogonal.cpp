#include "core/algorithms/orthogonal.h"

#include <cmath>
#include <numbers>
#include <string>
#include <utility>

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
  double sums[4] = {};
  std::int64_t i = 0;
  for (; i + 4 <= n; i += 4)
    for (int k = 0; k < 4; ++k) sums[k] += a[i + k] * b[i + k];
  double sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  for (; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

// x -= 2 v (v' x), |v| = 1.
void reflect(const double* v, double* x, std::int64_t n) {
  const double factor = 2 * dot(v, x, n);
  for (std::int64_t i = 0; i < n; ++i) x[i] -= factor * v[i];
}

}  // namespace

Result<std::vector<double>> random_orthogonal(std::int64_t n, std::uint64_t seed) {
  if (n < 1 || n > kMostOrthogonalSize)
    return fail(ErrorCode::kInvalidArgument, "A random orthogonal matrix has 1 to " + std::to_string(kMostOrthogonalSize) + " rows, not " +
                                                 std::to_string(n) + ".", "Rotate in smaller blocks, or with a Hadamard matrix.");
  SeededRandom random(seed);
  const auto size = static_cast<std::size_t>(n * n);
  std::vector<double> a(size), q(size, 0.0);  // columns one after the other
  for (double& v : a) v = random.normal();
  const auto column = [n](std::vector<double>& m, std::int64_t j) { return m.data() + j * n; };
  std::vector<double> signs(static_cast<std::size_t>(n), 1.0);
  // Householder's reflections; the vector of step k stays in column k from row k on.
  for (std::int64_t k = 0; k < n; ++k) {
    double* v = column(a, k) + k;
    const std::int64_t length = n - k;
    const double norm = std::sqrt(dot(v, v, length));
    const double image = v[0] >= 0 ? -norm : norm;  // R's diagonal
    signs[static_cast<std::size_t>(k)] = image < 0 ? -1 : 1;
    v[0] -= image;
    const double reach = std::sqrt(dot(v, v, length));
    for (std::int64_t i = 0; i < length; ++i) v[i] = reach > 0 ? v[i] / reach : 0;
    quant::parallel_for(n - k - 1, quant::threads_for(length * length), [&](std::int64_t j) { reflect(v, column(a, k + 1 + j) + k, length); });
  }
  for (std::int64_t j = 0; j < n; ++j) column(q, j)[j] = signs[static_cast<std::size_t>(j)];
  for (std::int64_t k = n - 1; k >= 0; --k)
    quant::parallel_for(n - k, quant::threads_for((n - k) * (n - k)), [&](std::int64_t j) { reflect(column(a, k) + k, column(q, k + j) + k, n - k); });
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t j = i + 1; j < n; ++j) std::swap(q[static_cast<std::size_t>(i * n + j)], q[static_cast<std::size_t>(j * n + i)]);
  return q;
}

void multiply_rows(const double* in, double* out, std::int64_t rows, const std::vector<double>& q, std::int64_t n) {
  quant::parallel_for(rows, quant::threads_for(rows * n), [&](std::int64_t r) {
    const double* x = in + r * n;
    double* y = out + r * n;
    for (std::int64_t j = 0; j < n; ++j) y[j] = 0;
    for (std::int64_t i = 0; i < n; ++i) {
      const double* row = q.data() + i * n;
      for (std::int64_t j = 0; j < n; ++j) y[j] += x[i] * row[j];
    }
  });
}

std::vector<double> random_signs(std::int64_t n, std::uint64_t seed) {
  SeededRandom random(seed);
  std::vector<double> out(static_cast<std::size_t>(n));
  for (double& v : out) v = random.bits() >> 63 ? -1 : 1;
  return out;
}

}  // namespace quanvas::algorithms
