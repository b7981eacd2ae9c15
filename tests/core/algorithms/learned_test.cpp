// Learned rounding: AdaRound and AutoRound on second moments.
#include "core/algorithms/learned.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "tests/core/algorithms/support.h"

namespace quanvas::algorithms::test {
namespace {

const LearnedMethod kBoth[] = {LearnedMethod::kGates, LearnedMethod::kSigns};

LearnedOptions options_of(LearnedMethod method, int iterations = 0) {
  LearnedOptions o;
  o.method = method;
  o.iterations = iterations > 0 ? iterations : method == LearnedMethod::kGates ? 500 : 200;
  return o;
}

struct Learned {
  Floats q;
  LearnedReport report;
};
Learned learn(const Problem& p, const Floats& start, const Moments& moments, const ColumnQuantizer& q, const LearnedOptions& options) {
  Learned out{start, {}};
  const auto done = learn_rounding(p.m, p.n, p.w.data(), out.q.data(), moments, q, options);
  EXPECT_TRUE(done) << done.error().text();
  if (done) out.report = *done;
  return out;
}

std::vector<std::pair<std::string, QuantSpec>> formats() {
  QuantSpec asymmetric = int_spec(4), group = int_spec(3, Granularity::kGroup), minifloat = int_spec(4), nf4 = int_spec(4), half = int_spec(4), signed_max = int_spec(4);
  asymmetric.narrow = asymmetric.is_signed = false;
  asymmetric.zero_point = ZeroPointType::kInteger;
  group.group_size = 10;
  minifloat.format = "float";
  minifloat.exponent_bits = 2, minifloat.mantissa_bits = 1;
  minifloat.specials = FloatSpecials::kNone;
  nf4.format = codebooks().front().id;
  half.rounding = Rounding::kHalfAway;
  signed_max.narrow = false;
  signed_max.statistic = Statistic::kSignedMax;
  return {{"int4", int_spec(4)}, {"int2", int_spec(2)}, {"uint4 with zero point", asymmetric}, {"int3 in groups", group}, {"e2m1", minifloat},
          {nf4.format, nf4}, {"half away", half}, {"negative scales", signed_max}};
}

TEST(Learned, StartsAsTheFloatWeightsBetweenTwoValuesOfTheGrid) {
  const Problem p = make_problem(71, 40, 50, 100, 0.5);
  for (const auto& [name, spec] : formats()) {
    SCOPED_TRACE(name);
    const QuantParams params = params_of(spec, p.m, p.n, p.w);
    const ColumnQuantizer q = quantizer_of(params, p.m, p.n);
    const auto gates = gates_of(p.m, p.n, p.w.data(), p.w.data(), q);
    ASSERT_TRUE(gates) << gates.error().text();
    const Floats start = nearest(p, q);
    Floats again(p.w.size());
    std::int64_t with_choice = 0;
    for (const Floats* side : {&gates->lower, &gates->upper}) {
      q.fake_matrix(side->data(), again.data());
      for (std::size_t i = 0; i < again.size(); ++i) EXPECT_NEAR(again[i], (*side)[i], 1e-6f * std::fabs(again[i]));
    }
    for (std::size_t i = 0; i < p.w.size(); ++i) {
      const float lower = gates->lower[i], upper = gates->upper[i], h = gates->h[i];
      if (upper == lower) {
        EXPECT_EQ(lower, start[i]);
        continue;
      }
      ++with_choice;
      EXPECT_LE(lower, p.w[i] + 1e-7f);
      EXPECT_GE(upper, p.w[i] - 1e-7f);
      EXPECT_NEAR(lower + h * (upper - lower), p.w[i], 1e-6);
      EXPECT_NEAR(gate(gate_inverse(static_cast<double>(h))), h, 1e-6);
      // Decided as it starts, it is rounded to nearest, and nothing of the grid lies between.
      if (std::fabs(h - 0.5f) > 1e-4f) {
        EXPECT_NEAR(h > 0.5f ? upper : lower, start[i], 1e-6f * std::fabs(start[i]) + 1e-9f);
      }
      for (const float share : {0.25f, 0.49f, 0.51f, 0.75f}) {
        float y = lower + share * (upper - lower);
        q.fake(static_cast<std::int64_t>(i) % p.n, static_cast<std::int64_t>(i) / p.n, 1, &y, &y);
        EXPECT_LT(std::min(std::fabs(y - lower), std::fabs(y - upper)), 1e-5f * (upper - lower));
      }
    }
    EXPECT_GT(with_choice, p.m * p.n / 2);
  }
}

TEST(Learned, GradientIsThatOfTheLoss) {
  for (const double mismatch : {0.0, 0.2})
    for (const double lambda : {0.0, 0.1}) {
      SCOPED_TRACE(testing::Message() << mismatch << " " << lambda);
      const Problem p = make_problem(72, 5, 12, 60, 0.7, mismatch);
      const Moments moments = moments_for(gram_of(p, mismatch > 0));
      const ColumnQuantizer q = quantizer_of(int_spec(3), p);
      Floats v(p.w.size());
      std::mt19937 random(1);
      std::uniform_real_distribution<float> uniform(-2, 2);
      for (float& x : v) x = uniform(random);
      const auto loss = [&](const Floats& at) { return gate_loss(p.m, p.n, p.w.data(), p.w.data(), at.data(), moments, q, lambda, 3.5); };
      const auto here = *loss(v);
      double largest = 0;
      for (const float g : here.gradient) largest = std::max(largest, std::fabs(static_cast<double>(g)));
      for (std::size_t i = 0; i < v.size(); ++i) {
        const float step = 0.01f;
        Floats more = v, less = v;
        more[i] += step, less[i] -= step;
        const double numeric = (loss(more)->loss - loss(less)->loss) / (static_cast<double>(more[i]) - static_cast<double>(less[i]));
        EXPECT_NEAR(static_cast<double>(here.gradient[i]), numeric, 2e-3 * largest) << i;
      }
    }
}

TEST(Learned, IsNeverWorseThanItsStartInAnyRow) {
  for (const LearnedMethod method : kBoth)
    for (const double mismatch : {0.0, 0.1})
      for (const auto& [name, spec] : formats()) {
        SCOPED_TRACE(name);
        const Problem p = make_problem(73, 40, 60, 200, 0.8, mismatch);
        const Gram gram = gram_of(p, mismatch > 0);
        const Moments moments = moments_for(gram);
        const ColumnQuantizer q = quantizer_of(spec, p);
        const Floats start = nearest(p, q);
        const Learned r = learn(p, p.w, moments, q, options_of(method));
        const auto before = *row_objectives(p.m, p.n, p.w.data(), start.data(), moments), after = *row_objectives(p.m, p.n, p.w.data(), r.q.data(), moments);
        for (std::size_t i = 0; i < before.size(); ++i) EXPECT_LE(after[i], before[i]);
        EXPECT_NEAR(r.report.before, output_error(p, start), 1e-3 * r.report.before);
        EXPECT_NEAR(r.report.after, output_error(p, r.q), 1e-3 * r.report.after);
        EXPECT_LT(r.report.after, 0.85 * r.report.before);
        EXPECT_EQ(r.report.changed, flips(r.q, start));
        // On the grid, at one of the two values.
        Floats again(r.q.size());
        q.fake_matrix(r.q.data(), again.data());
        EXPECT_EQ(flips(again, r.q), 0);
        const Gates gates = *gates_of(p.m, p.n, p.w.data(), p.w.data(), q);
        for (std::size_t i = 0; i < r.q.size(); ++i)
          EXPECT_LT(std::min(std::fabs(r.q[i] - gates.lower[i]), std::fabs(r.q[i] - gates.upper[i])), 1e-6f) << i;
      }
}

TEST(Learned, ContinuesFromWhatAnEarlierPassHasFound) {
  for (const LearnedMethod method : kBoth) {
    double gptq_sum = 0, learned_sum = 0;
    for (unsigned seed = 74; seed < 78; ++seed) {
      const Problem p = make_problem(seed, 32, 64, 200, 0.8);
      const Gram gram = gram_of(p);
      const Moments moments = moments_for(gram);
      const ColumnQuantizer q = quantizer_of(int_spec(3), p);
      const Rounded start = run_gptq(p, factor_of(gram), q);
      const Learned none = learn(p, start.q, moments, q, options_of(method, 1));
      EXPECT_LE(none.report.after, none.report.before);
      const Learned r = learn(p, start.q, moments, q, options_of(method));
      EXPECT_NEAR(r.report.before, start.report.after, 1e-3 * start.report.after);
      EXPECT_LE(r.report.after, r.report.before);
      gptq_sum += r.report.before, learned_sum += r.report.after;
      // The gates stand where GPTQ has put them.
      const Gates gates = *gates_of(p.m, p.n, p.w.data(), start.q.data(), q);
      for (std::size_t i = 0; i < gates.h.size(); ++i)
        if (gates.upper[i] != gates.lower[i]) {
          EXPECT_FLOAT_EQ(gates.h[i] >= 0.5f ? gates.upper[i] : gates.lower[i], start.q[i]) << i;
        }
    }
    EXPECT_LT(learned_sum, gptq_sum);
  }
}

// All 2^n choices of a row.
TEST(Learned, ComesNearTheBestOfAllChoices) {
  double best_sum = 0, start_sum = 0, gates_sum = 0, signs_sum = 0;
  for (unsigned seed = 80; seed < 84; ++seed) {
    const Problem p = make_problem(seed, 16, 10, 60, 0.85);
    const Moments moments = moments_for(gram_of(p));
    const ColumnQuantizer q = quantizer_of(int_spec(3), p);
    const Gates gates = *gates_of(p.m, p.n, p.w.data(), p.w.data(), q);
    std::vector<double> best(static_cast<std::size_t>(p.m), 1e300);
    for (int choice = 0; choice < 1024; ++choice) {
      Floats at = gates.lower;
      for (std::size_t i = 0; i < at.size(); ++i)
        if (choice >> (i % 10) & 1) at[i] = gates.upper[i];
      const auto rows = *row_objectives(p.m, p.n, p.w.data(), at.data(), moments);
      for (std::size_t r = 0; r < rows.size(); ++r) best[r] = std::min(best[r], rows[r]);
    }
    best_sum += objective_sum(best);
    const Learned a = learn(p, p.w, moments, q, options_of(LearnedMethod::kGates, 1000)), b = learn(p, p.w, moments, q, options_of(LearnedMethod::kSigns));
    start_sum += a.report.before, gates_sum += a.report.after, signs_sum += b.report.after;
  }
  EXPECT_LT(gates_sum - best_sum, 0.25 * (start_sum - best_sum));
  EXPECT_LT(signs_sum - best_sum, 0.4 * (start_sum - best_sum));
  EXPECT_GE(gates_sum, best_sum * (1 - 1e-6));
}

TEST(Learned, RegularizationDecidesTheGates) {
  const Problem p = make_problem(85, 24, 48, 200, 0.8);
  const Moments moments = moments_for(gram_of(p));
  const ColumnQuantizer q = quantizer_of(int_spec(4), p);
  LearnedOptions o = options_of(LearnedMethod::kGates, 2000);
  EXPECT_LT(learn(p, p.w, moments, q, o).report.undecided, 0.01);
  o.regularization = 0;
  EXPECT_GT(learn(p, p.w, moments, q, o).report.undecided, 0.1);
}

TEST(Learned, KeepsItsBitsForAllThreads) {
  const Problem p = make_problem(86, 100, 70, 200, 0.8, 0.1);
  const Moments moments = moments_for(gram_of(p, true));
  const ColumnQuantizer q = quantizer_of(int_spec(4), p);
  for (const LearnedMethod method : kBoth)
    expect_same_for_all_threads([&] { return learn(p, p.w, moments, q, options_of(method, 100)).q; });
}

TEST(Learned, DoesNotDependOnTheScalesOfInputsAndWeights) {
  const Problem p = make_problem(87, 16, 40, 150, 0.8, 0.1);
  const auto run = [&](float inputs, float weights) {
    Problem scaled = p;
    for (float& v : scaled.x) v *= inputs;
    for (float& v : scaled.xt) v *= inputs;
    for (float& v : scaled.w) v *= weights;
    Floats q = learn(scaled, scaled.w, moments_for(gram_of(scaled, true)), quantizer_of(int_spec(3), scaled), options_of(LearnedMethod::kGates)).q;
    for (float& v : q) v /= weights;
    return q;
  };
  const Floats base = run(1, 1);
  EXPECT_EQ(flips(run(16, 1), base), 0);
  EXPECT_EQ(flips(run(1, 0.25f), base), 0);
}

TEST(Learned, StopsWithinTwoSecondsAndLeavesTheWeights) {
  const Problem p = make_problem(88, 256, 700, 800, 0.5);
  const Moments moments = moments_for(gram_of(p));
  const ColumnQuantizer q = quantizer_of(int_spec(4), p);
  for (const LearnedMethod method : kBoth) {
    std::stop_source source;
    LearnedOptions o = options_of(method, 1000000);
    o.stop = source.get_token();
    Floats w = p.w;
    std::chrono::steady_clock::time_point asked;
    std::jthread later([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(300));
      asked = std::chrono::steady_clock::now();
      source.request_stop();
    });
    const auto done = learn_rounding(p.m, p.n, p.w.data(), w.data(), moments, q, o);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - asked).count();
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error().code, ErrorCode::kCancelled);
    EXPECT_LT(seconds, 2);
    EXPECT_EQ(w, p.w);
  }
}

TEST(Learned, TakesOddInputs) {
  // Fewer samples than inputs, two inputs that are always the same, one that is always 0.
  Problem p = make_problem(89, 20, 40, 15, 0.5);
  for (std::int64_t c = 0; c < p.columns; ++c) {
    p.xt[static_cast<std::size_t>(3 * p.columns + c)] = p.xt[static_cast<std::size_t>(2 * p.columns + c)];
    p.xt[static_cast<std::size_t>(7 * p.columns + c)] = 0;
  }
  p.x = p.xt;
  const Moments moments = moments_for(gram_of(p));
  QuantSpec clipped = int_spec(3);
  clipped.statistic = Statistic::kPercentile;
  clipped.percentile = 80;
  for (const LearnedMethod method : kBoth)
    for (const QuantSpec& spec : {int_spec(4), clipped}) {
      const ColumnQuantizer q = quantizer_of(spec, p);
      const Floats start = nearest(p, q);
      const Learned r = learn(p, p.w, moments, q, options_of(method));
      EXPECT_LT(r.report.after, r.report.before);
      EXPECT_EQ(r.report.dead, 1);
      for (std::int64_t row = 0; row < p.m; ++row) EXPECT_EQ(r.q[static_cast<std::size_t>(row * p.n + 7)], start[static_cast<std::size_t>(row * p.n + 7)]);
      // No sample at all, or none that is not 0: rounding to nearest.
      Problem nothing = p;
      std::fill(nothing.xt.begin(), nothing.xt.end(), 0.0f);
      nothing.x = nothing.xt;
      EXPECT_EQ(flips(learn(nothing, p.w, moments_for(gram_of(nothing)), q, options_of(method, 20)).q, start), 0);
      Floats bad = p.w;
      bad[5] = NAN;
      const auto refused = learn_rounding(p.m, p.n, p.w.data(), bad.data(), moments, q, options_of(method));
      ASSERT_FALSE(refused);
      EXPECT_NE(refused.error().text().find("not finite"), std::string::npos);
      LearnedOptions odd = options_of(method);
      odd.rate = -1;
      EXPECT_FALSE(learn_rounding(p.m, p.n, p.w.data(), bad.data(), moments, q, odd));
    }
}

}  // namespace
}  // namespace quanvas::algorithms::test
