// Quanvas - a stripe of rows, transposed so that the weights of one input are contiguous. Private to core/algorithms.
#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/algorithms/blas.h"
#include "core/algorithms/rounding.h"

namespace quanvas::algorithms {

// Loops over rows, for several instruction sets; element by element all give the same bits.
// y -= a x
void subtract(std::int64_t n, float a, const float* x, float* y);
// error = (error - q) / diagonal, squares += error^2
void take_error(std::int64_t n, float diagonal, const float* q, float* error, double* squares);
// sums += factor x y
void add_products(std::int64_t n, double factor, const float* x, const float* y, double* sums);
// sums += (x - y)^2
void add_squares(std::int64_t n, const float* x, const float* y, double* sums);
double dot(std::int64_t n, const float* x, const float* y);
bool all_finite(std::int64_t n, const float* x);
// x := sign(x) max(|x| - level, 0)
void soften(std::int64_t n, const float* level, float* x);
// What the codes of a tile's rows may add up to, see accumulator.h.
struct CodeBound {
  double low = 0, high = 0, most = 0;
};
// x: values on the grid, those of codes within the bound afterwards; positive and negative sums of a tile take them up.
// wish: null, or what the values were rounded from; where the bound has moved a code, kept loses what it took from the wish.
// moved counts the codes that were moved.
void bound_codes(std::int64_t n, const CodeBound& bound, const float* scale, float* x, const float* wish, float* kept, double* positive,
                 double* negative, double* moved);
// One step of Adam on gates (learned.h) of one input's rows, and delta = lower + h gap - aim at the new v.
struct GateStep {
  bool forward = false;         // no step: sigmoid and delta at v
  bool gradient_alone = false;  // no step: the gradient in `first`
  float rate = 0, second = 1;   // with the bias of both moments taken out
  float lambda = 0, beta = 2;
};
void gate_step(std::int64_t n, const GateStep& step, const float* unit, const float* lower, const float* gap, const float* aim,
               const float* residual, float* v, float* sigmoid, float* first, float* second, float* delta);
// One step by the sign of the gradient: t within a half of where it started.
void sign_step(std::int64_t n, float rate, const float* start, const float* residual, const float* lower, const float* gap,
               const float* aim, float* t, float* delta);
// Of one input's rows, whole codes in learned ranges (learned_ranges.h): delta = (clip(round(base / scale + v) + zero) - zero) scale - aim.
struct CodeRange {
  float low = 0, high = 0;
};
void range_forward(std::int64_t n, const CodeRange& codes, const float* base, const float* aim, const float* scale, const float* zero,
                   const float* v, float* delta);
// One step of v by the sign of the gradient, where the code is not clipped; what the gradient of the scale and of the zero point gets of it.
void range_step(std::int64_t n, float rate, const CodeRange& codes, const float* base, const float* residual, const float* scale, const float* zero,
                float* v, double* of_scale, double* of_zero);
// to: the same for a code that replaces `from`, which the sums hold; they stay as they are.
void bound_changes(std::int64_t n, const CodeBound& bound, const float* scale, const float* from, float* to, const double* positive,
                   const double* negative);
// out = x - y
void difference(std::int64_t n, const float* x, const float* y, float* out);

// panel[k * rows + r] = w[r * n + order[k]] and back.
void load_rows(std::int64_t n, std::int64_t rows, const float* w, const std::int32_t* order, float* panel);
void store_rows(std::int64_t n, std::int64_t rows, const float* panel, const std::int32_t* order, float* w);

// Rows of W that are worked on together: results depend on it (products of another shape round differently), so it is no
// function of the number of threads.
inline constexpr std::int64_t kStripe = 256;

// [n][rows], rows `width` apart.
struct Panel {
  std::int64_t inputs = 0, first = 0, rows = 0;

  // Not initialized.
  Panel(std::int64_t n, std::int64_t first_row, std::int64_t row_count)
      : inputs(n), first(first_row), rows(row_count),
        data_(std::make_unique_for_overwrite<float[]>(static_cast<std::size_t>(n * row_count))) {}
  std::int64_t elements() const { return inputs * rows; }
  float* data() { return data_.get(); }
  const float* data() const { return data_.get(); }
  float* at(std::int64_t k) { return data_.get() + k * rows; }
  const float* at(std::int64_t k) const { return data_.get() + k * rows; }

  // Position k holds input order[k].
  void load(const float* w, const std::vector<std::int32_t>& order) { load_rows(inputs, rows, w + first * inputs, order.data(), data()); }
  void store(float* w, const std::vector<std::int32_t>& order) const {
    store_rows(inputs, rows, data(), order.data(), w + first * inputs);
  }

 private:
  std::unique_ptr<float[]> data_;
};

// f(panel's first row, rows) for each stripe of m rows.
template <class F>
Status for_each_stripe(std::int64_t m, const std::stop_token& stop, const F& f) {
  return for_each_task((m + kStripe - 1) / kStripe, stop,
                       [&](std::int64_t s) { f(s * kStripe, std::min(kStripe, m - s * kStripe)); });
}

// Carries errors on: visits the inputs in order; leaf(i, error) makes the error [rows] of input i, for
// which panel row i is final; then panel row j loses matrix[i, j] error for all j > i. matrix: [n, n], upper triangle
// used. Updates are left for later, halves of blocks first, so that nearly all is done in products.
class Diffusion {
 public:
  Diffusion(std::int64_t block, const float* matrix, Panel& panel, const std::stop_token& stop)
      : n_(panel.inputs), block_(std::clamp<std::int64_t>(block, 1, panel.inputs)), matrix_(matrix),
        panel_(panel), stop_(stop), errors_(static_cast<std::size_t>(block_ * panel.rows)) {}

  template <class Leaf>
  void run(const Leaf& leaf) {
    for (std::int64_t i = 0; i < n_ && !stop_.stop_requested(); i += block_) {
      const std::int64_t end = std::min(n_, i + block_);
      base_ = i;
      solve(i, end, leaf);
      update(i, end, end, n_);
    }
  }

 private:
  static constexpr std::int64_t kLeaf = 16;

  float* error(std::int64_t i) { return errors_.data() + (i - base_) * panel_.rows; }
  template <class Leaf>
  void solve(std::int64_t begin, std::int64_t end, const Leaf& leaf) {
    if (end - begin > kLeaf) {
      const std::int64_t middle = begin + (end - begin) / 2;
      solve(begin, middle, leaf);
      update(begin, middle, middle, end);
      solve(middle, end, leaf);
      return;
    }
    for (std::int64_t i = begin; i < end; ++i) {
      leaf(i, error(i));
      for (std::int64_t j = i + 1; j < end; ++j) subtract(panel_.rows, matrix_[i * n_ + j], error(i), panel_.at(j));
    }
  }
  // Rows [to, to_end) lose what the errors of [from, from_end) carry on to them.
  void update(std::int64_t from, std::int64_t from_end, std::int64_t to, std::int64_t to_end) {
    gemm(true, false, to_end - to, panel_.rows, from_end - from, -1.0f, matrix_ + from * n_ + to, n_, error(from),
         panel_.rows, 1.0f, panel_.at(to), panel_.rows);
  }

  std::int64_t n_, block_, base_ = 0;
  const float* matrix_;
  Panel& panel_;
  const std::stop_token& stop_;
  std::vector<float> errors_;
};

// Shapes agree and all weights are finite. quantizer may be null.
Status check_layer(std::int64_t m, std::int64_t n, const float* w, const Moments& moments,
                   const quant::ColumnQuantizer* quantizer);

// out[t] = sum over j of mismatch_jt w_j: half of what the mismatch of the inputs adds to the gradient, with opposite sign.
void mismatch_pull(const Moments& moments, const Panel& w, const std::stop_token& stop, Panel& out);
// Objective of each row of `q` against `w`, written to sums; pull: of mismatch_pull, not read without a mismatch.
void panel_objectives(const Moments& moments, const Panel& w, const Panel& q, const Panel* pull, const std::stop_token& stop,
                      double* sums);

// What all algorithms have in common: stripes, the objectives of the report, and the result in place of w. body(w, q,
// pull, sums, after): from the stripe's weights w make q; pull is empty without a mismatch, else body fills it; sums is null
// without an accumulator, else it chooses the codes; body returns whether it has written the rows' objectives to `after`
// itself.
template <class Body>
Result<RoundingReport> round_stripes(std::int64_t m, std::int64_t n, float* w, const Moments& moments,
                                     const quant::ColumnQuantizer& quantizer, const RoundingOptions& options,
                                     const Body& body) {
  QUANVAS_CHECK(check_layer(m, n, w, moments, &quantizer));
  std::vector<std::optional<Panel>> results(static_cast<std::size_t>((m + kStripe - 1) / kStripe));
  std::vector<double> before(static_cast<std::size_t>(m)), after(before.size()), used(before.size());
  std::vector<std::int64_t> bounded(before.size());
  using Spread = AccumulatorOptions::Spread;
  const Spread spread = options.accumulator ? options.accumulator->options().spread : Spread::kTotal;
  std::vector<float> levels;
  if (options.accumulator) {
    QUANVAS_TRY(levels, options.accumulator->levels(m, n, w, options.stop));
  }
  QUANVAS_CHECK(for_each_stripe(m, options.stop, [&](std::int64_t first, std::int64_t rows) {
    const bool cross = !moments.mismatch.empty();
    Panel start(n, first, rows), pull(cross ? n : 0, first, rows);
    Panel& q = results[static_cast<std::size_t>(first / kStripe)].emplace(n, first, rows);
    start.load(w, moments.order);
    std::optional<Accumulator::Sums> sums, other;
    if (options.accumulator) sums.emplace(*options.accumulator, levels, first, rows, spread != Spread::kRounding);
    bool known = body(start, q, pull, sums ? &*sums : nullptr, after.data() + first);
    const auto note = [&](const Accumulator::Sums& of, std::int64_t r) {
      used[static_cast<std::size_t>(first + r)] = of.used(r);
      bounded[static_cast<std::size_t>(first + r)] = of.bounded(r);
    };
    for (std::int64_t r = 0; r < rows && sums; ++r) note(*sums, r);
    if (spread == Spread::kBest && !options.stop.stop_requested()) {
      Panel again(n, first, rows);
      std::vector<double> objectives(static_cast<std::size_t>(rows));
      panel_objectives(moments, start, q, &pull, options.stop, after.data() + first);
      known = true;
      other.emplace(*options.accumulator, levels, first, rows, false);
      body(start, again, pull, &*other, objectives.data());
      panel_objectives(moments, start, again, &pull, options.stop, objectives.data());
      for (std::int64_t r = 0; r < rows; ++r) {
        double& least = after[static_cast<std::size_t>(first + r)];
        if (!(objectives[static_cast<std::size_t>(r)] < least)) continue;
        least = objectives[static_cast<std::size_t>(r)];
        for (std::int64_t k = 0; k < n; ++k) q.at(k)[r] = again.at(k)[r];
        note(*other, r);
      }
    }
    if (!options.report || options.stop.stop_requested()) return;
    if (!known) panel_objectives(moments, start, q, &pull, options.stop, after.data() + first);
    Panel nearest(n, first, rows);
    for (std::int64_t k = 0; k < n; ++k)
      quantizer.fake(moments.order[static_cast<std::size_t>(k)], first, rows, start.at(k), nearest.at(k));
    panel_objectives(moments, start, nearest, &pull, options.stop, before.data() + first);
  }));
  // Only now, so that a stop leaves W as it was.
  QUANVAS_CHECK(for_each_stripe(m, {}, [&](std::int64_t first, std::int64_t) {
    results[static_cast<std::size_t>(first / kStripe)]->store(w, moments.order);
  }));
  RoundingReport report;
  report.before = objective_sum(before);
  report.after = objective_sum(after);
  report.dead = moments.dead_count;
  for (const double u : used) report.used = std::max(report.used, u);
  for (const std::int64_t b : bounded) report.bounded += b;
  return report;
}

}  // namespace quanvas::algorithms
