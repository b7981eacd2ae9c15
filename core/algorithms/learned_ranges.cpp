#include "core/algorithms/learned_ranges.h"

#include <algorithm>
#include <cmath>

#include "core/algorithms/panel.h"

namespace quanvas::algorithms {
namespace {

using quant::ColumnQuantizer;

constexpr std::int64_t kRows = 32;  // as in learned.cpp
constexpr double kSmallest = 0.05;  // of alpha and beta

// The ends of the range of one scale, as parts of those that were found.
struct Ends {
  double low = 1, high = 1;
};

// Of a stripe, what the scales are at the ends.
class Scales {
 public:
  Scales(const ColumnQuantizer& quantizer, bool zero_point, std::int64_t first, std::int64_t rows)
      : zero_point_(zero_point),
        rows_(rows),
        low_code_(static_cast<double>(quantizer.low_code())),
        high_code_(static_cast<double>(quantizer.high_code())) {
    for (std::int64_t c = 0; c < quantizer.columns(); ++c) {
      set_.push_back(quantizer.set_of(c));
      if (set_.back() * rows < static_cast<std::int64_t>(scale.size())) continue;
      scale.insert(scale.end(), quantizer.scales(c) + first, quantizer.scales(c) + first + rows);
      zero.insert(zero.end(), quantizer.zeros(c) + first, quantizer.zeros(c) + first + rows);
    }
    start_scale_ = scale;
    start_zero_ = zero;
    ends_.resize(scale.size());
    of_scale.resize(scale.size());
    of_zero.resize(scale.size());
  }
  std::size_t at(std::int64_t column) const {
    return static_cast<std::size_t>(set_[static_cast<std::size_t>(column)] * rows_);
  }
  std::size_t sets() const { return scale.size() / static_cast<std::size_t>(rows_); }

  // A step of the ends by the sign of their gradients, from of_scale and of_zero, which begin anew.
  void step(double rate) {
    for (std::size_t i = 0; i < scale.size(); ++i) {
      Ends& e = ends_[i];
      const double s0 = static_cast<double>(start_scale_[i]), span = high_code_ - low_code_;
      const auto move = [&](double& end, double gradient) {
        end = std::clamp(end - (gradient > 0 ? rate : gradient < 0 ? -rate : 0.0), kSmallest, 1.0);
      };
      if (!zero_point_) {
        move(e.high, of_scale[i]);
        scale[i] = e.high == 1 ? start_scale_[i] : static_cast<float>(e.high * s0);
      } else {
        const double low = (low_code_ - static_cast<double>(start_zero_[i])) * s0,
                     high = (high_code_ - static_cast<double>(start_zero_[i])) * s0;
        const double s = static_cast<double>(scale[i]);
        // z = lo - alpha L / s, straight through its rounding.
        const double by_low = -low / span, by_high = high / span, turn = e.low * low / (s * s);
        const double g_low = of_scale[i] * by_low + of_zero[i] * (-low / s + turn * by_low),
                     g_high = (of_scale[i] + of_zero[i] * turn) * by_high;
        move(e.low, g_low);
        move(e.high, g_high);
        if (e.low == 1 && e.high == 1) {
          scale[i] = start_scale_[i], zero[i] = start_zero_[i];
        } else {
          const double now = (e.high * high - e.low * low) / span;
          scale[i] = static_cast<float>(now);
          zero[i] =
              static_cast<float>(std::clamp(std::nearbyint(low_code_ - e.low * low / now), low_code_, high_code_));
        }
      }
      of_scale[i] = of_zero[i] = 0;
    }
  }

  std::vector<float> scale, zero;         // [set][row]
  std::vector<double> of_scale, of_zero;  // sums of the gradient

 private:
  const bool zero_point_;
  const std::int64_t rows_;
  const double low_code_, high_code_;
  std::vector<std::int64_t> set_;  // of a column
  std::vector<float> start_scale_, start_zero_;
  std::vector<Ends> ends_;
};

struct Best {
  std::vector<float> scale, zero;  // [set][row of the matrix]
};

// One stripe: w becomes the best that is met, in result and in `best`.
void descend(const Panel& aim, const Panel& w, const Moments& moments, const ColumnQuantizer& quantizer,
             bool zero_point, const LearnedOptions& o, Panel& start, Panel& result, std::int64_t m, Best& best) {
  const std::int64_t n = aim.inputs, rows = aim.rows, first = aim.first;
  Scales scales(quantizer, zero_point, first, rows);
  const CodeRange codes{static_cast<float>(quantizer.low_code()), static_cast<float>(quantizer.high_code())};
  const auto column = [&](std::int64_t k) {
    return static_cast<std::int64_t>(moments.order[static_cast<std::size_t>(k)]);
  };
  const bool cross = !moments.mismatch.empty();
  Panel base(n, first, rows), v(n, first, rows), delta(n, first, rows), residual(n, first, rows),
      pull(cross ? n : 0, first, rows);
  std::fill_n(v.data(), v.elements(), 0.0f);
  if (cross) mismatch_pull(moments, aim, o.stop, pull);
  for (std::int64_t k = 0; k < n; ++k) {
    quantizer.fake(column(k), first, rows, w.at(k), start.at(k));
    for (std::int64_t r = 0; r < rows; ++r) {
      const float now = w.at(k)[r], on = start.at(k)[r],
                  s = scales.scale[scales.at(column(k)) + static_cast<std::size_t>(r)];
      // What an earlier pass has put on the grid starts there, on the side of the float weight.
      const bool put = on == now && now != aim.at(k)[r];
      base.at(k)[r] = put ? on + s * std::clamp((aim.at(k)[r] - on) / s, -0.45f, 0.45f) : now;
    }
  }
  std::copy_n(start.data(), start.elements(), result.data());
  std::vector<double> least(static_cast<std::size_t>(rows)), now(least.size());
  for (int i = 0; i <= o.iterations && !o.stop.stop_requested(); ++i) {
    for (std::int64_t k = 0; k < n; ++k) {
      const std::size_t p = scales.at(column(k));
      range_forward(rows, codes, base.at(k), aim.at(k), &scales.scale[p], &scales.zero[p], v.at(k), delta.at(k));
    }
    if (cross) std::copy_n(pull.data(), pull.elements(), residual.data());
    constexpr std::int64_t kBlock = 512;  // between two looks at the stop
    for (std::int64_t c = 0; c < n && !o.stop.stop_requested(); c += kBlock)
      gemm(false, false, std::min(kBlock, n - c), rows, n, 1.0f, moments.h.data() + c * n, n, delta.data(), rows,
           cross ? -1.0f : 0.0f, residual.at(c), rows);
    std::fill(now.begin(), now.end(), 0.0);
    for (std::int64_t k = 0; k < n; ++k) {
      add_products(rows, 1, delta.at(k), residual.at(k), now.data());
      if (cross) add_products(rows, -1, delta.at(k), pull.at(k), now.data());
    }
    if (i == 0) least = now;  // v is 0 and the ranges are as found: the start
    for (std::int64_t r = 0; r < rows; ++r) {
      const auto at = static_cast<std::size_t>(r);
      if (!(now[at] < least[at])) continue;
      least[at] = now[at];
      for (std::int64_t k = 0; k < n; ++k) result.at(k)[r] = delta.at(k)[r] + aim.at(k)[r];
      for (std::size_t s = 0; s < scales.sets(); ++s) {
        const std::size_t to = s * static_cast<std::size_t>(m) + static_cast<std::size_t>(first + r),
                          from = s * static_cast<std::size_t>(rows) + at;
        best.scale[to] = scales.scale[from], best.zero[to] = scales.zero[from];
      }
    }
    if (i == o.iterations) break;
    const double rate = (1 - static_cast<double>(i) / o.iterations) / o.iterations;
    for (std::int64_t k = 0; k < n; ++k) {
      const std::size_t p = scales.at(column(k));
      range_step(rows, static_cast<float>(rate), codes, base.at(k), residual.at(k), &scales.scale[p],
                 &scales.zero[p], v.at(k), &scales.of_scale[p], &scales.of_zero[p]);
    }
    scales.step(rate);
  }
}

}  // namespace

std::string range_problem(const quant::QuantParams& params, const quant::MatrixView& view) {
  const auto quantizer = ColumnQuantizer::create(params, view);
  if (!quantizer || !quantizer->has_whole_codes()) return "its codes are no whole numbers";
  if (!params.super_scale.empty()) return "its scales are codes themselves";
  std::vector<std::int64_t> owner(params.scale.size(), -1);
  for (std::int64_t r = 0; r < view.rows; ++r)
    for (std::int64_t c = 0; c < view.columns; ++c) {
      const auto p = static_cast<std::size_t>(quant::parameter_of(params.layout, view.element(r, c)));
      if (owner[p] >= 0 && owner[p] != r) return "one of its scales serves several outputs";
      if (!(params.scale[p] > 0)) return "one of its scales is not above 0";
      owner[p] = r;
    }
  return {};
}

Result<RangeReport> learn_ranges(std::int64_t m, std::int64_t n, const float* w0, float* w, const Moments& moments,
                                 quant::QuantParams& params, const quant::MatrixView& view,
                                 const LearnedOptions& options) {
  if (options.iterations < 0)
    return fail(ErrorCode::kInvalidArgument, "Learned ranges need no fewer than 0 iterations.");
  QUANVAS_TRY(const ColumnQuantizer quantizer, ColumnQuantizer::create(params, view));
  if (const std::string why = range_problem(params, view); !why.empty())
    return fail(ErrorCode::kUnsupported, "The quantizer's range cannot be learned: " + why + ".");
  QUANVAS_CHECK(check_layer(m, n, w0, moments, &quantizer));
  QUANVAS_CHECK(check_layer(m, n, w, moments, &quantizer));
  std::int64_t sets = 0;
  for (std::int64_t c = 0; c < n; ++c) sets = std::max(sets, quantizer.set_of(c) + 1);
  std::vector<std::int64_t> column_of(static_cast<std::size_t>(sets), -1);
  for (std::int64_t c = n; c-- > 0;) column_of[static_cast<std::size_t>(quantizer.set_of(c))] = c;
  Best best;
  for (const std::int64_t c : column_of) {
    best.scale.insert(best.scale.end(), quantizer.scales(c), quantizer.scales(c) + m);
    best.zero.insert(best.zero.end(), quantizer.zeros(c), quantizer.zeros(c) + m);
  }
  const bool zero_point = params.spec.zero_point == ZeroPointType::kInteger;
  std::vector<float> start(static_cast<std::size_t>(m * n)), result(start.size());
  QUANVAS_CHECK(for_each_task((m + kRows - 1) / kRows, options.stop,
                              [&](std::int64_t s) {
                                const std::int64_t first = s * kRows, rows = std::min(kRows, m - first);
                                Panel aim(n, first, rows), now(n, first, rows), from(n, first, rows),
                                    to(n, first, rows);
                                aim.load(w0, moments.order);
                                now.load(w, moments.order);
                                descend(aim, now, moments, quantizer, zero_point, options, from, to, m, best);
                                from.store(start.data(), moments.order);
                                to.store(result.data(), moments.order);
                              },
                              m * n * n));
  quant::QuantParams found = params;
  const auto put = [&](std::int64_t r, bool back) {
    for (std::size_t s = 0; s < column_of.size(); ++s) {
      const auto p = static_cast<std::size_t>(quant::parameter_of(params.layout, view.element(r, column_of[s])));
      const std::size_t from = s * static_cast<std::size_t>(m) + static_cast<std::size_t>(r);
      found.scale[p] = back ? params.scale[p] : best.scale[from];
      if (zero_point) found.zero_point[p] = back ? params.zero_point[p] : best.zero[from];
    }
  };
  for (std::int64_t r = 0; r < m; ++r) put(r, false);
  // The grid's own bits.
  {
    QUANVAS_TRY(const ColumnQuantizer own, ColumnQuantizer::create(found, view));
    own.fake_matrix(result.data(), result.data());
  }
  QUANVAS_TRY(const std::vector<double> before, row_objectives(m, n, w0, start.data(), moments, options.stop));
  QUANVAS_TRY(std::vector<double> after, row_objectives(m, n, w0, result.data(), moments, options.stop));
  RangeReport report;
  for (std::int64_t r = 0; r < m; ++r) {
    const auto i = static_cast<std::size_t>(r);
    const bool better = after[i] < before[i];
    if (!better) after[i] = before[i], put(r, true);
    const float *from = (better ? result : start).data() + r * n, *was = start.data() + r * n;
    for (std::int64_t c = 0; c < n; ++c) report.changed += from[c] != was[c];
    std::copy_n(from, n, w + r * n);
  }
  for (std::size_t p = 0; p < params.scale.size(); ++p)
    report.scales +=
        found.scale[p] != params.scale[p] || (zero_point && found.zero_point[p] != params.zero_point[p]);
  params = std::move(found);
  report.before = objective_sum(before);
  report.after = objective_sum(after);
  report.dead = moments.dead_count;
  return report;
}

}  // namespace quanvas::algorithms
