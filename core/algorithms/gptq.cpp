// GPTQ and Qronos, which is GPTQ but for its first input and what the others take up before.
#include <algorithm>
#include <cmath>

#include "core/algorithms/panel.h"

namespace quanvas::algorithms {
namespace {

using quant::ColumnQuantizer;

// One stripe of rows.
class Stripe {
 public:
  Stripe(const Factor& factor, const ColumnQuantizer& quantizer, const RoundingOptions& options, const Panel& start, Panel& q)
      : factor_(factor), moments_(factor.moments), quantizer_(quantizer), options_(options), start_(start), q_(q) {
    std::copy_n(start.data(), start.elements(), q.data());
    for (std::int64_t k = 0; k < q.inputs; ++k)
      if (moments_.dead[static_cast<std::size_t>(k)]) std::fill_n(q.at(k), q.rows, 0.0f);
  }

  // pull: null, or what the first input's rounding is moved by (Qronos). sums: null, or what bounds the codes.
  void run(const Panel* pull, Accumulator::Sums* sums) {
    const std::int64_t n = q_.inputs, rows = q_.rows;
    squares_.assign(static_cast<std::size_t>(rows), 0.0);
    ignored_ = squares_;
    Diffusion diffusion(options_.block, factor_.u.data(), q_, options_.stop);
    diffusion.run([&](std::int64_t k, float* error) {
      const float diagonal = factor_.u[static_cast<std::size_t>(k * n + k)];
      float* w = q_.at(k);
      std::copy_n(w, rows, error);
      if (pull && k == 0 && !moments_.dead[0]) {
        const float own = moments_.h[0];
        for (std::int64_t r = 0; r < rows; ++r) w[r] += pull->at(0)[r] / own;
      }
      if (sums) sums->round(moments_.order[static_cast<std::size_t>(k)], w, error);
      else quantizer_.fake(moments_.order[static_cast<std::size_t>(k)], q_.first, rows, w, w);
      take_error(rows, diagonal, w, error, moments_.dead[static_cast<std::size_t>(k)] ? ignored_.data() : squares_.data());
    });
  }

  // The objective of D = Q - W from the errors e that were carried on: tr(D H D') = sum of e^2 - l |D|^2. False where the
  // difference of the two says little.
  bool objectives(double* sums) const {
    const std::int64_t rows = q_.rows;
    std::fill_n(sums, rows, 0.0);
    for (std::int64_t k = 0; k < q_.inputs; ++k) {
      if (moments_.dead[static_cast<std::size_t>(k)]) continue;
      add_squares(rows, q_.at(k), start_.at(k), sums);
    }
    for (std::int64_t r = 0; r < rows; ++r) {
      const double square = squares_[static_cast<std::size_t>(r)], damped = factor_.damping * sums[r];
      if (damped > 0.5 * square) return false;
      sums[r] = square - damped;
    }
    return true;
  }

 private:
  const Factor& factor_;
  const Moments& moments_;
  const ColumnQuantizer& quantizer_;
  const RoundingOptions& options_;
  const Panel& start_;
  Panel& q_;
  std::vector<double> squares_, ignored_;
};

// out[1:] += pull[1:] A with A = U' U over the positions from 1 on, the inverse of the damped H there: what makes up for
// the mismatch of the inputs in the sense of least squares.
void take_up(const Factor& factor, const Panel& pull, const std::stop_token& stop, Panel& out) {
  constexpr std::int64_t kBlock = 256;
  const std::int64_t n = pull.inputs, rest = n - 1, rows = pull.rows;
  if (rest == 0) return;
  Panel half(rest, pull.first, rows);
  const float* u = factor.u.data() + n + 1;
  for (std::int64_t i = 0; i < rest && !stop.stop_requested(); i += kBlock)
    gemm(false, false, std::min(kBlock, rest - i), rows, rest - i, 1.0f, u + i * n + i, n, pull.at(1 + i), rows, 0.0f,
         half.at(i), rows);
  for (std::int64_t i = 0; i < rest && !stop.stop_requested(); i += kBlock) {
    const std::int64_t count = std::min(kBlock, rest - i);
    gemm(true, false, count, rows, i + count, 1.0f, u + i, n, half.data(), rows, 1.0f, out.at(1 + i), rows);
  }
  for (std::int64_t k = 1; k < n; ++k)
    if (factor.moments.dead[static_cast<std::size_t>(k)]) std::fill_n(out.at(k), rows, 0.0f);
}

Result<RoundingReport> round(std::int64_t m, std::int64_t n, float* w, const Factor& factor, const ColumnQuantizer& quantizer,
                             const RoundingOptions& options, bool with_mismatch) {
  const bool cross = !factor.moments.mismatch.empty();
  QUANVAS_TRY(RoundingReport report,
              round_stripes(m, n, w, factor.moments, quantizer, options, [&](const Panel& start, Panel& q, Panel& pull, Accumulator::Sums* sums, double* after) {
                if (cross && (with_mismatch || options.report || sums)) mismatch_pull(factor.moments, start, options.stop, pull);
                Stripe stripe(factor, quantizer, options, start, q);
                const bool moved = cross && with_mismatch;
                if (moved) take_up(factor, pull, options.stop, q);
                stripe.run(moved ? &pull : nullptr, sums);
                // Errors that are not carried on in full do not add up to the objective.
                return !cross && (!sums || sums->total()) && stripe.objectives(after);
              }));
  report.damping = factor.damping;
  report.retries = factor.retries;
  return report;
}

}  // namespace

Result<RoundingReport> gptq(std::int64_t m, std::int64_t n, float* w, const Factor& factor, const ColumnQuantizer& quantizer,
                            const RoundingOptions& options) {
  return round(m, n, w, factor, quantizer, options, false);
}

// With l on the diagonals of H and G alike the paper's v = (W (G + l I) - q_1 H_1) A over the inputs from 2 on is
// W - e_1 U_1 + W (G - H) A, e_1 = (w_1 - q_1) / U_11: GPTQ's own first step and what the mismatch adds. The
// Schur complement of the inverse that the paper factorizes is U' U without the first row and column of U.
Result<RoundingReport> qronos(std::int64_t m, std::int64_t n, float* w, const Factor& factor, const ColumnQuantizer& quantizer,
                              const RoundingOptions& options) {
  return round(m, n, w, factor, quantizer, options, true);
}

}  // namespace quanvas::algorithms
