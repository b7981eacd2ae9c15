// GPTQ: what must hold exactly, what holds in aggregate, and what does not hold.
#include <algorithm>
#include <chrono>
#include <numeric>
#include <thread>

#include "tests/core/algorithms/support.h"

namespace quanvas::algorithms::test {
namespace {

struct Form {
  const char* name;
  QuantSpec spec;
  // Whether the quantizer keeps what it has made: not by chance, with scales of codes that are not those of values, or
  // with fractional zero points, which clipped values do not hit again.
  bool repeats() const {
    return spec.rounding != Rounding::kStochastic && spec.decoupled == Decoupling::kNone && spec.zero_point != ZeroPointType::kFloat;
  }
};

QuantSpec with(QuantSpec s, void (*change)(QuantSpec&)) {
  change(s);
  return s;
}

std::vector<Form> forms() {
  const QuantSpec group = with(int_spec(4, Granularity::kGroup), [](QuantSpec& s) { s.group_size = 32; });
  return {
      {"int4 channel", int_spec(4)},
      {"int3 tensor", int_spec(3, Granularity::kTensor)},
      {"int8 channel", int_spec(8)},
      {"int4 wide channel", with(int_spec(4), [](QuantSpec& s) { s.narrow = false; })},
      {"int4 group", group},
      {"int4 ragged group", with(group, [](QuantSpec& s) { s.group_size = 20; })},
      {"uint4 zero point", with(int_spec(4), [](QuantSpec& s) { s.is_signed = s.narrow = false; s.zero_point = ZeroPointType::kInteger; s.statistic = Statistic::kMinMax; })},
      {"uint4 group float zero", with(group, [](QuantSpec& s) { s.is_signed = s.narrow = false; s.zero_point = ZeroPointType::kFloat; s.statistic = Statistic::kMinMax; })},
      {"uint4 group offset", with(group, [](QuantSpec& s) { s.is_signed = s.narrow = false; s.zero_point = ZeroPointType::kOffset; s.statistic = Statistic::kMinMax; })},
      {"int4 power of two", with(int_spec(4), [](QuantSpec& s) { s.scale = ScaleType::kPowerOfTwo; })},
      {"int4 half up", with(int_spec(4), [](QuantSpec& s) { s.rounding = Rounding::kHalfUp; })},
      {"int4 stochastic", with(int_spec(4), [](QuantSpec& s) { s.rounding = Rounding::kStochastic; s.seed = 3; })},
      {"int4 decoupled", with(int_spec(4), [](QuantSpec& s) { s.decoupled = Decoupling::kL2; })},
      {"e4m3 channel", with(int_spec(8), [](QuantSpec& s) { s.format = "float"; })},
      {"e2m1 block 32 (MX)", with(group, [](QuantSpec& s) { s.format = "float"; s.exponent_bits = 2; s.mantissa_bits = 1; s.specials = FloatSpecials::kNone; s.scale = ScaleType::kPowerOfTwo; s.exponent_rounding = ExponentRounding::kFloor; })},
      {"codebook", with(group, [](QuantSpec& s) { s.format = codebooks().front().id; })},
      {"ternary", with(int_spec(2), [](QuantSpec& s) { s.format = "ternary"; })},
      {"binary", with(int_spec(1), [](QuantSpec& s) { s.format = "binary"; })},
  };
}

TEST(Gptq, GivesTheCodesOfTheReferenceInEveryFormatAndOrder) {
  const Problem p = make_problem(11, 24, 80, 300, 0.8);
  const Gram gram = gram_of(p);
  for (const Form& form : forms())
    for (const bool act_order : {false, true}) {
      SCOPED_TRACE(std::string(form.name) + (act_order ? ", act-order" : ""));
      const Factor factor = factor_of(gram, {0.01, false, act_order});
      const QuantParams params = params_of(form.spec, p.m, p.n, p.w);
      const ColumnQuantizer q = quantizer_of(params, p.m, p.n);
      const Rounded r = run_gptq(p, factor, q);
      const Reference expected = reference_gptq(p, gram, factor, q);
      EXPECT_EQ(flips(r.q, expected.q), 0);
      // The errors that were carried on are the objective: sum of e^2 = tr(D (H + l I) D'), with clipping too.
      const double exact = output_error(p, r.q);
      EXPECT_NEAR(exact + factor.damping * squared_distance(p.w, r.q), expected.errors, 1e-5 * expected.errors);
      EXPECT_NEAR(r.report.after, exact, 1e-4 * exact);
      EXPECT_NEAR(r.report.before, output_error(p, nearest(p, q)), 1e-4 * r.report.before);
      Floats again(r.q.size());
      quant::fake_quantize(params, params.layout, r.q.data(), again.data());
      if (form.repeats()) {
        EXPECT_EQ(flips(r.q, again), 0);
      }
    }
}

TEST(Gptq, NearestIsWhatTheQuantizerKeeps) {
  const Problem p = make_problem(12, 70, 45, 60, 0.5);
  for (const Form& form : forms()) {
    SCOPED_TRACE(form.name);
    const QuantParams params = params_of(form.spec, p.m, p.n, p.w);
    Floats expected(p.w.size());
    quant::fake_quantize(params, params.layout, p.w.data(), expected.data());
    EXPECT_EQ(flips(nearest(p, quantizer_of(params, p.m, p.n)), expected), 0);
  }
}

TEST(Gptq, DoesNotDependOnTheBlockSize) {
  const Problem p = make_problem(13, 40, 200, 600, 0.8);
  const Gram gram = gram_of(p);
  const ColumnQuantizer q = quantizer_of(int_spec(4), p);
  for (const bool act_order : {false, true}) {
    const Factor factor = factor_of(gram, {0.01, false, act_order});
    const Rounded base = run_gptq(p, factor, q);
    for (const std::int64_t block : {std::int64_t{1}, std::int64_t{16}, std::int64_t{100}, p.n}) {
      RoundingOptions options;
      options.block = block;
      EXPECT_EQ(flips(run_gptq(p, factor, q, options).q, base.q), 0) << block;
    }
  }
}

TEST(Gptq, IsRoundingToNearestWhenInputsAreUncorrelated) {
  const Problem p = make_problem(14, 30, 50, 10, 0.5);
  for (const bool equal : {true, false}) {
    Gram gram;
    gram.inputs = p.n;
    gram.columns = 1;
    gram.h.assign(static_cast<std::size_t>(p.n * p.n), 0.0);
    for (std::int64_t i = 0; i < p.n; ++i) gram.h[static_cast<std::size_t>(i * (p.n + 1))] = equal ? 3.0 : 1.0 + static_cast<double>(i % 7);
    const ColumnQuantizer q = quantizer_of(int_spec(4), p);
    for (const bool act_order : {false, true})
      EXPECT_EQ(flips(run_gptq(p, factor_of(gram, {0.01, false, act_order}), q).q, nearest(p, q)), 0);
  }
}

TEST(Gptq, KeepsItsErrorBoundWithoutClipping) {
  for (const unsigned seed : {15u, 16u, 17u}) {
    const Problem p = make_problem(seed, 64, 48, 300, 0.7);
    const Gram gram = gram_of(p);
    QuantSpec spec = int_spec(4);
    QuantParams params = params_of(spec, p.m, p.n, p.w);
    params.lo = -100000, params.hi = 100000;
    const Factor factor = factor_of(gram, {0.01, false, true});
    const Rounded r = run_gptq(p, factor, quantizer_of(params, p.m, p.n));
    double pivots = 0;
    for (std::int64_t i = 0; i < p.n; ++i) pivots += std::pow(static_cast<double>(factor.u[static_cast<std::size_t>(i * (p.n + 1))]), -2);
    const auto rows = row_objectives(p.m, p.n, p.w.data(), r.q.data(), moments_for(gram));
    ASSERT_TRUE(rows);
    for (std::int64_t i = 0; i < p.m; ++i) {
      const auto row = static_cast<std::size_t>(i);
      const double s = static_cast<double>(params.scale[row]);
      EXPECT_LE((*rows)[row], s * s / 4 * pivots);
    }
  }
}

TEST(Gptq, LeavesWeightsOnTheGridAlone) {
  Problem p = make_problem(18, 33, 64, 200, 0.9);
  const Gram gram = gram_of(p);
  for (const Form& form : forms()) {
    if (!form.repeats()) continue;
    SCOPED_TRACE(form.name);
    Problem on_grid = p;
    const ColumnQuantizer q = quantizer_of(form.spec, p);
    on_grid.w = nearest(p, q);
    const Rounded r = run_gptq(on_grid, factor_of(gram), q);
    EXPECT_EQ(flips(r.q, on_grid.w), 0);
    EXPECT_EQ(r.report.after, 0);
  }
}

// Aggregate error against rounding to nearest: as the mean of 1 / U_ii^2 to that of H_ii says.
TEST(Gptq, GainsWhatTheFactorPredicts) {
  for (const double correlation : {0.3, 0.8, 0.95}) {
    const Problem p = make_problem(19, 200, 96, 800, correlation);
    const Gram gram = gram_of(p);
    const Factor factor = factor_of(gram);
    QuantParams params = params_of(int_spec(4), p.m, p.n, p.w);
    params.lo = -1000, params.hi = 1000;
    const Rounded r = run_gptq(p, factor, quantizer_of(params, p.m, p.n));
    double pivots = 0, moments = 0;
    for (std::int64_t i = 0; i < p.n; ++i) {
      const auto ii = static_cast<std::size_t>(i * (p.n + 1));
      pivots += std::pow(static_cast<double>(factor.u[ii]), -2);
      moments += gram.h[ii];
    }
    EXPECT_NEAR(r.report.after / r.report.before, pivots / moments, 0.06) << correlation;
  }
}

// It is no theorem that no row is worse than with rounding to nearest: with nearly white inputs some are.
TEST(Gptq, MayMakeSingleRowsWorseButNotTheSum) {
  const Problem p = make_problem(20, 600, 64, 256, 0.0);
  const Gram gram = gram_of(p);
  const ColumnQuantizer q = quantizer_of(int_spec(4), p);
  const Rounded r = run_gptq(p, factor_of(gram), q);
  const Floats rtn = nearest(p, q);
  const auto before = row_objectives(p.m, p.n, p.w.data(), rtn.data(), moments_for(gram)), after = row_objectives(p.m, p.n, p.w.data(), r.q.data(), moments_for(gram));
  std::int64_t worse = 0;
  for (std::size_t i = 0; i < before->size(); ++i) worse += (*after)[i] > (*before)[i];
  EXPECT_GT(worse, 0);
  EXPECT_LT(worse, p.m / 4);
  EXPECT_LT(r.report.after, r.report.before);
}

TEST(Gptq, StandsBetweenTheOptimumAndNearest) {
  const Problem p = make_problem(21, 20, 9, 100, 0.8);
  const Gram gram = gram_of(p);
  const QuantParams params = params_of(int_spec(4), p.m, p.n, p.w);
  const ColumnQuantizer q = quantizer_of(params, p.m, p.n);
  const Rounded r = run_gptq(p, factor_of(gram, {1e-9, false, true}), q);
  const auto rows = row_objectives(p.m, p.n, p.w.data(), r.q.data(), moments_for(gram));
  double optimum_sum = 0;
  for (std::int64_t i = 0; i < p.m; ++i) {
    double best = 1e300;
    const double s = static_cast<double>(params.scale[static_cast<std::size_t>(i)]);
    for (int choice = 0; choice < 1 << 9; ++choice) {
      double d[9], value = 0;
      for (int j = 0; j < 9; ++j) {
        const double w = static_cast<double>(p.w[static_cast<std::size_t>(i * 9 + j)]);
        d[j] = std::clamp(std::floor(w / s) + (choice >> j & 1), -7.0, 7.0) * s - w;
      }
      for (int j = 0; j < 9; ++j)
        for (int k = 0; k < 9; ++k) value += d[j] * gram.h[static_cast<std::size_t>(j * 9 + k)] * d[k];
      best = std::min(best, value);
    }
    optimum_sum += best;
  }
  EXPECT_LT(r.report.after, r.report.before);
  // Codes further off than the two neighbours can be better still, so the bound is one of the sum.
  EXPECT_LT(r.report.after, 2 * optimum_sum);
  EXPECT_GT(r.report.after, 0.5 * optimum_sum);
}

TEST(Gptq, ActOrderFollowsThePermutationOfTheInputs) {
  const Problem p = make_problem(22, 16, 40, 200, 0.8);
  std::vector<std::size_t> to(static_cast<std::size_t>(p.n));
  std::iota(to.begin(), to.end(), 0);
  std::shuffle(to.begin(), to.end(), std::mt19937(5));
  Problem permuted = p;
  for (std::size_t i = 0; i < to.size(); ++i) {
    for (std::int64_t r = 0; r < p.m; ++r) permuted.w[static_cast<std::size_t>(r * p.n) + to[i]] = p.w[static_cast<std::size_t>(r * p.n) + i];
    std::copy_n(p.x.begin() + static_cast<std::int64_t>(i) * p.columns, p.columns, permuted.x.begin() + static_cast<std::int64_t>(to[i]) * p.columns);
  }
  permuted.xt = permuted.x;
  const auto result = [](const Problem& problem) {
    const Gram gram = gram_of(problem);
    return run_gptq(problem, factor_of(gram, {0.01, false, true}), quantizer_of(int_spec(4), problem)).q;
  };
  const Floats a = result(p), b = result(permuted);
  for (std::int64_t r = 0; r < p.m; ++r)
    for (std::size_t i = 0; i < to.size(); ++i)
      EXPECT_EQ(a[static_cast<std::size_t>(r * p.n) + i], b[static_cast<std::size_t>(r * p.n) + to[i]]);
}

// Depthwise convolutions: nine inputs and one output per group, each with an order of its own. One order (or one matrix)
// for all groups is the defect that made act-order useless on such networks; the same test shows that it would be seen.
TEST(Gptq, ActOrderOfGroupsIsTheirOwn) {
  double nearest_sum = 0, own = 0, shared = 0;
  std::vector<Gram> grams;
  std::vector<Problem> problems;
  for (unsigned g = 0; g < 24; ++g) {
    problems.push_back(make_problem(100 + g, 4, 9, 400, 0.95));
    grams.push_back(gram_of(problems.back()));
  }
  const Factor first = factor_of(grams[0], {0.01, false, true});
  for (std::size_t g = 0; g < grams.size(); ++g) {
    const ColumnQuantizer q = quantizer_of(int_spec(4), problems[g]);
    const Rounded r = run_gptq(problems[g], factor_of(grams[g], {0.01, false, true}), q);
    nearest_sum += r.report.before;
    own += r.report.after;
    shared += output_error(problems[g], run_gptq(problems[g], first, q).q);
  }
  EXPECT_LT(own, 0.6 * nearest_sum);
  EXPECT_GT(shared, 1.2 * own);
}

TEST(Gptq, OneFactorServesAllWidths) {
  const Problem p = make_problem(23, 32, 64, 300, 0.85);
  const Gram gram = gram_of(p);
  const Factor factor = factor_of(gram, {0.01, false, true});
  double last = 1e300;
  for (int bits = 2; bits <= 8; ++bits) {
    const Rounded r = run_gptq(p, factor, quantizer_of(int_spec(bits), p));
    EXPECT_LT(r.report.after, r.report.before) << bits;
    EXPECT_LT(r.report.after, last) << bits;
    last = r.report.after;
  }
}

TEST(Gptq, KeepsItsBitsForAnyNumberOfThreads) {
  const Problem p = make_problem(24, 700, 300, 900, 0.8, 0.05);
  const Gram gram = gram_of(p, true);
  const ColumnQuantizer q = quantizer_of(int_spec(4), p);
  const Factor factor = factor_of(gram, {0.01, false, true});
  expect_same_for_all_threads([&] {
    const Rounded a = run_gptq(p, factor, q), b = run_gpfq(p, gram, q, true), c = run_qronos(p, factor, q);
    return std::vector<Floats>{a.q, b.q, c.q, {static_cast<float>(a.report.after), static_cast<float>(c.report.before)}};
  });
}

TEST(Gptq, StopsAndLeavesTheWeightsUnchanged) {
  const Problem p = make_problem(25, 64, 64, 100, 0.5);
  const Gram gram = gram_of(p, true);
  const Factor factor = factor_of(gram, {0.01, false, false});
  const ColumnQuantizer q = quantizer_of(int_spec(4), p);
  std::stop_source source;
  source.request_stop();
  RoundingOptions options;
  options.stop = source.get_token();
  Floats w = p.w;
  const auto expect_stopped = [&](const auto& result) {
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code, ErrorCode::kCancelled);
    EXPECT_EQ(w, p.w);
  };
  expect_stopped(gptq(p.m, p.n, w.data(), factor, q, options));
  expect_stopped(gpfq(p.m, p.n, w.data(), moments_for(gram), q, options));
  expect_stopped(qronos(p.m, p.n, w.data(), factor, q, options));
  expect_stopped(polish(p.m, p.n, p.w.data(), w.data(), moments_for(gram), q, {3, source.get_token()}));
  expect_stopped(factorize(gram, {}, source.get_token()));
}

// A stop that comes while it works: what was begun ends soon, and the weights are either all old or all new.
TEST(Gptq, CanBeStoppedAtAnyMoment) {
  const Problem p = make_problem(27, 600, 500, 700, 0.5, 0.1);
  const Gram gram = gram_of(p, true);
  const ColumnQuantizer q = quantizer_of(int_spec(4), p);
  const Floats whole = run_qronos(p, factor_of(gram, {1e-6, true, false}), q).q;
  for (const int delay : {0, 300, 1000, 3000, 10000, 30000}) {
    std::stop_source source;
    Floats w = p.w;
    std::thread stopper([&] {
      std::this_thread::sleep_for(std::chrono::microseconds(delay));
      source.request_stop();
    });
    RoundingOptions options;
    options.stop = source.get_token();
    const auto factor = factorize(gram, {1e-6, true, false}, options.stop);
    bool done = false;
    if (factor) {
      const auto result = qronos(p.m, p.n, w.data(), *factor, q, options);
      done = result.has_value();
      if (!done) {
        EXPECT_EQ(result.error().code, ErrorCode::kCancelled);
      }
    } else {
      EXPECT_EQ(factor.error().code, ErrorCode::kCancelled);
    }
    stopper.join();
    EXPECT_EQ(w, done ? whole : p.w) << delay;
  }
}

TEST(Gptq, RefusesWhatDoesNotFitByName) {
  Problem p = make_problem(26, 4, 6, 20, 0.5);
  const Gram gram = gram_of(p);
  const Factor factor = factor_of(gram);
  const ColumnQuantizer q = quantizer_of(int_spec(4), p);
  for (const float bad : {NAN, INFINITY}) {
    Floats w = p.w;
    w[9] = bad;
    const auto r = gptq(p.m, p.n, w.data(), factor, q);
    ASSERT_FALSE(r);
    EXPECT_NE(r.error().text().find("Weight 3 of output 1"), std::string::npos) << r.error().text();
  }
  Floats w = p.w;
  EXPECT_FALSE(gptq(3, 6, w.data(), factor, q));
  EXPECT_FALSE(gptq(4, 5, w.data(), factor, q));
  QuantSpec learned = int_spec(4);
  learned.rounding = Rounding::kLearned;
  QuantParams params = params_of(int_spec(4), p.m, p.n, p.w);
  params.spec = learned;
  EXPECT_FALSE(ColumnQuantizer::create(params, {4, 6, 0, 6, 1}));
  EXPECT_FALSE(ColumnQuantizer::create(params_of(int_spec(4), p.m, p.n, p.w), {4, 7, 0, 6, 1})) << "beyond the weight";
}

}  // namespace
}  // namespace quanvas::algorithms::test
