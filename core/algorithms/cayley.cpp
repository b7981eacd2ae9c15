#include "core/algorithms/cayley.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/algorithms/blas.h"
#include "core/algorithms/tasks.h"

namespace quanvas::algorithms {
namespace {

constexpr std::int64_t kRows = 64;  // of a product that one task makes

std::size_t at(std::int64_t i) {
  return static_cast<std::size_t>(i);
}

// c := op(a) op(b) for matrices [n, n].
Status product(bool ta, bool tb, std::int64_t n, const double* a, const double* b, double* c, const std::stop_token& stop) {
  return for_each_task((n + kRows - 1) / kRows, stop,
                       [&](std::int64_t task) {
                         const std::int64_t first = task * kRows, count = std::min(kRows, n - first);
                         gemm(ta, tb, count, n, n, 1.0, ta ? a + first : a + first * n, n, b, n, 0.0, c + first * n, n);
                       },
                       n * n);
}

double largest_column_sum(std::int64_t n, const std::vector<double>& a) {
  std::vector<double> sums(at(n), 0.0);
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t j = 0; j < n; ++j) sums[at(j)] += std::fabs(a[at(i * n + j)]);
  double most = 0;
  for (const double s : sums)
    if (!(s <= most)) most = s;  // NaN stays
  return most;
}

}  // namespace

Result<double> cayley_step(std::int64_t n, std::vector<double>& r, const std::vector<double>& gradient, double rate,
                           const std::stop_token& stop, std::vector<double>* velocity, double momentum) {
  const auto size = at(n * n);
  if (n < 1 || r.size() != size || gradient.size() != size)
    return fail(ErrorCode::kInvalidArgument, "A Cayley step needs two matrices of the same size.");
  std::vector<double> k(size), a(size);
  QUANVAS_CHECK(product(false, true, n, gradient.data(), r.data(), k.data(), stop));
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t j = 0; j < n; ++j) a[at(i * n + j)] = k[at(i * n + j)] - k[at(j * n + i)];
  if (!std::isfinite(largest_column_sum(n, a))) return 0.0;
  if (velocity) {
    velocity->resize(size, 0.0);
    for (std::size_t i = 0; i < size; ++i) a[i] = (*velocity)[i] = momentum * (*velocity)[i] + a[i];
  }
  const double norm = largest_column_sum(n, a);
  if (!std::isfinite(norm) || norm == 0 || !(rate > 0)) return 0.0;
  const double t = std::min(rate, 1 / norm);
  for (std::size_t i = 0; i < size; ++i) k[i] = t / 2 * a[i];
  // I + K'K = L L', of which the lower triangle is enough.
  std::vector<double>& l = a;
  QUANVAS_CHECK(product(true, false, n, k.data(), k.data(), l.data(), stop));
  for (std::int64_t i = 0; i < n; ++i) l[at(i * n + i)] += 1;
  {
    const OneThread one;
    if (!cholesky_lower(n, l.data(), n)) return 0.0;
    if (stop.stop_requested()) return fail(ErrorCode::kCancelled, "Stopped on request.");
    invert_lower(n, l.data(), n);
  }
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t j = i + 1; j < n; ++j) l[at(i * n + j)] = 0;
  // R := (I - K) (I - K) L'^-1 L^-1 R, from the right to the left.
  std::vector<double> x(size), y(size);
  QUANVAS_CHECK(product(false, false, n, l.data(), r.data(), x.data(), stop));
  QUANVAS_CHECK(product(true, false, n, l.data(), x.data(), y.data(), stop));
  QUANVAS_CHECK(product(false, false, n, k.data(), y.data(), x.data(), stop));
  for (std::size_t i = 0; i < size; ++i) y[i] -= x[i];
  QUANVAS_CHECK(product(false, false, n, k.data(), y.data(), x.data(), stop));
  for (std::size_t i = 0; i < size; ++i) r[i] = y[i] - x[i];
  return t;
}

double orthogonality_error(std::int64_t n, const std::vector<double>& r) {
  std::vector<double> rr(at(n * n));
  {
    const OneThread one;
    gemm(true, false, n, n, n, 1.0, r.data(), n, r.data(), n, 0.0, rr.data(), n);
  }
  double most = 0;
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t j = 0; j < n; ++j) {
      const double e = std::fabs(rr[at(i * n + j)] - (i == j ? 1.0 : 0.0));
      if (std::isnan(e)) return std::numeric_limits<double>::quiet_NaN();
      most = std::max(most, e);
    }
  return most;
}

Status add_outer_products(const double* a, const double* b, std::int64_t rows, std::int64_t n, std::vector<double>& out,
                          const std::stop_token& stop) {
  return for_each_task((n + kRows - 1) / kRows, stop,
                       [&](std::int64_t task) {
                         const std::int64_t first = task * kRows, count = std::min(kRows, n - first);
                         gemm(true, false, count, n, rows, 1.0, a + first, n, b, n, 1.0, out.data() + first * n, n);
                       },
                       rows * n);
}

}  // namespace quanvas::algorithms
