#include "core/algorithms/learned.h"

#include <algorithm>
#include <bit>
#include <cfloat>
#include <cmath>
#include <string>

#include "core/algorithms/panel.h"

namespace quanvas::algorithms {
namespace {

using quant::ColumnQuantizer;

// Fewer than kStripe: gradients of few rows are quick, and layers of few outputs shall have work for all threads.
constexpr std::int64_t kRows = 32;

template <class F>
Status for_each_few_rows(std::int64_t m, std::int64_t n, const std::stop_token& stop, const F& f) {
  return for_each_task((m + kRows - 1) / kRows, stop, [&](std::int64_t s) { f(s * kRows, std::min(kRows, m - s * kRows)); }, m * n * n);
}

// Floats as whole numbers in the same order.
std::int32_t key_of(float v) {
  const auto bits = std::bit_cast<std::int32_t>(v);
  return bits < 0 ? static_cast<std::int32_t>(0x80000000u - static_cast<std::uint32_t>(bits)) : bits;
}
float value_of(std::int32_t key) {
  return std::bit_cast<float>(key < 0 ? static_cast<std::int32_t>(0x80000000u - static_cast<std::uint32_t>(key)) : key);
}

// next[r]: the value of the grid that follows from[r], which is one, upwards or downwards; from[r] itself at the end.
void find_next(const ColumnQuantizer& quantizer, std::int64_t column, std::int64_t first, std::int64_t rows, const float* from,
               const char* upwards, float* next) {
  float x[kRows];
  if (quantizer.has_whole_codes()) {
    const float* scale = quantizer.scales(column) + first;
    for (std::int64_t r = 0; r < rows; ++r) x[r] = from[r] + (upwards[r] ? std::fabs(scale[r]) : -std::fabs(scale[r]));
    quantizer.fake(column, first, rows, x, next);
    return;
  }
  // The least float that is not rounded to from[r], by bisection.
  std::int64_t near[kRows], far[kRows];
  for (std::int64_t r = 0; r < rows; ++r) {
    near[r] = key_of(from[r]);
    far[r] = key_of(upwards[r] ? FLT_MAX : -FLT_MAX);
    x[r] = value_of(static_cast<std::int32_t>(far[r]));
  }
  quantizer.fake(column, first, rows, x, next);
  const auto beyond = [&](std::int64_t r) { return upwards[r] ? next[r] > from[r] : next[r] < from[r]; };
  bool has[kRows];
  for (std::int64_t r = 0; r < rows; ++r) has[r] = beyond(r);
  for (int step = 0; step < 33; ++step) {
    for (std::int64_t r = 0; r < rows; ++r) x[r] = value_of(static_cast<std::int32_t>((near[r] + far[r]) / 2));
    quantizer.fake(column, first, rows, x, next);
    for (std::int64_t r = 0; r < rows; ++r) (beyond(r) ? far[r] : near[r]) = (near[r] + far[r]) / 2;
  }
  for (std::int64_t r = 0; r < rows; ++r) x[r] = value_of(static_cast<std::int32_t>(far[r]));
  quantizer.fake(column, first, rows, x, next);
  for (std::int64_t r = 0; r < rows; ++r)
    if (!has[r] || !beyond(r) || !std::isfinite(next[r])) next[r] = from[r];
}

// Of a stripe, by inputs.
struct Choice {
  Panel start, lower, gap, h;
  Choice(std::int64_t n, std::int64_t first, std::int64_t rows)
      : start(n, first, rows), lower(n, first, rows), gap(n, first, rows), h(n, first, rows) {}
};

// w0, w: panels with input order[k] at k.
void find_choice(const ColumnQuantizer& quantizer, const std::vector<std::int32_t>& order, const Panel& w0, const Panel& w, Choice& out) {
  char upwards[kRows];
  float next[kRows];
  for (std::int64_t k = 0; k < w.inputs; ++k) {
    const std::int64_t column = order[static_cast<std::size_t>(k)], rows = w.rows;
    const float *now = w.at(k), *aim = w0.at(k);
    float *start = out.start.at(k), *lower = out.lower.at(k), *gap = out.gap.at(k), *h = out.h.at(k);
    quantizer.fake(column, w.first, rows, now, start);
    for (std::int64_t r = 0; r < rows; ++r) upwards[r] = (start[r] == now[r] ? aim[r] : now[r]) >= start[r];
    find_next(quantizer, column, w.first, rows, start, upwards, next);
    for (std::int64_t r = 0; r < rows; ++r) {
      const bool put = start[r] == now[r] && now[r] != aim[r];
      const float anchor = put ? aim[r] : now[r];
      lower[r] = std::min(start[r], next[r]);
      gap[r] = std::fabs(next[r] - start[r]);
      const float between = gap[r] > 0 ? std::clamp((anchor - lower[r]) / gap[r], 0.0f, 1.0f) : 0.0f;
      h[r] = put ? 0.45f * between + (upwards[r] ? 0.0f : 0.55f) : between;
    }
  }
}

// The descent of one stripe.
class Learner {
 public:
  Learner(const Panel& w0, const Panel& w, const Moments& moments, const ColumnQuantizer& quantizer, const std::stop_token& stop)
      : moments_(moments), stop_(stop), n_(w0.inputs), rows_(w0.rows), w0_(w0), choice_(n_, w0.first, rows_), delta_(n_, w0.first, rows_),
        residual_(n_, w0.first, rows_), pull_(moments.mismatch.empty() ? 0 : n_, w0.first, rows_), unit_(static_cast<std::size_t>(rows_)) {
    find_choice(quantizer, moments.order, w0, w, choice_);
    if (!moments.mismatch.empty()) mismatch_pull(moments, w0, stop, pull_);
    std::vector<double> sums(unit_.size());
    std::int64_t alive = 0;
    for (std::int64_t k = 0; k < n_; ++k) {
      const auto own = static_cast<double>(moments.h[static_cast<std::size_t>(k * n_ + k)]);
      if (!(own > 0)) {
        // Nothing says where to: they stay.
        for (std::int64_t r = 0; r < rows_; ++r) choice_.lower.at(k)[r] = choice_.start.at(k)[r], choice_.gap.at(k)[r] = 0;
        continue;
      }
      ++alive;
      add_products(rows_, own, choice_.gap.at(k), choice_.gap.at(k), sums.data());
    }
    for (std::size_t r = 0; r < unit_.size(); ++r)
      unit_[r] = sums[r] > 0 ? static_cast<float>(static_cast<double>(alive) / sums[r]) : 0.0f;
  }

  const Choice& choice() const { return choice_; }
  Panel& delta() { return delta_; }
  const Panel& residual() const { return residual_; }
  const float* units() const { return unit_.data(); }

  // residual: half the gradient of the objective at delta.
  void find_residual() {
    if (pull_.inputs > 0) std::copy_n(pull_.data(), pull_.elements(), residual_.data());
    constexpr std::int64_t kBlock = 512;  // between two looks at the stop
    for (std::int64_t i = 0; i < n_ && !stop_.stop_requested(); i += kBlock)
      gemm(false, false, std::min(kBlock, n_ - i), rows_, n_, 1.0f, moments_.h.data() + i * n_, n_, delta_.data(), rows_,
           pull_.inputs > 0 ? -1.0f : 0.0f, residual_.at(i), rows_);
  }
  // Of delta, but for what all have in common; residual as find_residual() left it.
  void objectives(std::vector<double>& sums) const {
    sums.assign(static_cast<std::size_t>(rows_), 0.0);
    for (std::int64_t k = 0; k < n_; ++k) {
      add_products(rows_, 1, delta_.at(k), residual_.at(k), sums.data());
      if (pull_.inputs > 0) add_products(rows_, -1, delta_.at(k), pull_.at(k), sums.data());
    }
  }

  // best: the start or what is better than it. Returns the mean of min(h, 1 - h) times the number of choices.
  double run_gates(const LearnedOptions& o, Panel& best) {
    Panel v(n_, w0_.first, rows_), s(n_, w0_.first, rows_), first(n_, w0_.first, rows_), second(n_, w0_.first, rows_), hard(n_, w0_.first, rows_);
    std::fill_n(first.data(), first.elements(), 0.0f);
    std::fill_n(second.data(), second.elements(), 0.0f);
    for (std::int64_t i = 0; i < v.elements(); ++i) v.data()[i] = static_cast<float>(gate_inverse(static_cast<double>(choice_.h.data()[i])));
    start_from(best);
    const int every = std::max(1, o.iterations / 50);
    const double warm = o.warm_up * o.iterations;
    GateStep step;
    step.forward = true;
    apply(step, v, s, first, second);
    for (int i = 1; i <= o.iterations && !stop_.stop_requested(); ++i) {
      find_residual();
      const double done = o.iterations > warm ? std::max(0.0, (i - warm) / (o.iterations - warm)) : 1.0;
      step = {};
      step.rate = static_cast<float>(o.rate / (1 - std::pow(0.9, i)));
      step.second = static_cast<float>(1 / (1 - std::pow(0.999, i)));
      step.lambda = i <= warm ? 0.0f : static_cast<float>(o.regularization);
      step.beta = static_cast<float>(o.beta_end + (o.beta_start - o.beta_end) * (1 - done));
      apply(step, v, s, first, second);
      if (i % every == 0 || i == o.iterations) keep_better(v, hard, best);
    }
    double undecided = 0;
    for (std::int64_t i = 0; i < s.elements(); ++i)
      if (choice_.gap.data()[i] > 0) {
        const double h = std::clamp(1.2 * static_cast<double>(s.data()[i]) - 0.1, 0.0, 1.0);
        undecided += std::min(h, 1 - h);
      }
    return undecided;
  }

  void run_signs(const LearnedOptions& o, Panel& best) {
    Panel t(n_, w0_.first, rows_);  // u + v
    std::copy_n(choice_.h.data(), t.elements(), t.data());
    start_from(best);
    difference(delta_.elements(), best.data(), w0_.data(), delta_.data());
    std::vector<double> now;
    for (int i = 0; i <= o.iterations && !stop_.stop_requested(); ++i) {
      find_residual();
      objectives(now);
      for (std::int64_t r = 0; r < rows_; ++r) {
        double& least = least_[static_cast<std::size_t>(r)];
        if (i > 0 && !(now[static_cast<std::size_t>(r)] < least)) continue;
        least = now[static_cast<std::size_t>(r)];
        if (i > 0) take_row(r, t, best);
      }
      if (i == o.iterations) break;
      const auto rate = static_cast<float>((1 - static_cast<double>(i) / o.iterations) / o.iterations);
      for (std::int64_t k = 0; k < n_; ++k)
        sign_step(rows_, rate, choice_.h.at(k), residual_.at(k), choice_.lower.at(k), choice_.gap.at(k), w0_.at(k), t.at(k), delta_.at(k));
    }
  }

  void apply(const GateStep& step, Panel& v, Panel& s, Panel& first, Panel& second) {
    for (std::int64_t k = 0; k < n_; ++k)
      gate_step(rows_, step, unit_.data(), choice_.lower.at(k), choice_.gap.at(k), w0_.at(k), residual_.at(k), v.at(k), s.at(k), first.at(k),
                second.at(k), delta_.at(k));
  }

 private:
  void start_from(Panel& best) {
    std::copy_n(choice_.start.data(), best.elements(), best.data());
    least_.assign(static_cast<std::size_t>(rows_), 0.0);
    panel_objectives(moments_, w0_, best, &pull_, stop_, least_.data());
  }
  // Values on the grid of t, the upper one from `limit` on.
  float pick(std::int64_t k, std::int64_t r, float t, float limit) const {
    const float lower = choice_.lower.at(k)[r];
    // The start's own bits where it is the choice.
    const float start = choice_.start.at(k)[r];
    if (t >= limit) return start > lower ? start : lower + choice_.gap.at(k)[r];
    return lower;
  }
  void take_row(std::int64_t r, const Panel& t, Panel& best) const {
    for (std::int64_t k = 0; k < n_; ++k) best.at(k)[r] = pick(k, r, t.at(k)[r], 0.5f);
  }
  void keep_better(const Panel& v, Panel& hard, Panel& best) {
    for (std::int64_t k = 0; k < n_; ++k)
      for (std::int64_t r = 0; r < rows_; ++r) hard.at(k)[r] = pick(k, r, v.at(k)[r], 0.0f);
    std::vector<double> now(least_.size());
    panel_objectives(moments_, w0_, hard, &pull_, stop_, now.data());
    if (stop_.stop_requested()) return;
    for (std::int64_t r = 0; r < rows_; ++r) {
      if (!(now[static_cast<std::size_t>(r)] < least_[static_cast<std::size_t>(r)])) continue;
      least_[static_cast<std::size_t>(r)] = now[static_cast<std::size_t>(r)];
      for (std::int64_t k = 0; k < n_; ++k) best.at(k)[r] = hard.at(k)[r];
    }
  }

  const Moments& moments_;
  const std::stop_token& stop_;
  std::int64_t n_, rows_;
  const Panel& w0_;
  Choice choice_;
  Panel delta_, residual_, pull_;
  std::vector<float> unit_;     // of each row: one over the mean of gap^2 H_jj
  std::vector<double> least_;
};

Status check_options(const LearnedOptions& o) {
  if (o.iterations < 0 || !(o.rate > 0) || !std::isfinite(o.rate) || !(o.regularization >= 0) || !std::isfinite(o.regularization) ||
      !(o.warm_up >= 0 && o.warm_up <= 1) || !(o.beta_end >= 1) || !(o.beta_start >= o.beta_end) || !std::isfinite(o.beta_start))
    return fail(ErrorCode::kInvalidArgument,
                "Learned rounding has " + std::to_string(o.iterations) + " iterations, a rate of " + std::to_string(o.rate) +
                    ", a regularization of " + std::to_string(o.regularization) + ", a warm-up of " + std::to_string(o.warm_up) + " and betas from " +
                    std::to_string(o.beta_start) + " to " + std::to_string(o.beta_end) +
                    "; it needs none below 0, a rate above 0, a warm-up of 1 at most and betas that fall to 1 or more.");
  return {};
}

}  // namespace

double gate(double v) { return std::clamp(1.2 / (1 + std::exp(-v)) - 0.1, 0.0, 1.0); }
double gate_inverse(double h) { return -std::log(1.2 / (std::clamp(h, 0.0, 1.0) + 0.1) - 1); }

Result<LearnedReport> learn_rounding(std::int64_t m, std::int64_t n, const float* w0, float* w, const Moments& moments,
                                     const ColumnQuantizer& quantizer, const LearnedOptions& options) {
  QUANVAS_CHECK(check_options(options));
  QUANVAS_CHECK(check_layer(m, n, w0, moments, &quantizer));
  QUANVAS_CHECK(check_layer(m, n, w, moments, &quantizer));
  std::vector<float> start(static_cast<std::size_t>(m * n)), result(start.size());
  std::vector<double> undecided(static_cast<std::size_t>((m + kRows - 1) / kRows));
  std::vector<std::int64_t> choices(undecided.size());
  QUANVAS_CHECK(for_each_few_rows(m, n, options.stop, [&](std::int64_t first, std::int64_t rows) {
    Panel aim(n, first, rows), now(n, first, rows), best(n, first, rows);
    aim.load(w0, moments.order);
    now.load(w, moments.order);
    Learner learner(aim, now, moments, quantizer, options.stop);
    const auto part = static_cast<std::size_t>(first / kRows);
    for (std::int64_t i = 0; i < best.elements(); ++i) choices[part] += learner.choice().gap.data()[i] > 0;
    if (options.method == LearnedMethod::kGates) undecided[part] = learner.run_gates(options, best);
    else learner.run_signs(options, best);
    // The grid's own bits: lower + gap may be a rounding beside them.
    for (std::int64_t k = 0; k < n; ++k) quantizer.fake(moments.order[static_cast<std::size_t>(k)], first, rows, best.at(k), best.at(k));
    learner.choice().start.store(start.data(), moments.order);
    best.store(result.data(), moments.order);
  }));
  QUANVAS_TRY(const std::vector<double> before, row_objectives(m, n, w0, start.data(), moments, options.stop));
  QUANVAS_TRY(std::vector<double> after, row_objectives(m, n, w0, result.data(), moments, options.stop));
  LearnedReport report;
  for (std::int64_t r = 0; r < m; ++r) {
    const auto i = static_cast<std::size_t>(r);
    const bool better = after[i] < before[i];
    if (!better) after[i] = before[i];
    const float *from = (better ? result : start).data() + r * n, *was = start.data() + r * n;
    for (std::int64_t c = 0; c < n; ++c) report.changed += from[c] != was[c];
    std::copy_n(from, n, w + r * n);
  }
  report.before = objective_sum(before);
  report.after = objective_sum(after);
  report.dead = moments.dead_count;
  std::int64_t all = 0;
  for (const std::int64_t c : choices) all += c;
  for (const double u : undecided) report.undecided += all > 0 ? u / static_cast<double>(all) : 0;
  return report;
}

Result<Gates> gates_of(std::int64_t m, std::int64_t n, const float* w0, const float* w, const ColumnQuantizer& quantizer) {
  if (quantizer.rows() != m || quantizer.columns() != n || !all_finite(m * n, w0) || !all_finite(m * n, w))
    return fail(ErrorCode::kInvalidArgument,
                "The weights are no finite " + std::to_string(quantizer.rows()) + " x " + std::to_string(quantizer.columns()) + ".");
  Gates out;
  for (auto* values : {&out.lower, &out.upper, &out.h}) values->resize(static_cast<std::size_t>(m * n));
  const std::vector<std::int32_t> order = natural_order(n);
  QUANVAS_CHECK(for_each_few_rows(m, n, {}, [&](std::int64_t first, std::int64_t rows) {
    Panel aim(n, first, rows), now(n, first, rows);
    aim.load(w0, order);
    now.load(w, order);
    Choice choice(n, first, rows);
    find_choice(quantizer, order, aim, now, choice);
    choice.lower.store(out.lower.data(), order);
    choice.h.store(out.h.data(), order);
    for (std::int64_t i = 0; i < choice.gap.elements(); ++i) choice.gap.data()[i] += choice.lower.data()[i];
    choice.gap.store(out.upper.data(), order);
  }));
  return out;
}

Result<GateLoss> gate_loss(std::int64_t m, std::int64_t n, const float* w0, const float* w, const float* v, const Moments& moments,
                           const ColumnQuantizer& quantizer, double regularization, double beta) {
  QUANVAS_CHECK(check_layer(m, n, w0, moments, &quantizer));
  QUANVAS_CHECK(check_layer(m, n, w, moments, &quantizer));
  GateLoss out{0, std::vector<float>(static_cast<std::size_t>(m * n))};
  std::vector<double> losses(static_cast<std::size_t>((m + kRows - 1) / kRows));
  QUANVAS_CHECK(for_each_few_rows(m, n, {}, [&](std::int64_t first, std::int64_t rows) {
    Panel aim(n, first, rows), now(n, first, rows), at(n, first, rows), s(n, first, rows), gradient(n, first, rows), none(n, first, rows);
    aim.load(w0, moments.order);
    now.load(w, moments.order);
    at.load(v, moments.order);
    const std::stop_token stop;
    Learner learner(aim, now, moments, quantizer, stop);
    GateStep step;
    step.forward = true;
    learner.apply(step, at, s, gradient, none);
    learner.find_residual();
    std::vector<double> objectives;
    learner.objectives(objectives);
    double& loss = losses[static_cast<std::size_t>(first / kRows)];
    for (std::size_t r = 0; r < objectives.size(); ++r) loss += objectives[r] * static_cast<double>(learner.units()[r]);
    for (std::int64_t i = 0; i < at.elements(); ++i)
      if (learner.choice().gap.data()[i] > 0)
        loss += regularization * (1 - std::pow(std::fabs(2 * gate(static_cast<double>(at.data()[i])) - 1), beta));
    step = {};
    step.gradient_alone = true;
    step.lambda = static_cast<float>(regularization);
    step.beta = static_cast<float>(beta);
    learner.apply(step, at, s, gradient, none);
    gradient.store(out.gradient.data(), moments.order);
  }));
  for (const double loss : losses) out.loss += loss;
  return out;
}

}  // namespace quanvas::algorithms
