// AutoRound's learned ranges on second moments.
#include "core/algorithms/learned_ranges.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "tests/core/algorithms/support.h"

namespace quanvas::algorithms::test {
namespace {

LearnedOptions options_of(int iterations = 200) {
  LearnedOptions o;
  o.method = LearnedMethod::kSigns;
  o.iterations = iterations;
  return o;
}
MatrixView whole(const Problem& p) {
  return {p.m, p.n, 0, p.n, 1};
}

std::vector<std::pair<std::string, QuantSpec>> formats() {
  QuantSpec group = int_spec(3, Granularity::kGroup), asymmetric = int_spec(3),
            zero_group = int_spec(2, Granularity::kGroup);
  group.group_size = zero_group.group_size = 16;
  for (QuantSpec* s : {&asymmetric, &zero_group})
    s->narrow = s->is_signed = false, s->zero_point = ZeroPointType::kInteger;
  return {{"int3", int_spec(3)},
          {"int2", int_spec(2)},
          {"groups", group},
          {"uint3", asymmetric},
          {"uint2 in groups", zero_group}};
}

struct Learned {
  Floats q;
  QuantParams params;
  RangeReport report;
};
Learned learn(const Problem& p, const Floats& start, const QuantParams& params, const Moments& moments,
              const LearnedOptions& options) {
  Learned out{start, params, {}};
  const auto done = learn_ranges(p.m, p.n, p.w.data(), out.q.data(), moments, out.params, whole(p), options);
  EXPECT_TRUE(done) << done.error().text();
  if (done) out.report = *done;
  return out;
}

TEST(LearnedRanges, NoRowGetsWorseAndTheResultIsOnItsGrid) {
  for (const double mismatch : {0.0, 0.1})
    for (const auto& [name, spec] : formats()) {
      SCOPED_TRACE(name);
      const Problem p = make_problem(91, 40, 48, 200, 0.7, mismatch);
      const Moments moments = moments_for(gram_of(p, mismatch > 0));
      const QuantParams start = params_of(spec, p.m, p.n, p.w);
      const Learned r = learn(p, p.w, start, moments, options_of());
      const Floats before = nearest(p, quantizer_of(start, p.m, p.n));
      const auto was = *row_objectives(p.m, p.n, p.w.data(), before.data(), moments),
                 now = *row_objectives(p.m, p.n, p.w.data(), r.q.data(), moments);
      for (std::size_t i = 0; i < was.size(); ++i) EXPECT_LE(now[i], was[i]);
      EXPECT_NEAR(r.report.before, output_error(p, before), 1e-3 * r.report.before);
      EXPECT_NEAR(r.report.after, output_error(p, r.q), 1e-3 * r.report.after);
      EXPECT_LT(r.report.after, 0.8 * r.report.before);
      Floats again(r.q.size());
      quantizer_of(r.params, p.m, p.n).fake_matrix(r.q.data(), again.data());
      EXPECT_EQ(again, r.q);
      std::int64_t moved = 0;
      for (std::size_t i = 0; i < start.scale.size(); ++i) {
        const float share = r.params.scale[i] / start.scale[i];
        EXPECT_GE(share, 0.49f);
        EXPECT_LE(share, 1.0f + 1e-6f);
        moved += share != 1 || (!start.zero_point.empty() && start.zero_point[i] != r.params.zero_point[i]);
        if (start.zero_point.empty()) continue;
        EXPECT_EQ(r.params.zero_point[i], std::nearbyint(r.params.zero_point[i]));
        EXPECT_GE(r.params.zero_point[i], static_cast<float>(start.lo));
        EXPECT_LE(r.params.zero_point[i], static_cast<float>(start.hi));
      }
      EXPECT_EQ(r.report.scales, moved);
      EXPECT_GT(moved, 0);
    }
}

// Few bits and wide ranges: what the learned ranges are for.
TEST(LearnedRanges, LeaveLessThanRoundingAloneOnWideRanges) {
  double rounding = 0, ranges = 0;
  for (unsigned seed = 92; seed < 96; ++seed) {
    Problem p = make_problem(seed, 24, 64, 200, 0.6);
    for (std::int64_t r = 0; r < p.m; ++r) p.w[static_cast<std::size_t>(r * p.n + r)] *= 3;
    const Moments moments = moments_for(gram_of(p));
    const QuantParams params = params_of(int_spec(2), p.m, p.n, p.w);
    ranges += learn(p, p.w, params, moments, options_of()).report.after;
    Floats q = p.w;
    rounding +=
        learn_rounding(p.m, p.n, p.w.data(), q.data(), moments, quantizer_of(params, p.m, p.n), options_of())
            ->after;
  }
  EXPECT_LT(ranges, 0.8 * rounding);
}

TEST(LearnedRanges, ContinueFromWhatAnEarlierPassHasFound) {
  double before = 0, after = 0;
  for (unsigned seed = 96; seed < 100; ++seed) {
    const Problem p = make_problem(seed, 32, 64, 200, 0.8);
    const Gram gram = gram_of(p);
    const Moments moments = moments_for(gram);
    const QuantParams params = params_of(int_spec(3), p.m, p.n, p.w);
    const Rounded start = run_gptq(p, factor_of(gram), quantizer_of(params, p.m, p.n));
    const Learned none = learn(p, start.q, params, moments, options_of(0));
    EXPECT_EQ(none.q, start.q);
    EXPECT_EQ(none.params.scale, params.scale);
    const Learned r = learn(p, start.q, params, moments, options_of());
    EXPECT_NEAR(r.report.before, start.report.after, 1e-3 * start.report.after);
    before += r.report.before, after += r.report.after;
  }
  EXPECT_LT(after, before);
}

TEST(LearnedRanges, KeepTheirBitsForAllThreads) {
  const Problem p = make_problem(101, 100, 70, 200, 0.8, 0.1);
  const Moments moments = moments_for(gram_of(p, true));
  for (const auto& [name, spec] : formats()) {
    const QuantParams params = params_of(spec, p.m, p.n, p.w);
    expect_same_for_all_threads([&] {
      const Learned r = learn(p, p.w, params, moments, options_of(60));
      return std::pair(r.q, r.params.scale);
    });
  }
}

TEST(LearnedRanges, RefuseOddInputsAndStop) {
  const Problem p = make_problem(102, 20, 24, 15, 0.5);
  const Moments moments = moments_for(gram_of(p));
  const auto refusal = [&](QuantParams params, Floats w, LearnedOptions o = options_of(5)) {
    const auto before = params.scale;
    const Floats was = w;
    const auto done = learn_ranges(p.m, p.n, p.w.data(), w.data(), moments, params, whole(p), o);
    EXPECT_EQ(params.scale, before);
    EXPECT_EQ(std::count_if(w.begin(), w.end(), [](float v) { return std::isnan(v); }),
              std::count_if(was.begin(), was.end(), [](float v) { return std::isnan(v); }));
    return done ? std::string() : done.error().text();
  };
  const QuantParams good = params_of(int_spec(3), p.m, p.n, p.w);
  QuantSpec minifloat = int_spec(4);
  minifloat.format = "float";
  minifloat.exponent_bits = 2, minifloat.mantissa_bits = 1;
  minifloat.specials = FloatSpecials::kNone;
  EXPECT_NE(refusal(params_of(minifloat, p.m, p.n, p.w), p.w).find("no whole numbers"), std::string::npos);
  EXPECT_NE(refusal(params_of(int_spec(3, Granularity::kTensor), p.m, p.n, p.w), p.w).find("several outputs"),
            std::string::npos);
  QuantParams negative = good;
  negative.scale[2] = -negative.scale[2];
  EXPECT_NE(refusal(negative, p.w).find("not above 0"), std::string::npos);
  Floats bad = p.w;
  bad[5] = NAN;
  EXPECT_NE(refusal(good, bad).find("not finite"), std::string::npos);
  EXPECT_FALSE(refusal(good, p.w, options_of(-1)).empty());
  // Nothing to see: the start.
  Problem nothing = p;
  std::fill(nothing.xt.begin(), nothing.xt.end(), 0.0f);
  const Learned r = learn(nothing, p.w, good, moments_for(gram_of(nothing)), options_of(10));
  EXPECT_EQ(r.q, nearest(p, quantizer_of(good, p.m, p.n)));
  EXPECT_EQ(r.params.scale, good.scale);

  const Problem large = make_problem(103, 256, 700, 800, 0.5);
  const Moments much = moments_for(gram_of(large));
  QuantParams params = params_of(int_spec(4), large.m, large.n, large.w);
  std::stop_source source;
  LearnedOptions o = options_of(1000000);
  o.stop = source.get_token();
  Floats w = large.w;
  std::chrono::steady_clock::time_point asked;
  std::jthread later([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    asked = std::chrono::steady_clock::now();
    source.request_stop();
  });
  const auto done = learn_ranges(large.m, large.n, large.w.data(), w.data(), much, params, whole(large), o);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, ErrorCode::kCancelled);
  EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - asked).count(), 2);
  EXPECT_EQ(w, large.w);
}

}  // namespace
}  // namespace quanvas::algorithms::test
