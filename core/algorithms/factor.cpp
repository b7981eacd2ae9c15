#include "core/algorithms/factor.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>

#include "core/algorithms/panel.h"

namespace quanvas::algorithms {
namespace {

// Edge of the blocks of the factorization; results depend on it, so it is no function of the number of threads.
constexpr std::int64_t kEdge = 128;
constexpr int kRetries = 12;

std::int64_t edge_at(std::int64_t n, std::int64_t block) { return std::min(kEdge, n - block * kEdge); }

// Lower triangular l with a = l l' over the lower triangle of a; false: not positive definite.
Result<bool> blocked_cholesky(std::int64_t n, double* a, const std::stop_token& stop) {
  const std::int64_t blocks = (n + kEdge - 1) / kEdge;
  for (std::int64_t k = 0; k < blocks; ++k) {
    const std::int64_t at = k * kEdge, width = edge_at(n, k), rest = blocks - k - 1;
    double* diagonal = a + at * n + at;
    {
      const OneThread one;
      if (!cholesky_lower(width, diagonal, n)) return false;
    }
    if (rest == 0) break;
    QUANVAS_CHECK(for_each_task(rest, stop, [&](std::int64_t t) {
      const std::int64_t i = k + 1 + t;
      solve_right_lower_transposed(edge_at(n, i), width, diagonal, n, a + i * kEdge * n + at, n);
    }, rest * kEdge * kEdge));
    // What is left loses the outer product of the panel, in squares of some blocks: small products are slow, few squares
    // do not divide among threads.
    const std::int64_t wide = n > 2048 ? 4 : 2, squares = (rest + wide - 1) / wide;
    std::vector<std::pair<std::int64_t, std::int64_t>> tasks;
    for (std::int64_t i = 0; i < squares; ++i)
      for (std::int64_t j = 0; j <= i; ++j) tasks.emplace_back(i, j);
    const std::int64_t begin = at + kEdge;
    QUANVAS_CHECK(for_each_task(static_cast<std::int64_t>(tasks.size()), stop, [&](std::int64_t t) {
      const auto [i, j] = tasks[static_cast<std::size_t>(t)];
      const std::int64_t r = begin + i * wide * kEdge, c = begin + j * wide * kEdge;
      const std::int64_t rows = std::min(wide * kEdge, n - r), columns = std::min(wide * kEdge, n - c);
      if (i == j)
        syrk_lower(false, rows, width, -1.0, a + r * n + at, n, 1.0, a + r * n + r, n);
      else
        gemm(false, true, rows, columns, width, -1.0, a + r * n + at, n, a + c * n + at, n, 1.0, a + r * n + c, n);
    }, rest * rest * kEdge * kEdge));
  }
  return true;
}

// l := l^-1 in place, from the last block column to the first: below the diagonal block it is
// -(inverse of what is right of it) l[:, k] (inverse of the diagonal block).
Status blocked_inverse(std::int64_t n, double* l, const std::stop_token& stop) {
  const std::int64_t blocks = (n + kEdge - 1) / kEdge;
  std::vector<double> panel(static_cast<std::size_t>(n * kEdge));
  for (std::int64_t k = blocks - 1; k >= 0; --k) {
    const std::int64_t at = k * kEdge, width = edge_at(n, k), begin = at + width, rest = blocks - k - 1;
    {
      const OneThread one;
      invert_lower(width, l + at * n + at, n);
    }
    if (rest == 0) continue;
    // panel = l[:, k] (inverse of the diagonal block)
    QUANVAS_CHECK(for_each_task(rest, stop, [&](std::int64_t t) {
      const std::int64_t r = begin + t * kEdge;
      gemm(false, false, edge_at(n, k + 1 + t), width, width, 1.0, l + r * n + at, n, l + at * n + at, n, 0.0,
           panel.data() + r * kEdge, kEdge);
    }, rest * kEdge * kEdge));
    constexpr std::int64_t kWide = 2;
    QUANVAS_CHECK(for_each_task((rest + kWide - 1) / kWide, stop, [&](std::int64_t t) {
      // The last ones have most to do.
      const std::int64_t i = (rest + kWide - 1) / kWide - 1 - t;
      const std::int64_t r = begin + i * kWide * kEdge, rows = std::min(kWide * kEdge, n - r);
      gemm(false, false, rows, width, r + rows - begin, -1.0, l + r * n + begin, n, panel.data() + begin * kEdge, kEdge,
           0.0, l + r * n + at, n);
    }, rest * rest * kEdge * kEdge));
  }
  return {};
}

}  // namespace

double largest_eigenvalue(std::int64_t n, const float* a, int iterations, double tolerance, const std::stop_token& stop) {
  // Not all equal, so that a matrix whose rows add up to 0 does not end it at once.
  std::vector<float> v(static_cast<std::size_t>(n));
  std::vector<double> next(v.size());
  for (std::size_t i = 0; i < v.size(); ++i) next[i] = 1.0 + 0.37 * std::sin(1.0 + static_cast<double>(i));
  double value = 0;
  for (int step = 0; step < iterations && !stop.stop_requested(); ++step) {
    double norm = 0, quotient = 0;
    for (const double x : next) norm += x * x;
    norm = std::sqrt(norm);
    if (norm == 0) return 0;
    for (std::size_t i = 0; i < v.size(); ++i) v[i] = static_cast<float>(next[i] / norm);
    constexpr std::int64_t kRows = 256;
    (void)for_each_task((n + kRows - 1) / kRows, {}, [&](std::int64_t task) {
      for (std::int64_t i = task * kRows; i < std::min(n, (task + 1) * kRows); ++i)
        next[static_cast<std::size_t>(i)] = dot(n, a + i * n, v.data());
    }, n * n);
    for (std::size_t k = 0; k < v.size(); ++k) quotient += next[k] * static_cast<double>(v[k]);
    const bool settled = std::abs(quotient - value) <= tolerance * quotient;
    value = quotient;
    if (settled) break;
  }
  return value;
}

Result<Factor> factorize(const Gram& gram, const FactorOptions& options, const std::stop_token& stop) {
  if (!(options.damping >= 0) || !std::isfinite(options.damping))
    return fail(ErrorCode::kInvalidArgument, "The damping is " + std::to_string(options.damping) + "; it must be 0 or more.",
                "0.01 is usual.");
  const std::int64_t n = gram.inputs;
  const auto at = [&](std::int64_t i, std::int64_t j) { return static_cast<std::size_t>(i * n + j); };
  Factor factor;
  QUANVAS_TRY(factor.moments, moments_of(gram, options.act_order ? order_by_moments(gram) : natural_order(n), stop));
  const Moments& moments = factor.moments;
  double trace = 0;
  for (std::int64_t i = 0; i < n; ++i) trace += gram.h[at(i, i)];
  const double mean = moments.dead_count < n ? trace / static_cast<double>(n - moments.dead_count) : 1;
  const double unit = options.spectral ? std::max(largest_eigenvalue(n, moments.h.data(), 30, 1e-4, stop), 0.0) : mean;
  factor.damping = options.damping * (unit > 0 ? unit : mean);
  try {
    const auto square = static_cast<std::size_t>(n * n);
    const auto work = std::make_unique_for_overwrite<double[]>(square);
    const auto& order = moments.order;
    for (;; ++factor.retries) {
      // From the last input to the first: a lower Cholesky factor of the reversed matrix is the upper R reversed.
      QUANVAS_CHECK(for_each_task((n + kEdge - 1) / kEdge, stop, [&](std::int64_t block) {
        for (std::int64_t i = block * kEdge; i < std::min(n, (block + 1) * kEdge); ++i) {
          const std::int64_t from = order[static_cast<std::size_t>(n - 1 - i)];
          const double* row = gram.h.data() + from * n;
          double* out = work.get() + i * n;
          for (std::int64_t j = 0; j <= i; ++j) out[j] = row[order[static_cast<std::size_t>(n - 1 - j)]];
          std::fill(out + i + 1, out + n, 0.0);
          out[i] = (moments.dead[static_cast<std::size_t>(n - 1 - i)] ? mean : out[i]) + factor.damping;
        }
      }, n * n));
      QUANVAS_TRY(const bool definite, blocked_cholesky(n, work.get(), stop));
      // Positive by rounding alone is not definite: such pivots would blow the errors up.
      bool sound = definite;
      for (std::int64_t i = 0; sound && i < n; ++i) sound = std::isfinite(work[at(i, i)]) && work[at(i, i)] > 1e-12 * std::sqrt(mean);
      if (sound) break;
      if (factor.retries == kRetries)
        return fail(ErrorCode::kInternal, "The layer's second moments are not positive definite with any damping.");
      factor.damping = std::max(factor.damping * 10, 1e-9 * mean);
    }
    QUANVAS_CHECK(blocked_inverse(n, work.get(), stop));
    factor.u.assign(square, 0.0f);
    QUANVAS_CHECK(for_each_task((n + kEdge - 1) / kEdge, stop, [&](std::int64_t block) {
      for (std::int64_t i = block * kEdge; i < std::min(n, (block + 1) * kEdge); ++i)
        for (std::int64_t j = i; j < n; ++j) factor.u[at(i, j)] = static_cast<float>(work[at(n - 1 - i, n - 1 - j)]);
    }, n * n));
  } catch (const std::bad_alloc&) {
    return fail(ErrorCode::kOutOfMemory, "There is not enough memory to factorize a layer of " + std::to_string(n) + " inputs.");
  }
  return factor;
}

}  // namespace quanvas::algorithms
