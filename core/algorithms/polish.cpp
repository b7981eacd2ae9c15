#include <algorithm>
#include <cmath>

#include "core/algorithms/panel.h"

namespace quanvas::algorithms {
namespace {

// One stripe of rows. residual: half the gradient of the objective, (Q - W) H - W (G - H), by inputs.
class Descent {
 public:
  // sums: null, or what bounds the codes.
  Descent(const Panel& w, Panel& q, const Moments& moments, const quant::ColumnQuantizer& quantizer, Accumulator::Sums* sums,
          const std::stop_token& stop)
      : w_(w), q_(q), moments_(moments), quantizer_(quantizer), sums_(sums), stop_(stop), n_(w.inputs), rows_(w.rows),
        residual_(w.inputs, w.first, w.rows), moves_(static_cast<std::size_t>(kBlock * w.rows)) {
    for (std::int64_t j = 0; j < n_ && sums_; ++j) sums_->count(moments_.order[static_cast<std::size_t>(j)], q_.at(j));
  }

  // False: nothing changed.
  bool sweep() {
    find_residual();
    bool changed = false;
    for (std::int64_t b = 0; b < n_ && !stop_.stop_requested(); b += kBlock) {
      const std::int64_t end = std::min(n_, b + kBlock);
      bool block_changed = false;
      for (std::int64_t j = b; j < end; ++j) {
        float* move = moves_.data() + (j - b) * rows_;
        if (!visit(j, move)) continue;
        block_changed = true;
        for (std::int64_t k = j + 1; k < end; ++k) subtract(rows_, -h(j, k), move, residual_.at(k));
      }
      if (!block_changed) continue;
      changed = true;
      // Only what comes later is read again in this sweep.
      gemm(true, false, n_ - end, rows_, end - b, 1.0f, moments_.h.data() + b * n_ + end, n_, moves_.data(), rows_, 1.0f,
           residual_.at(end), rows_);
    }
    return changed;
  }

 private:
  static constexpr std::int64_t kBlock = 32;
  float h(std::int64_t i, std::int64_t j) const { return moments_.h[static_cast<std::size_t>(i * n_ + j)]; }

  // Anew in each sweep, so that rounding does not add up.
  void find_residual() {
    Panel delta(n_, w_.first, rows_);
    difference(delta.elements(), q_.data(), w_.data(), delta.data());
    if (moments_.mismatch.empty())
      std::fill_n(residual_.data(), residual_.elements(), 0.0f);
    else
      mismatch_pull(moments_, w_, stop_, residual_);
    constexpr std::int64_t kRows = 256;  // between two looks at the stop
    const float sign = moments_.mismatch.empty() ? 0.0f : -1.0f;
    for (std::int64_t i = 0; i < n_ && !stop_.stop_requested(); i += kRows)
      gemm(false, false, std::min(kRows, n_ - i), rows_, n_, 1.0f, moments_.h.data() + i * n_, n_, delta.data(), rows_, sign,
           residual_.at(i), rows_);
  }

  // move[r]: by how much the weight of row r changes; false: none does.
  bool visit(std::int64_t j, float* move) {
    const float own = h(j, j);
    std::fill_n(move, rows_, 0.0f);
    if (!(own > 0)) return false;
    float *q = q_.at(j), *residual = residual_.at(j);
    for (std::int64_t r = 0; r < rows_; ++r) move[r] = q[r] - residual[r] / own;
    const std::int64_t column = moments_.order[static_cast<std::size_t>(j)];
    quantizer_.fake(column, q_.first, rows_, move, move);
    if (sums_) {
      sums_->hold_back(column, q, move);
      before_.assign(q, q + rows_);
    }
    bool any = false;
    for (std::int64_t r = 0; r < rows_; ++r) {
      const float step = move[r] - q[r];
      // The objective changes by step (step H_jj + 2 residual): less than 0 by more than rounding?
      const float gain = -step * (step * own + 2 * residual[r]);
      const bool better = step != 0 && gain > 1e-6f * step * step * own;
      move[r] = better ? step : 0;
      if (better) q[r] += step, any = true;
    }
    if (any) snap(j, q, move);
    if (any && sums_) sums_->change(column, before_.data(), q);
    return any;
  }

  // q + step may miss the grid by a rounding.
  void snap(std::int64_t j, float* q, const float* move) {
    std::vector<float> exact(q, q + rows_);
    quantizer_.fake(moments_.order[static_cast<std::size_t>(j)], q_.first, rows_, q, exact.data());
    for (std::int64_t r = 0; r < rows_; ++r)
      if (move[r] != 0) q[r] = exact[static_cast<std::size_t>(r)];
  }

  const Panel& w_;
  Panel& q_;
  const Moments& moments_;
  const quant::ColumnQuantizer& quantizer_;
  Accumulator::Sums* sums_;
  const std::stop_token& stop_;
  std::int64_t n_, rows_;
  Panel residual_;
  std::vector<float> moves_, before_;
};

}  // namespace

Result<PolishReport> polish(std::int64_t m, std::int64_t n, const float* w0, float* w, const Moments& moments,
                            const quant::ColumnQuantizer& quantizer, const PolishOptions& options) {
  QUANVAS_CHECK(check_layer(m, n, w0, moments, &quantizer));
  QUANVAS_CHECK(check_layer(m, n, w, moments, &quantizer));
  if (options.accumulator && options.accumulator->share(m, n, w) > 1)
    return fail(ErrorCode::kInvalidArgument,
                "Its weights overflow the accumulator of " + std::to_string(options.accumulator->options().bits) + " bits already at the start.",
                "Put GPTQ, GPFQ or Qronos with the same accumulator before.");
  std::vector<float> result(static_cast<std::size_t>(m * n));
  const std::vector<float> levels;  // of no use where codes are there already
  QUANVAS_CHECK(for_each_stripe(m, options.stop, [&](std::int64_t first, std::int64_t rows) {
    Panel weights(n, first, rows), rounded(n, first, rows);
    weights.load(w0, moments.order);
    rounded.load(w, moments.order);
    std::optional<Accumulator::Sums> sums;
    if (options.accumulator) sums.emplace(*options.accumulator, levels, first, rows, true);
    Descent descent(weights, rounded, moments, quantizer, sums ? &*sums : nullptr, options.stop);
    for (int sweep = 0; sweep < options.sweeps; ++sweep)
      if (!descent.sweep()) break;
    rounded.store(result.data(), moments.order);
  }));
  QUANVAS_TRY(const std::vector<double> before, row_objectives(m, n, w0, w, moments, options.stop));
  QUANVAS_TRY(std::vector<double> after, row_objectives(m, n, w0, result.data(), moments, options.stop));
  PolishReport report;
  for (std::int64_t r = 0; r < m; ++r) {
    const auto i = static_cast<std::size_t>(r);
    float *to = w + r * n, *from = result.data() + r * n;
    if (after[i] < before[i]) {
      for (std::int64_t c = 0; c < n; ++c) report.changed += to[c] != from[c];
      std::copy_n(from, n, to);
    } else {
      after[i] = before[i];
    }
  }
  report.before = objective_sum(before);
  report.after = objective_sum(after);
  if (options.accumulator) report.used = options.accumulator->share(m, n, w);
  return report;
}

}  // namespace quanvas::algorithms
