// GPTQ and Qronos, which ends as GPTQ.
#include <algorithm>
#include <cmath>

#include "core/algorithms/panel.h"

namespace quanvas::algorithms {
namespace {

using quant::ColumnQuantizer;

Status check_factor(std::int64_t n, const Factor& factor) {
  if (factor.inputs == n) return {};
  return fail(ErrorCode::kInternal, "The factor is one of " + std::to_string(factor.inputs) + " inputs, the layer has " +
                                        std::to_string(n) + ".");
}

// Weights of dead inputs have no effect on any output.
void clear_dead(const Factor& factor, Panel& panel) {
  if (factor.dead_count == 0) return;
  for (std::int64_t k = 0; k < panel.inputs; ++k)
    if (factor.dead[static_cast<std::size_t>(factor.order[static_cast<std::size_t>(k)])])
      std::fill_n(panel.at(k), panel.rows, 0.0f);
}

// Rounds position k of the panel; error[r] = what is lost, in units of U_kk.
void round_input(const Factor& factor, const ColumnQuantizer& quantizer, std::int64_t k, Panel& panel, float* error) {
  const float diagonal = factor.u[static_cast<std::size_t>(k * factor.inputs + k)];
  float* w = panel.at(k);
  std::copy_n(w, panel.rows, error);
  quantizer.fake(factor.order[static_cast<std::size_t>(k)], panel.first, panel.rows, w, w);
#pragma omp simd
  for (std::int64_t r = 0; r < panel.rows; ++r) error[r] = (error[r] - w[r]) / diagonal;
}

void diffuse(const Factor& factor, const ColumnQuantizer& quantizer, const RoundingOptions& options, std::int64_t begin,
             Panel& panel) {
  Diffusion diffusion(begin, options.block, factor.u.data(), panel, options.stop);
  diffusion.run([&](std::int64_t k, float* error) { round_input(factor, quantizer, k, panel, error); });
}

RoundingReport report_of(const Factor& factor) {
  RoundingReport report;
  report.damping = factor.damping;
  report.retries = factor.retries;
  return report;
}

// Qronos up to the second input: position 0 is rounded, the others have taken up the mismatch.
class QronosStart {
 public:
  QronosStart(const Gram& gram, const Factor& factor, const std::stop_token& stop)
      : gram_(gram), factor_(factor), stop_(stop) {
    if (gram.has_cross()) mismatch_ = reordered(gram.inputs, gram.g, &gram.h, factor.order, stop);
  }

  void run(const ColumnQuantizer& quantizer, Panel& w) const {
    const std::int64_t n = w.inputs, rows = w.rows, first = factor_.order[0];
    const double* moments = gram_.h.data() + first * n;
    const double own = moments[first];
    // pull = W (G - H), column by column: what the mismatch of the inputs asks of each weight.
    std::vector<float> pull;
    if (!mismatch_.empty()) {
      pull.resize(static_cast<std::size_t>(n * rows));
      gemm(true, false, n, rows, n, 1.0f, mismatch_.data(), n, w.data.data(), rows, 0.0f, pull.data(), rows);
    }
    std::vector<float> lost(w.at(0), w.at(0) + rows);
    if (!pull.empty() && own > 0)
      for (std::int64_t r = 0; r < rows; ++r) w.at(0)[r] += static_cast<float>(static_cast<double>(pull[static_cast<std::size_t>(r)]) / own);
    quantizer.fake(first, w.first, rows, w.at(0), w.at(0));
    for (std::int64_t r = 0; r < rows; ++r) lost[static_cast<std::size_t>(r)] -= w.at(0)[r];
    if (n == 1) return;
    // v = W + ((w_1 - q_1) H_1 + pull) A over the positions from 1 on, A = (H + l I)^-1 of them = U' U, in float64: A may
    // be as badly conditioned as the damping allows.
    const std::int64_t rest = n - 1;
    std::vector<double> right(static_cast<std::size_t>(rest * rows)), half(right.size());
    for (std::int64_t k = 1; k < n; ++k) {
      const double moment = moments[factor_.order[static_cast<std::size_t>(k)]];
      double* to = right.data() + (k - 1) * rows;
      const float* mismatch = pull.empty() ? nullptr : pull.data() + k * rows;
      for (std::int64_t r = 0; r < rows; ++r)
        to[r] = static_cast<double>(lost[static_cast<std::size_t>(r)]) * moment +
                (mismatch ? static_cast<double>(mismatch[r]) : 0.0);
    }
    const double* u = factor_.u64.data() + n + 1;
    upper_times(u, n, rest, rows, right, half);
    upper_transposed_times(u, n, rest, rows, half, right);
    for (std::int64_t k = 1; k < n; ++k)
      for (std::int64_t r = 0; r < rows; ++r)
        w.at(k)[r] = static_cast<float>(static_cast<double>(w.at(k)[r]) + right[static_cast<std::size_t>((k - 1) * rows + r)]);
  }

 private:
  static constexpr std::int64_t kBlock = 256;
  // out = u in and out = u' in; u [rest, rest] upper triangular, its rows n apart, in and out [rest, rows].
  void upper_times(const double* u, std::int64_t n, std::int64_t rest, std::int64_t rows, const std::vector<double>& in,
                   std::vector<double>& out) const {
    for (std::int64_t i = 0; i < rest && !stop_.stop_requested(); i += kBlock)
      gemm(false, false, std::min(kBlock, rest - i), rows, rest - i, 1.0, u + i * n + i, n, in.data() + i * rows, rows, 0.0,
           out.data() + i * rows, rows);
  }
  void upper_transposed_times(const double* u, std::int64_t n, std::int64_t rest, std::int64_t rows,
                              const std::vector<double>& in, std::vector<double>& out) const {
    for (std::int64_t i = 0; i < rest && !stop_.stop_requested(); i += kBlock) {
      const std::int64_t count = std::min(kBlock, rest - i);
      gemm(true, false, count, rows, i + count, 1.0, u + i, n, in.data(), rows, 0.0, out.data() + i * rows, rows);
    }
  }

  const Gram& gram_;
  const Factor& factor_;
  std::stop_token stop_;
  std::vector<float> mismatch_;  // G - H in the factor's order
};

template <class Start>
Result<RoundingReport> run(std::int64_t m, std::int64_t n, float* w, const Gram& gram, const Factor& factor,
                           const ColumnQuantizer& quantizer, const RoundingOptions& options, std::int64_t begin,
                           const Start& start) {
  std::vector<float> result(static_cast<std::size_t>(m * n));
  QUANVAS_CHECK(for_each_stripe(m, options.stop, [&](std::int64_t first, std::int64_t rows) {
    Panel panel(n, first, rows);
    panel.load(w, factor.order);
    clear_dead(factor, panel);
    start(panel);
    diffuse(factor, quantizer, options, begin, panel);
    panel.store(result.data(), factor.order);
  }));
  RoundingReport report = report_of(factor);
  QUANVAS_CHECK(fill_objectives(m, n, w, result.data(), gram, quantizer, options, report));
  std::copy(result.begin(), result.end(), w);
  return report;
}

}  // namespace

Result<RoundingReport> gptq(std::int64_t m, std::int64_t n, float* w, const Gram& gram, const Factor& factor,
                            const ColumnQuantizer& quantizer, const RoundingOptions& options) {
  QUANVAS_CHECK(check_layer(m, n, w, gram, &quantizer));
  QUANVAS_CHECK(check_factor(n, factor));
  return run(m, n, w, gram, factor, quantizer, options, 0, [](Panel&) {});
}

Result<RoundingReport> qronos(std::int64_t m, std::int64_t n, float* w, const Gram& gram, const Factor& factor,
                              const ColumnQuantizer& quantizer, const RoundingOptions& options) {
  QUANVAS_CHECK(check_layer(m, n, w, gram, &quantizer));
  QUANVAS_CHECK(check_factor(n, factor));
  if (factor.u64.empty()) return fail(ErrorCode::kInternal, "Qronos needs a factor that was made with keep_double.");
  const QronosStart start(gram, factor, options.stop);
  return run(m, n, w, gram, factor, quantizer, options, 1, [&](Panel& panel) { start.run(quantizer, panel); });
}

}  // namespace quanvas::algorithms
